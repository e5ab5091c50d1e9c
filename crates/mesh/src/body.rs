//! The body of an answer: it holds the request's lease, and ends with an error when no data arrives for too long or the request's
//! deadline passes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::deadline::Deadline;
use crate::head;
use crate::lease::InFlight;
use crate::pool::Received;
use crate::upload::Upload;

/// The streamed body of an answer. The request is in flight until this has ended or is dropped.
#[derive(Debug)]
pub struct MeshBody(Box<Streamed>);

/// Boxed: an answer passes many hands, each of which would move all of it.
#[derive(Debug)]
struct Streamed {
    incoming: Received,
    idle: IdleTimer,
    /// Fires at the deadline of the request, if it has one.
    deadline: Option<Pin<Box<Sleep>>>,
    held: Option<Held>,
}

/// The resources that an answer holds until its body has ended.
struct Held {
    in_flight: InFlight,
    /// The request's body, which may still be in transit.
    upload: Upload,
}

/// Why the body of an answer ended early.
#[derive(Debug, thiserror::Error)]
pub enum MeshBodyError {
    /// No data arrived for this long.
    #[error("no part of the answer's body arrived for {0:?}")]
    Idle(Duration),
    /// Give the request more time.
    #[error("the deadline of the request passed before the end of its answer")]
    DeadlinePassed(
        /// How a stream of HTTP/2 ends then: with CANCEL, which a gRPC client whose deadline has passed reads as that.
        #[source]
        h2::Error,
    ),
    /// The connection broke or its framing is malformed.
    #[error("the answer's body broke off: {0}")]
    Broken(#[source] hyper::Error),
}

impl MeshBody {
    pub(crate) fn new(
        incoming: Received,
        in_flight: InFlight,
        upload: Upload,
        idle: Duration,
        deadline: Option<Deadline>,
    ) -> Self {
        let has_ended = incoming.is_end_stream();
        let held = Some(Held { in_flight, upload });
        let deadline = deadline.filter(|_| !has_ended).map(|Deadline(at)| Box::pin(sleep_until(at)));
        let mut body = Box::new(Streamed { incoming, idle: IdleTimer::new(idle), deadline, held });
        // The caller may not read on after the end, so a body that has ended already holds nothing.
        if has_ended {
            body.ended();
        }
        Self(body)
    }

    /// The body of the answer 101. It has no bytes, and holds everything until it is dropped.
    pub(crate) fn switched(
        incoming: Received,
        mut in_flight: InFlight,
        upload: Upload,
        idle: Duration,
    ) -> Self {
        in_flight.switched();
        let held = Some(Held { in_flight, upload });
        Self(Box::new(Streamed { incoming, idle: IdleTimer::new(idle), deadline: None, held }))
    }
}

impl Streamed {
    /// Call when the answer has ended normally. The client and the member may finish the request's body between them,
    /// but a body that was held back and never requested is not sent any more.
    fn ended(&mut self) {
        self.deadline = None;
        if let Some(held) = self.held.take().filter(|held| held.upload.is_held()) {
            held.upload.detach();
        }
    }

    fn abort(&mut self) {
        if let Some(held) = self.held.take() {
            held.upload.detach();
        }
    }
}

impl Body for MeshBody {
    type Data = Bytes;
    type Error = MeshBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, MeshBodyError>>> {
        let this = &mut *self.get_mut().0;
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            this.abort();
            return Poll::Ready(Some(Err(MeshBodyError::DeadlinePassed(h2::Reason::CANCEL.into()))));
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let frame = match frame.into_trailers() {
                    Ok(mut trailers) => {
                        head::trailers(&mut trailers);
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                };
                this.idle.moved();
                if this.incoming.is_end_stream() {
                    this.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(held) = &this.held {
                    held.in_flight.broke_off();
                }
                this.abort();
                Poll::Ready(Some(Err(MeshBodyError::Broken(error))))
            }
            Poll::Ready(None) => {
                this.ended();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let upload = this.held.as_ref().and_then(|held| held.upload.progress());
                if this.idle.poll_expired(cx, upload.map(|progress| progress.at)) {
                    this.abort();
                    return Poll::Ready(Some(Err(MeshBodyError::Idle(this.idle.limit))));
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.incoming.size_hint()
    }
}

/// A client that stops reading the answer also stops sending the request.
impl Drop for Streamed {
    fn drop(&mut self) {
        self.abort();
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// Detects that no data has moved for too long. It costs nothing while data is ready at every poll.
#[derive(Debug)]
struct IdleTimer {
    limit: Duration,
    moved_at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, moved_at: None, timer: None }
    }

    fn moved(&mut self) {
        self.moved_at = None;
    }

    /// Whether the limit has passed since data last moved in this direction or the other.
    fn poll_expired(&mut self, cx: &mut Context<'_>, other_moved_at: Option<Instant>) -> bool {
        let moved_at = *self.moved_at.get_or_insert_with(Instant::now);
        let latest = other_moved_at.map_or(moved_at, |other| other.max(moved_at));
        let deadline = latest + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // The timer may have been set for an earlier wait; it is reset only when it fires.
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}
