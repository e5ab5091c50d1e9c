//! Chooses keys: uniformly, or mostly a few popular ones.

use std::fmt;
use std::sync::Arc;

use clap::ValueEnum;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};

/// The exponent of Zipf's law, as in YCSB (Cooper et al., Benchmarking Cloud Serving Systems with YCSB, 2010).
const EXPONENT: f64 = 0.99;
/// A fixed seed, so that every server has the same popular keys.
const SEED: u64 = 1;

/// The distribution of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Choice {
    /// Each key equally often
    Uniform,
    /// A few keys most of the time: Zipf's law with the exponent 0.99
    Zipf,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        })
    }
}

/// The keys from 0 to `count`, and their distribution.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) count: usize,
    /// `None` for a uniform distribution.
    weights: Option<Arc<WeightedIndex<f64>>>,
}

impl Keys {
    /// `count` must be at least 1.
    pub(crate) fn new(count: u32, choice: Choice) -> anyhow::Result<Self> {
        let weights = match choice {
            Choice::Uniform => None,
            Choice::Zipf => Some(Arc::new(zipf(count)?)),
        };
        Ok(Self { count: usize::try_from(count)?, weights })
    }

    pub(crate) fn choose(&self, random: &mut impl Rng) -> usize {
        match &self.weights {
            None => random.random_range(0..self.count),
            Some(weights) => weights.sample(random),
        }
    }
}

/// Shuffled, so that the popular keys are not adjacent, where one block of a store would hold them all.
fn zipf(count: u32) -> Result<WeightedIndex<f64>, rand::distr::weighted::Error> {
    let mut weights: Vec<_> = (1..=count).map(|rank| f64::from(rank).powf(-EXPONENT)).collect();
    weights.shuffle(&mut StdRng::seed_from_u64(SEED));
    WeightedIndex::new(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOSEN: usize = 100_000;

    /// How often each of 1,000 keys is chosen, the most popular one first.
    fn popularity(choice: Choice) -> Vec<(usize, usize)> {
        let keys = Keys::new(1_000, choice).unwrap();
        let mut random = StdRng::seed_from_u64(7);
        let mut counts: Vec<_> = (0..keys.count).map(|key| (0, key)).collect();
        for _ in 0..CHOSEN {
            counts[keys.choose(&mut random)].0 += 1;
        }
        counts.sort_by(|a, b| b.cmp(a));
        counts
    }

    #[test]
    fn a_uniform_choice_prefers_no_key() {
        let counts = popularity(Choice::Uniform);
        let (most, least) = (counts[0].0, counts[999].0);
        assert!(most < 150 && least > 50, "{most} {least}: about 100 each");
    }

    #[test]
    fn a_choice_by_zipf_falls_with_the_rank() {
        let counts = popularity(Choice::Zipf);
        // The sum of 1/rank^0.99 over 1,000 ranks is 7.73.
        let expected = [(0, 12_900), (1, 6_500), (9, 1_320)];
        for (rank, about) in expected {
            let chosen = counts[rank].0;
            assert!(chosen.abs_diff(about) < about / 7, "rank {rank}: {chosen}, not about {about}");
        }
    }

    #[test]
    fn popular_keys_are_the_same_in_every_run_and_not_adjacent() {
        let popular =
            |counts: Vec<(usize, usize)>| counts[..3].iter().map(|(_, key)| *key).collect::<Vec<_>>();
        let mut keys = popular(popularity(Choice::Zipf));
        assert_eq!(keys, popular(popularity(Choice::Zipf)));
        keys.sort_unstable();
        assert!(keys[2] - keys[0] > 10, "{keys:?}");
    }
}
