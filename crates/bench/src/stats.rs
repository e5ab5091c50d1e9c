//! Percentiles of samples. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The statistics of a set of samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) samples: usize,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    /// `None` for fewer than 1,000 samples: it would be the maximum.
    pub(crate) p999: Option<f64>,
    pub(crate) max: f64,
}

/// The least number of samples for a 99.9th percentile.
const MANY: usize = 1_000;

impl Summary {
    /// `None` without samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first()?, sorted.last()?);
        Some(Self {
            samples: sorted.len(),
            min: *first,
            mean: sorted.iter().sum::<f64>() / count(sorted.len()),
            p50: nearest_rank(&sorted, 500),
            p90: nearest_rank(&sorted, 900),
            p99: nearest_rank(&sorted, 990),
            p999: (sorted.len() >= MANY).then(|| nearest_rank(&sorted, 999)),
            max: *last,
        })
    }

    /// The statistics of durations, in milliseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Option<Self> {
        Self::of(&times.iter().copied().map(millis).collect::<Vec<_>>())
    }
}

/// The smallest sample that at least `per_mille` of 1,000 samples do not exceed.
fn nearest_rank(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1_000).max(1);
    sorted[rank - 1]
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up_to(last: u32) -> Vec<f64> {
        (1..=last).rev().map(f64::from).collect()
    }

    #[test]
    fn a_percentile_is_a_sample_that_was_measured() {
        let summary = Summary::of(&up_to(100)).unwrap();
        assert_eq!((summary.p50, summary.p90, summary.p99), (50.0, 90.0, 99.0));
        assert_eq!((summary.min, summary.mean, summary.max), (1.0, 50.5, 100.0));
    }

    #[test]
    fn of_few_samples_the_99th_percentile_is_the_largest() {
        let summary = Summary::of(&up_to(20)).unwrap();
        assert_eq!((summary.samples, summary.p50, summary.p99), (20, 10.0, 20.0));
        let one = Summary::of(&[7.0]).unwrap();
        assert_eq!((one.min, one.p50, one.p99, one.max), (7.0, 7.0, 7.0, 7.0));
    }

    #[test]
    fn the_p999_needs_a_thousand_samples() {
        assert_eq!(Summary::of(&up_to(999)).unwrap().p999, None);
        assert_eq!(Summary::of(&up_to(1_000)).unwrap().p999, Some(999.0));
        assert_eq!(Summary::of(&up_to(10_000)).unwrap().p999, Some(9_990.0));
    }

    #[test]
    fn without_samples_there_is_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn times_are_summarized_in_milliseconds() {
        let summary = Summary::of_times(&[Duration::from_micros(1_500)]).unwrap();
        assert!((summary.p50 - 1.5).abs() < 1e-9);
    }
}
