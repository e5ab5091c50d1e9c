//! What is counted of a listener.

pub(crate) mod register;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use mesh::Durations;
use plugin::{Gauge, GaugeGuard, RefusalReason};
use tokio::time::Instant;

use crate::refusal::Refusal;
use crate::relay::Traffic;

/// How a request ended, by the first digit of its status.
const CLASSES: [&str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Why a listener in HTTP mode refuses requests and connections besides its limits.
const OF_HTTP: [RefusalReason; 9] = [
    RefusalReason::Smuggling,
    RefusalReason::Host,
    RefusalReason::Path,
    RefusalReason::Method,
    RefusalReason::Headers,
    RefusalReason::Malformed,
    RefusalReason::Timeout,
    RefusalReason::Flood,
    RefusalReason::ProxyProtocol,
];

/// The metrics of one listener.
#[derive(Debug, Default)]
pub(crate) struct ListenerMeters {
    connections: AtomicU64,
    active: Gauge,
    pub(crate) traffic: Traffic,
    waits: Durations,
    refused: [AtomicU64; Refusal::ALL.len()],
    connect_failures: AtomicU64,
    cuts: AtomicU64,
    pub(crate) accepting: plugin::ListenerMeters,
    /// Answers of the HTTP mode by the class of their status, and last the requests whose clients left before.
    answers: [AtomicU64; CLASSES.len()],
}

impl ListenerMeters {
    /// Counts a forwarded connection until the guard is dropped.
    pub(crate) fn forwarded(&self) -> GaugeGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        GaugeGuard::new(&self.active)
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        let at = Refusal::ALL.iter().position(|known| *known == refusal);
        if let Some(count) = at.and_then(|at| self.refused.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many connections and requests were refused, by reason.
    fn refusals(&self, is_http: bool) -> BTreeMap<&'static str, u64> {
        let own =
            Refusal::ALL.iter().zip(&self.refused).map(|(reason, count)| (reason.as_str(), load(count)));
        let mut all: BTreeMap<_, _> = own.collect();
        for reason in OF_HTTP.into_iter().filter(|_| is_http) {
            *all.entry(reason.as_str()).or_default() += self.accepting.refusals(reason);
        }
        all
    }

    /// Records how long a connection waited, if it did.
    pub(crate) fn waited(&self, began: Option<Instant>) {
        if let Some(began) = began {
            self.waits.observe(began.elapsed());
        }
    }

    pub(crate) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that has ended, by the status of its answer.
    pub(crate) fn answered(&self, status: Option<StatusCode>) {
        let at = status.map_or(0, |status| usize::from(status.as_u16() / 100));
        if let Some(count) = self.answers.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of forwarded connections.
    pub(crate) fn active(&self) -> i64 {
        self.active.get()
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
