//! Changes older than those kept in memory, read from the database's own log.
//!
//! A file of the log has whole batches in order, and the files are numbered without a gap: a writer that takes over
//! puts an empty file where its predecessor would have written next. So the newest files without a gap have everything
//! that ever became durable since their first batch. Old files are collected; see [`crate::engine::garbage`].
//!
//! A listing of a folder is no snapshot: it may miss files that are created meanwhile. So where a listing shows a gap,
//! the file is requested by name before it counts as missing.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use plugin::SingleFlight;
use slatedb::object_store::{self, ObjectStore};
use slatedb::{RowEntry, ValueDeletable, WalReader};
use tokio::time::Instant;

use crate::changes::feed::Batch;
use crate::engine::open::PATH;

/// How many bytes of the files that were read are kept; the last file in any case.
const KEPT: usize = 16 * 1024 * 1024;
/// Of how many files the first batch is remembered.
const BEGINNINGS: usize = 4_096;
/// How old a listing may be. One that misses the newest files still finds any place before them.
const LISTED: Duration = Duration::from_secs(2);

/// The log of a shard's database. Cheap to clone.
///
/// Many watchers fall behind at once, for example after a move of the shard. So only one thing is read at a time, and
/// what was read is kept for a while for the others. All waiting readers poll the read in progress, whichever of them
/// started it, since the stream of a slow client is not polled.
#[derive(Clone)]
pub(crate) struct History(Arc<Shared>);

struct Shared {
    log: Arc<WalReader>,
    kept: Mutex<Kept>,
    reading: SingleFlight<What, Outcome>,
}

/// Something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    List,
    /// The first batch of a file.
    Beginning(u64),
    File(u64),
}

type Outcome = Result<Read, HistoryError>;

/// The result of a read.
#[derive(Clone)]
enum Read {
    /// When the listing began, and the first and the last of the newest files without a gap.
    List(Instant, u64, u64),
    /// A file, and the first batch in it.
    Beginning(u64, Option<u64>),
    File(u64, Batches),
}

#[derive(Default)]
struct Kept {
    files: VecDeque<(u64, Batches)>,
    bytes: usize,
    /// The first batch in a file.
    beginnings: BTreeMap<u64, Option<u64>>,
    listed: Option<(Instant, u64, u64)>,
}

/// The batches of a file.
pub(crate) type Batches = Arc<Vec<Batch>>;

/// A position in the log: a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading(u64);

/// Why the log can't be read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HistoryError {
    /// Start over: some of it was collected.
    #[error("changes of that time are not kept any more")]
    Gone,
    /// Try again.
    #[error("the log could not be read: {0}")]
    Unread(#[source] Arc<slatedb::Error>),
    /// SlateDB's reader panicked on it.
    #[error("the log has something that can't be read")]
    Undecodable,
}

impl From<slatedb::Error> for HistoryError {
    fn from(error: slatedb::Error) -> Self {
        if is_missing(&error) { Self::Gone } else { Self::Unread(Arc::new(error)) }
    }
}

