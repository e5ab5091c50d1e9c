//! What is written to a shard, and what becomes of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalog::Index;

/// What to do with one id of an index.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) index: Arc<Index>,
    pub(crate) id: String,
    pub(crate) change: Change,
    pub(crate) condition: Option<Condition>,
}

/// A change of one id. Documents are checked by the schema, and are one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Change {
    Put(Box<RawValue>),
    /// Merges an object into the document: objects deeply, everything else is replaced; `null` is a value.
    Merge {
        patch: Box<RawValue>,
        /// The document if there is none; without it a missing document is an error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upsert: Option<Box<RawValue>>,
        /// Whether a merge that changes nothing writes nothing.
        detect_noop: bool,
    },
    Delete,
}

impl Change {
    /// How many bytes of documents it has.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put(source) => source.get().len(),
            Self::Merge { patch, upsert, detect_noop: _ } => {
                patch.get().len() + upsert.as_ref().map_or(0, |source| source.get().len())
            }
            Self::Delete => 0,
        }
    }
}

/// What must hold for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Condition {
    /// The id has no document.
    Absent,
    /// The id's document was written by this operation, under this epoch.
    Is { seq: u64, term: u64 },
    /// The id's document was written by this operation.
    Unchanged { seq: u64 },
    /// The id has no document, or one that was written before this operation.
    Older { seq: u64 },
}

/// A write that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) seq: u64,
    /// The claim's epoch.
    pub(crate) term: u64,
    pub(crate) version: u64,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Created,
    Updated,
    Deleted,
    /// A merge that changed nothing; nothing was written.
    Noop,
    /// There was no document to delete; nothing was written.
    NotFound,
}

/// Why one write of a request was refused. Nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Read the document and decide again.
    #[error("the document {}", .now.map_or("does not exist".to_owned(), |seq| format!("was written by operation {seq}")))]
    Changed { now: Option<u64> },
    /// Put the whole document.
    #[error("there is no document to merge into")]
    NoDocument,
    /// Change the document.
    #[error("{0}")]
    Document(String),
}

/// About how many bytes a write needs in memory.
pub(super) fn size(write: &Write) -> usize {
    let fixed = 128;
    fixed + write.id.len() + write.change.bytes()
}
