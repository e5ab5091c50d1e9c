//! How stale a replica may be: the time since the start of the last poll of the log that the replica has applied
//! completely.
//!
//! SlateDB's reader does not report when it polls. But in each poll, after the manifest, it asks for the newest file of
//! the log. So we give it a log reader that records this. Everything that was durable at that time is in the replica
//! once the poll is over, unless the poll failed. Polls follow one another: when one begins, the one before it is over.
//! So the bound may be too long by one poll, but is never too short.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use slatedb::DbStatus;
use slatedb::object_store::ObjectStore;
use slatedb::wal::{
    SlateDbWalReader, SlateDbWalReaderBuilder, WalError, WalFileRange, WalIterator, WalReader, WalRows,
};
use tokio::sync::watch;

use crate::changes::history::is_missing;
use crate::engine::open::PATH;
use plugin::shard::Moment;

/// A replica that has polled within this time has not missed a file that was collected.
const LATELY: Duration = Duration::from_secs(30);

/// When a replica was last up to date.
#[derive(Default)]
pub(crate) struct Staleness {
    notes: Mutex<Notes>,
    status: OnceLock<watch::Receiver<DbStatus>>,
}

#[derive(Debug, Default)]
struct Notes {
    /// The start of the last poll that is over and did not fail.
    current: Option<Moment>,
    /// The last poll that began.
    now: Option<Poll>,
    begun: u64,
}

#[derive(Debug)]
struct Poll {
    began: Moment,
    has_failed: bool,
    /// The sequence number of the last write that it found.
    last: u64,
}

impl Notes {
    /// Ends the last poll. `durable` is the sequence number up to which the replica has everything, if known.
    fn over(&mut self, durable: Option<u64>) {
        if let Some(poll) = self.now.take()
            && !poll.has_failed
            && durable.is_none_or(|durable| poll.last <= durable)
        {
            self.current = Some(poll.began);
        }
    }
}

impl Staleness {
    /// How many polls have begun.
    #[cfg(test)]
    pub(crate) fn begun(&self) -> u64 {
        self.notes().begun
    }

    /// The replica has everything up to this time. `None` until it has been opened.
    pub(crate) fn current(&self) -> Option<Moment> {
        self.notes().current
    }

    /// Records that the replica was opened, so its first poll is over. If the second one has begun already, the end of
    /// that one counts. `status` reports how far the replica is.
    pub(crate) fn opened(&self, status: watch::Receiver<DbStatus>) {
        let _ = self.status.set(status);
        let mut notes = self.notes();
        if notes.begun == 1 {
            notes.over(None);
        }
    }

    fn begins(&self) {
        let durable = self.status.get().map(|status| status.borrow().durable_seq);
        let mut notes = self.notes();
        notes.over(durable);
        notes.now = Some(Poll { began: Moment::now(), has_failed: false, last: 0 });
        notes.begun += 1;
    }

    fn failed(&self) {
        if let Some(poll) = &mut self.notes().now {
            poll.has_failed = true;
        }
    }

