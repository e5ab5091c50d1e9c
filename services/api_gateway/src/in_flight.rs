//! Counts requests in flight, from their heads to the ends of their answers, and waits for the last of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use crate::meters::{Meters, Outcome};

/// The requests in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct InFlight(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    count: AtomicUsize,
    /// The number of requests that ever began.
    begun: AtomicUsize,
    became_idle: Notify,
    meters: Meters,
}

/// A request in flight. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    began: Instant,
    outcome: Outcome,
    /// Its permit of a route that has a limit.
    place: Option<OwnedSemaphorePermit>,
}

impl InFlight {
    pub(crate) fn new(meters: Meters) -> Self {
        Self(Arc::new(Shared {
            count: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            became_idle: Notify::new(),
            meters,
        }))
    }

    pub(crate) fn enter(&self) -> Ticket {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.count.fetch_add(1, Ordering::SeqCst);
        self.0.meters.began();
        Ticket { shared: Arc::clone(&self.0), began: Instant::now(), outcome: Outcome::Aborted, place: None }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Waits until no request is in flight.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.0.became_idle.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl InFlight {
    /// Waits until no request was in flight or began for a while.
    pub(crate) async fn quiet(&self, a_while: Duration) {
        loop {
            self.idle().await;
            let began = self.0.begun.load(Ordering::SeqCst);
            tokio::time::sleep(a_while).await;
            if self.count() == 0 && self.0.begun.load(Ordering::SeqCst) == began {
                return;
            }
        }
    }
}

impl Ticket {
    /// Keeps a permit until the request ends.
    pub(crate) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// Records the status of the answer.
    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        self.outcome = Outcome::Status(status.as_u16() / 100);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.shared.meters.ended(self.outcome, seconds);
        if self.shared.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.became_idle.notify_waiters();
        }
    }
}

/// A body that keeps its request in flight until it has ended.
#[derive(Debug)]
pub(crate) struct TicketBody<B> {
    inner: B,
    ticket: Option<Ticket>,
}

impl<B: Body> TicketBody<B> {
    pub(crate) fn new(inner: B, ticket: Ticket) -> Self {
        let ticket = (!inner.is_end_stream()).then_some(ticket);
        Self { inner, ticket }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TicketBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        let has_ended = match &polled {
            Poll::Ready(Some(Ok(_))) => this.inner.is_end_stream(),
            Poll::Ready(Some(Err(_)) | None) => true,
            Poll::Pending => false,
        };
        if has_ended {
            this.ticket = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
