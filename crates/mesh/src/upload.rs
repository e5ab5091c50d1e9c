//! A request's body that can be sent more than once.
//!
//! The frames read so far are kept, up to a limit. Each attempt reads through its own wrapper: first the kept frames,
//! then the rest. A new attempt detaches the one before, which may still hold its wrapper.
//!
//! If the client sent `Expect: 100-continue`, each attempt holds the body back until the server requests it or a limit
//! has passed.

mod attempt;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::Instant;

use crate::head;
use crate::malformed::MalformedBody;
use crate::min_rate::{MinRate, Pace, TooSlow};

pub(crate) use attempt::AttemptBody;

/// The error type of bodies.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body. Clones share it.
#[derive(Clone)]
pub(crate) enum Upload {
    /// Nothing to send: the most frequent case needs no state.
    Empty,
    /// Read from the client while it is sent.
    Streamed(Arc<Mutex<State>>),
}

pub(crate) struct State {
    source: UnsyncBoxBody<Bytes, BoxError>,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// The number of bytes that may still be kept; `None` once that was exceeded or the request was answered.
    room: Option<usize>,
    /// The only attempt that may read.
    attempt: u32,
    /// The kept frame that the attempt reads next.
    next: usize,
    has_read_trailers: bool,
    /// Whether each attempt holds the body back until the server requests it.
    expects: bool,
    /// Whether the present attempt is still holding it back.
    is_held: bool,
    /// The task of the present attempt, while its body is held back.
    held: Option<Waker>,
    trailing: Trailing,
    /// The task of the present attempt, while it waits for the client.
    reader: Option<Waker>,
    /// When the client last sent data.
    progress: Instant,
    /// How fast it arrives, if there is a minimum, until its end.
    pace: Option<Pace>,
    end: End,
}

/// The treatment of a body's trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trailing {
    /// They are forwarded without the fields that may not be in trailers.
    Filtered,
    /// They are dropped.
    Dropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Whole,
    /// It broke off.
    Failed,
    /// The client sent no valid body.
    Malformed,
}

impl End {
    fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Malformed)
    }
}

