//! A request and its answer: what they hold, what is counted of them, and their line in the access log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use mesh::head::asked_host;
use mesh::{RetryReason, Traced, Trail};
use plugin::access_log::reason::{CLIENT_GONE, DRAINED, Reason, UPSTREAM_RESET, of_code};
use plugin::access_log::{JsonLine, rfc_3339};
use plugin::http::ProblemCode;
use plugin::{BodyEnd, CountedBody, GaugeGuard, InFlightGuard, Peer, TlsSession, on_end};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use types::ServiceName;

use crate::client::ClientGuard;
use crate::listener::Listener;

/// The status of a request whose client left before it was answered, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// A request and its answer. What it holds is free again, and its line is written, when this is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    listener: Arc<Listener>,
    began: Instant,
    status: Option<StatusCode>,
    is_head: bool,
    /// None for a request without a body.
    bytes_in: Option<Arc<AtomicU64>>,
    bytes_out: Arc<AtomicU64>,
    /// What only the log needs; none while that is off.
    line: Option<Box<Line>>,
    /// The place among the client's requests.
    pub(crate) client: Option<ClientGuard>,
    /// The place among the requests that are forwarded.
    pub(crate) permit: Option<(OwnedSemaphorePermit, GaugeGuard)>,
    in_flight: InFlightGuard,
}

/// What a line of the log shows besides counts.
#[derive(Debug)]
struct Line {
    time: SystemTime,
    client: Option<IpAddr>,
    peer: Option<SocketAddr>,
    protocol: String,
    tls_version: Option<&'static str>,
    sni: Option<Arc<str>>,
    method: String,
    host: Option<String>,
    path: String,
    service: Option<String>,
    queued: Option<Duration>,
    /// What the mesh did.
    trail: Trail,
    reason: Option<Reason>,
    request_id: Option<String>,
}

impl Exchange {
    /// A request that has arrived.
    pub(crate) fn begin(
        listener: &Arc<Listener>,
        in_flight: InFlightGuard,
        head: &Parts,
        client: Option<IpAddr>,
    ) -> Self {
        let line = listener.log.is_on().then(|| {
            let session = head.extensions.get::<TlsSession>();
            Box::new(Line {
                time: SystemTime::now(),
                client,
                peer: head.extensions.get::<Peer>().map(|peer| peer.0),
                protocol: format!("{:?}", head.version),
                tls_version: session.map(|session| session.version),
                sni: session.and_then(|session| session.server_name.clone()),
                method: head.method.to_string(),
                host: asked_host(head).map(ToOwned::to_owned),
                path: head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned(),
                service: listener.pools.first().and_then(|pool| pool.service()),
                queued: None,
                trail: Trail::default(),
                reason: None,
                request_id: None,
            })
        });
        Self {
            listener: Arc::clone(listener),
            began: Instant::now(),
            status: None,
            is_head: head.method == Method::HEAD,
            bytes_in: None,
            bytes_out: Arc::default(),
            line,
            client: None,
            permit: None,
            in_flight,
        }
    }

    /// When the wait in the queue began, which has just ended.
    pub(crate) fn waited(&mut self, began: Option<Instant>) {
        if let Some(line) = &mut self.line {
            line.queued = began.map(|began| began.elapsed());
        }
    }

    /// The service whose API is the target.
    pub(crate) fn service(&mut self, service: &ServiceName) {
        if let Some(line) = &mut self.line {
            line.service = Some(service.to_string());
        }
    }

    /// Where the mesh notes what happens to it, if that is logged.
    pub(crate) fn trail(&self) -> Option<Trail> {
        self.line.as_ref().map(|line| line.trail.clone())
    }

    /// The body of the request, counted.
    pub(crate) fn counted(&mut self, body: Body) -> Body {
        let (body, bytes) = CountedBody::new(body);
        self.bytes_in = bytes;
        Body::new(body)
    }

    /// The answer. The exchange ends with its body.
    pub(crate) fn answered(mut self, answer: Response<Body>) -> Response<Body> {
        self.status = Some(answer.status());
        if let Some(line) = &mut self.line {
            let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            line.request_id = text(mesh::head::REQUEST_ID).map(ToOwned::to_owned);
            // The balancer itself answers.
            line.reason = answer.extensions().get::<ProblemCode>().map(|code| of_code(&code.0));
        }
        let bytes = Arc::clone(&self.bytes_out);
        answer.map(|body| {
            let ended = move |end| {
                self.ended(end);
                drop(self);
            };
            Body::new(on_end(CountedBody::into_count(body, &bytes), ended))
        })
    }

    fn ended(&mut self, end: BodyEnd) {
        let reason = match end {
            BodyEnd::Whole => return,
            // Nobody reads the body of an answer to HEAD.
            BodyEnd::Dropped if self.is_head => return,
            BodyEnd::Broken => UPSTREAM_RESET,
            BodyEnd::Dropped => self.left(),
        };
        if let Some(line) = &mut self.line {
            line.reason = Some(reason);
        }
    }

    /// Why nobody waits for the answer any more.
    fn left(&self) -> Reason {
        if self.in_flight.is_draining() { DRAINED } else { CLIENT_GONE }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let received = self.bytes_in.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let sent = self.bytes_out.load(Ordering::Relaxed);
        let meters = &self.listener.meters;
        meters.traffic.received.fetch_add(received, Ordering::Relaxed);
        meters.traffic.sent.fetch_add(sent, Ordering::Relaxed);
        meters.answered(self.status);
        let Some(line) = &self.line else { return };
        let status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
        let reason = line.reason.clone().or_else(|| self.status.is_none().then(|| self.left()));
        let Traced { member, attempts, retry_reason, queued, connect, first_byte, status: answered } =
            line.trail.read();
        let queued = queued.unwrap_or_default() + line.queued.unwrap_or_default();
        self.listener.log.append(|out| {
            let mut json = JsonLine::begin(out);
            json.plain("time", Some(rfc_3339(line.time)))
                .text("listener", Some(&self.listener.name))
                .plain("client_ip", line.client)
                .plain("peer", line.peer)
                .text("protocol", Some(&line.protocol))
                .text("tls_version", line.tls_version)
                .text("sni", line.sni.as_deref())
                .text("method", Some(&line.method))
                .text("host", line.host.as_deref())
                .text("path", Some(&line.path))
                .number("status", status)
                .number("bytes_in", received)
                .number("bytes_out", sent)
                .milliseconds("duration_ms", Some(self.began.elapsed()))
                .milliseconds("queue_ms", (!queued.is_zero()).then_some(queued))
                .milliseconds("connect_ms", connect)
                .milliseconds("upstream_ms", first_byte)
                .text("service", line.service.as_deref())
                .text("member", member.as_deref());
            if let Some(status) = answered {
                json.number("upstream_status", status.as_u16());
            }
            if attempts > 0 {
                json.number("attempts", attempts);
            }
            json.text("retry_reason", retry_reason.map(RetryReason::as_str))
                .text("reason", reason.as_deref())
                .text("request_id", line.request_id.as_deref())
                .end();
        });
    }
}
