//! One load that all proxies get, and what its results are compared with.

use std::net::SocketAddr;
use std::path::Path;

use crate::proxies::backend::Body;
use crate::proxies::cores::Cores;
use crate::proxies::h2load::H2load;
use crate::proxies::load::{Load, count};
use crate::proxies::measured::{Comparison, Group};
use crate::proxies::wrk::Wrk;
use crate::proxies::{Addresses, handshakes};
use crate::rows::Target;

/// Concurrent requests on a connection of HTTP/2.
const STREAMS: usize = 8;

/// Concurrent requests of the loads of HTTP/1.
pub(crate) const CLIENTS: [usize; 3] = [1, 64, 512];

/// One load.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Its name in the report.
    pub(crate) what: String,
    /// Concurrent requests.
    pub(crate) clients: usize,
    pub(crate) kind: Kind,
    /// Whether the backend gets the same load without a proxy.
    pub(crate) is_direct: bool,
    pub(crate) comparisons: Vec<Comparison>,
}

/// The kind of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Requests over HTTP/1.
    Http1 { body: Body, tls: bool },
    /// Bytes of answers over HTTP/1.
    Transfer(Body),
    /// Requests over HTTP/2, eight at a time on each connection.
    Http2 { body: Body, tls: bool },
    /// Connections with one request of 1 KB each.
    Connections,
    /// TLS connections with a full handshake and one request of 1 KB each.
    Handshakes,
}

impl Task {
    pub(crate) fn new(what: impl Into<String>, clients: usize, kind: Kind) -> Self {
        Self { what: what.into(), clients, kind, is_direct: false, comparisons: Vec::new() }
    }

    /// Requests over HTTP/1, beside nginx and HAProxy, of which many at once have a target, and ahead of the others.
    pub(crate) fn http1(body: Body, clients: usize) -> Self {
        let kind = Kind::Http1 { body, tls: false };
        let mut task = Self::new(format!("HTTP/1, {}", body.name()), clients, kind);
        let latency = (clients > 1).then_some(Target::RatioOfP99(1.2));
        task.comparisons =
            vec![Comparison { latency, ..Comparison::with(Group::Peers) }, Comparison::ahead()];
        task
    }

    /// The unit of its rate.
    pub(crate) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Http1 { .. } | Kind::Http2 { .. } => "req/s",
            Kind::Transfer(_) => "MB/s",
            Kind::Connections | Kind::Handshakes => "conn/s",
        }
    }

    /// Its rate in its unit.
    pub(crate) fn rate(&self, load: &Load) -> f64 {
        match self.kind {
            Kind::Transfer(body) => {
                let bytes = count(u64::try_from(body.length()).unwrap_or(u64::MAX));
                load.per_second() * bytes / 1e6
            }
            Kind::Http1 { .. } | Kind::Http2 { .. } | Kind::Connections | Kind::Handshakes => {
                load.per_second()
            }
        }
    }

    /// Runs the load once.
    pub(crate) async fn run(
        &self,
        addresses: &Addresses,
        cores: Cores,
        folder: &Path,
        seconds: u64,
    ) -> anyhow::Result<Load> {
        let wrk = |url: &str, body: Body, closing| {
            let (url, connections, length) = (url.to_owned(), self.clients, body.length());
            async move { Wrk { url: &url, connections, seconds, closing, length }.run(cores, folder).await }
        };
        match self.kind {
            Kind::Http1 { body, tls: false } | Kind::Transfer(body) => {
                wrk(&url(false, addresses.http1, body), body, false).await
            }
            Kind::Http1 { body, tls: true } => wrk(&url(true, addresses.tls, body), body, false).await,
            Kind::Connections => wrk(&url(false, addresses.http1, Body::OneKb), Body::OneKb, true).await,
            Kind::Http2 { body, tls } => {
                let addr = if tls { addresses.tls } else { addresses.http2 };
                let streams = STREAMS.min(self.clients);
                let connections = self.clients.div_ceil(streams);
                let (url, length) = (url(tls, addr, body), body.length());
                H2load { url: &url, connections, streams, seconds, length }.run(cores, folder).await
            }
            Kind::Handshakes => handshakes::run(cores, addresses.tls, self.clients, seconds).await,
        }
    }
}

fn url(tls: bool, addr: SocketAddr, body: Body) -> String {
    format!("http{}://{addr}/{}", if tls { "s" } else { "" }, body.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxies::load::Latency;

    #[test]
    fn transfers_are_counted_in_bytes_and_the_rest_in_operations() {
        let latency = Latency::of_micros(&mut [1]).unwrap();
        let load = Load { operations: 1_000, seconds: 0.5, latency };
        let rate = |kind| {
            let task = Task::new("x", 1, kind);
            (task.rate(&load), task.unit())
        };
        assert_eq!(rate(Kind::Transfer(Body::SixtyFourKb)), (131.072, "MB/s"));
        assert_eq!(rate(Kind::Http1 { body: Body::SixtyFourKb, tls: false }), (2_000.0, "req/s"));
        assert_eq!(rate(Kind::Handshakes), (2_000.0, "conn/s"));
    }
}
