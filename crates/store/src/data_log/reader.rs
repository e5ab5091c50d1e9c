//! Reads a data log: for its owner when it opens the log, and for replicas as the log grows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use types::Epoch;

use super::entry::{self, Header};
use super::{DataLogError, TRIES};
use crate::error::{Fault, StoreError};
use crate::objects::Objects;

/// At most this many entries are read at once, and this many bytes unless one entry has more.
const MOST: (usize, u64) = (1_000, 16 * 1024 * 1024);
/// How many entries are read at the same time.
const CONCURRENT: usize = 16;

/// An entry of a data log: records that became durable together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataEntry {
    /// Counted from 1, without a gap.
    pub number: u64,
    /// The epoch of the claim under which it was written.
    pub epoch: Epoch,
    /// In the order in which they were appended. The first entry of an owner has none.
    pub records: Vec<Bytes>,
}

/// Reads a data log; needs no claim. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DataLogReader {
    pub(super) objects: Objects,
    pub(super) prefix: Path,
}

impl DataLogReader {
    /// The log below `prefix` in a role's own objects.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self { objects: Objects::of_role(objects), prefix: Path::from(prefix) }
    }

    /// The entries from number `from` on, in order; empty if there are none yet. A long log is read in parts: continue
    /// after the last entry until the result is empty.
    ///
    /// One LIST, a GET for each entry, and one for the next number: a listing of a folder is not a snapshot, so an entry
    /// that it lacks is read before it counts as missing.
    ///
    /// # Errors
    /// [`DataLogError::Trimmed`] if `from` is trimmed, and a store error for a gap or a damaged entry.
    pub async fn read(&self, from: u64) -> Result<Vec<DataEntry>, DataLogError> {
        let from = from.max(1);
        let listed = self.numbered(self.objects.list_after(&self.prefix, &self.path(from - 1)).await?);
        let (mut end, mut bytes) = (from, 0);
        for (number, meta) in &listed {
            let is_enough = usize::try_from(number - from).is_ok_and(|count| count >= MOST.0)
                || bytes + meta.size > MOST.1 && *number > from;
            if is_enough {
                break;
            }
            (end, bytes) = (number + 1, bytes + meta.size);
        }
        if !listed.is_empty() {
            end = end.max(from + 1);
        }
        let entries = stream::iter((from..end).map(|number| self.entry(number)));
        let entries: Vec<_> = entries.buffered(CONCURRENT).try_collect().await?;
        let mut read = Vec::new();
        for (number, entry) in (from..end).zip(entries) {
            let Some((header, records)) = entry else { return Err(self.missing(number).await?) };
            read.push(DataEntry { number, epoch: header.epoch, records });
        }
        let is_all = listed.last().is_none_or(|(number, _)| *number < end);
        while is_all && read.len() < MOST.0 {
            let Some((header, records)) = self.entry(end).await? else { break };
            read.push(DataEntry { number: end, epoch: header.epoch, records });
            end += 1;
        }
        Ok(read)
    }

    /// The entries from number `from` to `last`, both of which were written, in order. A long log is read in parts: continue
    /// after the last entry. One GET for each entry, and no LIST.
    ///
    /// # Errors
    /// [`DataLogError::Trimmed`] if `from` is trimmed, and a store error for a gap or a damaged entry.
    pub async fn read_written(&self, from: u64, last: u64) -> Result<Vec<DataEntry>, DataLogError> {
        let numbers = (from.max(1)..=last).take(MOST.0);
        let mut entries =
            stream::iter(numbers.map(async |number| (number, self.entry(number).await))).buffered(CONCURRENT);
        let (mut read, mut bytes) = (Vec::new(), 0);
        while bytes < MOST.1
            && let Some((number, entry)) = entries.next().await
        {
            let Some((header, records)) = entry? else { return Err(self.missing(number).await?) };
            bytes +=
                records.iter().map(|record| u64::try_from(record.len()).unwrap_or(u64::MAX)).sum::<u64>();
            read.push(DataEntry { number, epoch: header.epoch, records });
        }
        Ok(read)
    }

    /// Whether an entry is there: `false` if it is not written yet, or trimmed. One HEAD.
    pub async fn has(&self, number: u64) -> Result<bool, DataLogError> {
        Ok(self.objects.head(&self.path(number)).await?.is_some())
    }

    /// Whether an entry is there, and has no records: it opened the log or trimmed it. One HEAD.
    pub async fn is_without_records(&self, number: u64) -> Result<bool, DataLogError> {
        let found = self.objects.head(&self.path(number)).await?;
        Ok(found.is_some_and(|meta| usize::try_from(meta.size).is_ok_and(entry::is_without_records)))
    }

    /// The number of the last entry, from that of an entry which is there or was trimmed. Takes a number of HEADs that grows
    /// with the logarithm of the entries between them. Nothing above `from` may be trimmed meanwhile.
    pub async fn end(&self, from: u64) -> Result<u64, DataLogError> {
        let (mut end, mut step) = (from, 1);
        while self.has(end + step).await? {
            end += step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if self.has(end + step).await? {
                end += step;
            }
        }
        Ok(end)
    }

    /// How much later one entry was written than another, by the store's own timestamps, to the second. `None` if one of them
    /// is not there, or if the clock was set back in between, as the timestamps then say nothing.
    pub async fn written_between(&self, first: u64, last: u64) -> Result<Option<Duration>, DataLogError> {
        let first = self.objects.head(&self.path(first)).await?;
        let last = self.objects.head(&self.path(last)).await?;
        let between = first.zip(last).map(|(first, last)| last.last_modified - first.last_modified);
        Ok(between.and_then(|between| between.to_std().ok()))
    }

    /// The header of the entry with the highest number; `None` if there is none.
    pub(super) async fn last(&self) -> Result<Option<Header>, DataLogError> {
        self.last_from(0).await
    }

    /// The same. Only the entries from `known` on are listed, which was written, unless all of them are trimmed.
    pub(super) async fn last_from(&self, known: u64) -> Result<Option<Header>, DataLogError> {
        let mut gone = 0;
        for _ in 0..TRIES {
            let mut listed = Vec::new();
            if known > 1 {
                let later = self.objects.list_after(&self.prefix, &self.path(known - 1)).await?;
                listed = self.numbered(later);
            }
            if listed.is_empty() {
                listed = self.numbered(self.objects.list(&self.prefix).await?);
            }
            let mut last = match listed.last() {
                Some(&(number, _)) => match self.entry(number).await? {
                    Some((header, _)) => Some(header),
                    // Its owner has written a later one since, and trimmed this one.
                    None => {
                        gone = number;
                        continue;
                    }
                },
                None => None,
            };
            while let Some((header, _)) = self.entry(last.map_or(0, |last| last.number) + 1).await? {
                last = Some(header);
            }
            return Ok(last);
        }
        let cause = format!("the latest entry was gone {TRIES} times before it could be read");
        Err(self.objects.error(Fault::Other, "read", &self.path(gone), cause).into())
    }

    /// The error for an entry that does not exist although a later one does.
    async fn missing(&self, number: u64) -> Result<DataLogError, DataLogError> {
        let first = self.last().await?.map_or(0, |last| last.floor);
        Ok(if number < first { DataLogError::Trimmed { first } } else { self.gone(number).into() })
    }

    fn gone(&self, number: u64) -> StoreError {
        let cause = "it is gone, though later entries are there".to_owned();
        self.objects.error(Fault::Damaged, "read", &self.path(number), cause)
    }

    /// One entry; `None` if there is none.
    pub(super) async fn entry(&self, number: u64) -> Result<Option<(Header, Vec<Bytes>)>, StoreError> {
        let path = self.path(number);
        let Some(content) = self.objects.read(&path).await? else { return Ok(None) };
        let decoded = entry::decode(number, &content);
        decoded.map(Some).map_err(|(fault, cause)| self.objects.error(fault, "read", &path, cause))
    }

    /// The entries among the listed objects, in the order of their numbers.
    pub(super) fn numbered(&self, listed: Vec<ObjectMeta>) -> Vec<(u64, ObjectMeta)> {
        let numbered = |meta: ObjectMeta| {
            let mut below = meta.location.prefix_match(&self.prefix)?;
            let name = below.next()?.as_ref().to_owned();
            let digits = name.strip_suffix(SUFFIX)?;
            let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let is_last = below.next().is_none();
            drop(below);
            let number = digits.parse().ok().filter(|_| is_number && is_last)?;
            Some((number, meta))
        };
        let mut numbered: Vec<_> = listed.into_iter().filter_map(numbered).collect();
        numbered.sort_by_key(|&(number, _)| number);
        numbered
    }

    pub(super) fn path(&self, number: u64) -> Path {
        self.prefix.clone().join(format!("{number:020}{SUFFIX}"))
    }
}

/// The extension of an entry's name.
const SUFFIX: &str = ".entry";
