//! The balancer's metrics: labels are the names of present listeners and backends, and fixed words, so that their number is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::BaseUrl;
use plugin::Metrics;
use tokio::time::Instant;

use super::{CLASSES, ListenerMeters, load};
use crate::backend::{Slot, Standing};
use crate::listener::Listener;
use crate::listeners::Listeners;
use crate::relay::Traffic;

/// Registers the metrics of the listeners that there are when they are read.
pub(crate) fn all(metrics: &Metrics, listeners: &Listeners) {
    let help = "Time that connections, in HTTP mode requests, waited in the queue";
    let all = listeners.clone();
    metrics.observable_histograms("queue_seconds", help, move || {
        let of = |one: &Arc<Listener>| (vec![name(one)], one.lasting.meters.waits.read());
        all.now().iter().map(of).collect::<Vec<_>>()
    });
    let help = "Connections that were forwarded, in HTTP mode requests";
    counter(metrics, listeners, "connections", help, |meters| load(&meters.connections));
    let help = "Attempts to connect to a backend that failed";
    counter(metrics, listeners, "connect_failures", help, |meters| load(&meters.connect_failures));
    let help = "Connections that were cut because their member or the balancer stopped";
    counter(metrics, listeners, "cuts", help, |meters| load(&meters.cuts));
    let help = "Pauses because the system could not accept a connection, by listener";
    counter(&metrics.common(), listeners, "accept_paused", help, |meters| meters.accepting.accept_pauses());
    let help = plugin::ListenerMeters::WAITED;
    counter(&metrics.common(), listeners, "connections_waited", help, |meters| meters.accepting.waits());
    let help = "Bytes that were forwarded, from clients (in) and to clients (out)";
    observed(metrics, listeners, "bytes", help, |meters| {
        let Traffic { received, sent } = &meters.traffic;
        vec![("direction", "in", load(received)), ("direction", "out", load(sent))]
    });
    let all = listeners.clone();
    let help = "Connections and requests that were refused instead of forwarded, by reason";
    metrics.observable_counters("refused", help, move || {
        let mut found = Vec::new();
        for one in all.now() {
            for (reason, count) in one.lasting.meters.refusals(one.front.is_some()) {
                found.push((vec![name(&one), ("reason", reason.to_owned())], count));
            }
        }
        found
    });
    let all = listeners.clone();
    plugin::ListenerMeters::register_open(metrics, move || {
        let listeners = all.now().into_iter().filter(|one| one.front.is_some());
        let of = |one: Arc<Listener>| {
            (one.name.clone(), one.lasting.meters.accepting.clone(), one.lasting.tls.clone())
        };
        listeners.map(of).collect()
    });
    let help = "Requests in HTTP mode, by the class of their answer";
    observed(metrics, listeners, "requests", help, |meters| {
        let each = CLASSES.iter().zip(&meters.answers);
        each.map(|(class, count)| ("outcome", *class, load(count))).collect()
    });
    let help = "Connections that are being forwarded";
    gauge(metrics, listeners, "active", help, |one| one.lasting.meters.active());
    let help = "Connections that wait in the queue";
    gauge(metrics, listeners, "queue", help, |one| {
        i64::try_from(one.lasting.admission.queued()).unwrap_or(i64::MAX)
    });
    backends(metrics, listeners);
    let help = "Open connections, in HTTP mode requests in flight, by backend";
    let connections =
        |slot: &Slot, _| i64::from(slot.connections + slot.url.as_ref().map_or(0, BaseUrl::in_flight));
    each_backend(metrics, listeners, "backend_connections", help, connections, |one, other| one + other);
    let help = "Whether a backend may get connections, by backend: not while it is down, ejected or draining, or the last \
                connection to it could not be opened";
    let is_up = |slot: &Slot, now| i64::from(slot.shown_standing(now) == Standing::Up);
    each_backend(metrics, listeners, "backend_up", help, is_up, i64::max);
}

fn name(listener: &Listener) -> (&'static str, String) {
    ("listener", listener.name.clone())
}

fn counter(
    metrics: &Metrics,
    listeners: &Listeners,
    metric: &str,
    help: &str,
    count: impl Fn(&ListenerMeters) -> u64 + Send + Sync + 'static,
) {
    let all = listeners.clone();
    metrics.observable_counters(metric, help, move || {
        let of = |one: &Arc<Listener>| (vec![name(one)], count(&one.lasting.meters));
        all.now().iter().map(of).collect::<Vec<_>>()
    });
}

fn observed(
    metrics: &Metrics,
    listeners: &Listeners,
    metric: &str,
    help: &str,
    counts: impl Fn(&ListenerMeters) -> Vec<(&'static str, &'static str, u64)> + Send + Sync + 'static,
) {
    let all = listeners.clone();
    metrics.observable_counters(metric, help, move || {
        let mut found = Vec::new();
        for one in all.now() {
            for (label, value, count) in counts(&one.lasting.meters) {
                found.push((vec![name(&one), (label, value.to_owned())], count));
            }
        }
        found
    });
}

fn gauge(
    metrics: &Metrics,
    listeners: &Listeners,
    metric: &str,
    help: &str,
    read: impl Fn(&Listener) -> i64 + Send + Sync + 'static,
) {
    let all = listeners.clone();
    metrics.observable_gauges(metric, help, move || {
        all.now().iter().map(|one| (vec![name(one)], read(one))).collect::<Vec<_>>()
    });
}

/// What is known of each backend that there is now, under the name of its member or else its address.
fn each_backend(
    metrics: &Metrics,
    listeners: &Listeners,
    metric: &str,
    help: &str,
    read: impl Fn(&Slot, Instant) -> i64 + Send + Sync + 'static,
    // Of a backend that several targets have, which the server name chooses.
    together: fn(i64, i64) -> i64,
) {
    let all = listeners.clone();
    metrics.observable_gauges(metric, help, move || {
        let now = Instant::now();
        let mut found = BTreeMap::<_, i64>::new();
        for one in all.now() {
            for pool in &one.pools {
                pool.look(|slots, _| {
                    for slot in slots {
                        let value = found.entry((one.name.clone(), slot.key.clone())).or_default();
                        *value = together(*value, read(slot, now));
                    }
                });
            }
        }
        let labelled =
            |((listener, backend), value)| (vec![("listener", listener), ("backend", backend)], value);
        found.into_iter().map(labelled).collect::<Vec<_>>()
    });
}

/// How many backends of each listener are in which state.
fn backends(metrics: &Metrics, listeners: &Listeners) {
    let all = listeners.clone();
    metrics.observable_gauges("backends", "Backends by whether they get connections", move || {
        let now = Instant::now();
        let mut found = Vec::new();
        // The members of a service whose API is the target belong to the mesh.
        let has_pools = |one: &Arc<Listener>| !one.pools.is_empty();
        for one in all.now().into_iter().filter(has_pools) {
            for standing in Standing::ALL {
                let count = |pool: &Arc<crate::pool::Pool>| {
                    pool.look(|slots, _| {
                        slots.iter().filter(|slot| slot.shown_standing(now) == standing).count()
                    })
                };
                let count = one.pools.iter().map(count).sum::<usize>();
                let labels = vec![name(&one), ("state", standing.as_str().to_owned())];
                found.push((labels, i64::try_from(count).unwrap_or(i64::MAX)));
            }
        }
        found
    });
}