    fn found(&self, rows: &WalRows) {
        let last = rows.rows.iter().map(|row| row.seq).max();
        if let (Some(poll), Some(last)) = (&mut self.notes().now, last) {
            poll.last = poll.last.max(last);
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log reader that records each poll.
pub(crate) struct Noting {
    log: SlateDbWalReader,
    files: slatedb::WalReader,
    staleness: Arc<Staleness>,
    /// The files of the last poll.
    stretch: Mutex<Stretch>,
    /// Files without a row: each owner begins with one. The replica does not remember that it has read them.
    bare: Arc<Mutex<Stretch>>,
}

/// The files of the log after the first number, up to the second one.
type Stretch = Option<(u64, u64)>;

impl Noting {
    pub(crate) fn new(
        objects: &Arc<dyn ObjectStore>,
        staleness: Arc<Staleness>,
    ) -> Result<Self, slatedb::Error> {
        let log = SlateDbWalReaderBuilder::new()
            .with_path(PATH.into())
            .with_object_store(Arc::clone(objects))
            .build()?;
        let files = slatedb::WalReader::new(PATH, Arc::clone(objects));
        Ok(Self { log, files, staleness, stretch: Mutex::default(), bare: Arc::default() })
    }

    /// Whether the replica is so fresh that no file that it has not read can have been collected.
    fn is_recent(&self) -> bool {
        self.staleness.current().is_some_and(|moment| moment.elapsed() < LATELY)
    }

    /// Whether there is certainly no file after this one. Most polls find nothing new, and one request to the store is
    /// enough for that; SlateDB makes ten. (The manifest takes one more.)
    async fn is_last(&self, file: u64) -> bool {
        let bare = lock(&self.bare).filter(|(after, _)| *after == file);
        let last = bare.map_or(file, |(_, last)| last);
        if !self.is_recent() {
            return false;
        }
        let next = self.files.get(last + 1).metadata().await;
        // A slow answer may have missed a file that was both created and collected meanwhile.
        next.is_err_and(|error| is_missing(&error)) && self.is_recent()
    }
}

fn lock(stretch: &Mutex<Stretch>) -> MutexGuard<'_, Stretch> {
    stretch.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl WalReader for Noting {
    async fn last_wal_file_id(&self, after: u64) -> Result<u64, WalError> {
        self.staleness.begins();
        if self.is_last(after).await {
            return Ok(after);
        }
        let last = self.log.last_wal_file_id(after).await.inspect_err(|_| self.staleness.failed())?;
        *lock(&self.stretch) = Some((after, last)).filter(|_| self.is_recent());
        Ok(last)
    }

    async fn iterator(&self, files: WalFileRange) -> Result<Box<dyn WalIterator>, WalError> {
        let rows = self.log.iterator(files).await.inspect_err(|_| self.staleness.failed())?;
        let (staleness, bare) = (Arc::clone(&self.staleness), Arc::clone(&self.bare));
        Ok(Box::new(NotingRows {
            rows,
            staleness,
            stretch: lock(&self.stretch).take(),
            bare,
            is_over: false,
        }))
    }
}

struct NotingRows {
    rows: Box<dyn WalIterator>,
    staleness: Arc<Staleness>,
    /// `None` if some of its files have rows, or may have been collected.
    stretch: Stretch,
    bare: Arc<Mutex<Stretch>>,
    is_over: bool,
}

#[async_trait]
impl WalIterator for NotingRows {
    async fn next(&mut self) -> Result<Option<WalRows>, WalError> {
        // A file that was collected meanwhile ends a poll as if it had been the last one.
        let next = self.rows.next().await.inspect_err(|_| self.staleness.failed())?;
        match &next {
            Some(rows) => {
                self.staleness.found(rows);
                self.stretch = self.stretch.filter(|_| rows.rows.is_empty());
            }
            None => {
                self.is_over = true;
                *lock(&self.bare) = self.stretch;
            }
        }
        Ok(next)
    }
}

/// A poll that was dropped in the middle has failed.
impl Drop for NotingRows {
    fn drop(&mut self) {
        if !self.is_over {
            self.staleness.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_poll_that_is_over_did_not_fail_and_is_in_the_replica_counts() {
        let staleness = Staleness::default();
        staleness.begins();
        assert!(staleness.current().is_none(), "it is not over");
        staleness.failed();
        staleness.begins();
        assert!(staleness.current().is_none(), "it failed");
        let row = slatedb::RowEntry {
            key: "a".into(),
            value: slatedb::ValueDeletable::Tombstone,
            seq: 7,
            create_ts: None,
            expire_ts: None,
        };
        staleness.found(&WalRows { rows: vec![row], last_consumed_wal_file_id: 1 });
        staleness.notes().over(Some(6));
        assert!(staleness.current().is_none(), "what it found is not in the replica");
        staleness.begins();
        let began = staleness.notes().now.as_ref().map(|poll| poll.began);
        staleness.begins();
        assert_eq!(staleness.current(), began, "it counts from its start");
    }
}
