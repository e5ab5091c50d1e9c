//! The log of a shard's data: numbered entries, written by the owner of the shard under the epoch of its claim.
//!
//! A claim says who *should* own a shard, but a paused owner may not know yet that it has lost its claim. The log fences
//! it. Entries are created if absent, one after the other, so of two writers of one number one succeeds. A new owner first
//! creates the next entry, its *opening*. A former owner fails to create that number, finds a higher epoch there, and
//! writes nothing more.
//!
//! # Why an acknowledged record is never lost
//!
//! * A writer has one entry in progress and knows all before it. So the next number that it tries is that of the next
//!   owner's opening, and there it fails.
//! * It would succeed if that number had been trimmed meanwhile. So openings are never trimmed: they are a few dozen bytes
//!   each, and stop a writer however long it was paused. A new owner that was paused could create its opening where an
//!   entry was trimmed, so it checks for a higher one and continues from there.
//! * An entry whose write got no answer may arrive later. Each has an id, so its writer recognizes it. After an error the
//!   log is closed, so nothing follows an entry that may or may not have been written.
//! * A new owner reads the log after its opening, and finds all that was acknowledged before it.
//!
//! Each entry states below which number the log was trimmed when it was written, so readers can distinguish a trimmed
//! number from a lost one.

mod entry;
mod reader;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use tokio::sync::oneshot;
use types::{Epoch, ErrorKind};
use uuid::Uuid;

use self::entry::{HEADER, Header};
pub use self::reader::{DataEntry, DataLogReader};
use crate::error::{Fault, StoreError};
use crate::objects::Created;

/// The longest record, in bytes.
pub const MAX_RECORD: usize = 16 * 1024 * 1024;

/// An entry has at most this many records, and this many bytes unless one record has more.
const GROUP: (usize, usize) = (4_096, 4 * 1024 * 1024);
/// How often to retry a create that the store refuses although nothing is there, and a read of an entry that was trimmed
/// meanwhile.
const TRIES: usize = 8;
/// How often a new owner moves on to the next number while the former owner still writes.
const OPENING_TRIES: usize = 256;
/// How long a writer whose write got no answer waits to read its entry back.
const READ_BACK: Duration = Duration::from_secs(2);

/// The log of a shard's data, opened by the owner of the shard.
///
/// Appends that wait for one another become one entry (group commit). The callers drive the write: if one goes away, the
/// others finish it.
///
/// ```
/// # use std::sync::Arc;
/// # use store::object_store::memory::InMemory;
/// # use store::{DataLog, DataLogError};
/// # use types::Epoch;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), DataLogError> {
/// # let objects: Arc<dyn store::ObjectStore> = Arc::new(InMemory::new());
/// let log = DataLog::open(Arc::clone(&objects), "log", Epoch(1)).await?;
/// let number = log.append("one").await?;
/// let entries = log.reader().read(number).await?;
/// assert_eq!(entries[0].records, ["one"]);
///
/// let next_owner = DataLog::open(objects, "log", Epoch(2)).await?;
/// assert!(matches!(log.append("late").await, Err(DataLogError::Fenced { .. })));
/// next_owner.append("two").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DataLog {
    reader: DataLogReader,
    epoch: Epoch,
    opening: u64,
    waiting: Mutex<VecDeque<Waiting>>,
    writer: tokio::sync::Mutex<Writer>,
}

/// Why a log can't be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DataLogError {
    /// Another owner has opened the log, so the claim is lost. Report it with `Claim::fenced`, and stop.
    #[error("entry {number} of the log was written by another owner, under epoch {epoch}")]
    Fenced {
        /// The epoch of the other owner; equal to this one's if the log was opened twice under one claim.
        epoch: Epoch,
        /// Where it was found.
        number: u64,
    },
    /// Start from a snapshot, and read from `first` on.
    #[error("the log is trimmed: it begins at entry {first}")]
    Trimmed {
        /// The first entry that is kept.
        first: u64,
    },
    /// Split it into several records.
    #[error("the record has {0} bytes; at most {MAX_RECORD} are allowed")]
    TooLong(usize),
    /// The store failed, or has an unreadable entry. The record may still have been written, so the log is closed; open it
    /// again and read it.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

impl DataLogError {
    /// What a caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced { .. } => ErrorKind::Unavailable,
            Self::Trimmed { .. } => ErrorKind::Conflict,
            Self::TooLong(_) => ErrorKind::TooLarge,
            Self::Store(error) => error.kind(),
        }
    }
}

