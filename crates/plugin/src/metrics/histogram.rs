//! A histogram that cores write without a lock, each in a part of its own. The parts are added up when the metrics are read.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A distribution in buckets. Cheap to clone; clones share their counts.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The upper bounds, in ascending order. The last one is `f64::MAX`, which is shown as `+Inf`.
    bounds: Vec<f64>,
    /// The first one is for all threads that drive no core.
    parts: Vec<Part>,
}

/// The counts of one core, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Part {
    /// The sum of all values, as the bits of an `f64`.
    sum: AtomicU64,
    counts: Box<[AtomicU64]>,
}

impl Histogram {
    /// An empty one with these upper bounds, in ascending order. Values above the last one are counted, too.
    pub(super) fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let bounds: Vec<_> = bounds.into_iter().chain([f64::MAX]).collect();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let part = || Part {
            sum: AtomicU64::new(0_f64.to_bits()),
            counts: bounds.iter().map(|_| AtomicU64::new(0)).collect(),
        };
        let parts = (0..=cores).map(|_| part()).collect();
        Self(Arc::new(Shared { bounds, parts }))
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let Shared { bounds, parts } = &*self.0;
        let at = mesh::core::current().map_or(0, |core| 1 + core % (parts.len() - 1));
        let Part { sum, counts } = &parts[at];
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let more = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// The sum, and the number of values in each bucket.
    fn total(&self) -> (f64, Vec<(f64, u64)>) {
        let Shared { bounds, parts } = &*self.0;
        let sum = parts.iter().map(|part| f64::from_bits(part.sum.load(Ordering::Relaxed))).sum();
        let bucket = |(at, bound): (usize, &f64)| {
            (*bound, parts.iter().map(|part| part.counts[at].load(Ordering::Relaxed)).sum())
        };
        (sum, bounds.iter().enumerate().map(bucket).collect())
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let (sum, buckets) = self.total();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        let histogram = Histogram::new([1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 2.5, f64::INFINITY] {
            histogram.observe(value);
        }
        assert_eq!(histogram.total().1.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn what_all_threads_and_cores_count_is_added_up() {
        let histogram = Histogram::new([1.0]);
        let count = |core: Option<usize>| {
            let histogram = histogram.clone();
            std::thread::spawn(move || {
                if let Some(core) = core {
                    mesh::core::enter(core);
                }
                for _ in 0..10_000 {
                    histogram.observe(0.5);
                }
            })
        };
        for thread in [None, None, Some(0), Some(1), Some(1_000)].map(count) {
            thread.join().unwrap();
        }
        let (sum, buckets) = histogram.total();
        assert_eq!(buckets, [(1.0, 50_000), (f64::MAX, 0)]);
        assert!((sum - 25_000.0).abs() < 0.1, "{sum}");
    }
}
