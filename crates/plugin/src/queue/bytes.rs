//! The memory of a queue of writes, in bytes: taken as their bodies arrive and held until they are durable.
//!
//! A body takes space for the bytes that have arrived, so an announced length holds nothing. When there is no space, the
//! oldest body is the first to get what becomes free, and the youngest that waits is refused after two seconds, which
//! makes space for the older ones. So however many bodies arrive at once, the oldest of them completes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a body waits for further space.
const WAIT: Duration = Duration::from_secs(2);
/// How often a body that has waited for so long, and may stay, looks again.
const POLL: Duration = Duration::from_millis(50);
/// What a write costs besides its bytes.
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
    /// The number of the next body; they are counted in the order in which they begin to arrive.
    next: u64,
    /// The bodies that arrive, and what each of them holds.
    arriving: BTreeMap<u64, usize>,
    /// Those of them that wait for space.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// Space that was taken; it is free again when this is dropped.
#[derive(Debug)]
pub struct Reserved {
    queue: Arc<Shared>,
    held: usize,
}

/// A body that arrives, and the space for what has arrived of it.
#[derive(Debug)]
pub struct Arriving {
    place: Place,
    space: Reserved,
}

/// A place among the bodies that arrive, as long as it lives.
#[derive(Debug)]
struct Place {
    queue: Arc<Shared>,
    number: u64,
}

/// No space became free in time; try again in a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits to be written")]
pub struct QueueFull;

impl QueueBytes {
    /// Space for so many bytes.
    pub fn new(bytes: usize) -> Self {
        let state = State { free: bytes, next: 0, arriving: BTreeMap::new(), waiting: BTreeMap::new() };
        Self(Arc::new(Shared { size: bytes, state: Mutex::new(state) }))
    }

    /// Takes space for a write of this many bytes that is in memory already, if there is space now.
    pub fn reserve(&self, bytes: usize) -> Option<Reserved> {
        let cost = bytes.saturating_add(OVERHEAD).min(self.0.size);
        let mut state = self.0.state();
        state.free = state.free.checked_sub(cost)?;
        Some(Reserved { queue: Arc::clone(&self.0), held: cost })
    }

    /// Begins to take space for a body that is about to arrive, with this many bytes besides it.
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

    /// Takes space for a body unless an older one waits for it.
    fn take(&mut self, number: u64, bytes: usize) -> bool {
        let is_first = self.waiting.keys().next().is_none_or(|oldest| *oldest >= number);
        if !is_first || self.free < bytes {
            return false;
        }
        self.free -= bytes;
        *self.arriving.entry(number).or_default() += bytes;
        true
    }

    /// Whether a body that has waited for long has to go: the youngest of those that wait, unless it is the oldest of
    /// all and others, which will have to wait or to end themselves, hold what it needs.
    fn has_to_go(&self, number: u64) -> bool {
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
    /// Takes space for this many bytes more. A body that is larger than all space holds all of it.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), QueueFull> {
        let (queue, number) = (Arc::clone(&self.space.queue), self.place.number);
        let wanted = self.space.held.saturating_add(bytes).min(queue.size) - self.space.held;
        if wanted == 0 || queue.state().take(number, wanted) {
            self.space.held += wanted;
            return Ok(());
        }
        let waiting = Waiting::new(&queue, number);
        let mut look = Instant::now() + WAIT;
        loop {
            tokio::select! {
                biased;
                () = waiting.woken.notified() => {}
                () = sleep_until(look) => look = Instant::now() + POLL,
            }
            let is_late = Instant::now() >= waiting.since + WAIT;
            let mut state = queue.state();
            if state.take(number, wanted) {
                self.space.held += wanted;
                return Ok(());
            }
            if is_late && state.has_to_go(number) {
                return Err(QueueFull);
            }
        }
    }

    /// All of the body has arrived.
    pub fn arrived(self) -> Reserved {
        self.space
    }
}

/// A place among those that wait for space, as long as it lives.
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
        // What is left may be enough for the next one.
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
