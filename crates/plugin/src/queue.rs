//! A bounded queue of writes that are made durable together (group commit), with what waits counted in bytes.
//!
//! [`QueueBytes`] bounds the memory of what waits, [`queue`] carries the writes to the task that makes them durable, and
//! [`group_commit()`] serves all that wait at once.
//!
//! `tower::buffer` and `tower::load_shed` count requests, and so does a channel; a write of eight mebibytes and one of
//! eight bytes would cost the same. `tokio::sync::Semaphore` counts bytes but hands them out in turn, so that many
//! bodies that arrive slowly can each hold a part and none completes.

mod bytes;
mod group_commit;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use bytes::{Arriving, QueueBytes, QueueFull, Reserved};
pub use group_commit::group_commit;

/// The end of a queue at which writes are put in. Cheap to clone.
#[derive(Debug)]
pub struct Queue<T, R>(mpsc::Sender<Queued<T, R>>);

/// A write that waits, and who waits for its outcome.
#[derive(Debug)]
pub struct Queued<T, R> {
    /// What is to be written.
    pub item: T,
    /// When it came.
    pub came: Instant,
    answer: oneshot::Sender<R>,
    _space: Reserved,
}

/// Why a write was not taken. Nothing of it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotQueued {
    /// Try again in a moment.
    #[error(transparent)]
    Full(#[from] QueueFull),
    /// Nobody serves the queue any more.
    #[error("the queue is closed")]
    Closed,
}

/// A queue of at most so many writes, and the end at which they are served.
pub fn queue<T, R>(most: usize) -> (Queue<T, R>, mpsc::Receiver<Queued<T, R>>) {
    let (sender, receiver) = mpsc::channel(most);
    (Queue(sender), receiver)
}

impl<T, R> Clone for Queue<T, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, R> Queue<T, R> {
    /// Puts in a write with the space that was taken for it. Its outcome comes later; none comes if it is dropped unserved.
    pub fn put(&self, item: T, space: Reserved) -> Result<oneshot::Receiver<R>, NotQueued> {
        let (answer, outcome) = oneshot::channel();
        let queued = Queued { item, came: Instant::now(), answer, _space: space };
        match self.0.try_send(queued) {
            Ok(()) => Ok(outcome),
            Err(mpsc::error::TrySendError::Full(_)) => Err(QueueFull.into()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotQueued::Closed),
        }
    }
}

impl<T, R> Queued<T, R> {
    /// Whether nobody waits for the outcome any more.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Gives the outcome to the caller, and the space back.
    pub fn answer(self, outcome: R) {
        // The caller may have gone away.
        let _ = self.answer.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_holds_its_space_until_it_is_answered() {
        let space = QueueBytes::new(10_000);
        let (writes, mut queue) = queue::<u32, u32>(1);
        let outcome = writes.put(7, space.reserve(8_000).unwrap()).unwrap();
        assert!(space.reserve(8_000).is_none());
        let full = writes.put(8, space.reserve(0).unwrap()).err();
        assert_eq!(full, Some(NotQueued::Full(QueueFull)));
        let queued = queue.recv().await.unwrap();
        assert!(!queued.is_abandoned());
        let doubled = queued.item * 2;
        queued.answer(doubled);
        assert_eq!(outcome.await, Ok(14));
        assert!(space.reserve(8_000).is_some());
        drop(queue);
        assert_eq!(writes.put(9, space.reserve(0).unwrap()).err(), Some(NotQueued::Closed));
    }

    #[tokio::test]
    async fn a_caller_that_has_gone_away_is_noticed() {
        let space = QueueBytes::new(10_000);
        let (writes, mut queue) = queue::<u32, u32>(1);
        drop(writes.put(7, space.reserve(0).unwrap()).unwrap());
        let queued = queue.recv().await.unwrap();
        assert!(queued.is_abandoned());
        queued.answer(7);
    }
}
