//! How far behind a replica may be: counted from the beginning of the last poll of the log that was taken in whole.
//!
//! SlateDB's reader does not say when it polled. But it asks for the newest file of the log once in each poll, after the
//! manifest; so it is given a reader of the log that notes it. All that was durable when it was asked is in the replica
//! once the poll is over, unless the poll failed. And polls follow one another: when the next one begins, the one
//! before it is over. So the bound is one poll longer than it could be, and never too short.

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

/// A replica that has polled within this time has missed no file that is collected already.
const LATELY: Duration = Duration::from_secs(30);

/// When a replica was last current.
#[derive(Default)]
pub(crate) struct Staleness {
    notes: Mutex<Notes>,
    status: OnceLock<watch::Receiver<DbStatus>>,
}

#[derive(Debug, Default)]
struct Notes {
    /// When the last poll began that is over and did not fail.
    current: Option<Moment>,
    /// The last one that began.
    now: Option<Poll>,
    begun: u64,
}

#[derive(Debug)]
struct Poll {
    began: Moment,
    has_failed: bool,
    /// The last write that it found.
    last: u64,
}

impl Notes {
    /// The last poll is over. The replica has all up to this write, if that is known.
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

    /// All up to this moment is in the replica. Nothing as long as there is no replica.
    pub(crate) fn current(&self) -> Option<Moment> {
        self.notes().current
    }

    /// The replica was opened, so that the first poll is over; `status` tells how far it is. The second one may have
    /// begun already, and then its end tells.
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

/// Reads the log and notes each poll.
pub(crate) struct Noting {
    log: SlateDbWalReader,
    files: slatedb::WalReader,
    staleness: Arc<Staleness>,
    /// What the last poll was about.
    stretch: Mutex<Stretch>,
    /// Files without a row: each owner begins with one. The replica does not remember having read them.
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

    /// Whether the replica is so new that none of the files that it has not read can have been collected.
    fn is_recent(&self) -> bool {
        self.staleness.current().is_some_and(|moment| moment.elapsed() < LATELY)
    }

    /// Whether there is certainly nothing new. Most polls find nothing, and one question to the store is enough for
    /// that; SlateDB asks ten. (The manifest takes one more.)
    async fn is_last(&self, file: u64) -> bool {
        let bare = lock(&self.bare).filter(|(after, _)| *after == file);
        let last = bare.map_or(file, |(_, last)| last);
        if !self.is_recent() {
            return false;
        }
        let next = self.files.get(last + 1).metadata().await;
        // An answer that took long may have missed a file that came and was collected meanwhile.
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
    /// Nothing if some of its files have rows, or may have been collected.
    stretch: Stretch,
    bare: Arc<Mutex<Stretch>>,
    is_over: bool,
}

#[async_trait]
impl WalIterator for NotingRows {
    async fn next(&mut self) -> Result<Option<WalRows>, WalError> {
        // A file that was collected meanwhile ends a poll as if there had been no more of them.
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
        assert!(staleness.current().is_none(), "it goes on");
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
        assert_eq!(staleness.current(), began, "it counts from its beginning");
    }
}
