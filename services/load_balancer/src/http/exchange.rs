//! A request and its answer: what they hold, and what is counted and logged of them at the end.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::Body as AnyBody;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use mesh::{MeshBody, MeshBodyError, Trail};
use plugin::access_log::reason::{CLIENT_GONE, DRAINED, Reason, UPSTREAM_RESET, UPSTREAM_TIMEOUT};
use plugin::access_log::{LoggedRequest, RequestEnd};
use plugin::http::trace::TraceId;
use plugin::tunnel::{Handshake, TunnelBytes, TunnelEnd};
use plugin::{ClientGuard, CountedBody, GaugeGuard, InFlightGuard};
use tokio::time::Instant;
use types::ServiceName;

use crate::admission::Permit;
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
    /// Whether the request is a WebSocket handshake.
    pub(crate) is_handshake: bool,
    /// None for a request without a body.
    received: Option<Arc<AtomicU64>>,
    sent: u64,
    /// What a WebSocket sent to the client.
    tunnelled: Option<Arc<AtomicU64>>,
    /// Whether the answer has ended.
    is_whole: bool,
    /// Why the balancer itself answered, or the answer broke off.
    reason: Option<Reason>,
    /// None while the log is off.
    logged: Option<Box<LoggedRequest>>,
    /// The place among the client's requests.
    pub(crate) client: Option<ClientGuard>,
    /// The place among the requests that are forwarded.
    pub(crate) permit: Option<(Permit, GaugeGuard)>,
    in_flight: InFlightGuard,
}

impl Exchange {
    /// A request that has arrived.
    pub(crate) fn begin(
        listener: &Arc<Listener>,
        in_flight: InFlightGuard,
        head: &Parts,
        client: Option<IpAddr>,
    ) -> Self {
        Self {
            listener: Arc::clone(listener),
            began: Instant::now(),
            status: None,
            is_head: head.method == Method::HEAD,
            is_handshake: false,
            received: None,
            sent: 0,
            tunnelled: None,
            is_whole: false,
            reason: None,
            logged: logged(listener, head, client),
            client: None,
            permit: None,
            in_flight,
        }
    }

    /// The ids of the request, and of its trace.
    pub(crate) fn ids(&mut self, id: &HeaderValue, trace: TraceId) {
        if let Some(logged) = &mut self.logged {
            logged.ids(id, trace);
        }
    }

    /// When the wait in the queue began, which has just ended.
    pub(crate) fn waited(&mut self, began: Option<Instant>) {
        if let (Some(logged), Some(began)) = (&mut self.logged, began) {
            logged.waited(began.elapsed());
        }
    }

    /// The service whose API is the target.
    pub(crate) fn service(&mut self, service: &ServiceName) {
        if let Some(logged) = &mut self.logged {
            logged.service(service.to_string());
        }
    }

    /// Where the mesh notes what happens to it, if that is logged.
    pub(crate) fn trail(&self) -> Option<Trail> {
        self.logged.as_ref().map(|logged| logged.trail().clone())
    }

    /// The body of the request, counted.
    pub(crate) fn counted(&mut self, body: AnyBody) -> CountedBody<AnyBody> {
        let (body, bytes) = CountedBody::new(body);
        self.received = bytes;
        body
    }

    /// The body of a backend's answer. The exchange ends with it.
    pub(crate) fn forwarded(mut self, status: StatusCode, body: MeshBody) -> Sent {
        self.status = Some(status);
        Sent::new(body, self)
    }

    /// Ends with an answer of the balancer itself, whose body has this many bytes. `status` is that of the problem, even if
    /// the client reads it elsewhere.
    pub(crate) fn refused(mut self, status: StatusCode, reason: Reason, body: u64) {
        self.status = Some(status);
        if !self.is_head {
            self.sent = body;
        }
        self.ended(Some(reason));
    }

    /// The answer that opens a WebSocket. The exchange ends with that.
    pub(crate) fn tunnel<B: Send + 'static>(
        mut self,
        answer: Response<B>,
        handshake: Handshake,
    ) -> Response<AnyBody> {
        let bytes = TunnelBytes { received: Arc::default(), sent: Arc::default() };
        self.status = Some(handshake.accepted());
        self.received = Some(Arc::clone(&bytes.received));
        self.tunnelled = Some(Arc::clone(&bytes.sent));
        let idle = self.listener.forward.websocket;
        handshake.accept(answer, idle, bytes, move |end| {
            self.ended(match end {
                TunnelEnd::Closed => None,
                TunnelEnd::ClientLost => Some(CLIENT_GONE),
                TunnelEnd::ServerLost => Some(UPSTREAM_RESET),
                TunnelEnd::Idle => Some(UPSTREAM_TIMEOUT),
            });
        })
    }

    fn ended(mut self, reason: Option<Reason>) {
        self.is_whole = true;
        self.reason = reason;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let received = self.received.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        let meters = &self.listener.lasting.meters;
        self.sent += self.tunnelled.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        meters.traffic.received.fetch_add(received, Ordering::Relaxed);
        meters.traffic.sent.fetch_add(self.sent, Ordering::Relaxed);
        meters.answered(self.status);
        let Some(logged) = self.logged.take() else { return };
        let reason = match self.reason.take() {
            None if self.is_whole => None,
            None if self.in_flight.is_draining() => Some(DRAINED),
            None => Some(CLIENT_GONE),
            reason => reason,
        };
        let left = || StatusCode::from_u16(CLIENT_LEFT).unwrap_or_default();
        let (status, took) = (self.status.unwrap_or_else(left), self.began.elapsed());
        logged.write(RequestEnd { status, received, sent: self.sent, took, reason });
    }
}

/// The request as the log shows it, if lines are wanted.
fn logged(listener: &Listener, head: &Parts, client: Option<IpAddr>) -> Option<Box<LoggedRequest>> {
    let mut logged = LoggedRequest::begin(&listener.lasting.log, &listener.name, head, client)?;
    if let Some(service) = listener.pools.first().and_then(|pool| pool.service()) {
        logged.service(service);
    }
    Some(logged)
}

/// The body of an answer: its bytes are counted, and its end is the exchange's.
#[derive(Debug)]
pub(crate) struct Sent {
    body: MeshBody,
    /// Until the end.
    exchange: Option<Exchange>,
}

impl Sent {
    fn new(body: MeshBody, exchange: Exchange) -> Self {
        // Nobody reads the body of an answer to HEAD.
        let has_ended = exchange.is_head || body.is_end_stream();
        let mut sent = Self { body, exchange: Some(exchange) };
        if has_ended {
            sent.ended(None);
        }
        sent
    }

    fn ended(&mut self, reason: Option<Reason>) {
        if let Some(exchange) = self.exchange.take() {
            exchange.ended(reason);
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = MeshBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, MeshBodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(exchange)) = (frame.data_ref(), &mut this.exchange) {
                    exchange.sent += data.len() as u64;
                }
                // The caller may not read on after the end.
                if this.body.is_end_stream() {
                    this.ended(None);
                }
            }
            Poll::Ready(Some(Err(error))) => this.ended(Some(reason(error))),
            Poll::Ready(None) => this.ended(None),
            Poll::Pending => {}
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

fn reason(error: &MeshBodyError) -> Reason {
    match error {
        MeshBodyError::Broken(_) => UPSTREAM_RESET,
        MeshBodyError::Idle(_) | MeshBodyError::DeadlinePassed(_) => UPSTREAM_TIMEOUT,
    }
}
