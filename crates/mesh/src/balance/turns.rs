//! Round robin: candidates in turn, each as often as its weight says, and never several turns of one in a row if others could
//! come between.
//!
//! Pure but for the counter: whose turn a number is follows from the weights alone, so cores and routes share no state but that
//! number. A candidate of weight w has its turns at (k + 1/2) / w of a cycle, for k from 0; turns are taken in the order of these
//! times.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::choose::Standing;

/// The number of parts in which a slow start is expressed as a weight.
const PARTS: f64 = 10.0;

/// The turn of the next request. Requests that have one of these are spread together.
#[derive(Debug, Default)]
pub struct Turns(AtomicU64);

/// The place in `all`, which is not empty, of the candidate whose turn it is.
pub(super) fn choose(all: &[(usize, Standing)], turns: &Turns) -> usize {
    let turn = turns.0.fetch_add(1, Ordering::Relaxed);
    let weights: Vec<u64> = all.iter().map(|(_, standing)| weight(standing)).collect();
    of_turn(turn, &weights)
}

/// The share as a whole number; at least 1, so that everyone has a turn.
fn weight(standing: &Standing) -> u64 {
    // Shares are at most 1000.
    ((standing.share * PARTS).round() as u64).max(1)
}

/// The place of the one whose turn this is. `weights` are positive; at least one.
fn of_turn(turn: u64, weights: &[u64]) -> usize {
    let all_equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
    if all_equal {
        return (turn % weights.len() as u64) as usize;
    }
    let cycle: u64 = weights.iter().sum();
    let turn = turn % cycle;
    // Each turn of the cycle belongs to exactly one of them: the one that has a turn before which there are that many.
    (0..weights.len()).find(|place| has_turn(turn, *place, weights)).unwrap_or(0)
}

/// Whether one of the turns of the candidate at `place` is preceded by exactly `turn` others in the cycle.
fn has_turn(turn: u64, place: usize, weights: &[u64]) -> bool {
    let (mut low, mut high) = (0, weights[place]);
    while low < high {
        let middle = low + (high - low) / 2;
        match before(middle, place, weights).cmp(&turn) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    false
}

/// The number of turns before the candidate's turn number `own` of a cycle.
fn before(own: u64, place: usize, weights: &[u64]) -> u64 {
    let of = |(other, weight): (usize, &u64)| {
        // Their turn m comes before if (2m + 1) / weight < (2 own + 1) / weights[place]; of equal times, the first place does.
        let (ours, theirs) = ((2 * own + 1) * weight, weights[place]);
        let reach = if other < place { ours + 1 } else { ours };
        if reach <= theirs { 0 } else { (reach - theirs - 1) / (2 * theirs) + 1 }
    };
    weights.iter().enumerate().filter(|(other, _)| *other != place).map(of).sum::<u64>() + own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cycle(weights: &[u64]) -> String {
        let turns = 0..weights.iter().sum();
        turns.map(|turn| ["a", "b", "c", "d"][of_turn(turn, weights)]).collect()
    }

    #[test]
    fn turns_are_spread_over_the_cycle() {
        for (weights, wanted) in [
            (&[1][..], "a"),
            (&[1, 1, 1], "abc"),
            (&[2, 2], "ab"),
            (&[3, 1], "aaba"),
            (&[1, 3], "babb"),
            (&[5, 1, 1], "aaabcaa"),
            (&[4, 2], "abaaba"),
        ] {
            let found: String = cycle(weights);
            assert!(found.starts_with(wanted), "{weights:?}: {found}");
        }
    }

    proptest! {
        #[test]
        fn each_gets_exactly_its_weight_in_every_cycle(weights in prop::collection::vec(1_u64..40, 1..8), skip in 0_u64..1000) {
            let cycle: u64 = weights.iter().sum();
            let mut counts = vec![0; weights.len()];
            for turn in skip..skip + cycle {
                counts[of_turn(turn, &weights)] += 1;
            }
            let all_equal = weights.iter().all(|weight| *weight == weights[0]);
            if !all_equal || skip % weights.len() as u64 == 0 {
                prop_assert_eq!(counts, weights);
            }
        }

        #[test]
        fn each_is_within_one_turn_of_its_part_for_every_other_at_any_time(
            weights in prop::collection::vec(1_u64..40, 2..6), turns in 1_u64..200,
        ) {
            let mut counts = vec![0_u64; weights.len()];
            (0..turns).for_each(|turn| counts[of_turn(turn, &weights)] += 1);
            for (count, weight) in counts.iter().zip(&weights) {
                let part = (turns * weight) as f64 / weights.iter().sum::<u64>() as f64;
                prop_assert!((*count as f64 - part).abs() <= weights.len() as f64 / 2.0 + 0.5, "{counts:?}");
            }
        }
    }
}
