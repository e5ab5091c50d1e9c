//! How many requests a rate lets pass, from one core or several, alone or shared by gateways.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_burst_passes_and_then_the_rate() {
    let rate = Rate::new(2, Duration::from_secs(1), 3);
    let (set, now) = (Set::default(), SECOND);
    for _ in 0..3 {
        assert_eq!(set.take(7, rate, now), Ok(()));
    }
    assert_eq!(set.take(7, rate, now), Err(SECOND / 2));
    assert_eq!(set.take(8, rate, now), Ok(()), "another key has its own bucket");
    assert_eq!(set.take(7, rate, now + SECOND / 2), Ok(()));
    assert_eq!(set.take(7, rate, now + SECOND / 2), Err(SECOND / 2));
    for _ in 0..3 {
        assert_eq!(set.take(7, rate, now + 10 * SECOND), Ok(()), "the bucket is empty again");
    }
    assert!(set.take(7, rate, now + 10 * SECOND).is_err());
}

#[test]
fn the_bucket_that_empties_first_goes_out() {
    let rate = Rate::new(1, Duration::from_secs(100), 1);
    let set = Set::default();
    for key in 1..=4 {
        assert_eq!(set.take(key, rate, key * SECOND), Ok(()));
    }
    assert_eq!(set.take(5, rate, 5 * SECOND), Ok(()));
    for key in [2, 3, 4, 5] {
        assert!(set.take(key, rate, 6 * SECOND).is_err(), "{key} is still known");
    }
    assert_eq!(set.take(1, rate, 6 * SECOND), Ok(()), "the oldest is forgotten");
}

