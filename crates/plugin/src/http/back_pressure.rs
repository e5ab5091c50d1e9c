//! Back-pressure for answers: limits how much of this node's memory slow readers hold, each of them and in total.
//!
//! An answer that is not small takes space in an [`AnswerBuffer`] before it is built, and returns it once it was sent. It
//! is sent in chunks, so the rest of an answer with a paused reader is held here and not in the connection. If another
//! answer waits for space, a paused reader loses its space: its answer breaks off, and can be requested again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use types::{ErrorKind, Problem};

use super::{Window, json, not_processed, retry_later};
use crate::GaugeGuard;

/// How much is sent at once, and the most that a connection holds of a stream, in bytes. Answers up to this size need no
/// space.
pub const CHUNK: usize = 32 * 1024;
/// A reader that has read nothing for this long loses its space if other answers wait.
const PAUSED: Duration = Duration::from_secs(2);
/// How often waiting answers look for space.
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

/// The answers being sent, and when they were last searched for paused readers.
#[derive(Debug, Default)]
struct Answers {
    all: Vec<Weak<Buffered>>,
    searched: Option<Instant>,
}

/// Space that was taken from an [`AnswerBuffer`]; dropping it returns the space.
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
    /// `None` after the reader has lost its space.
    left: Option<(Bytes, OwnedSemaphorePermit)>,
    read: Instant,
}

/// The reader paused, so its answer lost its space and broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was not read for {PAUSED:?}, and others waited")]
pub struct SlowReader;

/// No space became free in time. Try again later, or request less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("large answers that are being sent left no space for this one within {:?}", AnswerBuffer::WAIT)]
pub struct NoSpace;

impl NoSpace {
    /// The refusal: 503 `too-busy`, not processed, with a hint on what to do next.
    pub fn to_response(self, hint: &str) -> Response {
        let problem = Problem::new(ErrorKind::Unavailable, "too-busy", self.to_string()).hint(hint);
        retry_later(not_processed(&problem))
    }
}

impl AnswerBuffer {
    /// How long an answer waits for space. Shorter than a member waits for another member's answer.
    pub const WAIT: Duration = Duration::from_secs(5);

    /// A buffer of this many bytes. `disconnected` counts the readers that lost their space.
    pub fn new(bytes: usize, disconnected: &Counter) -> Self {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        let (space, disconnected) = (Arc::new(Semaphore::new(bytes)), disconnected.clone());
        Self(Arc::new(Shared { space, size, disconnected, answers: Mutex::default() }))
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.0.size)
    }

    /// Takes space for this many bytes if it is free now. An answer that is larger than the buffer takes all of it.
    pub fn try_take(&self, bytes: usize) -> Option<Space> {
        let permit = Arc::clone(&self.0.space).try_acquire_many_owned(self.cost(bytes)).ok()?;
        Some(Space { buffer: self.clone(), permit })
    }

    /// Waits for space for this many bytes, and takes it from paused readers if necessary.
    ///
    /// There is no queue: a stream with a paused reader is not polled, and would block all others behind it.
    pub async fn take(&self, bytes: usize) -> Result<Space, NoSpace> {
        self.take_until(bytes, Instant::now() + Self::WAIT).await
    }

    /// Like [`take`](Self::take), with another deadline.
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
        // One search serves all waiting answers.
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
    /// Grows to this many bytes if the space is free now. It never waits, since a holder of space must not wait for more.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let held = self.permit.num_permits();
        let wanted = usize::try_from(self.buffer.cost(bytes)).unwrap_or(usize::MAX);
        if wanted <= held {
            return true;
        }
        let more = self.buffer.try_take(wanted - held);
        more.map(|more| self.permit.merge(more.permit)).is_some()
    }

    /// Sends the answer that the space was taken for. Spare space is returned at once.
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

    /// The answer in JSON that the space was taken for. Fails if it needs more space than there is.
    pub fn json(mut self, body: Vec<u8>) -> Result<Response, NoSpace> {
        let length = body.len();
        let mut answer = if length <= CHUNK {
            json(body)
        } else if self.try_grow(length) {
            json(self.body(body.into()))
        } else {
            return Err(NoSpace);
        };
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        Ok(answer)
    }

    /// Like [`send`](Self::send), as a body.
    pub fn body(self, bytes: Bytes) -> Body {
        let outgoing = (self.send(bytes), Window::default());
        let chunks = stream::try_unfold(outgoing, |(outgoing, window)| async move {
            let Some(chunk) = outgoing.next()? else { return Ok::<_, SlowReader>(None) };
            Ok(Some((window.admit(chunk).await, (outgoing, window))))
        });
        Body::from_stream(chunks)
    }
}

/// The unsent rest of an answer.
#[derive(Debug)]
pub struct Outgoing(Arc<Buffered>);

impl Outgoing {
    /// The next chunk; `None` at the end.
    pub fn next(&self) -> Result<Option<Bytes>, SlowReader> {
        let mut held = self.0.held();
        held.read = Instant::now();
        let Some((bytes, _)) = &mut held.left else { return Err(SlowReader) };
        if bytes.is_empty() {
            return Ok(None);
        }
        let chunk = bytes.split_to(bytes.len().min(CHUNK));
        // A slice of `bytes` would keep all of it in memory.
        Ok(Some(Bytes::copy_from_slice(&chunk)))
    }
}

impl Buffered {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limits how many streams a member serves at once.
#[derive(Debug, Clone)]
pub struct StreamLimit {
    most: usize,
    permits: Arc<Semaphore>,
    open: Gauge,
}

/// The permit of one stream; dropping it ends the stream's count.
#[derive(Debug)]
pub struct StreamPermit {
    _counted: GaugeGuard,
    _permit: OwnedSemaphorePermit,
}

impl StreamLimit {
    /// At most this many streams; the gauge shows how many there are.
    pub fn new(most: usize, open: &Gauge) -> Self {
        Self { most, permits: Arc::new(Semaphore::new(most)), open: open.clone() }
    }

    /// The limit.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Admits another stream, unless the limit is reached.
    pub fn enter(&self) -> Option<StreamPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(StreamPermit { _counted: GaugeGuard::new(&self.open), _permit: permit })
    }
}

#[cfg(test)]
mod tests;
