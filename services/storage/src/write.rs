//! A write that waits: what it changes, who waits for it, and the room that it takes in the queue.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::change::{Change, Unity};
use crate::refusal::Refusal;

/// What a write costs of the room in the queue besides its bytes.
const OVERHEAD: usize = 512;

/// A write that waits to become durable.
pub(crate) struct Write {
    pub(crate) changes: Vec<Change>,
    pub(crate) unity: Unity,
    pub(crate) came: Instant,
    pub(crate) answer: oneshot::Sender<Result<Written, Refusal>>,
    pub(crate) _room: Reserved,
}

/// The version of what was written; none if nothing was.
pub(crate) type Written = Option<u64>;

/// Room in the queue of writes, in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    room: Arc<Semaphore>,
    size: u32,
}

/// Room that was taken.
#[derive(Debug)]
pub(crate) struct Reserved(#[expect(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

impl Queue {
    pub(crate) fn new(bytes: usize) -> Self {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(bytes)), size }
    }

    /// Takes room for a write of so many bytes, if it is there.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Reserved> {
        let cost = u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX).min(self.size);
        Arc::clone(&self.room).try_acquire_many_owned(cost).ok().map(Reserved)
    }

    /// Waits until no write waits any more, or the deadline.
    pub(crate) async fn settle(&self, deadline: Instant) {
        let all = Arc::clone(&self.room).acquire_many_owned(self.size);
        let _ = timeout_at(deadline, all).await;
    }
}
