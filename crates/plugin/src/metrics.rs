//! The metrics of a service. They are declared where they are counted, and are shown on `/metrics` while it runs.
//!
//! ```
//! # let metrics = plugin::Metrics::new("coterie_counter");
//! let increments = metrics.counter("increments", "Increments that are durable");
//! increments.inc();
//! ```

mod histogram;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mesh::DurationsRead;
use prometheus_client::encoding::{
    EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::registry::{Metric, Registry};
use types::ServiceName;

pub use histogram::Histogram;

/// A set of metrics with a common prefix. Cheap to clone.
///
/// Returned metrics share their value with the set. Write names without prefix and without `_total`, and the help as a
/// sentence without a full stop.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// How often the set was read.
    scrapes: Arc<AtomicU64>,
    prefix: Arc<str>,
}

/// The prefix of metrics that are not those of one service type.
pub const COMMON_PREFIX: &str = "coterie";

impl Metrics {
    /// An empty set. Every name in it gets this prefix, such as `coterie_storage`.
    pub fn new(prefix: &str) -> Self {
        Self { registry: Arc::default(), scrapes: Arc::default(), prefix: prefix.into() }
    }

    /// An empty set for a service: every name gets the [prefix](crate::Plugin::metrics_prefix) of its type, and the label
    /// `service` with its name, so that services of one type can be distinguished and added up.
    pub fn of_service(prefix: &str, service: &ServiceName) -> Self {
        let label = (Cow::Borrowed("service"), Cow::Owned(service.to_string()));
        let registry = Registry::with_labels([label].into_iter());
        Self { registry: Arc::new(Mutex::new(registry)), scrapes: Arc::default(), prefix: prefix.into() }
    }

    /// The same set for metrics that services of several types have under one name: `coterie_tls_handshakes`.
    #[must_use]
    pub fn common(&self) -> Self {
        let (registry, scrapes) = (Arc::clone(&self.registry), Arc::clone(&self.scrapes));
        Self { registry, scrapes, prefix: COMMON_PREFIX.into() }
    }

