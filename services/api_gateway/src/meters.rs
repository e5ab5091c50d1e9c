//! The gateway's metrics, few and with few labels.

use std::sync::Arc;

use mesh::Mesh;
use plugin::{Counter, Gauge, Histogram, Metrics};

use crate::probes::Probes;

/// How a request ended from the client's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer with a status of this class: 1 to 5.
    Status(u16),
    /// The client disconnected before there was an answer.
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
        let requests =
            metrics.counters("requests", "Requests by the class of their answer", "outcome", Outcome::LABELS);
        let help = "Time from a request's head to the end of its answer";
        // From 1 ms to 33 s.
        let seconds = metrics.histogram("request_duration_seconds", help, 0.001, 2.0, 16);
        let in_flight = metrics.gauge("in_flight", "Requests whose answers have not ended");
        let sent = |name, help, count: fn(&mesh::Stats) -> u64| {
            let mesh = mesh.clone();
            metrics.observable_counter(name, help, move || count(&mesh.stats()));
        };
        sent("retries", "Requests sent again after a failed connection", |stats| stats.retries);
        sent("refusals", "Requests sent again because a member did not process them", |stats| stats.refusals);
        let probes = Arc::clone(probes);
        let help = "Routes none of whose addresses takes connections";
        metrics.observable_gauge("dead_routes", help, move || probes.dead_routes());
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