#[test]
fn cores_that_take_at_once_take_no_more_than_the_burst() {
    let rate = Rate::new(1, Duration::from_secs(1_000), 5_000);
    let by_client = Set::default();
    let own = Bucket::default();
    // A key that is known; see above for a new one.
    assert_eq!(by_client.take(7, rate, SECOND), Ok(()));
    let taken = || {
        let all = (0..10_000).map(|_| {
            [by_client.take(7, rate, SECOND), own.take(rate, SECOND)].map(|taken| usize::from(taken.is_ok()))
        });
        all.fold([0, 0], |sum, taken| [sum[0] + taken[0], sum[1] + taken[1]])
    };
    let sums: Vec<_> = std::thread::scope(|scope| {
        let cores: Vec<_> = (0..4).map(|_| scope.spawn(taken)).collect();
        cores.into_iter().map(|core| core.join().unwrap()).collect()
    });
    assert_eq!(sums.iter().map(|[by_client, _]| by_client).sum::<usize>(), 4_999);
    assert_eq!(sums.iter().map(|[_, own]| own).sum::<usize>(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn gateways_that_share_a_limit_allow_their_parts_of_it() {
    let gateways = Arc::<Gateways>::default();
    let rate = Rate::new(60, Duration::from_secs(60), 10);
    let limit = || {
        let mut limit = RateLimit::new(rate, By::Route, "60".to_owned(), &Arc::default()).shared();
        limit.share_with(&gateways);
        limit
    };
    let burst = |limit: &RateLimit, now| (0..100).filter(|_| limit.take(Key::All, now).is_ok()).count();
    let (now, changing) = (Instant::now(), limit());
    for (count, at_once) in [(0, 10), (1, 10), (2, 5), (3, 3), (10, 1), (11, 1), (1_000, 1)] {
        gateways.set(count);
        assert_eq!(burst(&limit(), now), at_once, "{count}");
    }
    gateways.set(2);
    assert_eq!(burst(&changing, now), 5);
    assert_eq!(burst(&changing, now + Duration::from_secs(4)), 2, "one in two seconds");
    gateways.set(1);
    assert_eq!(burst(&changing, now + Duration::from_secs(4)), 0, "its part is used up all the same");
    assert_eq!(burst(&changing, now + Duration::from_secs(14)), 10, "and grows as fast as that of one");
    assert_eq!(changing.shown(), "60, shared by 1 gateway");
    gateways.set(3);
    assert_eq!(changing.shown(), "60, shared by 3 gateways");
    let mut alone = RateLimit::new(rate, By::Route, "60".to_owned(), &Arc::default());
    alone.share_with(&gateways);
    assert_eq!((burst(&alone, now), alone.shown().as_str()), (10, "60"), "it is not shared");
}

#[test]
fn addresses_of_one_ipv6_network_share_a_bucket() {
    let key = |text: &str| Key::of_client(text.parse().ok());
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::2"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_says_how_long_to_wait() {
    let rate = Rate::new(1, Duration::from_secs(10), 1);
    let buckets = Arc::default();
    for by in [By::Route, By::Client, By::Client] {
        let limit = RateLimit::new(rate, by, String::new(), &buckets);
        let now = Instant::now();
        assert_eq!(limit.take(Key::All, now), Ok(()));
        assert_eq!(limit.take(Key::All, now + Duration::from_secs(4)), Err(Duration::from_secs(6)));
        assert_eq!(limit.take(Key::All, now + Duration::from_secs(10)), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_changes_forgives_nobody_and_punishes_nobody_for_the_old_one() {
    let per_second = |requests| Rate::new(requests, Duration::from_secs(1), requests);
    let buckets: Arc<Buckets> = Arc::default();
    for by in [By::Route, By::Client] {
        let limit = |rate, buckets| RateLimit::new(rate, by.clone(), String::new(), buckets);
        let heir = |rate, old: &RateLimit| {
            let mut heir = RateLimit::new(rate, by.clone(), String::new(), &Arc::default());
            heir.move_to(old.buckets());
            heir.inherit(old);
            heir
        };
        let now = Instant::now();
        let first = limit(Rate::new(1, Duration::from_secs(3_600), 1), &buckets);
        assert_eq!(first.take(Key::All, now), Ok(()));
        let same = heir(Rate::new(1, Duration::from_secs(3_600), 1), &first);
        assert_eq!(same.take(Key::All, now), Err(Duration::from_secs(3_600)), "{by:?}");
        let faster = heir(per_second(10), &same);
        assert_eq!(faster.take(Key::All, now), Err(Duration::from_millis(100)), "not an hour: {by:?}");
        let other = limit(per_second(10), &buckets);
        assert_eq!(other.take(Key::All, now), Ok(()), "another route has its own buckets: {by:?}");
    }
}

proptest! {
    #[test]
    fn no_more_requests_pass_than_burst_and_rate_allow(
        requests in 1_u64..1_000,
        per in 1_u64..10_000,
        burst in 1_u64..100,
        pauses in prop::collection::vec(0_u64..50_000_000, 1..400),
    ) {
        let rate = Rate::new(requests, Duration::from_millis(per), burst);
        let set = Set::default();
        let mut now = 1;
        let mut passed: Vec<u64> = Vec::new();
        for pause in pauses {
            now += pause;
            if set.take(1, rate, now).is_ok() {
                passed.push(now);
            }
        }
        // In every window, whatever its beginning and end.
        for (first, begin) in passed.iter().enumerate() {
            for (last, end) in passed.iter().enumerate().skip(first) {
                let count = (last - first + 1) as u128;
                let earned = u128::from(end - begin) * u128::from(requests) / (u128::from(per) * 1_000_000);
                prop_assert!(count <= u128::from(burst) + earned, "{count} in {} ns", end - begin);
            }
        }
    }

    #[test]
    fn a_client_that_keeps_to_the_rate_is_never_refused(
        requests in 1_u64..1_000,
        per in 1_u64..10_000,
        burst in 1_u64..10,
        extra in prop::collection::vec(0_u64..1_000_000, 1..200),
    ) {
        let rate = Rate::new(requests, Duration::from_millis(per), burst);
        let set = Set::default();
        let mut now = 1;
        for pause in extra {
            prop_assert_eq!(set.take(1, rate, now), Ok(()));
            now += rate.interval + pause;
        }
    }
}
