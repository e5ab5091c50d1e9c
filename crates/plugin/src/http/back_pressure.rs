//! Back-pressure for answers: what slow readers may hold of this node's memory, each a little, and all of them together
//! a fixed amount.
//!
//! An answer that is not small takes space in an [`AnswerBuffer`] before it is made and gives it back once it was sent.
//! It is sent in chunks, so a reader that pauses holds the rest of it here, and not in the connection. The space is
//! taken from a paused reader when another answer waits for it; the answer breaks off then, and can be asked for again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use types::{ErrorKind, Problem};

use super::{Window, not_processed, retry_later};
use crate::GaugeGuard;

/// What is sent at once, and the most that a connection holds of a stream. What is not larger needs no space.
pub const CHUNK: usize = 32 * 1024;
/// A reader that has read nothing for so long loses its space to those that wait.
const PAUSED: Duration = Duration::from_secs(2);
/// How often those that wait look for space.
const POLL: Duration = Duration::from_millis(50);

/// Space for large answers of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AnswerBuffer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    space: Arc<Semaphore>,
    size: u32,
    disconnected: Counter,
    answers: Mutex<Answers>,
}

/// The answers that are being sent, and when they were last searched for paused readers.
#[derive(Debug, Default)]
struct Answers {
    all: Vec<Weak<Buffered>>,
    searched: Option<Instant>,
}

/// Space that was taken.
#[derive(Debug)]
pub struct Space {
    buffer: AnswerBuffer,
    permit: OwnedSemaphorePermit,
}

/// An answer that is being sent.
#[derive(Debug)]
struct Buffered(Mutex<Held>);

#[derive(Debug)]
struct Held {
    /// Nothing if it was taken away.
    left: Option<(Bytes, OwnedSemaphorePermit)>,
    read: Instant,
}

/// The answer was taken away from a reader that did not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was not read for {PAUSED:?}, and others waited")]
pub struct SlowReader;

/// No space became free in time. Try again in a moment, or ask for less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("large answers that are being sent left no space for this one within {:?}", AnswerBuffer::WAIT)]
pub struct NoSpace;

impl NoSpace {
    /// The refusal: 503 `too-busy`, not processed, with a word on what to do next.
    pub fn to_response(self, hint: &str) -> Response {
        let problem = Problem::new(ErrorKind::Unavailable, "too-busy", self.to_string()).hint(hint);
        retry_later(not_processed(&problem))
    }
}

impl AnswerBuffer {
    /// How long an answer waits for space: shorter than a member waits for an answer of another one.
    pub const WAIT: Duration = Duration::from_secs(5);

    /// Space of so many bytes, and a counter of the readers that were disconnected for being slow.
    pub fn new(bytes: usize, disconnected: &Counter) -> Self {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        let (space, disconnected) = (Arc::new(Semaphore::new(bytes)), disconnected.clone());
        Self(Arc::new(Shared { space, size, disconnected, answers: Mutex::default() }))
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.0.size)
    }

    /// Takes space for so many bytes if it is there now. What is larger than all space takes all of it.
    pub fn try_take(&self, bytes: usize) -> Option<Space> {
        let permit = Arc::clone(&self.0.space).try_acquire_many_owned(self.cost(bytes)).ok()?;
        Some(Space { buffer: self.clone(), permit })
    }

    /// Waits for space for so many bytes, and takes it from readers that are paused.
    ///
    /// There is no queue: the stream of a paused reader is not polled, and would hold up all behind it.
    pub async fn take(&self, bytes: usize) -> Result<Space, NoSpace> {
        self.take_until(bytes, Instant::now() + Self::WAIT).await
    }

    /// The same with another end of the wait.
    pub async fn take_until(&self, bytes: usize, deadline: Instant) -> Result<Space, NoSpace> {
        loop {
            if let Some(space) = self.try_take(bytes) {
                return Ok(space);
            }
            if Instant::now() >= deadline {
                return Err(NoSpace);
            }
            sleep(POLL).await;
            self.disconnect_paused();
        }
    }

    fn disconnect_paused(&self) {
        let mut answers = self.answers();
        // One search serves all that wait.
        if answers.searched.is_some_and(|at| at.elapsed() < POLL) {
            return;
        }
        answers.searched = Some(Instant::now());
        answers.all.retain(|answer| {
            answer.upgrade().is_some_and(|answer| {
                let mut held = answer.held();
                if held.read.elapsed() >= PAUSED && held.left.take().is_some() {
                    self.0.disconnected.inc();
                }
                held.left.is_some()
            })
        });
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Space {
    /// Takes more, so that it is space for so many bytes, if it is there now: what holds space does not wait.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let held = self.permit.num_permits();
        let wanted = usize::try_from(self.buffer.cost(bytes)).unwrap_or(usize::MAX);
        if wanted <= held {
            return true;
        }
        let more = self.buffer.try_take(wanted - held);
        more.map(|more| self.permit.merge(more.permit)).is_some()
    }

    /// Sends what the space was taken for.
    pub fn send(mut self, bytes: Bytes) -> Outgoing {
        let spare = self.permit.num_permits().saturating_sub(bytes.len());
        drop(self.permit.split(spare));
        let held = Held { left: Some((bytes, self.permit)), read: Instant::now() };
        let answer = Arc::new(Buffered(Mutex::new(held)));
        let mut answers = self.buffer.answers();
        answers.all.retain(|answer| answer.strong_count() > 0);
        answers.all.push(Arc::downgrade(&answer));
        drop(answers);
        Outgoing(answer)
    }

    /// The same as a body.
    pub fn body(self, bytes: Bytes) -> Body {
        let outgoing = (self.send(bytes), Window::default());
        let chunks = stream::try_unfold(outgoing, |(outgoing, window)| async move {
            let Some(chunk) = outgoing.next()? else { return Ok::<_, SlowReader>(None) };
            Ok(Some((window.admit(chunk).await, (outgoing, window))))
        });
        Body::from_stream(chunks)
    }
}

/// The rest of an answer.
#[derive(Debug)]
pub struct Outgoing(Arc<Buffered>);

impl Outgoing {
    /// The next chunk; nothing at the end.
    pub fn next(&self) -> Result<Option<Bytes>, SlowReader> {
        let mut held = self.0.held();
        held.read = Instant::now();
        let Some((bytes, _)) = &mut held.left else { return Err(SlowReader) };
        if bytes.is_empty() {
            return Ok(None);
        }
        let chunk = bytes.split_to(bytes.len().min(CHUNK));
        // A part of the whole would keep the whole.
        Ok(Some(Bytes::copy_from_slice(&chunk)))
    }
}

impl Buffered {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many streams a member serves at once.
#[derive(Debug, Clone)]
pub struct StreamLimit {
    most: usize,
    permits: Arc<Semaphore>,
    open: Gauge,
}

/// A stream that was let in, as long as this lives.
#[derive(Debug)]
pub struct StreamPermit {
    _counted: GaugeGuard,
    _permit: OwnedSemaphorePermit,
}

impl StreamLimit {
    /// At most so many; the gauge shows how many there are.
    pub fn new(most: usize, open: &Gauge) -> Self {
        Self { most, permits: Arc::new(Semaphore::new(most)), open: open.clone() }
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Lets another stream begin, unless there are too many.
    pub fn enter(&self) -> Option<StreamPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(StreamPermit { _counted: GaugeGuard::new(&self.open), _permit: permit })
    }
}

#[cfg(test)]
mod tests;