/// The progress of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// When the client last sent data.
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
            source: body.map_err(Into::into).boxed_unsync(),
            kept: Vec::new(),
            trailers: None,
            room: Some(keep),
            attempt: 0,
            next: 0,
            has_read_trailers: false,
            expects: false,
            is_held: false,
            held: None,
            trailing: Trailing::Filtered,
            reader: None,
            progress: Instant::now(),
            pace: None,
            end: End::NotYet,
        })))
    }

    /// The same body, which has to arrive at this rate.
    #[must_use]
    pub(crate) fn at_least(self, min: MinRate) -> Self {
        if let Self::Streamed(state) = &self {
            lock(state).pace = Pace::new(min);
        }
        self
    }

    /// The same body without its trailers.
    #[must_use]
    pub(crate) fn without_trailers(self) -> Self {
        if let Self::Streamed(state) = &self {
            lock(state).trailing = Trailing::Dropped;
        }
        self
    }

    /// Holds the body back until the server requests it. Returns whether there is a body.
    pub(crate) fn hold_back(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Streamed(state) => {
                lock(state).expects = true;
                true
            }
        }
    }

    /// The body for the next attempt. The one before can read no more.
    pub(crate) fn attempt(&self) -> AttemptBody {
        match self {
            Self::Empty => AttemptBody::Whole(None),
            Self::Streamed(state) => {
                let attempt = {
                    let mut state = lock(state);
                    state.is_held = state.expects;
                    state.detach()
                };
                AttemptBody::Part { attempt, state: Arc::clone(state) }
            }
        }
    }

    /// Releases the body: the server has requested it, or has been silent for too long.
    pub(crate) fn proceed(&self) {
        if let Self::Streamed(state) = self {
            let mut state = lock(state);
            state.is_held = false;
            if let Some(held) = state.held.take() {
                held.wake();
            }
        }
    }

    /// Whether attempts hold the body back at first.
    pub(crate) fn may_be_held(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Streamed(state) => lock(state).expects,
        }
    }

    /// Whether the body is held back.
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Streamed(state) => lock(state).is_held,
        }
    }

    /// Detaches the body from its present attempt.
    pub(crate) fn detach(&self) {
        if let Self::Streamed(state) = self {
            lock(state).detach();
        }
    }

    /// Stops keeping frames and measuring the rate, since the request was answered.
    pub(crate) fn settle(&self) {
        if let Self::Streamed(state) = self {
            let mut state = lock(state);
            state.room = None;
            state.pace = None;
            state.forget_what_was_read();
        }
    }

    /// Whether every frame that was read is still kept.
    pub(crate) fn can_replay(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(state) => {
                let state = lock(state);
                state.room.is_some() && !state.end.is_failure()
            }
        }
    }

    /// Whether all of the body has been read, so that an answer does not come early.
    pub(crate) fn is_sent(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(state) => {
                let state = lock(state);
                let is_last = state.next >= state.kept.len() && state.source.size_hint().exact() == Some(0);
                !state.end.is_failure() && (state.has_ended() || is_last)
            }
        }
    }

    /// Whether the client failed to send the whole body.
    pub(crate) fn is_failed(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Streamed(state) => lock(state).end.is_failure(),
        }
    }

    /// Whether the client sent a malformed body.
    pub(crate) fn is_malformed(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Streamed(state) => lock(state).end == End::Malformed,
        }
    }

    /// The progress of the body; `None` if the request has none.
    pub(crate) fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streamed(state) => {
                let state = lock(state);
                Some(Progress { at: state.progress, awaits_client: state.reader.is_some() })
            }
        }
    }

    /// When to look again whether the body arrives too slowly; `None` if it has no minimum rate, or has ended.
    pub(crate) fn pace(&self, now: Instant) -> Result<Option<Instant>, TooSlow> {
        match self {
            Self::Empty => Ok(None),
            Self::Streamed(state) => lock(state).pace.as_mut().map(|pace| pace.check(now)).transpose(),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Detaches the present attempt and wakes it so that it notices. The next one starts from the beginning.
    fn detach(&mut self) -> u32 {
        self.attempt += 1;
        self.next = 0;
        self.has_read_trailers = false;
        if let Some(pace) = &mut self.pace {
            pace.rests(Instant::now());
        }
        for waiting in [self.reader.take(), self.held.take()].into_iter().flatten() {
            waiting.wake();
        }
        self.attempt
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(bytes) = self.kept.get(self.next) {
            let bytes = bytes.clone();
            self.next += 1;
            self.forget_what_was_read();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(trailers) = self.trailers.as_ref().filter(|_| !self.has_read_trailers) {
            self.has_read_trailers = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        self.poll_source(cx)
    }

    /// Drops the kept frames once no attempt can need them.
    fn forget_what_was_read(&mut self) {
        if self.room.is_none() && self.next >= self.kept.len() {
            self.kept = Vec::new();
            self.next = 0;
        }
    }

    fn has_ended(&self) -> bool {
        let has_read_all =
            self.next >= self.kept.len() && (self.has_read_trailers || self.trailers.is_none());
        has_read_all && (self.end == End::Whole || self.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept: u64 = self.kept.iter().skip(self.next).map(|bytes| bytes.len() as u64).sum();
        let rest = self.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.end != End::NotYet {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.source).poll_frame(cx);
        let polled = polled.map(|frame| frame.map(|frame| frame.map(|frame| self.filtered(frame))));
        match &polled {
            Poll::Pending => {
                let known = self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker()));
                if !known {
                    self.reader = Some(cx.waker().clone());
                }
                if let Some(pace) = &mut self.pace {
                    pace.waits(Instant::now());
                }
                return polled;
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(pace) = &mut self.pace {
                    pace.arrived(frame.data_ref().map_or(0, Bytes::len), Instant::now());
                }
                self.keep(frame);
            }
            Poll::Ready(Some(Err(error))) => {
                let is_malformed = MalformedBody::behind(&**error).is_some();
                self.end = if is_malformed { End::Malformed } else { End::Failed };
            }
            Poll::Ready(None) => self.end = End::Whole,
        }
        if self.end != End::NotYet {
            self.pace = None;
        }
        self.reader = None;
        self.progress = Instant::now();
        polled
    }

    /// The frame without fields that may not be forwarded.
    fn filtered(&self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_trailers() {
            Ok(_) if self.trailing == Trailing::Dropped => Frame::data(Bytes::new()),
            Ok(mut trailers) => {
                head::trailers(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }
    }

    /// Keeps a frame that is being read.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.has_read_trailers = true;
        }
        let Some(bytes) = frame.data_ref() else {
            return;
        };
        self.room = self.room.and_then(|room| room.checked_sub(bytes.len()));
        if self.room.is_some() {
            self.kept.push(bytes.clone());
            self.next = self.kept.len();
        }
        self.forget_what_was_read();
    }
}

#[cfg(test)]
mod tests;
