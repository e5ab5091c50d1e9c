//! A request and its answer: what they hold, what is counted of them, and their line in the access log.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh::head::asked_host;
use plugin::access_log::{JsonLine, rfc_3339};
use plugin::http::ProblemCode;
use plugin::{BodyEnd, GaugeGuard, InFlightGuard, Peer, TlsSession, on_end};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use types::api;

use crate::client::ClientGuard;
use crate::listener::Listener;

const NODE: HeaderName = HeaderName::from_static(api::NODE);

/// The status of a request whose client left before it was answered, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// A request and its answer. What it holds is free again, and its line is written, when this is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    listener: Arc<Listener>,
    began: Instant,
    status: Option<StatusCode>,
    bytes_in: Arc<AtomicU64>,
    bytes_out: Arc<AtomicU64>,
    /// What only the log needs; none while that is off.
    line: Option<Box<Line>>,
    /// The place among the client's requests.
    pub(crate) client: Option<ClientGuard>,
    /// The place among the requests that are forwarded.
    pub(crate) permit: Option<(OwnedSemaphorePermit, GaugeGuard)>,
    _in_flight: InFlightGuard,
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
    member: Option<String>,
    reason: Option<String>,
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
                member: None,
                reason: None,
                request_id: None,
            })
        });
        Self {
            listener: Arc::clone(listener),
            began: Instant::now(),
            status: None,
            bytes_in: Arc::default(),
            bytes_out: Arc::default(),
            line,
            client: None,
            permit: None,
            _in_flight: in_flight,
        }
    }

    /// When the wait in the queue began, which has just ended.
    pub(crate) fn waited(&mut self, began: Option<Instant>) {
        if let Some(line) = &mut self.line {
            line.queued = began.map(|began| began.elapsed());
        }
    }

    /// The service whose API is the target.
    pub(crate) fn service(&mut self, service: &types::ServiceName) {
        if let Some(line) = &mut self.line {
            line.service = Some(service.to_string());
        }
    }

    /// The body of the request, counted.
    pub(crate) fn counted(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Counted { body, bytes: Arc::clone(&self.bytes_in) })
    }

    /// The answer. The exchange ends with its body.
    pub(crate) fn answered(mut self, answer: Response<Body>) -> Response<Body> {
        self.status = Some(answer.status());
        if let Some(line) = &mut self.line {
            let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            line.request_id = text(mesh::head::REQUEST_ID).map(ToOwned::to_owned);
            match answer.extensions().get::<ProblemCode>() {
                // The balancer itself answers.
                Some(ProblemCode(code)) => line.reason = Some(code.clone()),
                None => line.member = text(NODE).map(ToOwned::to_owned),
            }
        }
        let bytes = Arc::clone(&self.bytes_out);
        answer.map(|body| {
            let ended = move |end| {
                if let Some(line) = &mut self.line {
                    match end {
                        BodyEnd::Whole => {}
                        BodyEnd::Broken => line.reason = Some("upstream-reset".to_owned()),
                        BodyEnd::Dropped => line.reason = Some("client-gone".to_owned()),
                    }
                }
                drop(self);
            };
            Body::new(on_end(Counted { body, bytes }, ended))
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (received, sent) =
            (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed));
        let meters = &self.listener.meters;
        meters.traffic.received.fetch_add(received, Ordering::Relaxed);
        meters.traffic.sent.fetch_add(sent, Ordering::Relaxed);
        meters.answered(self.status);
        let Some(line) = &mut self.line else { return };
        let status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
        if self.status.is_none() {
            line.reason = Some("client-gone".to_owned());
        }
        self.listener.log.append(|out| {
            JsonLine::begin(out)
                .plain("time", Some(rfc_3339(line.time)))
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
                .milliseconds("queue_ms", line.queued)
                .text("service", line.service.as_deref())
                .text("member", line.member.as_deref())
                .text("reason", line.reason.as_deref())
                .text("request_id", line.request_id.as_deref())
                .end();
        });
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    bytes: Arc<AtomicU64>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
