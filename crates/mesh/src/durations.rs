//! A histogram of durations with fixed bounds, from a quarter of a millisecond to half a minute.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::per_core::PerCore;

/// The upper bounds of the buckets, in microseconds. Longer durations are in the last bucket, which has none.
const BOUNDS: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Durations that were observed. One store for each core.
#[derive(Debug, Default)]
pub struct Durations(PerCore<Counts>);

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// The durations at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationsRead {
    /// All of them together, in seconds.
    pub sum: f64,
    /// The upper bound of each bucket in seconds, and how many durations are in it and in none before.
    pub buckets: Vec<(f64, u64)>,
}

impl Durations {
    /// Adds one.
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let counts = self.0.here();
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        counts.buckets[at].fetch_add(1, Ordering::Relaxed);
        counts.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// All that were added.
    pub fn read(&self) -> DurationsRead {
        let mut read = DurationsRead::default();
        for counts in self.0.iter() {
            read.sum += counts.micros.load(Ordering::Relaxed) as f64 / 1e6;
            for (bucket, count) in read.buckets.iter_mut().zip(&counts.buckets) {
                bucket.1 += count.load(Ordering::Relaxed);
            }
        }
        read
    }
}

impl Default for DurationsRead {
    fn default() -> Self {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        Self { sum: 0.0, buckets: bounds.map(|bound| (bound, 0)).collect() }
    }
}

impl DurationsRead {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        for (bucket, (_, count)) in self.buckets.iter_mut().zip(&other.buckets) {
            bucket.1 += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_is_not_below_it() {
        let durations = Durations::default();
        for micros in [0, 250, 251, 1_000, 30_000_000, 30_000_001] {
            durations.observe(Duration::from_micros(micros));
        }
        let mut read = durations.read();
        let counts: Vec<_> = read.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(counts, [(0.000_25, 2), (0.000_5, 1), (0.001, 1), (30.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((read.count(), read.buckets.len()), (6, 17));
        assert!((read.sum - 60.001_502).abs() < 1e-9, "{}", read.sum);
        read.add(&durations.read());
        assert_eq!(read.count(), 12);
    }
}
