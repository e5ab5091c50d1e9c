use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn known(tried: bool, health: Health, in_flight: u32) -> Option<Standing> {
    Some(Standing { tried, health, micros: Some(2_000.0), in_flight, share: 1.0 })
}

fn good(in_flight: u32) -> Standing {
    known(false, Health::Good, in_flight).unwrap()
}

/// How often each candidate is chosen in this many draws.
fn drawn(draws: u32, candidates: &[Option<Standing>]) -> Vec<u32> {
    let mut random = StdRng::seed_from_u64(7);
    let mut counts = vec![0; candidates.len()];
    for _ in 0..draws {
        if let Some(at) = choose(candidates.len(), |at| candidates[at], &mut random) {
            counts[at] += 1;
        }
    }
    counts
}

fn draws(candidates: &[Option<Standing>]) -> Vec<u32> {
    drawn(1_000, candidates)
}

fn millis(ms: f32) -> Option<f32> {
    Some(ms * 1_000.0)
}

#[test]
fn of_two_candidates_the_less_loaded_always_wins() {
    assert_eq!(draws(&[Some(good(3)), Some(good(2))]), [0, 1000]);
}

#[test]
fn the_most_loaded_of_many_is_never_chosen() {
    let counts = draws(&[Some(good(9)), Some(good(1)), Some(good(1))]);
    assert_eq!(counts[0], 0);
    assert!(counts[1] > 400 && counts[2] > 400, "{counts:?}");
}

#[test]
fn equal_candidates_are_chosen_equally_often() {
    let counts = draws(&[Some(good(0)); 4]);
    assert!(counts.iter().all(|&count| (190..310).contains(&count)), "{counts:?}");
}

#[test]
fn untried_beats_reachable_beats_the_rest() {
    use Health::{Avoided, Ejected, Good};
    let (fresh, unreachable, ejected) =
        (known(false, Good, 9), known(false, Avoided, 0), known(false, Ejected, 0));
    let (tried, hopeless) = (known(true, Good, 0), known(true, Avoided, 0));
    assert_eq!(draws(&[None, hopeless, tried, ejected, unreachable, fresh]), [0, 0, 0, 0, 0, 1000]);
    assert_eq!(draws(&[None, hopeless, tried, ejected, unreachable]), [0, 0, 0, 0, 1000]);
    assert_eq!(draws(&[None, hopeless, tried, ejected]), [0, 0, 0, 1000], "not the same one again");
    assert_eq!(draws(&[None, hopeless, tried]), [0, 0, 1000]);
    assert_eq!(draws(&[None, hopeless]), [0, 1000]);
    assert_eq!(draws(&[None, None]), [0, 0]);
    assert!(draws(&[]).is_empty());
}

#[test]
fn a_slow_candidate_gets_a_request_only_if_the_fast_one_is_busy() {
    let slow = |in_flight| Some(Standing { micros: millis(40.0), ..good(in_flight) });
    assert_eq!(draws(&[slow(0), Some(good(0))]), [0, 1000]);
    assert_eq!(draws(&[slow(0), Some(good(18))]), [0, 1000], "40 ms against 38 ms");
    assert_eq!(draws(&[slow(0), Some(good(20))]), [1000, 0], "40 ms against 42 ms");
}

#[test]
fn differences_below_a_millisecond_are_noise() {
    let fast = |micros| Some(Standing { micros: Some(micros), ..good(0) });
    let counts = draws(&[fast(80.0), fast(900.0)]);
    assert!(counts.iter().all(|&count| (400..600).contains(&count)), "{counts:?}");
}

#[test]
fn an_unknown_candidate_may_be_as_fast_as_its_rival() {
    let unknown = |in_flight| Some(Standing { micros: None, ..good(in_flight) });
    let counts = draws(&[unknown(0), Some(good(0))]);
    assert!(counts.iter().all(|&count| (400..600).contains(&count)), "{counts:?}");
    assert_eq!(draws(&[unknown(1), Some(good(0))]), [0, 1000]);
    let slow = Some(Standing { micros: millis(400.0), ..good(0) });
    assert_eq!(draws(&[unknown(9), slow]), [1000, 0], "300 ms against 400 ms");
    let counts = draws(&[unknown(0), unknown(0)]);
    assert!(counts.iter().all(|&count| (400..600).contains(&count)), "{counts:?}");
}

#[test]
fn equally_costly_candidates_get_exactly_their_shares() {
    let of = |share| Some(Standing { share, ..good(0) });
    for (shares, wanted) in [
        (&[9.0, 1.0][..], &[9_000, 1_000][..]),
        (&[1.0, 0.1], &[9_091, 909]),
        (&[3.0, 2.0, 1.0], &[5_000, 3_333, 1_667]),
        (&[1.0, 1.0, 0.1], &[4_762, 4_762, 476]),
    ] {
        let candidates: Vec<_> = shares.iter().map(|&share| of(share)).collect();
        let counts = drawn(10_000, &candidates);
        for (count, wanted) in counts.iter().zip(wanted) {
            assert!(count.abs_diff(*wanted) < 200, "{shares:?}: {counts:?}");
        }
    }
}

