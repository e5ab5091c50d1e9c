//! A request through the gateway: counted, timed and logged from its head to the end of its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::{Method, Response, StatusCode};
use mesh::Trail;
use plugin::InFlightGuard;
use tokio::time::Instant;
use types::ServiceName;

use crate::places::Place;
use crate::table::{WEBSOCKET_IDLE, Way};
use crate::traffic::{Ended, ListenerTraffic, RouteCounts, method};
use plugin::access_log::reason::{CLIENT_GONE, DRAINED, Reason, UPSTREAM_RESET, UPSTREAM_TIMEOUT};
use plugin::access_log::{LoggedRequest, RequestEnd};
use plugin::tunnel::{Handshake, TunnelBytes, TunnelEnd};

/// The status of a request whose client left before it was answered, as in nginx.
const CLIENT_LEFT: u16 = 499;

/// A request in flight. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Ticket {
    in_flight: InFlightGuard,
    began: Instant,
    method: usize,
    /// The counts of its listener; those of its route once that is known.
    listener: Option<Arc<ListenerTraffic>>,
    counts: Option<Arc<RouteCounts>>,
    received: Option<Arc<AtomicU64>>,
    sent: u64,
    /// The bytes of its WebSocket.
    tunnel: Option<TunnelBytes>,
    /// How long that may be idle.
    websocket_idle: Duration,
    status: Option<StatusCode>,
    /// Whether the answer has ended.
    is_whole: bool,
    reason: Option<Reason>,
    /// Its permit of a route that has a limit.
    place: Option<Place>,
    pub(crate) logged: Option<Box<LoggedRequest>>,
}

impl Ticket {
    /// A request that has arrived.
    pub(crate) fn new(
        in_flight: InFlightGuard,
        asked: &Method,
        listener: Option<Arc<ListenerTraffic>>,
        logged: Option<Box<LoggedRequest>>,
    ) -> Self {
        Self {
            in_flight,
            began: Instant::now(),
            method: method(asked),
            listener,
            counts: None,
            received: None,
            sent: 0,
            tunnel: None,
            websocket_idle: WEBSOCKET_IDLE,
            status: None,
            is_whole: false,
            reason: None,
            place: None,
            logged,
        }
    }

    /// The bytes of its body are counted here.
    pub(crate) fn receives(&mut self, bytes: Option<Arc<AtomicU64>>) {
        self.received = bytes;
    }

    /// It goes along this route.
    pub(crate) fn route(&mut self, way: &Way) {
        self.count(|listener| listener.route(way.place));
        if let Some(logged) = &mut self.logged {
            logged.route(&way.label);
        }
    }

    /// It goes to the service that its path names.
    pub(crate) fn by_path(&mut self) {
        self.count(ListenerTraffic::services);
    }

    /// It goes to this service.
    pub(crate) fn service(&mut self, service: &ServiceName) {
        if let Some(logged) = &mut self.logged {
            logged.service(service.to_string());
        }
    }

    fn count(&mut self, counts: impl FnOnce(&ListenerTraffic) -> &Arc<RouteCounts>) {
        if let (Some(listener), None) = (&self.listener, &self.counts) {
            let counts = Arc::clone(counts(listener));
            counts.began();
            self.counts = Some(counts);
        }
    }

    /// Where the mesh notes what happens to it, if that is logged.
    pub(crate) fn trail(&self) -> Option<Trail> {
        self.logged.as_ref().map(|logged| logged.trail().clone())
    }

    /// Keeps a permit until the request ends. It began to wait for it then.
    pub(crate) fn hold(&mut self, place: Place, since: Instant) {
        self.place = Some(place);
        if let Some(logged) = &mut self.logged {
            logged.waited(since.elapsed());
        }
    }

    /// Records the status of the answer.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Records bytes of the answer's body.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// How long a WebSocket may be idle where it goes.
    pub(crate) fn websocket_idle(&mut self, limit: Duration) {
        self.websocket_idle = limit;
    }

    /// The answer that opens a WebSocket. The request ends with it.
    pub(crate) fn tunnel<B: Send + 'static>(
        mut self,
        answer: Response<B>,
        handshake: Handshake,
    ) -> Response<Body> {
        let bytes = TunnelBytes::default();
        self.answered(handshake.accepted());
        self.tunnel = Some(bytes.clone());
        if let Some(counts) = &self.counts {
            counts.shook_hands(self.began.elapsed());
        }
        let idle = self.websocket_idle;
        handshake.accept(answer, idle, bytes, move |end| self.closed(end))
    }

    /// Ends a request that had become a WebSocket.
    fn closed(self, end: TunnelEnd) {
        self.ended(match end {
            TunnelEnd::Closed => None,
            TunnelEnd::ClientLost => Some(CLIENT_GONE),
            TunnelEnd::ServerLost => Some(UPSTREAM_RESET),
            TunnelEnd::Idle => Some(UPSTREAM_TIMEOUT),
        });
    }

    /// Ends a request whose answer is complete, or broke off for a reason.
    pub(crate) fn ended(mut self, reason: Option<Reason>) {
        self.is_whole = true;
        self.reason = reason;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.count(ListenerTraffic::unrouted);
        let load = |bytes: &Arc<AtomicU64>| bytes.load(Ordering::Relaxed);
        let code = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
        let took = self.began.elapsed();
        let (received, sent) = match &self.tunnel {
            Some(tunnel) => (load(&tunnel.received), load(&tunnel.sent)),
            None => (self.received.as_ref().map_or(0, load), self.sent),
        };
        if let Some(counts) = &self.counts {
            let took = self.tunnel.is_none().then_some(took);
            counts.ended(Ended { method: self.method, code, took, received, sent });
        }
        if let Some(logged) = self.logged.take() {
            let reason = match self.reason.take() {
                None if self.is_whole => None,
                None if self.in_flight.is_draining() => Some(DRAINED),
                None => Some(CLIENT_GONE),
                reason => reason,
            };
            let status = StatusCode::from_u16(code).unwrap_or_default();
            logged.write(RequestEnd { status, received, sent, took, reason });
        }
    }
}
