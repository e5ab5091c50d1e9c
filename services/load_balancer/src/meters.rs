//! The balancer's metrics: labels are the names of listeners and fixed words, so that their number is bounded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use http::StatusCode;
use plugin::{Gauge, GaugeGuard, Histogram, Metrics};
use tokio::time::Instant;

use crate::backend::Standing;
use crate::connection::Refusal;
use crate::listener::Listener;
use crate::relay::Traffic;

/// How a request ended, by the first digit of its status.
const CLASSES: [&str; 6] = ["aborted", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMeters {
    name: String,
    connections: AtomicU64,
    active: Gauge,
    pub(crate) traffic: Traffic,
    waits: Histogram,
    refused: [AtomicU64; Refusal::ALL.len()],
    connect_failures: AtomicU64,
    cuts: AtomicU64,
    pub(crate) accepting: plugin::ListenerMeters,
    /// Answers of the HTTP mode by the class of their status, and last the requests whose clients left before.
    answers: [AtomicU64; CLASSES.len()],
    /// Whose they are, once it runs.
    listener: OnceLock<Weak<Listener>>,
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

    /// Records how long a connection waited, if it did.
    pub(crate) fn waited(&self, began: Option<Instant>) {
        if let Some(began) = began {
            self.waits.observe(began.elapsed().as_secs_f64());
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

    pub(crate) fn belong_to(&self, listener: &Arc<Listener>) {
        let _ = self.listener.set(Arc::downgrade(listener));
    }

    fn listener(&self) -> Option<Arc<Listener>> {
        self.listener.get().and_then(Weak::upgrade)
    }
}

/// Registers the metrics of listeners with these names.
pub(crate) fn register(metrics: &Metrics, names: &[String]) -> Vec<Arc<ListenerMeters>> {
    // From 1 ms to 33 s.
    let waits = metrics.histograms(
        "queue_seconds",
        "Time that connections, in HTTP mode requests, waited in the queue",
        ("listener", names),
        (0.001, 2.0, 16),
    );
    let meters: Vec<_> = (names.iter().zip(waits))
        .map(|(name, waits)| {
            Arc::new(ListenerMeters {
                name: name.clone(),
                connections: AtomicU64::new(0),
                active: Gauge::default(),
                traffic: Traffic::default(),
                waits,
                refused: Default::default(),
                connect_failures: AtomicU64::new(0),
                cuts: AtomicU64::new(0),
                accepting: plugin::ListenerMeters::default(),
                answers: Default::default(),
                listener: OnceLock::new(),
            })
        })
        .collect();
    let all = Arc::new(meters.clone());
    counter(
        metrics,
        &all,
        "connections",
        "Connections that were forwarded, in HTTP mode requests",
        |meters| &meters.connections,
    );
    let help = "Attempts to connect to a backend that failed";
    counter(metrics, &all, "connect_failures", help, |meters| &meters.connect_failures);
    let help = "Connections that were cut because their member or the balancer stopped";
    counter(metrics, &all, "cuts", help, |meters| &meters.cuts);
    let help = "Pauses because the system could not accept a connection";
    let paused = Arc::clone(&all);
    metrics.common().observable_counters("accept_paused", help, move || {
        let of = |meters: &Arc<ListenerMeters>| (vec![listener(meters)], meters.accepting.accept_pauses());
        paused.iter().map(of).collect::<Vec<_>>()
    });
    let help = "Bytes that were forwarded, from clients (in) and to clients (out)";
    observed(metrics, &all, "bytes", help, |meters| {
        let Traffic { received, sent } = &meters.traffic;
        [("direction", "in", received), ("direction", "out", sent)]
            .map(|(label, value, count)| (label, value, count.load(Ordering::Relaxed)))
            .to_vec()
    });
    let help = "Connections that were closed instead of forwarded";
    observed(metrics, &all, "refused", help, |meters| {
        let reasons = Refusal::ALL.iter().zip(&meters.refused);
        reasons.map(|(reason, count)| ("reason", reason.as_str(), count.load(Ordering::Relaxed))).collect()
    });
    observed(metrics, &all, "requests", "Requests in HTTP mode, by the class of their answer", |meters| {
        let each = CLASSES.iter().zip(&meters.answers);
        each.map(|(class, count)| ("outcome", *class, count.load(Ordering::Relaxed))).collect()
    });
    gauge(metrics, &all, "active", "Connections that are being forwarded", ListenerMeters::active);
    gauge(metrics, &all, "queue", "Connections that wait in the queue", |meters| {
        meters.listener().map_or(0, |listener| i64::try_from(listener.admission.queued()).unwrap_or(i64::MAX))
    });
    backends(metrics, all);
    meters
}

type All = Arc<Vec<Arc<ListenerMeters>>>;

fn listener(meters: &ListenerMeters) -> (&'static str, String) {
    ("listener", meters.name.clone())
}

fn counter(
    metrics: &Metrics,
    all: &All,
    name: &str,
    help: &str,
    count: impl Fn(&ListenerMeters) -> &AtomicU64 + Send + Sync + 'static,
) {
    let all = Arc::clone(all);
    metrics.observable_counters(name, help, move || {
        let of =
            |meters: &Arc<ListenerMeters>| (vec![listener(meters)], count(meters).load(Ordering::Relaxed));
        all.iter().map(of).collect::<Vec<_>>()
    });
}

fn observed(
    metrics: &Metrics,
    all: &All,
    name: &str,
    help: &str,
    counts: impl Fn(&ListenerMeters) -> Vec<(&'static str, &'static str, u64)> + Send + Sync + 'static,
) {
    let all = Arc::clone(all);
    metrics.observable_counters(name, help, move || {
        let mut found = Vec::new();
        for meters in all.iter() {
            for (label, value, count) in counts(meters) {
                found.push((vec![listener(meters), (label, value.to_owned())], count));
            }
        }
        found
    });
}

fn gauge(
    metrics: &Metrics,
    all: &All,
    name: &str,
    help: &str,
    read: impl Fn(&ListenerMeters) -> i64 + Send + Sync + 'static,
) {
    let all = Arc::clone(all);
    metrics.observable_gauges(name, help, move || {
        all.iter().map(|meters| (vec![listener(meters)], read(meters))).collect::<Vec<_>>()
    });
}

/// How many backends of each listener are in which state.
fn backends(metrics: &Metrics, all: All) {
    let help = "Backends by whether they get connections";
    metrics.observable_gauges("backends", help, move || {
        let now = Instant::now();
        let mut found = Vec::new();
        for meters in all.iter() {
            let Some(running) = meters.listener() else { continue };
            for standing in [Standing::Up, Standing::Ejected, Standing::Down, Standing::Draining] {
                let count = |pool: &Arc<crate::pool::Pool>| {
                    pool.look(|slots, _| slots.iter().filter(|slot| slot.standing(now) == standing).count())
                };
                let count = running.pools.iter().map(count).sum::<usize>();
                let labels = vec![listener(meters), ("state", standing.as_str().to_owned())];
                found.push((labels, i64::try_from(count).unwrap_or(i64::MAX)));
            }
        }
        found
    });
}
