use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::choose::Health;

const GOOD: Standing =
    Standing { tried: false, health: Health::Good, micros: Some(2_000.0), in_flight: 0, share: 1.0 };

fn busy(in_flight: u32) -> Option<Standing> {
    Some(Standing { in_flight, ..GOOD })
}

fn name(at: usize) -> KeyHash {
    KeyHash::of(format!("node-{at}").as_bytes())
}

fn key(number: u32) -> AffinityKey {
    AffinityKey::of(&number.to_be_bytes())
}

/// How often each candidate is chosen by a thousand requests that end at once.
fn chosen(balance: Balance<'_>, candidates: &[Option<Standing>]) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(7);
    let mut counts = vec![0; candidates.len()];
    for _ in 0..1_000 {
        if let Some(at) = balance.choose(candidates.len(), |at| candidates[at], name, &mut random) {
            counts[at] += 1;
        }
    }
    counts
}

/// The choice of each of a thousand keys.
fn homes(candidates: &[Option<Standing>]) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(7);
    let home = |number| {
        let balance = Balance::Affinity(key(number));
        balance.choose(candidates.len(), |at| candidates[at], name, &mut random).unwrap()
    };
    (0..1_000).map(home).collect()
}

#[test]
fn round_robin_takes_turns_and_ignores_costs() {
    let slow = Some(Standing { micros: Some(9e6), in_flight: 80, ..GOOD });
    let turns = Turns::default();
    assert_eq!(chosen(Balance::RoundRobin(&turns), &[busy(0), slow, busy(3), busy(9)]), [250; 4]);
    let weighted = [Some(Standing { share: 3.0, ..GOOD }), Some(GOOD)];
    assert_eq!(chosen(Balance::RoundRobin(&Turns::default()), &weighted), [750, 250]);
    let new = [Some(Standing { share: 0.1, ..GOOD }), Some(GOOD)];
    assert_eq!(chosen(Balance::RoundRobin(&Turns::default()), &new), [91, 909], "a slow start");
}

#[test]
fn least_connections_takes_the_one_with_the_fewest_in_relation_to_its_weight() {
    let least = Balance::LeastConnections;
    assert_eq!(chosen(least, &[busy(3), busy(1), busy(2)]), [0, 1000, 0]);
    let heavy = |in_flight| Some(Standing { share: 4.0, in_flight, ..GOOD });
    assert_eq!(chosen(least, &[heavy(7), busy(2)]), [1000, 0]);
    assert_eq!(chosen(least, &[heavy(9), busy(2)]), [0, 1000]);
    let counts = chosen(least, &[heavy(0), busy(0)]);
    assert!(counts[0].abs_diff(800) < 50, "idle ones get their shares: {counts:?}");
    let counts = chosen(least, &[busy(1), busy(1), busy(2)]);
    assert!(counts[0].abs_diff(500) < 60 && counts[2] == 0, "no herd: {counts:?}");
}

#[test]
fn every_algorithm_avoids_what_is_ejected_tried_or_unreachable() {
    let turns = Turns::default();
    let of = |tried, health| Some(Standing { tried, health, ..GOOD });
    let candidates = [
        of(false, Health::Ejected),
        of(true, Health::Good),
        of(false, Health::Avoided),
        of(false, Health::Good),
        None,
    ];
    for balance in [
        Balance::TwoChoices,
        Balance::Shares,
        Balance::RoundRobin(&turns),
        Balance::LeastConnections,
        Balance::Affinity(key(1)),
    ] {
        assert_eq!(chosen(balance, &candidates), [0, 0, 0, 1000, 0], "{balance:?}");
        assert_eq!(chosen(balance, &candidates[4..]), [0]);
        assert_eq!(chosen(balance, &[]), [0; 0]);
    }
}

#[test]
fn keys_are_spread_by_weight() {
    let candidates = [Some(Standing { share: 3.0, ..GOOD }), Some(GOOD), Some(GOOD)];
    let first = homes(&candidates).iter().filter(|home| **home == 0).count();
    assert!(first.abs_diff(600) < 60, "{first}");
}

#[test]
fn a_key_goes_to_the_next_in_its_order_while_the_first_has_too_many_requests() {
    let home = homes(&[busy(0); 4])[0];
    let with = |first: u32, others: u32| {
        let mut candidates = [busy(others); 4];
        candidates[home] = busy(first);
        homes(&candidates)[0] == home
    };
    // The bound is 1.25 times the mean with this request, rounded up.
    for (first, others, stays) in [
        (7, 0, true),
        (8, 0, false),
        (12, 10, true),
        (13, 10, true),
        (15, 10, false),
        (124, 100, true),
        (140, 100, false),
    ] {
        assert_eq!(with(first, others), stays, "{first} beside {others}");
    }
    let mut busy_first = [busy(0); 4];
    busy_first[home] = busy(50);
    let next = homes(&busy_first)[0];
    let mut without_first = [busy(0); 4];
    without_first[home] = None;
    assert_eq!(homes(&without_first)[0], next, "the overflow goes where the key would go without the first");
}

#[test]
fn no_candidate_gets_more_than_its_bound_of_one_popular_key() {
    let mut in_flight = [0_u32; 5];
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..1_000 {
        let now = in_flight;
        let at = Balance::Affinity(key(1)).choose(5, |at| busy(now[at]), name, &mut random).unwrap();
        in_flight[at] += 1;
    }
    assert!(in_flight.iter().all(|count| *count <= 250), "{in_flight:?}");
    assert_eq!(in_flight.iter().max(), Some(&250));
}

proptest! {
    #[test]
    fn one_seed_gives_one_choice(
        in_flight in prop::collection::vec(0_u32..50, 0..12), seed in any::<u64>(), turn in 0_u64..100,
    ) {
        let once = |kind: u8| {
            let turns = Turns::default();
            let balance = match kind {
                0 => Balance::RoundRobin(&turns),
                1 => Balance::LeastConnections,
                _ => Balance::Affinity(key(u32::try_from(turn).unwrap())),
            };
            let mut random = StdRng::seed_from_u64(seed);
            let choose = |_| balance.choose(in_flight.len(), |at| busy(in_flight[at]), name, &mut random);
            (0..turn).map(choose).collect::<Vec<_>>()
        };
        for kind in 0..3 {
            let choices = once(kind);
            prop_assert_eq!(&choices, &once(kind));
            prop_assert!(choices.iter().all(|choice| choice.is_some() != in_flight.is_empty()));
        }
    }

    #[test]
    fn a_candidate_that_goes_moves_only_its_own_keys(
        shares in prop::collection::vec(1_u32..10, 2..12), gone in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = shares.iter().map(|share| Some(Standing { share: f64::from(*share), ..GOOD })).collect();
        let gone = gone.index(all.len());
        let mut left = all.clone();
        left[gone] = None;
        let (before, after) = (homes(&all), homes(&left));
        let mut moved = BTreeMap::<usize, u32>::new();
        for (before, after) in before.iter().zip(&after) {
            if before != after {
                *moved.entry(*before).or_default() += 1;
            }
        }
        let part = f64::from(shares[gone]) / f64::from(shares.iter().sum::<u32>());
        prop_assert!(moved.keys().all(|home| *home == gone), "{moved:?}");
        let count = f64::from(moved.get(&gone).copied().unwrap_or_default()) / 1_000.0;
        prop_assert!((count - part).abs() < 0.09, "{count} of the keys moved, it had {part}");
    }
}
