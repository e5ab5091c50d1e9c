//! The memory of a queue of writes, in bytes. It is taken as their bodies arrive and held until they are durable.
//!
//! A body takes space only for the bytes that have arrived, not for its announced length. When there is no space, the
//! oldest waiting body gets what becomes free first, and the youngest waiting body is refused after two seconds, which
//! makes space for the older ones. So the oldest body always completes, however many arrive at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a body waits for further space.
const WAIT: Duration = Duration::from_secs(2);
/// How often a body that has waited longer than that, without being refused, tries again.
const POLL: Duration = Duration::from_millis(50);
/// How many bytes a write costs in addition to its body.
const OVERHEAD: usize = 512;

/// The memory of one queue of writes.
#[derive(Debug)]
pub struct QueueBytes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// The number of the latest body. Bodies are numbered in the order in which they begin to arrive.
    next: u64,
    /// The arriving bodies, by number, and how many bytes each of them holds.
    arriving: BTreeMap<u64, usize>,
    /// The arriving bodies that wait for space.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// Space that was taken; dropping it frees the space.
#[derive(Debug)]
pub struct Reserved {
    queue: Arc<Shared>,
    held: usize,
}

/// An arriving body, and the space for what has arrived of it.
#[derive(Debug)]
pub struct Arriving {
    place: Place,
    space: Reserved,
}

/// An entry in [`State::arriving`]; dropping it removes the entry.
#[derive(Debug)]
struct Place {
    queue: Arc<Shared>,
    number: u64,
}

/// No space became free in time; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits to be written")]
pub struct QueueFull;

impl QueueBytes {
    /// Space for this many bytes.
    pub fn new(bytes: usize) -> Self {
        let state = State { free: bytes, next: 0, arriving: BTreeMap::new(), waiting: BTreeMap::new() };
        Self(Arc::new(Shared { size: bytes, state: Mutex::new(state) }))
    }

    /// Takes space for a write of this many bytes that is already in memory, if it is free now.
    pub fn reserve(&self, bytes: usize) -> Option<Reserved> {
        let cost = bytes.saturating_add(OVERHEAD).min(self.0.size);
        let mut state = self.0.state();
        state.free = state.free.checked_sub(cost)?;
        Some(Reserved { queue: Arc::clone(&self.0), held: cost })
    }

    /// Takes the first space for a body that is about to arrive: for `bytes` bytes in addition to the body.
    pub async fn begin(&self, bytes: usize) -> Result<Arriving, QueueFull> {
        let space = Reserved { queue: Arc::clone(&self.0), held: 0 };
        let mut arriving = Arriving { place: Place::new(&self.0), space };
        arriving.grow(bytes.saturating_add(OVERHEAD)).await?;
        Ok(arriving)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, bytes: usize) {
        let mut state = self.state();
        state.free += bytes;
        state.wake_oldest();
    }
}

impl State {
    fn wake_oldest(&self) {
        if let Some(oldest) = self.waiting.values().next() {
            oldest.notify_one();
        }
    }

    /// Takes space for a body, unless an older one waits for space.
    fn take(&mut self, number: u64, bytes: usize) -> bool {
        let is_first = self.waiting.keys().next().is_none_or(|oldest| *oldest >= number);
        if !is_first || self.free < bytes {
            return false;
        }
        self.free -= bytes;
        *self.arriving.entry(number).or_default() += bytes;
        true
    }

    /// Whether to refuse a body that has waited for [`WAIT`]. That is the youngest waiting body, except if it is the oldest
    /// of all bodies and others hold space: those will either end or have to wait as well.
    fn must_be_refused(&self, number: u64) -> bool {
        let is_youngest = self.waiting.keys().next_back() == Some(&number);
        let is_oldest = self.arriving.keys().next() == Some(&number);
        let others_hold = self.arriving.iter().any(|(other, held)| *other != number && *held > 0);
        is_youngest && !(is_oldest && others_hold)
    }
}

impl Place {
    fn new(queue: &Arc<Shared>) -> Self {
        let mut state = queue.state();
        state.next += 1;
        let number = state.next;
        state.arriving.insert(number, 0);
        Self { queue: Arc::clone(queue), number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.state().arriving.remove(&self.number);
    }
}

impl Arriving {
    /// Takes space for this many further bytes. A body that is larger than the whole space holds all of it.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), QueueFull> {
        let (queue, number) = (Arc::clone(&self.space.queue), self.place.number);
        let wanted = self.space.held.saturating_add(bytes).min(queue.size) - self.space.held;
        if wanted == 0 || queue.state().take(number, wanted) {
            self.space.held += wanted;
            return Ok(());
        }
        let waiting = Waiting::new(&queue, number);
        let mut next_try = Instant::now() + WAIT;
        loop {
            tokio::select! {
                biased;
                () = waiting.woken.notified() => {}
                () = sleep_until(next_try) => next_try = Instant::now() + POLL,
            }
            let is_late = Instant::now() >= waiting.since + WAIT;
            let mut state = queue.state();
            if state.take(number, wanted) {
                self.space.held += wanted;
                return Ok(());
            }
            if is_late && state.must_be_refused(number) {
                return Err(QueueFull);
            }
        }
    }

    /// Call this when all of the body has arrived. Returns its space.
    pub fn arrived(self) -> Reserved {
        self.space
    }
}

/// An entry in [`State::waiting`]; dropping it removes the entry.
struct Waiting<'a> {
    queue: &'a Shared,
    number: u64,
    woken: Arc<Notify>,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(queue: &'a Shared, number: u64) -> Self {
        let woken = Arc::new(Notify::new());
        queue.state().waiting.insert(number, Arc::clone(&woken));
        Self { queue, number, woken, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.waiting.remove(&self.number);
        // The rest may be enough for the next body.
        state.wake_oldest();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.queue.give_back(self.held);
    }
}

#[cfg(test)]
mod tests;