    /// A number that only grows.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.shared(name, help, Counter::default())
    }

    /// Counters with one name and different values of a label.
    pub fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &'static str,
        values: [&'static str; N],
    ) -> [Counter; N] {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let counters = values.map(|value| family.get_or_create_owned(&[(label, value)]));
        self.register(name, help, family);
        counters
    }

    /// A number that goes up and down: an `i64` with `Gauge`, or an `f64` with `Gauge<f64, AtomicU64>`.
    pub fn gauge<G: Metric + Clone + Default>(&self, name: &str, help: &str) -> G {
        self.shared(name, help, G::default())
    }

    /// A distribution in buckets. The first bound is `first`, each further one `factor` times the one before.
    pub fn histogram(&self, name: &str, help: &str, first: f64, factor: f64, buckets: u16) -> Histogram {
        self.shared(name, help, Histogram::new(exponential_buckets(first, factor, buckets)))
    }

    /// Counters that are kept elsewhere, with one name, each with its labels; `read` is called when the metrics are read.
    pub fn observable_counters<V: EncodeCounterValue + 'static, I>(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> I + Send + Sync + 'static,
    ) where
        I: IntoIterator<Item = (Vec<(&'static str, String)>, V)> + 'static,
    {
        self.register(name, help, ObservableCounters(read));
    }

    /// A counter that is kept elsewhere; `read` is called when the metrics are read.
    pub fn observable_counter<V: EncodeCounterValue + 'static>(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> V + Send + Sync + 'static,
    ) {
        self.register(name, help, ObservableCounter(read));
    }

    /// A gauge that is kept elsewhere; `read` is called when the metrics are read.
    pub fn observable_gauge<V: EncodeGaugeValue + 'static>(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> V + Send + Sync + 'static,
    ) {
        self.observable_gauges(name, help, move || [(vec![], read())]);
    }

    /// Gauges with one name, each with its labels; `read` is called when the metrics are read.
    pub fn observable_gauges<V: EncodeGaugeValue + 'static, I>(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> I + Send + Sync + 'static,
    ) where
        I: IntoIterator<Item = (Vec<(&'static str, String)>, V)> + 'static,
    {
        self.register(name, help, ObservableGauges(read));
    }

    /// Distributions of durations that are kept elsewhere, with one name, each with its labels; `read` is called when the
    /// metrics are read.
    pub fn observable_histograms<I>(
        &self,
        name: &str,
        help: &str,
        read: impl Fn() -> I + Send + Sync + 'static,
    ) where
        I: IntoIterator<Item = (Vec<(&'static str, String)>, DurationsRead)> + 'static,
    {
        self.register(name, help, ObservableHistograms(read));
    }

    /// A function for several observable metrics that are read from one value: it calls `read` once each time the set is read.
    pub fn once_per_scrape<T: Send + Sync + 'static>(
        &self,
        read: impl Fn() -> T + Send + Sync + 'static,
    ) -> impl Fn() -> Arc<T> + Clone + Send + Sync + 'static {
        let (scrapes, read) = (Arc::clone(&self.scrapes), Arc::new(read));
        let last = Arc::new(Mutex::new(None::<(u64, Arc<T>)>));
        move || {
            let now = scrapes.load(Ordering::Acquire);
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some((of, value)) if *of == now => Arc::clone(value),
                _ => Arc::clone(&last.insert((now, Arc::new(read()))).1),
            }
        }
    }

    /// Writes the set in the OpenMetrics text format, without the closing line.
    pub fn encode(&self, out: &mut String) -> fmt::Result {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: one scrape at a time.
        self.scrapes.fetch_add(1, Ordering::Release);
        prometheus_client::encoding::text::encode_registry(out, &registry)
    }

    /// The whole answer to a scrape: several sets one after the other.
    pub fn encode_all<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Result<String, fmt::Error> {
        let mut out = String::new();
        for set in sets {
            set.encode(&mut out)?;
        }
        prometheus_client::encoding::text::encode_eof(&mut out)?;
        Ok(out)
    }

    fn shared<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.register(name, help, metric.clone());
        metric
    }

    fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let name = format!("{}_{name}", self.prefix);
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric);
    }
}

/// Increments a gauge, and decrements it when dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Increments the gauge.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct ObservableCounter<F>(F);

impl<F> fmt::Debug for ObservableCounter<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObservableCounter")
    }
}

impl<V: EncodeCounterValue, F: Fn() -> V> EncodeMetric for ObservableCounter<F> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, V, u64>(&(self.0)(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

struct ObservableCounters<F>(F);

impl<F> fmt::Debug for ObservableCounters<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObservableCounters")
    }
}

impl<V, I, F> EncodeMetric for ObservableCounters<F>
where
    V: EncodeCounterValue,
    I: IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
    F: Fn() -> I,
{
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, value) in (self.0)() {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, V, u64>(&value, None)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        (self.0)().into_iter().next().is_none()
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

struct ObservableGauges<F>(F);

impl<F> fmt::Debug for ObservableGauges<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObservableGauges")
    }
}

impl<V, I, F> EncodeMetric for ObservableGauges<F>
where
    V: EncodeGaugeValue,
    I: IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
    F: Fn() -> I,
{
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, value) in (self.0)() {
            if labels.is_empty() {
                encoder.encode_gauge(&value)?;
            } else {
                encoder.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        (self.0)().into_iter().next().is_none()
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

struct ObservableHistograms<F>(F);

impl<F> fmt::Debug for ObservableHistograms<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObservableHistograms")
    }
}

