//! A request's body that can be sent more than once.
//!
//! The frames taken so far are kept, up to a limit. Each attempt reads through a wrapper of its own: it first gets
//! what is kept, then goes on with the rest. A new attempt detaches the one before, which may still hold its wrapper.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Any error, as bodies have them.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Source = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// A request's body. Clones are the same one.
#[derive(Clone)]
pub(crate) enum Upload {
    /// Nothing to send: the most frequent one needs no state.
    Empty,
    /// Read from the client while it is sent on.
    Streamed(Arc<Mutex<State>>),
}

pub(crate) struct State {
    source: Source,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// How many bytes more may be kept; nothing once that was too few.
    room: Option<usize>,
    /// The only attempt that may read.
    attempt: u32,
    /// The task of that attempt, while it waits for the client.
    reader: Option<Waker>,
    /// When the client last sent something.
    progress: Instant,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Whole,
    Failed,
}

/// What a request's body is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// When the client last sent something.
    pub(crate) at: Instant,
    /// Whether the next step is the client's.
    pub(crate) awaits_client: bool,
}

impl Upload {
    /// A body of which at most `keep` bytes are kept.
    pub(crate) fn new<B>(body: B, keep: usize) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Streamed(Arc::new(Mutex::new(State {
            source: Box::pin(Erased(Box::pin(body))),
            kept: Vec::new(),
            trailers: None,
            room: Some(keep),
            attempt: 0,
            reader: None,
            progress: Instant::now(),
            end: End::NotYet,
        })))
    }

    /// The body for the next attempt. The one before reads nothing any more.
    pub(crate) fn attempt(&self) -> AttemptBody {
        match self {
            Self::Empty => AttemptBody::Whole(None),
            Self::Streamed(state) => AttemptBody::Part {
                attempt: detach(&mut lock(state)),
                next: 0,
                sent_trailers: false,
                state: Arc::clone(state),
            },
        }
    }

    /// Takes the body away from whoever holds it.
    pub(crate) fn detach(&self) {
        if let Self::Streamed(state) = self {
            detach(&mut lock(state));
        }
    }

    /// Whether everything that was read is still there.
    pub(crate) fn can_replay(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(state) => {
                let state = lock(state);
                state.room.is_some() && state.end != End::Failed
            }
        }
    }

    /// Whether the client failed to send all of it.
    pub(crate) fn is_failed(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Streamed(state) => lock(state).end == End::Failed,
        }
    }

    /// How far it has come; nothing once there is nothing more to send.
    pub(crate) fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streamed(state) => {
                let state = lock(state);
                Some(Progress {
                    at: state.progress,
                    awaits_client: state.reader.is_some(),
                })
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the right to read of the present attempt, and wakes it so that it notices.
fn detach(state: &mut State) -> u32 {
    state.attempt += 1;
    if let Some(reader) = state.reader.take() {
        reader.wake();
    }
    state.attempt
}

/// The body of one attempt.
pub(crate) enum AttemptBody {
    /// In memory; nothing once it was taken.
    Whole(Option<Bytes>),
    /// What is kept of a streamed body, then the rest of it.
    Part {
        state: Arc<Mutex<State>>,
        attempt: u32,
        /// The next kept frame.
        next: usize,
        sent_trailers: bool,
    },
}

/// A newer attempt reads the body now.
#[derive(Debug, thiserror::Error)]
#[error("the request is being sent again")]
struct Detached;

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Part {
                state,
                attempt,
                next,
                sent_trailers,
            } => {
                let mut state = lock(state);
                if state.attempt != *attempt {
                    return Poll::Ready(Some(Err(Box::new(Detached))));
                }
                if let Some(bytes) = state.kept.get(*next) {
                    *next += 1;
                    return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
                }
                if let Some(trailers) = state.trailers.as_ref().filter(|_| !*sent_trailers) {
                    *sent_trailers = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
                }
                let polled = state.poll_source(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    *next = state.kept.len();
                    *sent_trailers = frame.is_trailers();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Part {
                state,
                attempt,
                next,
                sent_trailers,
            } => {
                let state = lock(state);
                let has_all = *next >= state.kept.len() && (*sent_trailers || state.trailers.is_none());
                state.attempt == *attempt
                    && has_all
                    && (state.end == End::Whole || state.source.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Part { state, next, .. } => {
                let state = lock(state);
                let kept: u64 = state
                    .kept
                    .iter()
                    .skip(*next)
                    .map(|bytes| bytes.len() as u64)
                    .sum();
                let rest = state.source.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + kept);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + kept);
                }
                hint
            }
        }
    }
}

impl State {
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.end != End::NotYet {
            return Poll::Ready(None);
        }
        let polled = self.source.as_mut().poll_frame(cx);
        match &polled {
            Poll::Pending => {
                let known = self
                    .reader
                    .as_ref()
                    .is_some_and(|reader| reader.will_wake(cx.waker()));
                if !known {
                    self.reader = Some(cx.waker().clone());
                }
                return polled;
            }
            Poll::Ready(Some(Ok(frame))) => self.keep(frame),
            Poll::Ready(Some(Err(_))) => self.end = End::Failed,
            Poll::Ready(None) => self.end = End::Whole,
        }
        self.reader = None;
        self.progress = Instant::now();
        polled
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        let Some(bytes) = frame.data_ref() else {
            return;
        };
        self.room = self.room.and_then(|room| room.checked_sub(bytes.len()));
        if self.room.is_some() {
            self.kept.push(bytes.clone());
        } else {
            self.kept = Vec::new();
        }
    }
}

/// A body whose error has been turned into any error.
struct Erased<B>(Pin<Box<B>>);

impl<B> Body for Erased<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
