//! Changes that are older than what is kept in memory: read from the database's own log.
//!
//! A file of the log has whole batches, in their order, and the files are numbered without a gap: a writer that takes
//! over puts an empty one where its predecessor would have written next. So what the newest files without a gap have
//! is all that was ever durable from their first batch on. Files are collected after a while; see [`crate::garbage`].

use std::sync::Arc;

use slatedb::object_store::{self, ObjectStore};
use slatedb::{RowEntry, ValueDeletable, WalFile, WalReader};

use crate::feed::Batch;
use crate::open::PATH;

/// The log of a shard's database.
#[derive(Clone)]
pub(crate) struct History(Arc<dyn ObjectStore>);

/// A place in the log: a file that is read next.
pub(crate) struct Reading(WalFile);

/// Why history can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    /// Begin anew: some of it was collected.
    #[error("changes of that time are not kept any more")]
    Gone,
    /// Try again.
    #[error("the log could not be read: {0}")]
    Unread(#[source] slatedb::Error),
}

impl From<slatedb::Error> for HistoryError {
    fn from(error: slatedb::Error) -> Self {
        if is_missing(&error) { Self::Gone } else { Self::Unread(error) }
    }
}

impl History {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self(objects)
    }

    /// Finds the file that has a batch, or the first one after it if there is no such batch.
    pub(crate) async fn find(&self, seq: u64) -> Result<Reading, HistoryError> {
        let log = WalReader::new(PATH, Arc::clone(&self.0));
        let listed: Vec<_> = log.list(..).await?.iter().map(|file| file.id).collect();
        let (Some(first), Some(&last)) = (unbroken(&listed), listed.last()) else {
            return Err(HistoryError::Gone);
        };
        // The first file of all has nothing before it.
        if first > 1 && first_batch(&log, first, last).await?.is_none_or(|found| found > seq) {
            return Err(HistoryError::Gone);
        }
        // The last file whose batches do not begin above it.
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = high - (high - low) / 2;
            if first_batch(&log, middle, last).await?.is_some_and(|found| found <= seq) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(Reading(log.get(low)))
    }
}

impl Reading {
    /// The batches of the next file.
    pub(crate) async fn read(&mut self) -> Result<Vec<Batch>, HistoryError> {
        let mut rows = self.0.iterator().await?;
        let mut batches: Vec<Batch> = Vec::new();
        while let Some(RowEntry { key, value, seq, .. }) = rows.next().await? {
            let value = match value {
                ValueDeletable::Value(value) | ValueDeletable::Merge(value) => Some(value),
                ValueDeletable::Tombstone => None,
            };
            match batches.last_mut().filter(|batch| batch.seq == seq) {
                Some(batch) => batch.rows.push((key, value)),
                None => batches.push(Batch { seq, rows: vec![(key, value)] }),
            }
        }
        batches.sort_by_key(|batch| batch.seq);
        for batch in &mut batches {
            batch.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        self.0 = self.0.next_file();
        Ok(batches)
    }
}

/// The first batch in a file or those after it, up to the last one.
async fn first_batch(log: &WalReader, file: u64, last: u64) -> Result<Option<u64>, HistoryError> {
    for id in file..=last {
        if let Some(row) = log.get(id).iterator().await?.next().await? {
            return Ok(Some(row.seq));
        }
    }
    Ok(None)
}

/// Where the last run of numbers begins that has no gap.
fn unbroken(rising: &[u64]) -> Option<u64> {
    let mut first = *rising.last()?;
    for &id in rising.iter().rev().skip(1) {
        if id + 1 != first {
            break;
        }
        first = id;
    }
    Some(first)
}

/// Whether the error says that there is no such file.
pub(crate) fn is_missing(error: &slatedb::Error) -> bool {
    let mut below = std::error::Error::source(error);
    while let Some(cause) = below {
        let shared = cause.downcast_ref::<Arc<object_store::Error>>().map(AsRef::as_ref);
        let found = shared.or_else(|| cause.downcast_ref::<object_store::Error>());
        if let Some(object_store::Error::NotFound { .. }) = found {
            return true;
        }
        below = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_files_without_a_gap_count() {
        for (ids, first) in [
            (&[][..], None),
            (&[7], Some(7)),
            (&[1, 2, 3], Some(1)),
            (&[1, 3, 4], Some(3)),
            (&[1, 2, 9], Some(9)),
        ] {
            assert_eq!(unbroken(ids), first, "{ids:?}");
        }
    }
}