#[test]
fn by_share_each_candidate_of_the_best_rank_gets_its_part_whatever_it_costs() {
    let slow = |share| Some(Standing { share, micros: Some(900_000.0), ..good(50) });
    let fast = |share| Some(Standing { share, ..good(0) });
    let out = Some(Standing { share: 100.0, health: Health::Ejected, ..good(0) });
    let candidates = [slow(9.0), fast(1.0), out, None];
    let mut random = StdRng::seed_from_u64(7);
    let mut counts = [0_u32; 4];
    for _ in 0..10_000 {
        counts[choose_by_share(4, |at| candidates[at], &mut random).unwrap()] += 1;
    }
    assert!(counts[0].abs_diff(9_000) < 150 && counts[1].abs_diff(1_000) < 150, "{counts:?}");
    assert_eq!(counts[2..], [0, 0]);
    assert_eq!(choose_by_share(2, |_| None, &mut random), None);
}

#[test]
fn a_candidate_without_a_share_gets_requests_only_if_it_is_alone() {
    let of = |share| Some(Standing { share, ..good(0) });
    let counts = draws(&[of(0.0), of(1.0), of(1.0)]);
    assert_eq!(counts[0], 0);
    assert_eq!(draws(&[of(0.0)]), [1000]);
    assert_eq!(draws(&[of(0.0), of(0.0)]).iter().sum::<u32>(), 1000);
}

#[test]
fn a_new_candidate_gets_its_share_linearly_over_ten_seconds() {
    for (seconds, wanted) in [(0.0, 0.1), (1.0, 0.1), (2.0, 0.2), (5.0, 0.5), (10.0, 1.0), (999.0, 1.0)] {
        let found = share(1, Duration::from_secs_f64(seconds));
        assert!((found - wanted).abs() < 1e-9, "{seconds} s: {found}");
    }
    assert!((share(9, SLOW_START) - 9.0).abs() < 1e-9);
}

#[test]
fn a_new_candidate_beside_an_older_one_gets_a_tenth_though_it_is_idle() {
    let old = Some(Standing { share: share(1, SLOW_START), ..good(2) });
    let new = Some(Standing { share: share(1, Duration::ZERO), micros: None, ..good(0) });
    let counts = drawn(10_000, &[old, new]);
    assert!((1_500..2_200).contains(&counts[1]), "as a first draw and as a rival: {counts:?}");
    let counts = drawn(10_000, &[new, new]);
    assert!(counts.iter().all(|&count| count > 4_700), "a whole new pool has no slow start: {counts:?}");
}

#[test]
fn ejections_are_ignored_if_more_than_half_are_ejected() {
    let (out, fine) = (known(false, Health::Ejected, 0), Some(good(0)));
    assert_eq!(draws(&[out, out, fine, fine])[..2], [0, 0]);
    let counts = draws(&[out, out, fine]);
    assert!(counts.iter().all(|&count| count > 250), "{counts:?}");
    let counts = draws(&[out, out]);
    assert!(counts.iter().all(|&count| count > 400), "{counts:?}");
}

fn standings() -> impl Strategy<Value = Vec<Option<Standing>>> {
    let health = prop::sample::select(vec![Health::Good, Health::Avoided, Health::Ejected]);
    let micros = prop::option::of(0.0_f32..6e6);
    let standing = (any::<bool>(), health, micros, 0_u32..50, 0.0_f64..10.0).prop_map(
        |(tried, health, micros, in_flight, share)| Standing { tried, health, micros, in_flight, share },
    );
    prop::collection::vec(prop::option::of(standing), 0..12)
}

proptest! {
    #[test]
    fn one_seed_gives_one_choice_and_it_is_eligible(candidates in standings(), seed in any::<u64>()) {
        let once = || choose(candidates.len(), |at| candidates[at], &mut StdRng::seed_from_u64(seed));
        let chosen = once();
        prop_assert_eq!(chosen, once());
        prop_assert_eq!(chosen.is_some(), candidates.iter().any(Option::is_some), "someone always gets it");
        prop_assert!(chosen.is_none_or(|at| candidates[at].is_some()));
    }

    #[test]
    fn no_tried_candidate_is_chosen_while_an_untried_one_stands(candidates in standings(), seed in any::<u64>()) {
        let chosen = choose(candidates.len(), |at| candidates[at], &mut StdRng::seed_from_u64(seed));
        let has_untried = candidates.iter().flatten().any(|candidate| !candidate.tried);
        if let Some(chosen) = chosen.and_then(|at| candidates[at]) {
            prop_assert!(!(chosen.tried && has_untried));
        }
    }
}
