//! Why a shard can't do what was asked.

use plugin::shard::NotOpen;
use tokio::task::JoinError;

use super::lookup::LookupError;
use crate::query_pool::panic_message;

/// Why a shard can't do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShardError {
    /// Send it to the owner: this node does not own the shard (any more). Nothing was done.
    #[error("{0}")]
    Elsewhere(String),
    /// Wait: it is being opened. Nothing was done.
    #[error("{0}")]
    Opening(String),
    /// Send it again later, more slowly: too much is in no manifest yet, or the queue is full. Nothing was done.
    #[error("{0}")]
    Behind(String),
    /// Make room on the disk, or raise `disk`. Nothing was done.
    #[error("{0}")]
    NoSpace(String),
    /// The stored data is damaged; restore it.
    #[error("{0}")]
    Damaged(String),
    /// Try again in a moment: a local file is damaged. The shard's files are verified, and fetched again. Nothing was done.
    #[error("{0}")]
    LocalDamage(String),
    /// Report it: this is a bug, or a local file is damaged. The shard's files are verified. Nothing was done.
    #[error("the request failed with a panic: {0}")]
    Panicked(String),
    /// The write may or may not be durable: look before you send it again.
    #[error("{0}")]
    OutcomeUnknown(String),
    /// Do nothing: the write is durable, and searches show it later.
    #[error("{0}")]
    NotVisible(String),
    /// The store did not answer; try again.
    #[error("{0}")]
    Unavailable(String),
    /// There is no such index any more.
    #[error("the index `{0}` was deleted")]
    NoIndex(String),
}

impl From<NotOpen> for ShardError {
    fn from(why: NotOpen) -> Self {
        match why {
            NotOpen::Opening(_) => Self::Opening(why.to_string()),
            NotOpen::Damaged(why) => Self::Damaged(why),
            NotOpen::Passed(_) | NotOpen::Ended => Self::Elsewhere(why.to_string()),
        }
    }
}

impl From<JoinError> for ShardError {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::Panicked(panic_message(&*panic)),
            Err(error) => Self::Opening(error.to_string()),
        }
    }
}

impl From<LookupError> for ShardError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Tantivy(_) | LookupError::Damaged(_) => Self::LocalDamage(error.to_string()),
        }
    }
}

pub(super) fn closed() -> ShardError {
    ShardError::Opening("the shard was closed meanwhile; it is being opened again".to_owned())
}