impl History {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        let log = Arc::new(WalReader::new(PATH, objects));
        Self(Arc::new(Shared { log, kept: Mutex::default(), reading: SingleFlight::default() }))
    }

    /// Finds the file with a batch, or with the first batch after it.
    pub(crate) async fn find(&self, seq: u64) -> Result<Reading, HistoryError> {
        let asked = Instant::now();
        let listed = self.listed(asked.checked_sub(LISTED).unwrap_or(asked)).await?;
        match self.search(listed, seq).await {
            // The first file of that listing may have been collected since.
            Err(HistoryError::Gone) => self.search(self.listed(asked).await?, seq).await,
            outcome => outcome,
        }
    }

    async fn search(&self, (first, last): (u64, u64), seq: u64) -> Result<Reading, HistoryError> {
        // Nothing comes before the first file of the log.
        if first > 1 && self.first_batch(first, last).await?.is_none_or(|found| found > seq) {
            return Err(HistoryError::Gone);
        }
        // The last file whose first batch is not after `seq`.
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = high - (high - low) / 2;
            if self.first_batch(middle, last).await?.is_some_and(|found| found <= seq) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(Reading(low))
    }

    /// The batches of a file, in their order.
    pub(crate) async fn read(&self, Reading(id): Reading) -> Result<Batches, HistoryError> {
        self.get(What::File(id), |kept| kept.file(id)).await
    }

    /// The first and the last of the newest files without a gap, from a listing that began at `then` or later.
    async fn listed(&self, then: Instant) -> Result<(u64, u64), HistoryError> {
        let known =
            |kept: &Kept| kept.listed.filter(|(at, ..)| *at >= then).map(|(_, first, last)| (first, last));
        self.get(What::List, known).await
    }

    /// The first batch in a file or in those after it, up to the last one.
    async fn first_batch(&self, from: u64, last: u64) -> Result<Option<u64>, HistoryError> {
        for id in from..=last {
            let known = |kept: &Kept| kept.beginnings.get(&id).copied();
            let first = self.get(What::Beginning(id), known).await?;
            if first.is_some() {
                return Ok(first);
            }
        }
        Ok(None)
    }

    /// Returns what is kept, or reads it once no other read is in progress.
    async fn get<T>(&self, what: What, known: impl Fn(&Kept) -> Option<T>) -> Result<T, HistoryError> {
        let asked = Instant::now();
        loop {
            if let Some(known) = known(&self.kept()) {
                return Ok(known);
            }
            let keep = |outcome: &Outcome| {
                if let Ok(read) = outcome {
                    self.kept().keep(read.clone());
                }
            };
            let read = self.0.reading.join(what, || self.begin(what), keep).await;
            match (known(&self.kept()), read.outcome) {
                (Some(found), _) => return Ok(found),
                (None, Err(error)) if read.key == what && read.since >= asked => return Err(error),
                // That was another read, or its result was dropped already, or it began before this call.
                (None, _) => {}
            }
        }
    }

    /// A read that starts when it is polled.
    fn begin(&self, what: What) -> BoxFuture<'static, Outcome> {
        let log = Arc::clone(&self.0.log);
        reads(async move {
            match what {
                What::List => list(log).await,
                What::Beginning(id) => beginning(log, id).await,
                What::File(id) => file(log, id).await,
            }
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn file(&self, id: u64) -> Option<Batches> {
        self.files.iter().find(|(kept, _)| *kept == id).map(|(_, batches)| Arc::clone(batches))
    }

    /// Keeps the result of a read; the oldest results of the same kind make room.
    fn keep(&mut self, read: Read) {
        match read {
            Read::List(at, first, last) => self.listed = Some((at, first, last)),
            Read::Beginning(id, first) => {
                if self.beginnings.len() >= BEGINNINGS {
                    self.beginnings.pop_first();
                }
                self.beginnings.insert(id, first);
            }
            Read::File(id, batches) => {
                self.bytes += bytes(&batches);
                self.files.push_back((id, batches));
                while self.bytes > KEPT && self.files.len() > 1 {
                    let Some((_, oldest)) = self.files.pop_front() else { break };
                    self.bytes -= bytes(&oldest);
                }
            }
        }
    }
}

impl Reading {
    /// The next file.
    pub(crate) fn next_file(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Turns a panic into an error for those who wait for this read, so that other reads continue.
fn reads(read: impl Future<Output = Outcome> + Send + 'static) -> BoxFuture<'static, Outcome> {
    let read = AssertUnwindSafe(read).catch_unwind();
    read.map(|outcome| outcome.unwrap_or(Err(HistoryError::Undecodable))).boxed()
}

async fn list(log: Arc<WalReader>) -> Result<Read, HistoryError> {
    let began = Instant::now();
    let listed: Vec<_> = log.list(..).await?.iter().map(|file| file.id).collect();
    let Some(&last) = listed.last() else { return Err(HistoryError::Gone) };
    let mut first = last;
    while first > 1 {
        first = unbroken(&listed, first);
        if first == 1 || !is_there(&log, first - 1).await? {
            break;
        }
        first -= 1;
    }
    Ok(Read::List(began, first, last))
}

/// Whether the log has a file with that number.
async fn is_there(log: &WalReader, id: u64) -> Result<bool, slatedb::Error> {
    match log.get(id).metadata().await {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn beginning(log: Arc<WalReader>, id: u64) -> Result<Read, HistoryError> {
    let first = log.get(id).iterator().await?.next().await?;
    Ok(Read::Beginning(id, first.map(|row| row.seq)))
}

async fn file(log: Arc<WalReader>, id: u64) -> Result<Read, HistoryError> {
    let mut rows = log.get(id).iterator().await?;
    let mut batches: Vec<Batch> = Vec::new();
    while let Some(RowEntry { key, value, seq, .. }) = rows.next().await? {
        // A slice would keep the whole block in memory, and everything that was read with it.
        let apart = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let value = match &value {
            ValueDeletable::Value(value) | ValueDeletable::Merge(value) => Some(apart(value)),
            ValueDeletable::Tombstone => None,
        };
        let row = (apart(&key), value);
        match batches.last_mut().filter(|batch| batch.seq == seq) {
            Some(batch) => batch.rows.push(row),
            None => batches.push(Batch { seq, rows: vec![row] }),
        }
    }
    batches.sort_by_key(|batch| batch.seq);
    for batch in &mut batches {
        batch.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    Ok(Read::File(id, Arc::new(batches)))
}

fn bytes(batches: &Batches) -> usize {
    batches.iter().map(Batch::bytes).sum()
}

/// The first number of the run without a gap that ends at `last`.
fn unbroken(rising: &[u64], last: u64) -> u64 {
    let mut first = last;
    for &id in rising.iter().rev().skip_while(|id| **id >= last) {
        if id + 1 != first {
            break;
        }
        first = id;
    }
    first
}

/// Whether the error means that the file does not exist.
pub(crate) fn is_missing(error: &slatedb::Error) -> bool {
    store_errors(error).any(|error| matches!(error, object_store::Error::NotFound { .. }))
}

/// The errors of the store among the causes of an error.
pub(crate) fn store_errors(error: &slatedb::Error) -> impl Iterator<Item = &object_store::Error> {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.filter_map(|cause| {
        let shared = cause.downcast_ref::<Arc<object_store::Error>>().map(AsRef::as_ref);
        shared.or_else(|| cause.downcast_ref::<object_store::Error>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_files_without_a_gap_count() {
        for (ids, last, first) in [
            (&[][..], 7, 7),
            (&[7], 7, 7),
            (&[1, 2, 3], 3, 1),
            (&[1, 3, 4], 4, 3),
            (&[1, 3, 4], 2, 1),
            (&[1, 2, 9], 9, 9),
            (&[1, 2, 9], 8, 8),
        ] {
            assert_eq!(unbroken(ids, last), first, "{ids:?} {last}");
        }
    }

    #[test]
    fn files_that_were_read_are_kept_up_to_a_bound() {
        let file =
            |size: usize| Arc::new(vec![Batch { seq: 1, rows: vec![(Bytes::from(vec![0; size]), None)] }]);
        let mut kept = Kept::default();
        for id in 1..=9 {
            kept.keep(Read::File(id, file(KEPT / 4)));
            assert!(kept.bytes <= KEPT && kept.file(id).is_some(), "{id}");
        }
        assert!(kept.file(1).is_none() && kept.file(8).is_some());
        kept.keep(Read::File(10, file(2 * KEPT)));
        assert_eq!((kept.files.len(), kept.file(10).is_some()), (1, true), "the last one in any case");
        kept.keep(Read::File(11, file(1)));
        assert_eq!(kept.files.len(), 1);
        for id in 0..2 * u64::try_from(BEGINNINGS).unwrap() {
            kept.keep(Read::Beginning(id, None));
        }
        assert_eq!(kept.beginnings.len(), BEGINNINGS);
    }

    async fn with_a_file() -> History {
        let objects: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let db = slatedb::Db::builder(PATH, Arc::clone(&objects)).build().await.unwrap();
        db.put(b"ka", b"1").await.unwrap();
        db.flush().await.unwrap();
        db.close().await.unwrap();
        History::new(objects)
    }

    #[tokio::test]
    async fn a_reader_that_is_not_polled_blocks_no_other() {
        let history = with_a_file().await;
        let read = async {
            tokio::task::yield_now().await;
            Ok(Read::Beginning(7, None))
        };
        let mut stuck = std::pin::pin!(history.0.reading.join(What::Beginning(7), || reads(read), |_| ()));
        assert!((&mut stuck).now_or_never().is_none(), "it is in progress, and is not polled again");
        let found = history.find(1).await.unwrap();
        let (one, other) = tokio::join!(history.read(found), history.read(found));
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()), "it was read once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_or_a_panic_reaches_only_those_who_wait_for_that_file() {
        let history = with_a_file().await;
        let begin_to_panic = || {
            let panics = || {
                reads(async {
                    // Once for the reader that began, and once for the first one that waits.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    panic!("a file that the reader can't decode");
                })
            };
            assert!(history.0.reading.join(What::File(9), panics, |_| ()).now_or_never().is_none());
        };
        // The clock is paused: this read is not older than those that wait for it.
        begin_to_panic();
        let (one, other, sound) =
            tokio::join!(history.read(Reading(9)), history.read(Reading(9)), history.find(1));
        for failed in [one, other] {
            assert!(matches!(failed, Err(HistoryError::Undecodable)));
        }
        history.read(sound.unwrap()).await.unwrap();

        // The outcome of a read that began long ago does not count now.
        begin_to_panic();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(history.read(Reading(9)).await, Err(HistoryError::Gone)));
    }
}
