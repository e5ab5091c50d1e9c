//! Connections that several requests share: HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use crate::upload::AttemptBody;
use crate::upstream::Upstream;

/// The limit of streams before the server has named its own.
const STREAMS_AT_FIRST: usize = 100;

/// One connection over HTTP/2. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) sender: SendRequest<AttemptBody>,
    streams: Arc<Streams>,
    /// For what the connection was opened, once it is in a pool.
    opener: Option<Arc<Upstream>>,
}

/// The streams of a connection.
#[derive(Debug)]
pub(super) struct Streams {
    /// When the connection was opened.
    born: Instant,
    open: AtomicUsize,
    most: AtomicUsize,
    /// When the last stream ended.
    idle_since: Mutex<Instant>,
    /// Whether a stream has ended, so that the server's settings have arrived.
    is_settled: AtomicBool,
    /// How often something was received.
    heard: AtomicU64,
    /// Whether the server allows WebSockets over HTTP/2.
    allows_websockets: AtomicBool,
    /// The task that reads the server's limit.
    driver: AtomicWaker,
}

/// A request on a shared connection; its stream ends when this is dropped.
#[derive(Debug)]
pub(super) struct Stream(Shared);

impl Shared {
    pub(super) fn new(sender: SendRequest<AttemptBody>, streams: Arc<Streams>) -> Self {
        Self { sender, streams, opener: None }
    }

    /// The same, with what it was opened for.
    pub(super) fn opened_by(self, opener: Arc<Upstream>) -> Self {
        Self { opener: Some(opener), ..self }
    }

    /// For what it was opened.
    pub(super) fn opener(&self) -> Option<&Arc<Upstream>> {
        self.opener.as_ref()
    }

    /// Opens a stream if the server allows another one.
    pub(super) fn open(&self) -> Option<Stream> {
        let streams = &self.streams;
        if self.sender.is_closed() {
            return None;
        }
        let open = streams.open.fetch_add(1, Ordering::AcqRel);
        let stream = Stream(self.clone());
        (open < streams.most.load(Ordering::Acquire)).then_some(stream)
    }

    /// When it was opened.
    pub(super) fn born(&self) -> Instant {
        self.streams.born
    }

    /// Whether it should be closed: it is closed already, or has had no stream for this long.
    pub(super) fn is_over(&self, idle: Duration, now: Instant) -> bool {
        self.sender.is_closed() || (self.is_idle() && self.idle_until(idle) <= now)
    }

    /// The stream of a connection that nobody else uses.
    pub(super) fn only(self) -> Stream {
        self.streams.open.fetch_add(1, Ordering::AcqRel);
        Stream(self)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.open.load(Ordering::Acquire) == 0
    }

    /// Until when it may be idle.
    pub(super) fn idle_until(&self, idle: Duration) -> Instant {
        *self.streams.idle_since.lock().unwrap_or_else(PoisonError::into_inner) + idle
    }

    pub(super) fn has(&self, streams: &Arc<Streams>) -> bool {
        Arc::ptr_eq(&self.streams, streams)
    }
}

impl Streams {
    pub(super) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            born: now,
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(STREAMS_AT_FIRST),
            idle_since: Mutex::new(now),
            is_settled: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            allows_websockets: AtomicBool::new(false),
            driver: AtomicWaker::new(),
        })
    }

    /// Something was received.
    pub(super) fn hears(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was received. It only grows.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Records the server's limit. A server that allows none for now gets one request, which then waits.
    pub(super) fn allow(&self, most: usize, cx: &Context<'_>) {
        self.most.store(most.max(1), Ordering::Release);
        if !self.is_settled.load(Ordering::Acquire) {
            self.driver.register(cx.waker());
        }
    }
}

impl Streams {
    /// Records that the server allows WebSockets over HTTP/2.
    pub(super) fn allow_websockets(&self) {
        self.allows_websockets.store(true, Ordering::Release);
    }
}

impl Stream {
    /// Whether the server allows WebSockets. Known only of a connection that was opened for one.
    pub(super) fn allows_websockets(&self) -> bool {
        self.0.streams.allows_websockets.load(Ordering::Acquire)
    }

    /// All streams of its connection.
    pub(super) fn all(&self) -> &Arc<Streams> {
        &self.0.streams
    }

    pub(super) fn sender(&mut self) -> &mut SendRequest<AttemptBody> {
        &mut self.0.sender
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let streams = &self.0.streams;
        *streams.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        streams.open.fetch_sub(1, Ordering::AcqRel);
        if !streams.is_settled.swap(true, Ordering::AcqRel) {
            streams.driver.wake();
        }
    }
}
