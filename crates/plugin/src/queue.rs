//! A queue of writes that are made durable together (group commit). It is bounded in bytes.
//!
//! [`QueueBytes`] bounds the memory of waiting writes, [`queue`] carries them to the task that makes them durable, and
//! [`group_commit()`] serves all waiting writes at once.
//!
//! `tower::buffer`, `tower::load_shed` and channels count requests, so a write of eight mebibytes would cost as much as
//! one of eight bytes. `tokio::sync::Semaphore` can count bytes, but grants them in order of arrival: many slow bodies
//! could each hold a part of them, and none would complete.

mod bytes;
mod group_commit;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use bytes::{Arriving, QueueBytes, QueueFull, Reserved};
pub use group_commit::group_commit;

/// The sending end of a queue. Cheap to clone.
#[derive(Debug)]
pub struct Queue<T, R>(mpsc::Sender<Queued<T, R>>);

/// A waiting write, with the channel for its outcome.
#[derive(Debug)]
pub struct Queued<T, R> {
    /// What to write.
    pub item: T,
    /// When it was put into the queue.
    pub came: Instant,
    answer: oneshot::Sender<R>,
    _space: Reserved,
}

/// Why a write was not queued. Nothing of it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotQueued {
    /// Try again later.
    #[error(transparent)]
    Full(#[from] QueueFull),
    /// The queue is no longer served.
    #[error("the queue is closed")]
    Closed,
}

/// A queue of at most this many writes, and its receiving end.
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
    /// Queues a write with the space that was taken for it. Returns the receiver of its outcome, which fails if the
    /// write is dropped without an answer.
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
    /// Whether the caller no longer waits for the outcome.
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Sends the outcome to the caller and frees the space.
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
