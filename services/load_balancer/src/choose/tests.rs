use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const ALL: [Balance; 4] =
    [Balance::TwoChoices, Balance::RoundRobin, Balance::LeastConnections, Balance::Source];

fn client(number: u32) -> ClientKey {
    IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)).into()
}

/// Backends with these weights and no connections.
fn idle<'a>(keys: &'a [String], weights: &[u64]) -> Vec<Candidate<'a>> {
    let of = |(at, (key, weight)): (usize, (&'a String, &u64))| Candidate {
        id: at as u64,
        key,
        connections: 0,
        weight: *weight,
    };
    keys.iter().zip(weights).enumerate().map(of).collect()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("10.0.0.{at}:80")).collect()
}

/// How many of a thousand connections each backend gets. They stay open if `stay`.
fn shares(balance: Balance, weights: &[u64], stay: bool) -> Vec<u32> {
    let keys = keys(weights.len());
    let mut candidates = idle(&keys, weights);
    let (mut chooser, mut random) = (Chooser::new(balance), StdRng::seed_from_u64(7));
    let mut counts = vec![0; weights.len()];
    for number in 0..1000 {
        let at = chooser.choose(&candidates, client(number), &mut random).unwrap();
        counts[at] += 1;
        candidates[at].connections += u32::from(stay);
    }
    counts
}

#[test]
fn each_algorithm_gives_connections_in_proportion_to_the_weights() {
    for balance in ALL {
        for stay in [false, true] {
            for weights in [&[1000, 1000][..], &[9000, 1000], &[3000, 2000, 1000], &[1000; 4]] {
                let total: u64 = weights.iter().sum();
                for (got, weight) in shares(balance, weights, stay).iter().zip(weights) {
                    let fair = 1000 * *weight / total;
                    let slack = if stay && balance != Balance::Source { 5 } else { fair / 3 };
                    let got = u64::from(*got);
                    assert!(got.abs_diff(fair) <= slack, "{balance:?} {weights:?} {stay}: {got} for {fair}");
                }
            }
        }
    }
}

#[test]
fn turns_are_spread_out() {
    let keys = keys(3);
    let candidates = idle(&keys, &[5, 1, 1]);
    let (mut chooser, mut random) = (Chooser::new(Balance::RoundRobin), StdRng::seed_from_u64(1));
    let turns: Vec<_> =
        (0..7).map(|_| chooser.choose(&candidates, client(0), &mut random).unwrap()).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0], "nginx has this example");
}

#[test]
fn least_connections_takes_the_best_of_all() {
    let keys = keys(3);
    let mut candidates = idle(&keys, &[1000, 2000, 1000]);
    for (candidate, connections) in candidates.iter_mut().zip([5, 9, 6]) {
        candidate.connections = connections;
    }
    let mut random = StdRng::seed_from_u64(1);
    assert_eq!(least_connections(&candidates, &mut random), 1, "9 of 2 are fewer than 5 of 1");
    candidates[1].connections = 11;
    assert_eq!(least_connections(&candidates, &mut random), 0);
}

#[test]
fn two_choices_never_takes_the_worst() {
    let keys = keys(4);
    let mut candidates = idle(&keys, &[1000; 4]);
    candidates[2].connections = 9;
    let mut random = StdRng::seed_from_u64(1);
    assert!((0..1000).all(|_| two_choices(&candidates, &mut random) != 2));
}

#[test]
fn a_client_stays_with_its_backend_and_only_those_of_one_that_goes_move() {
    let keys = keys(5);
    let all = idle(&keys, &[1000; 5]);
    let (mut chooser, mut random) = (Chooser::new(Balance::Source), StdRng::seed_from_u64(1));
    let mut choice = |candidates: &[Candidate<'_>], number| {
        candidates[chooser.choose(candidates, client(number), &mut random).unwrap()].key.to_owned()
    };
    let without: Vec<_> = all.iter().filter(|candidate| candidate.id != 3).copied().collect();
    let mut moved = 0;
    for number in 0..1000 {
        let before = choice(&all, number);
        assert_eq!(before, choice(&all, number));
        let after = choice(&without, number);
        assert!(after == before || before == all[3].key, "client {number} moved without need");
        moved += u32::from(after != before);
    }
    assert!((130..270).contains(&moved), "{moved}");
}

#[test]
fn no_backend_gets_more_than_a_quarter_above_its_share_of_one_network_of_clients() {
    let keys = keys(4);
    let mut candidates = idle(&keys, &[1000; 4]);
    for count in 1..=400_u32 {
        // All from one address: without the bound one backend would get everything.
        let at = source(&candidates, client(7)).unwrap();
        candidates[at].connections += 1;
        let most = candidates.iter().map(|candidate| candidate.connections).max().unwrap();
        assert!(f64::from(most) <= (f64::from(count) / 4.0 * BOUND).ceil(), "{most} of {count}");
    }
}

proptest! {
    #[test]
    fn a_choice_is_one_of_the_candidates_and_the_same_for_the_same_seed(
        backends in prop::collection::vec((0..2_000_000_u32, 1..1_000_001_u64), 0..20),
        seed in any::<u64>(),
        number in any::<u16>(),
    ) {
        let keys = keys(backends.len());
        let weights: Vec<_> = backends.iter().map(|(_, weight)| *weight).collect();
        let mut candidates = idle(&keys, &weights);
        for (candidate, (connections, _)) in candidates.iter_mut().zip(&backends) {
            candidate.connections = *connections;
        }
        for balance in ALL {
            let choose = || {
                let (mut chooser, mut random) = (Chooser::new(balance), StdRng::seed_from_u64(seed));
                [(); 5].map(|()| chooser.choose(&candidates, client(number.into()), &mut random))
            };
            let chosen = choose();
            prop_assert_eq!(chosen, choose());
            for at in chosen {
                prop_assert_eq!(at.is_some(), !candidates.is_empty());
                prop_assert!(at.is_none_or(|at| at < candidates.len()));
            }
        }
    }

    #[test]
    fn of_two_the_better_one_is_chosen_whatever_the_draw(
        one in (0..1000_u32, 1..1000_u64),
        other in (0..1000_u32, 1..1000_u64),
        seed in any::<u64>(),
    ) {
        let keys = keys(2);
        let mut candidates = idle(&keys, &[one.1, other.1]);
        (candidates[0].connections, candidates[1].connections) = (one.0, other.0);
        for balance in [Balance::TwoChoices, Balance::LeastConnections] {
            let mut random = StdRng::seed_from_u64(seed);
            let at = Chooser::new(balance).choose(&candidates, client(1), &mut random).unwrap();
            prop_assert!(!is_better(&candidates[1 - at], &candidates[at]), "{:?}", balance);
        }
    }
}