impl From<StoreError> for DataLogError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// A record that is not in an entry yet, and the channel that returns the number of its entry.
#[derive(Debug)]
struct Waiting {
    record: Bytes,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<u64, DataLogError>>;

#[derive(Debug)]
struct Writer {
    /// The number of the last entry.
    last: u64,
    /// Entries below this number are trimmed.
    floor: u64,
    /// The next entry, until it is known to be written. The next caller resumes its write.
    group: Option<Group>,
    /// The error that closed the log.
    end: Option<DataLogError>,
    on_entry: OnEntry,
}

/// Called with each durable entry, in order.
struct OnEntry(Box<dyn FnMut(&DataEntry) + Send>);

impl fmt::Debug for OnEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEntry")
    }
}

/// An entry in progress.
#[derive(Debug)]
struct Group {
    id: Uuid,
    floor: u64,
    records: Vec<Bytes>,
    answers: Vec<Answer>,
}

impl DataLog {
    /// Opens the log below `prefix` in a role's own objects, under the epoch of its claim. From now on no writer with a
    /// lower epoch can append, nor can an earlier one with the same epoch. Read the log afterwards, then serve.
    ///
    /// # Errors
    /// [`DataLogError::Fenced`] if it was opened under a higher epoch.
    pub async fn open(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        epoch: Epoch,
    ) -> Result<Self, DataLogError> {
        Self::open_after(objects, prefix, epoch, 0).await
    }

    /// The same, with the number of an entry that was written: those before it are not listed.
    ///
    /// # Errors
    /// [`DataLogError::Fenced`] if it was opened under a higher epoch.
    pub async fn open_after(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        epoch: Epoch,
        known: u64,
    ) -> Result<Self, DataLogError> {
        let reader = DataLogReader::new(objects, prefix);
        let mut last = reader.last_from(known).await?;
        for _ in 0..OPENING_TRIES {
            if let Some(Header { epoch: higher, number, .. }) = last
                && higher > epoch
            {
                return Err(DataLogError::Fenced { epoch: higher, number });
            }
            let opening = last.map_or(0, |last| last.number) + 1;
            let floor = last.map_or(1, |last| last.floor);
            let header = Header { number: opening, epoch, opening, floor, id: Uuid::now_v7() };
            if let Wrote::Theirs(theirs) = reader.create(&header, &[]).await? {
                last = Some(theirs);
                continue;
            }
            match reader.last_from(opening).await? {
                Some(highest) if highest.number > opening => last = Some(highest),
                _ => {
                    let on_entry = OnEntry(Box::new(|_| {}));
                    let writer = Writer { last: opening, floor, group: None, end: None, on_entry };
                    let writer = tokio::sync::Mutex::new(writer);
                    return Ok(Self { reader, epoch, opening, waiting: Mutex::default(), writer });
                }
            }
        }
        let cause = format!("another owner was faster {OPENING_TRIES} times");
        let path = reader.path(last.map_or(0, |last| last.number) + 1);
        Err(reader.objects.error(Fault::Other, "write", &path, cause).into())
    }

    /// Calls a function with each entry from now on, once it is durable and before its appends return. So state in memory
    /// receives all records in order, including those of callers that went away.
    #[must_use]
    pub fn on_entry(mut self, call: impl FnMut(&DataEntry) + Send + 'static) -> Self {
        self.writer.get_mut().on_entry = OnEntry(Box::new(call));
        self
    }

    /// The number of this owner's first entry. No entry is added before it any more.
    pub fn opening(&self) -> u64 {
        self.opening
    }

    /// A reader of this log.
    pub fn reader(&self) -> DataLogReader {
        self.reader.clone()
    }

    /// Appends a record. Returns the number of its entry once that is durable.
    ///
    /// # Errors
    /// Any error but [`DataLogError::TooLong`] closes the log: all later appends fail with the same.
    pub async fn append(&self, record: impl Into<Bytes>) -> Result<u64, DataLogError> {
        let record = record.into();
        if record.len() > MAX_RECORD {
            return Err(DataLogError::TooLong(record.len()));
        }
        let (answer, mut answered) = oneshot::channel();
        self.waiting().push_back(Waiting { record, answer });
        let mut writer = self.writer.lock().await;
        loop {
            // The previous writer may have written it.
            if let Ok(outcome) = answered.try_recv() {
                return outcome;
            }
            if writer.group.is_none() {
                let floor = writer.floor;
                writer.group = Some(self.next_group(floor));
            }
            self.write(&mut writer).await;
        }
    }

