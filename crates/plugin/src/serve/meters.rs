//! What a listener counts, and its metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{debug, warn};

use super::refusal::RefusalReason;
use crate::log_limit::LogLimit;
use crate::proxy_protocol::ProxyHeaderError;
use crate::tls::HandshakeFailure;
use crate::{Metrics, Tls};

/// The counts of one listener. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ListenerMeters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    http1: AtomicU64,
    http2: AtomicU64,
    websockets: AtomicU64,
    refused: [AtomicU64; RefusalReason::ALL.len()],
    tls12: AtomicU64,
    tls13: AtomicU64,
    failed_handshakes: AtomicU64,
    no_client_certificate: AtomicU64,
    client_certificate_refused: AtomicU64,
    accept_pauses: AtomicU64,
    /// Of connections that are refused for their headers of the PROXY protocol.
    proxy_log: LogLimit,
    waits: AtomicU64,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    /// Of a connection with HTTP/1.1 that has become one, or of a stream of one with HTTP/2.
    WebSocket,
}

/// A connection that is open. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Open {
    meters: ListenerMeters,
    spoken: Spoken,
}

impl ListenerMeters {
    /// What the metric `connections_waited` counts.
    pub const WAITED: &'static str = "Connections that waited because their listener had as many as it may have and none was idle, by listener";

    /// Registers the metrics of listeners, each with the label `listener`. `listeners` returns those that there are now, when
    /// the metrics are read.
    pub fn register(
        metrics: &Metrics,
        listeners: impl Fn() -> Vec<(String, Self, Option<Tls>)> + Send + Sync + 'static,
    ) {
        let listeners = Arc::new(listeners);
        let common = metrics.common();
        let each = |metrics: &Metrics, name: &str, help: &str, read: fn(&Counts) -> u64| {
            let listeners = Arc::clone(&listeners);
            metrics.observable_counters(name, help, move || {
                let one = |(name, meters, _): &(String, Self, _)| (of(name), read(&meters.0));
                listeners().iter().map(one).collect::<Vec<_>>()
            });
        };
        let help = "Connections that were accepted, by listener";
        each(metrics, "connections", help, |counts| load(&counts.connections));
        let help = "Pauses because the system could not accept a connection, by listener";
        each(&common, "accept_paused", help, |counts| load(&counts.accept_pauses));
        each(&common, "connections_waited", Self::WAITED, |counts| load(&counts.waits));
        let all = Arc::clone(&listeners);
        let help = "Requests and connections that were refused, by listener and reason";
        metrics.observable_counters("refused", help, move || {
            let mut refused = Vec::new();
            for (name, meters, _) in &all() {
                let counts = RefusalReason::ALL.iter().zip(&meters.0.refused);
                let count = |(reason, count): (&RefusalReason, _)| {
                    (with(name, "reason", reason.as_str()), load(count))
                };
                refused.extend(counts.map(count));
            }
            refused
        });
        let of = Arc::clone(&listeners);
        Self::register_open(metrics, move || of());
    }

    /// Registers those metrics alone that are about open connections and TLS.
    pub fn register_open(
        metrics: &Metrics,
        listeners: impl Fn() -> Vec<(String, Self, Option<Tls>)> + Send + Sync + 'static,
    ) {
        let listeners = Arc::new(listeners);
        let common = metrics.common();
        let all = Arc::clone(&listeners);
        metrics.observable_gauges(
            "open_connections",
            "Open connections, by listener and protocol; WebSockets over HTTP/2 are counted besides their connection",
            move || {
                let mut open = Vec::new();
                for (name, meters, _) in &all() {
                    for (protocol, count) in [
                        ("h1", &meters.0.http1),
                        ("h2", &meters.0.http2),
                        ("websocket", &meters.0.websockets),
                    ] {
                        open.push((with(name, "protocol", protocol), load(count)));
                    }
                }
                open
            },
        );
        let all = Arc::clone(&listeners);
        let help = "TLS handshakes, by listener, version and result";
        common.observable_counters("tls_handshakes", help, move || {
            let mut counts = Vec::new();
            for (name, meters, _) in all().iter().filter(|listener| listener.2.is_some()) {
                for (version, result, count) in [
                    ("TLSv1.2", "done", &meters.0.tls12),
                    ("TLSv1.3", "done", &meters.0.tls13),
                    ("unknown", "failed", &meters.0.failed_handshakes),
                    ("unknown", "no_client_certificate", &meters.0.no_client_certificate),
                    ("unknown", "client_certificate_refused", &meters.0.client_certificate_refused),
                ] {
                    let mut labels = with(name, "version", version);
                    labels.push(("result", result.to_owned()));
                    counts.push((labels, load(count)));
                }
            }
            counts
        });
        let all = Arc::clone(&listeners);
        let help = "Certificates that were read because they are new or have changed, by listener and result";
        common.observable_counters("tls_settings_reloads", help, move || {
            let mut counts = Vec::new();
            for (name, _, tls) in &all() {
                let Some([loaded, failed]) = tls.as_ref().map(Tls::reloads) else { continue };
                counts.push((with(name, "result", "loaded"), loaded));
                counts.push((with(name, "result", "failed"), failed));
            }
            counts
        });
        let help = "When a certificate expires, in Unix time, by listener and its first host name";
        common.observable_gauges("tls_certificate_not_after_seconds", help, move || {
            let mut expiries = Vec::new();
            for (listener, _, tls) in &listeners() {
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

    /// Counts a request or a connection that is refused.
    pub fn refused(&self, reason: RefusalReason) {
        self.0.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests and connections were refused for this reason.
    pub fn refusals(&self, reason: RefusalReason) -> u64 {
        load(&self.0.refused[reason as usize])
    }

    /// Logs a connection to the listener of this name that was refused for its header of the PROXY protocol: its client sees
    /// only the end of it. Most often a proxy in front does not send the header, or is not trusted, and then it is so for all.
    pub fn log_proxy_refusal(&self, listener: &str, peer: SocketAddr, error: &ProxyHeaderError) {
        let is_client = matches!(error, ProxyHeaderError::Broken(_));
        if !is_client && self.0.proxy_log.may_log() {
            warn!(listener, %peer, %error,
                "a connection was refused: this listener has `proxy_protocol`; more of them are logged every ten seconds at most");
        } else {
            debug!(listener, %peer, %error, "a connection was refused");
        }
    }

    /// Counts a handshake by the version that it agreed on, or by why it failed.
    pub(super) fn handshake(&self, result: Result<&str, HandshakeFailure>) {
        let count = match result {
            Ok("TLSv1.2") => &self.0.tls12,
            Ok(_) => &self.0.tls13,
            Err(HandshakeFailure::NoClientCertificate) => &self.0.no_client_certificate,
            Err(HandshakeFailure::ClientCertificateRefused) => &self.0.client_certificate_refused,
            Err(HandshakeFailure::Other) => &self.0.failed_handshakes,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How often accepting was paused because the system could not accept a connection.
    pub fn accept_pauses(&self) -> u64 {
        load(&self.0.accept_pauses)
    }

    pub(super) fn accept_paused(&self) {
        self.0.accept_pauses.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections waited because there were as many as there may be, and none was idle.
    pub fn waits(&self) -> u64 {
        load(&self.0.waits)
    }

    pub(super) fn waited(&self) {
        self.0.waits.fetch_add(1, Ordering::Relaxed);
    }

    fn open(&self, spoken: Spoken) -> &AtomicU64 {
        match spoken {
            Spoken::Http1 => &self.0.http1,
            Spoken::Http2 => &self.0.http2,
            Spoken::WebSocket => &self.0.websockets,
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
