//! Requests that wait for an answer over a shared connection, and what it means if they wait too long.
//!
//! A server that is gone without a word leaves its connections open. Over HTTP/1 a request that timed out takes its connection
//! with it. Over HTTP/2 all requests would go on to the dead connection. Pings would find out sooner, but servers that count
//! them close connections for them (gRPC: `too_many_pings`). So a connection on which nothing has come since a request was
//! sent that has now timed out gets no further requests; those that it has may still be answered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::per_core::PerCore;
use super::shared::Streams;
use crate::origin::Origin;
use crate::upstream::Upstream;

/// What an attempt has asked of an address so far.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// When the attempt began.
    pub(crate) since: Instant,
    /// Whether it has a connection.
    is_connected: AtomicBool,
    /// The request that it has sent and that was not answered yet, if its connection is shared.
    request: Mutex<Option<Unanswered>>,
    /// Under what its connections are counted.
    pub(crate) upstream: Option<&'a Arc<Upstream>>,
}

/// A request on a shared connection.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(super) origin: Arc<Origin>,
    pub(super) pool: Arc<PerCore>,
    pub(super) streams: Arc<Streams>,
    /// What had been received on the connection when the request was sent.
    heard: u64,
    since: Instant,
}

impl Unanswered {
    pub(super) fn new(origin: &Arc<Origin>, pool: &Arc<PerCore>, streams: &Arc<Streams>) -> Self {
        Self {
            origin: Arc::clone(origin),
            pool: Arc::clone(pool),
            streams: Arc::clone(streams),
            heard: streams.heard(),
            since: Instant::now(),
        }
    }
}

impl<'a> Asked<'a> {
    /// An attempt that begins, whose connections are counted under this.
    pub(crate) fn by(upstream: Option<&'a Arc<Upstream>>, since: Instant) -> Self {
        Self { since, is_connected: AtomicBool::new(false), request: Mutex::default(), upstream }
    }

    /// Whether the address has accepted its connection, as far as is known: one that is being opened does not count.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    /// Notes whether there is a connection.
    pub(crate) fn connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    /// Notes the request that is sent now, over a connection; none if that carries no other.
    pub(crate) fn sends(&self, request: Option<Unanswered>) {
        self.connected(true);
        *self.request.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// Call when the request has waited for too long. If it did so for this long at least, and nothing has come on its connection
    /// since, the connection gets no more requests.
    pub(crate) fn timed_out(self, at_least: Duration) {
        let request = self.request.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = request
            && request.streams.heard() == request.heard
            && request.since.elapsed() >= at_least
        {
            request.pool.forget(&request.origin, &request.streams);
        }
    }
}