impl<I, F> EncodeMetric for ObservableHistograms<F>
where
    I: IntoIterator<Item = (Vec<(&'static str, String)>, DurationsRead)>,
    F: Fn() -> I,
{
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        for (labels, read) in (self.0)() {
            let mut one = encoder.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(read.sum, read.count(), &read.buckets, None)?;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        (self.0)().into_iter().next().is_none()
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn each_kind_of_metric_is_declared_in_one_line_and_shown() {
        let metrics = Metrics::new("coterie_test");
        metrics.counter("writes", "Writes").inc_by(3);
        let [get, _put] = metrics.counters("operations", "Operations", "operation", ["get", "put"]);
        get.inc();
        metrics.gauge::<Gauge>("open", "Open ones").set(-2);
        metrics.gauge::<Gauge<f64, AtomicU64>>("ahead_seconds", "Ahead").set(0.5);
        metrics.histogram("seconds", "Seconds", 1.0, 2.0, 2).observe(1.5);
        metrics.observable_counter("events", "Events", || 7_u64);
        metrics.observable_gauge("in_flight", "In flight", || 4_u64);
        let sizes = || [("in", 5_u64), ("out", 6)].map(|(way, size)| (vec![("way", way.to_owned())], size));
        metrics.observable_counters("sent_bytes", "Sent", sizes);
        let skews = || ["b", "c"].map(|peer| (vec![("peer", peer.to_owned())], -0.25));
        metrics.observable_gauges("skew_seconds", "Skew", skews);
        let durations = || {
            let mut read = DurationsRead { sum: 1.5, ..DurationsRead::default() };
            read.buckets[11].1 = 2;
            [(vec![("to", "a".to_owned())], read)]
        };
        metrics.observable_histograms("durations_seconds", "Durations", durations);
        metrics.common().counter("tls_handshakes", "Handshakes").inc();
        metrics.observable_gauges("nothing", "None of them", || None::<(Vec<_>, u64)>);
        let text = Metrics::encode_all([&metrics]).unwrap();
        for line in [
            "coterie_test_writes_total 3",
            r#"coterie_test_operations_total{operation="get"} 1"#,
            r#"coterie_test_operations_total{operation="put"} 0"#,
            "coterie_test_open -2",
            "coterie_test_ahead_seconds 0.5",
            r#"coterie_test_seconds_bucket{le="2.0"} 1"#,
            "# TYPE coterie_test_events counter",
            "coterie_test_events_total 7",
            "coterie_test_in_flight 4",
            "# TYPE coterie_test_sent_bytes counter",
            r#"coterie_test_sent_bytes_total{way="out"} 6"#,
            r#"coterie_test_skew_seconds{peer="c"} -0.25"#,
            "# HELP coterie_test_skew_seconds Skew.",
            r#"coterie_test_durations_seconds_bucket{le="0.00025",to="a"} 0"#,
            r#"coterie_test_durations_seconds_bucket{le="1.0",to="a"} 2"#,
            r#"coterie_test_durations_seconds_bucket{le="+Inf",to="a"} 2"#,
            r#"coterie_test_durations_seconds_sum{to="a"} 1.5"#,
            "coterie_tls_handshakes_total 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in:\n{text}");
        }
        assert!(!text.contains("nothing"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn what_several_metrics_show_is_read_once_per_scrape() {
        let metrics = Metrics::new("coterie_test");
        let reads = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&reads);
        let value = metrics.once_per_scrape(move || count.fetch_add(1, Ordering::Relaxed) + 1);
        for name in ["first", "second"] {
            let value = value.clone();
            metrics.common().observable_gauge(name, "A value", move || *value());
        }
        for scrape in 1..=3 {
            let mut text = String::new();
            metrics.encode(&mut text).unwrap();
            assert!(text.contains(&format!("coterie_first {scrape}\n")), "{text}");
            assert!(text.contains(&format!("coterie_second {scrape}\n")), "{text}");
            assert_eq!(reads.load(Ordering::Relaxed), scrape);
        }
    }

    #[test]
    fn names_begin_with_the_prefix_of_the_type_and_a_label_names_the_service() {
        let metrics = Metrics::of_service("coterie_storage", &"sessions".parse().unwrap());
        metrics.counter("openings", "Openings").inc();
        let [get] = metrics.counters("operations", "Operations", "operation", ["get"]);
        get.inc();
        let text = Metrics::encode_all([&metrics]).unwrap();
        for line in [
            r#"coterie_storage_openings_total{service="sessions"} 1"#,
            r#"coterie_storage_operations_total{service="sessions",operation="get"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in:\n{text}");
        }
    }
}
