//! Ends the answers of HTTP/2 streams whose client takes nothing of them.
//!
//! HTTP/2 has a window for each stream (RFC 9113, section 5.2). A client that never opens it would keep an answer in our
//! memory for ever while its connection looks alive. So each stream has a limit of its own. The streams of a connection
//! run in the task of the connection, and end with it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::malformed::{self, Trailers};

/// The largest piece of an answer that counts as progress, in bytes.
const PIECE: usize = 16 * 1024;

tokio::task_local! {
    /// The stream whose request is being served.
    static STREAM: Sending;
}

/// An answer on its way to its client.
#[derive(Debug, Clone, Default)]
struct Sending(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Since when a piece of it waits for its client.
    since: Mutex<Option<Instant>>,
    /// Resets the stream if it has become a WebSocket.
    reset: Mutex<Option<CancellationToken>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sending {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        locked(&self.0.since)
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The streams of one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Streams {
    begun: Arc<Mutex<Vec<Running>>>,
    limit: Duration,
    /// Ends the tasks beside the streams.
    stop: CancellationToken,
}

impl Streams {
    /// None yet. A client may take nothing of an answer for `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { begun: Arc::default(), limit, stop: CancellationToken::new() }
    }

    /// Runs a task beside the streams, until they are stopped.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = async move {
            stop.run_until_cancelled_owned(task).await;
        };
        locked(&self.begun).push(Box::pin(task));
    }

    /// Ends the tasks beside the streams.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Those that have begun since the last call.
    pub(super) fn take(&self) -> Vec<Running> {
        std::mem::take(&mut *locked(&self.begun))
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let sending = Sending::default();
        // A stream begins another task when it becomes a WebSocket: that sends what goes to the client from then on.
        let reset = STREAM.try_with(|begun_by| locked(&begun_by.0.reset).take()).ok().flatten();
        let stream = STREAM.scope(sending.clone(), until_standstill(stream, sending, self.limit));
        let stream: Running = match reset {
            None => Box::pin(stream),
            Some(reset) => Box::pin(async move {
                tokio::select! {
                    biased;
                    // First: otherwise the task would see that its writer is gone, and end the stream in order.
                    () = reset.cancelled() => {}
                    () = stream => {}
                }
            }),
        };
        locked(&self.begun).push(stream);
    }
}

/// Call it for the answer to a stream that becomes a WebSocket. The stream is reset when the guard is dropped. None outside of
/// a stream.
pub(super) fn reset_on_drop() -> Option<DropGuard> {
    let reset = CancellationToken::new();
    STREAM.try_with(|stream| *locked(&stream.0.reset) = Some(reset.clone())).ok()?;
    Some(reset.drop_guard())
}

/// Polls the streams that run. Pending unless there are none.
pub(super) fn poll_all(running: &mut FuturesUnordered<Running>, cx: &mut Context<'_>) -> Poll<()> {
    while let Some(()) = std::task::ready!(running.poll_next_unpin(cx)) {}
    Poll::Ready(())
}

/// Runs a stream until it ends, or until its client has taken nothing for `limit`: dropping it resets it.
async fn until_standstill(stream: impl Future<Output = ()>, sending: Sending, limit: Duration) {
    let mut stream = std::pin::pin!(stream);
    let mut due: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = *sending.since() else {
            due = None;
            return Poll::Pending;
        };
        let end = since + limit;
        let due = due.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if due.deadline() != end {
            due.as_mut().reset(end);
        }
        std::task::ready!(due.as_mut().poll(cx));
        debug!("a client took nothing of an answer for too long, so its stream is reset");
        Poll::Ready(())
    })
    .await;
}

/// The answer of a stream: it notes when a piece is handed over, and when the next one is wanted. It ends with an error if the
/// trailers of its request turn out to be malformed.
pub(super) fn watched(body: Body, trailers: Option<Trailers>) -> Body {
    match STREAM.try_with(Clone::clone) {
        Ok(sending) => Body::new(Watched { body, trailers, sending, rest: Bytes::new() }),
        Err(_) => body,
    }
}

struct Watched {
    body: Body,
    trailers: Option<Trailers>,
    sending: Sending,
    /// What is left of a large piece.
    rest: Bytes,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        *this.sending.since() = None;
        if this.trailers.as_ref().is_some_and(Trailers::are_malformed) {
            return Poll::Ready(Some(Err(axum::Error::new(malformed::reset()))));
        }
        if this.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx))
                .transpose()?
                .map(Frame::into_data)
            {
                Some(Ok(data)) => this.rest = data,
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
                None => return Poll::Ready(None),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        *this.sending.since() = Some(Instant::now());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
