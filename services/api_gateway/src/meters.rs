//! The gateway's metrics: few, and with few labels.

use std::sync::Arc;

use mesh::Mesh;
use plugin::Metrics;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::probes::Probes;

/// How a request ended, as far as the client can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with a status of this class: 1 to 5.
    Status(u16),
    /// The client left before there was an answer.
    Aborted,
}

impl Outcome {
    const LABELS: [&'static str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];

    fn index(self) -> usize {
        match self {
            Self::Aborted => 0,
            Self::Status(class) => usize::from(class.clamp(1, 5)),
        }
    }
}

/// The gateway's metrics.
#[derive(Debug)]
pub(crate) struct Meters {
    requests: [Counter; Outcome::LABELS.len()],
    seconds: Histogram,
    in_flight: Gauge,
}

impl Meters {
    /// Registers all of them.
    pub(crate) fn new(metrics: &Metrics, mesh: &Mesh, probes: &Arc<Probes>) -> Self {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let requests = Outcome::LABELS.map(|label| family.get_or_create_owned(&[("outcome", label)]));
        // A millisecond to half a minute.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let in_flight = Gauge::default();
        metrics.register("requests", "Requests by the class of their answer", family);
        metrics.register(
            "request_duration_seconds",
            "Time from a request's head to the end of its answer",
            seconds.clone(),
        );
        metrics.register("in_flight", "Requests whose answers have not ended", in_flight.clone());
        metrics.register(
            "retries",
            "Requests sent again after a failed connection",
            Sent(mesh.clone(), |stats| stats.retries),
        );
        metrics.register(
            "refusals",
            "Requests sent again because a member did not process them",
            Sent(mesh.clone(), |stats| stats.refusals),
        );
        metrics.register(
            "dead_routes",
            "Routes none of whose addresses takes connections",
            DeadRoutes(Arc::clone(probes)),
        );
        Self { requests, seconds, in_flight }
    }

    pub(crate) fn began(&self) {
        self.in_flight.inc();
    }

    pub(crate) fn ended(&self, outcome: Outcome, seconds: f64) {
        self.in_flight.dec();
        self.requests[outcome.index()].inc();
        self.seconds.observe(seconds);
    }
}

/// Routes that lead nowhere.
#[derive(Debug)]
struct DeadRoutes(Arc<Probes>);

impl EncodeMetric for DeadRoutes {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&u64::try_from(self.0.dead_routes()).unwrap_or(u64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// A number that the mesh counts.
#[derive(Debug)]
struct Sent(Mesh, fn(&mesh::Stats) -> u64);

impl EncodeMetric for Sent {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        encoder.encode_counter::<NoLabelSet, u64, u64>(&(self.1)(&self.0.stats()), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
