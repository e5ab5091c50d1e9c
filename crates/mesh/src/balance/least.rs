//! Least connections: the candidate with the fewest requests in flight in relation to its share.
//!
//! Pure. Each process counts its own requests only, so many gateways that see the same idle member would all choose it; equal
//! ones are therefore drawn at random.

use rand::Rng;

use crate::choose::{Standing, draw};

/// The place in `all`, which is not empty, of the least loaded; of equally loaded ones, one drawn by its share.
pub(super) fn choose<R: Rng>(all: &[(usize, Standing)], random: &mut R) -> usize {
    let is_less = |one: &Standing, other: &Standing| {
        f64::from(one.in_flight) * other.share < f64::from(other.in_flight) * one.share
    };
    let mut best: Vec<(usize, Standing)> = Vec::new();
    for (place, (_, standing)) in all.iter().enumerate() {
        match best.first() {
            Some((_, first)) if is_less(first, standing) => {}
            Some((_, first)) if !is_less(standing, first) => best.push((place, *standing)),
            _ => best = vec![(place, *standing)],
        }
    }
    best[draw(&best, random)].0
}
