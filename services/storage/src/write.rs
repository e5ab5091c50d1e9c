//! A write that waits: what it changes, who waits for it, and the room that it takes in the queue.

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::arrival::Reserved;
use crate::change::{Change, Unity};
use crate::refusal::Refusal;

/// A write that waits to become durable.
pub(crate) struct Write {
    pub(crate) changes: Vec<Change>,
    pub(crate) unity: Unity,
    pub(crate) came: Instant,
    pub(crate) answer: oneshot::Sender<Result<Written, Refusal>>,
    pub(crate) _room: Reserved,
}

impl Write {
    /// What it takes of the log, about.
    pub(crate) fn size(&self) -> usize {
        self.changes.iter().map(Change::size).sum()
    }
}

/// The version of what was written; none if nothing was.
pub(crate) type Written = Option<u64>;
