//! What a listener counts, and its metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Metrics, Tls};

/// The counts of one listener. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ListenerMeters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    http1: AtomicU64,
    http2: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    handshakes: AtomicU64,
    failed_handshakes: AtomicU64,
    accept_pauses: AtomicU64,
    refused_proxies: AtomicU64,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

/// A connection that is open. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Open {
    meters: ListenerMeters,
    spoken: Spoken,
}

impl ListenerMeters {
    /// Registers the metrics of listeners, each with the label `listener`.
    pub fn register(metrics: &Metrics, listeners: Vec<(String, Self, Option<Tls>)>) {
        let listeners = Arc::new(listeners);
        let each = |name: &str, help: &str, read: fn(&Counts) -> u64| {
            let listeners = Arc::clone(&listeners);
            metrics.observable_counters(name, help, move || {
                let one = |(name, meters, _): &(String, Self, _)| (of(name), read(&meters.0));
                listeners.iter().map(one).collect::<Vec<_>>()
            });
        };
        each("connections", "Connections that were accepted, by listener", |counts| {
            load(&counts.connections)
        });
        each("listener_requests", "Requests that arrived, by listener", |counts| load(&counts.requests));
        each("refused_heads", "Requests that were refused for their heads alone, by listener", |counts| {
            load(&counts.refused)
        });
        each(
            "refused_proxies",
            "Connections without an acceptable PROXY protocol header of a trusted proxy, by listener",
            |counts| load(&counts.refused_proxies),
        );
        each(
            "accept_paused",
            "Pauses because the system could not accept a connection, by listener",
            |counts| load(&counts.accept_pauses),
        );
        let all = Arc::clone(&listeners);
        metrics.observable_gauges(
            "open_connections",
            "Open connections, by listener and protocol",
            move || {
                let mut open = Vec::new();
                for (name, meters, _) in all.iter() {
                    for (protocol, count) in [("h1", &meters.0.http1), ("h2", &meters.0.http2)] {
                        open.push((with(name, "protocol", protocol), load(count)));
                    }
                }
                open
            },
        );
        let all = Arc::clone(&listeners);
        let help = "TLS handshakes, by listener and result";
        metrics.observable_counters("tls_handshakes", help, move || {
            let mut counts = Vec::new();
            for (name, meters, _) in all.iter().filter(|listener| listener.2.is_some()) {
                counts.push((with(name, "result", "done"), load(&meters.0.handshakes)));
                counts.push((with(name, "result", "failed"), load(&meters.0.failed_handshakes)));
            }
            counts
        });
        let all = Arc::clone(&listeners);
        let help = "Certificates that were read because they are new or have changed, by listener and result";
        metrics.observable_counters("tls_settings_reloads", help, move || {
            let mut counts = Vec::new();
            for (name, _, tls) in all.iter() {
                let Some([loaded, failed]) = tls.as_ref().map(Tls::reloads) else { continue };
                counts.push((with(name, "result", "loaded"), loaded));
                counts.push((with(name, "result", "failed"), failed));
            }
            counts
        });
        let help = "When a certificate expires, in Unix time, by listener and its first host name";
        metrics.observable_gauges("tls_certificate_not_after_seconds", help, move || {
            let mut expiries = Vec::new();
            for (listener, _, tls) in listeners.iter() {
                for (name, end) in tls.iter().flat_map(Tls::expiries) {
                    expiries.push((with(listener, "name", &name), end));
                }
            }
            // Two certificates for one name: the one that expires first.
            expiries.sort();
            expiries.dedup_by(|later, first| later.0 == first.0);
            expiries
        });
    }

    pub(super) fn accepted(&self) {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self, spoken: Spoken) -> Open {
        self.open(spoken).fetch_add(1, Ordering::Relaxed);
        Open { meters: self.clone(), spoken }
    }

    pub(super) fn requested(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handshake(&self, is_done: bool) {
        let count = if is_done { &self.0.handshakes } else { &self.0.failed_handshakes };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection began without an acceptable PROXY protocol header.
    pub(super) fn refused_proxy(&self) {
        self.0.refused_proxies.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn accept_paused(&self) {
        self.0.accept_pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn open(&self, spoken: Spoken) -> &AtomicU64 {
        match spoken {
            Spoken::Http1 => &self.0.http1,
            Spoken::Http2 => &self.0.http2,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.meters.open(self.spoken).fetch_sub(1, Ordering::Relaxed);
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn of(listener: &str) -> Vec<(&'static str, String)> {
    vec![("listener", listener.to_owned())]
}

fn with(listener: &str, label: &'static str, value: &str) -> Vec<(&'static str, String)> {
    vec![("listener", listener.to_owned()), (label, value.to_owned())]
}