    /// Removes the entries below a number, except for openings. Returns how many. Their effect must be durable elsewhere,
    /// in a snapshot. Entries that are not written yet are never removed.
    pub async fn trim(&self, below: u64) -> Result<usize, DataLogError> {
        let floor = {
            let mut writer = self.writer.lock().await;
            while writer.group.is_some() {
                self.write(&mut writer).await;
            }
            let floor = below.min(writer.last + 1);
            if floor > writer.floor {
                let (answer, mut answered) = oneshot::channel();
                let (id, answers) = (Uuid::now_v7(), vec![answer]);
                writer.group = Some(Group { id, floor, records: Vec::new(), answers });
                self.write(&mut writer).await;
                if let Ok(outcome) = answered.try_recv() {
                    outcome?;
                }
            }
            // Readers must be able to distinguish trimmed entries from lost ones.
            floor.min(writer.floor)
        };
        let listed = self.reader.numbered(self.reader.objects.list(&self.reader.prefix).await?);
        let is_opening = |size: u64| usize::try_from(size) == Ok(HEADER);
        let mut removed = 0;
        for (_, meta) in listed.into_iter().filter(|(number, meta)| *number < floor && !is_opening(meta.size))
        {
            self.reader.objects.delete(&meta.location).await?;
            removed += 1;
        }
        Ok(removed)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The waiting records, as one entry.
    fn next_group(&self, floor: u64) -> Group {
        let mut group = Group { id: Uuid::now_v7(), floor, records: Vec::new(), answers: Vec::new() };
        let (mut waiting, mut bytes) = (self.waiting(), 0);
        while let Some(next) = waiting.front() {
            let is_full = group.records.len() >= GROUP.0 || bytes + next.record.len() > GROUP.1;
            if is_full && !group.records.is_empty() {
                break;
            }
            let Some(Waiting { record, answer }) = waiting.pop_front() else { break };
            bytes += record.len();
            group.records.push(record);
            group.answers.push(answer);
        }
        group
    }

    /// Writes the entry in progress and answers its callers. If this is dropped, the entry stays in progress.
    async fn write(&self, writer: &mut Writer) {
        let number = writer.last + 1;
        let outcome = match (&writer.end, &writer.group) {
            (Some(end), _) => Err(end.clone()),
            (None, Some(group)) => {
                let Group { id, floor, .. } = *group;
                let header = Header { number, epoch: self.epoch, opening: self.opening, floor, id };
                match self.reader.create(&header, &group.records).await {
                    Ok(Wrote::Ours) => Ok(number),
                    Ok(Wrote::Theirs(theirs)) => Err(DataLogError::Fenced { epoch: theirs.epoch, number }),
                    Err(error) => Err(error),
                }
            }
            (None, None) => return,
        };
        let Some(group) = writer.group.take() else { return };
        match &outcome {
            Ok(number) => {
                (writer.last, writer.floor) = (*number, group.floor);
                let entry = DataEntry { number: *number, epoch: self.epoch, records: group.records };
                (writer.on_entry.0)(&entry);
            }
            Err(error) => writer.end = Some(error.clone()),
        }
        for answer in group.answers {
            // The caller may have gone away.
            let _ = answer.send(outcome.clone());
        }
    }
}

/// Whose entry has a number.
enum Wrote {
    Ours,
    Theirs(Header),
}

impl DataLogReader {
    /// Creates an entry, unless its number is taken.
    async fn create(&self, header: &Header, records: &[Bytes]) -> Result<Wrote, DataLogError> {
        let path = self.path(header.number);
        let content = entry::encode(header, records);
        let wrote = |found: Header| if found.id == header.id { Wrote::Ours } else { Wrote::Theirs(found) };
        for _ in 0..TRIES {
            match self.objects.create(&path, content.clone()).await {
                Ok(Created::Yes) => return Ok(Wrote::Ours),
                // Also if the client sent it twice and the second request found the first one's object.
                Ok(Created::AlreadyThere) => {
                    if let Some((found, _)) = self.entry(header.number).await? {
                        return Ok(wrote(found));
                    }
                    // Refused only because another writer is busy with it.
                }
                // There was no answer, but the write may have been made.
                Err(error) => {
                    let back = Self { objects: self.objects.within(READ_BACK), prefix: self.prefix.clone() };
                    return match back.entry(header.number).await {
                        Ok(Some((found, _))) => Ok(wrote(found)),
                        Ok(None) | Err(_) => Err(error.into()),
                    };
                }
            }
        }
        let cause = format!("it was refused {TRIES} times because it exists, but it does not exist");
        Err(self.objects.error(Fault::Other, "write", &path, cause).into())
    }
}

#[cfg(test)]
mod tests;
