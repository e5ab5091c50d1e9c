//! Numbered records by create-if-absent: the record with the highest number is the current one.
//!
//! A writer passes the number that it saw last and creates the next one; of several writers one succeeds. It
//! needs no clock and no lock, and works on every store that lets one creator win.
//!
//! # Why an append is never lost nor duplicated
//!
//! * A number that was never removed has one winner: the store guarantees it, and was tested for it.
//! * A number that was removed by [`Log::prune`] can be created again by a writer that was paused since it read the log.
//!   But a number is removed only when there is one that is higher by [`Limits::keep`], and the highest is
//!   never removed. So the writer lists above its number after it created it: if nothing is higher by that
//!   much, its number was never removed, and its entry is valid. Otherwise it reports that it lost. Such a late
//!   entry is far below the latest, where no reader uses it, and is pruned later.
//! * A reader that was paused between its list and its read could find such a late entry under the number that was
//!   the latest. It would be younger than the listed one by more than [`Limits::age`], by the store's own
//!   timestamps, so the reader compares them and lists again.
//! * A listing of a folder is not a snapshot, so on a folder the number after the highest listed one is read too.
//! * An answer may be lost, or a client may repeat its request and then be refused because the object exists.
//!   Each entry has an id made by its writer, so the writer reads back and recognizes its own.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use crate::error::{Fault, StoreError};
use crate::objects::{Created, Objects};

/// How often a reader lists again when the listed object was gone before it was read.
const TRIES: usize = 8;
/// How long a writer whose write got no answer waits to read its entry back.
const READ_BACK: Duration = Duration::from_secs(2);

/// A log of records, each a JSON object named by its number.
#[derive(Debug)]
pub struct Log<T> {
    objects: Objects,
    prefix: Path,
    limits: Limits,
    records: PhantomData<fn(T) -> T>,
}

/// The entries that pruning keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many entries below the latest are kept. Writers rely on this number in every version, so no version
    /// of Coterie may lower it.
    pub(crate) keep: u64,
    /// Entries are also kept if they are older than the latest by at most this, by the store's own timestamps.
    pub(crate) age: Duration,
}

/// The limits of every log of a cluster.
pub(crate) const LIMITS: Limits = Limits { keep: 128, age: Duration::from_secs(600) };

/// A record and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// Counted from 1.
    pub number: u64,
    /// The record.
    pub value: T,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another writer has created that number; read the latest and decide again.
    #[error("another writer was first: the log is at {latest}")]
    Lost {
        /// The highest number now.
        latest: u64,
    },
    /// It is not known whether the entry was written; read the latest before trying again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an object of a log holds.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    /// Unique for each append, so that a writer recognizes its own entry.
    writer: Uuid,
    /// The version of Coterie that wrote it.
    version: String,
    /// The checksum of all other fields; entries of older versions have none. JSON alone would not show a changed digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    value: T,
}

impl Record<serde_json::Value> {
    /// SipHash-1-3 with a zero key (Aumasson and Bernstein, 2012): it detects damage, not forgery.
    fn sum(&self) -> String {
        let mut hasher = SipHasher13::new();
        hasher.write(self.writer.as_bytes());
        hasher.write(self.version.as_bytes());
        hasher.write(self.value.to_string().as_bytes());
        format!("{:016x}", hasher.finish())
    }
}

/// An entry of ours that is on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) number: u64,
    /// The highest number afterwards: `number`, or a higher one if other writers followed.
    pub(crate) latest: u64,
}

impl<T: Serialize + DeserializeOwned> Log<T> {
    pub(crate) fn new(objects: Objects, prefix: Path, limits: Limits) -> Self {
        Self { objects, prefix, limits, records: PhantomData }
    }

    /// The entry with the highest number; `None` if there is none. One LIST and one GET.
    pub async fn latest(&self) -> Result<Option<Entry<T>>, StoreError> {
        for _ in 0..TRIES {
            let all = self.numbered(self.objects.list(&self.prefix).await?);
            let Some((number, listed)) = all.into_iter().max_by_key(|&(number, _)| number) else {
                match self.after_listed(0).await? {
                    Some(later) if !self.is_highest(later.number).await? => continue,
                    latest => return Ok(latest),
                }
            };
            // A pruner may have removed it meanwhile: then there is a higher one.
            if let Some(latest) = self.latest_since(number, &listed).await? {
                return Ok(Some(latest));
            }
        }
        let cause = format!("its latest entry was gone {TRIES} times before it could be read");
        Err(self.objects.error(Fault::Other, "read", &self.prefix, cause))
    }

    /// One entry; `None` if it was not written yet or is pruned. One GET.
    ///
    /// Only the latest entries count: far below, a writer that was paused may have left an invalid one.
    pub async fn entry(&self, number: u64) -> Result<Option<T>, StoreError> {
        let path = self.path(number);
        let Some(content) = self.objects.read(&path).await? else { return Ok(None) };
        Ok(Some(self.decode(&path, &content)?.value))
    }

    /// When the store had an entry, by its own clock; `None` if there is no such entry. One HEAD.
    ///
    /// Only the latest entries count, as in [`entry`](Self::entry).
    pub async fn stored_at(&self, number: u64) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(self.objects.head(&self.path(number)).await?.map(|meta| meta.last_modified))
    }

    /// Writes entry `last + 1`, where `last` is the number of the entry last seen (0 for none).
    ///
    /// Returns the number of the entry, also if other writers have followed meanwhile. One PUT and one LIST.
    pub async fn append(&self, last: u64, value: &T) -> Result<u64, AppendError> {
        Ok(self.append_seen(last, value).await?.number)
    }

    /// Removes entries far below the latest; returns how many. One LIST, and one DELETE an entry.
    ///
    /// The last 128 entries stay, and so do all that are at most 10 minutes older than the latest, by the
    /// store's own timestamps and no other clock. Both have a reason. The count: a writer that created a number
    /// which was removed must see that it is late (see the module). The age: the owner of a shard polls only
    /// for its *next* number, so that number must not be created and removed between two of its polls.
    pub async fn prune(&self) -> Result<usize, StoreError> {
        let mut entries = self.numbered(self.objects.list(&self.prefix).await?);
        entries.sort_by_key(|&(number, _)| number);
        let Some((latest, newest)) = entries.last().cloned() else { return Ok(0) };
        let old = entries.into_iter().filter(|(number, meta)| {
            let age = (newest.last_modified - meta.last_modified).to_std().unwrap_or_default();
            latest - number >= self.limits.keep && age > self.limits.age
        });
        let mut removed = 0;
        for (_, meta) in old {
            self.objects.delete(&meta.location).await?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The latest entry, if this one was the latest in a listing. `None` if that one is gone: list again.
    pub(crate) async fn latest_since(
        &self,
        number: u64,
        listed: &ObjectMeta,
    ) -> Result<Option<Entry<T>>, StoreError> {
        if let Some(later) = self.after_listed(number).await? {
            return Ok(self.is_highest(later.number).await?.then_some(later));
        }
        Ok(self.entry_as_listed(number, listed).await?.map(|value| Entry { number, value }))
    }

    /// One entry, if it is still the one that was listed.
    async fn entry_as_listed(&self, number: u64, listed: &ObjectMeta) -> Result<Option<T>, StoreError> {
        let path = self.path(number);
        let Some((content, meta)) = self.objects.read_stamped(&path).await? else { return Ok(None) };
        // Half the age, because a store may round timestamps differently in a listing and in an answer.
        let apart = (meta.last_modified - listed.last_modified).abs().to_std().unwrap_or_default();
        if apart > self.limits.age / 2 {
            return Ok(None);
        }
        Ok(Some(self.decode(&path, &content)?.value))
    }

    /// Whether an entry of that number is there. One GET.
    pub(crate) async fn is_written(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.objects.read(&self.path(number)).await?.is_some())
    }

    pub(crate) async fn append_seen(&self, last: u64, value: &T) -> Result<Appended, AppendError> {
        let number = last + 1;
        let path = self.path(number);
        let writer = Uuid::now_v7();
        let content = self.encode(&path, writer, value)?;
        for _ in 0..TRIES {
            match self.objects.create(&path, content.clone()).await {
                Ok(Created::Yes) => return self.settle(number).await,
                Ok(Created::AlreadyThere) => match self.writer(&self.objects, number).await? {
                    // The client sent it twice, and the second request found the first one's object.
                    Some(found) if found == writer => return self.settle(number).await,
                    Some(_) => return Err(self.lost(number).await?),
                    // Pruned, or refused only because another writer was busy with it: the listing shows which.
                    None => {
                        if let Some(latest) = self.highest_above(last).await? {
                            return Err(AppendError::Lost { latest });
                        }
                    }
                },
                // There was no answer, but the write may have been made.
                Err(error) => match self.writer(&self.objects.within(READ_BACK), number).await {
                    Ok(Some(found)) if found == writer => return self.settle(number).await,
                    Ok(Some(_)) => return Err(self.lost(number).await?),
                    Ok(None) | Err(_) => return Err(error.into()),
                },
            }
        }
        let cause = format!("it was refused {TRIES} times because it exists, but it does not exist");
        Err(self.objects.error(Fault::Other, "write", &path, cause).into())
    }

    /// Our entry is on the store; it is valid unless its number existed before and was pruned.
    async fn settle(&self, number: u64) -> Result<Appended, AppendError> {
        let latest = self.highest_above(number).await?.unwrap_or(number);
        if latest - number >= self.limits.keep {
            return Err(AppendError::Lost { latest });
        }
        Ok(Appended { number, latest })
    }

    async fn lost(&self, number: u64) -> Result<AppendError, StoreError> {
        let latest = self.highest_above(number).await?.unwrap_or(number);
        Ok(AppendError::Lost { latest })
    }

    async fn highest_above(&self, number: u64) -> Result<Option<u64>, StoreError> {
        let above = self.objects.list_after(&self.prefix, &self.path(number)).await?;
        let listed = self.numbered(above).into_iter().map(|(found, _)| found).filter(|&found| found > number);
        let highest = listed.max();
        let later = self.after_listed(highest.unwrap_or(number)).await?;
        Ok(later.map(|entry: Entry<serde::de::IgnoredAny>| entry.number).or(highest))
    }

    /// Whether no higher number exists. An entry that was read by its number may be a late one, created after the
    /// valid one was pruned. Then a higher one existed before it, and a listing that begins now has that.
    async fn is_highest(&self, number: u64) -> Result<bool, StoreError> {
        let above = self.objects.list_after(&self.prefix, &self.path(number)).await?;
        Ok(!self.numbered(above).into_iter().any(|(found, _)| found > number))
    }

    /// The latest entry after the highest listed number. A listing of a folder is not a snapshot: it may miss objects
    /// that are made meanwhile, so the next numbers are read. A cloud store's listing is complete.
    async fn after_listed<V: DeserializeOwned>(&self, listed: u64) -> Result<Option<Entry<V>>, StoreError> {
        if !self.objects.is_local() {
            return Ok(None);
        }
        let mut latest = None;
        loop {
            let number = latest.as_ref().map_or(listed, |entry: &Entry<V>| entry.number) + 1;
            let path = self.path(number);
            let Some(content) = self.objects.read(&path).await? else { return Ok(latest) };
            latest = Some(Entry { number, value: self.decode(&path, &content)?.value });
        }
    }

    fn numbered(&self, objects: Vec<ObjectMeta>) -> Vec<(u64, ObjectMeta)> {
        let numbered = |meta: ObjectMeta| {
            let mut below = meta.location.prefix_match(&self.prefix)?;
            let number = number_of(below.next()?.as_ref())?;
            let is_last = below.next().is_none();
            drop(below);
            is_last.then_some((number, meta))
        };
        objects.into_iter().filter_map(numbered).collect()
    }

    async fn writer(&self, objects: &Objects, number: u64) -> Result<Option<Uuid>, StoreError> {
        let path = self.path(number);
        let Some(content) = objects.read(&path).await? else { return Ok(None) };
        Ok(Some(self.decode::<serde::de::IgnoredAny>(&path, &content)?.writer))
    }

    fn encode(&self, path: &Path, writer: Uuid, value: &T) -> Result<Bytes, StoreError> {
        let encode = || {
            // As a reader will parse it: a number that is printed and parsed again may differ in its last digit.
            let value = serde_json::from_slice(&serde_json::to_vec(value)?)?;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let mut record = Record::<serde_json::Value> { writer, version, checksum: None, value };
            record.checksum = Some(record.sum());
            serde_json::to_vec(&record)
        };
        match encode() {
            Ok(content) => Ok(content.into()),
            Err(error) => Err(self.objects.error(Fault::Other, "write", path, error.to_string())),
        }
    }

    /// An intact entry with unknown fields is another version's; anything else is damage.
    fn decode<V: DeserializeOwned>(&self, path: &Path, content: &[u8]) -> Result<Record<V>, StoreError> {
        let damaged = |error: serde_json::Error| {
            let cause = match content.len() {
                0 => "it is damaged: it is empty".to_owned(),
                len => format!("it is damaged ({len} bytes): {error}"),
            };
            self.objects.error(Fault::Damaged, "read", path, cause)
        };
        let whole: Record<serde_json::Value> = serde_json::from_slice(content).map_err(damaged)?;
        if whole.checksum.as_ref().is_some_and(|checksum| *checksum != whole.sum()) {
            let cause = "it is damaged: its checksum is wrong".to_owned();
            return Err(self.objects.error(Fault::Damaged, "read", path, cause));
        }
        let Record { writer, version, checksum, value } = whole;
        match serde_json::from_value(value) {
            Ok(value) => Ok(Record { writer, version, checksum, value }),
            Err(error) => {
                let ours = env!("CARGO_PKG_VERSION");
                let cause =
                    format!("it was written by a newer version ({version}, this one is {ours}): {error}");
                Err(self.objects.error(Fault::Newer, "understand", path, cause))
            }
        }
    }

    fn path(&self, number: u64) -> Path {
        self.prefix.clone().join(format!("{number:020}.json"))
    }
}

/// The latest entry of each log below `root`, by the names of the folders on the way to it.
pub(crate) fn latest_of_each(
    listed: Vec<ObjectMeta>,
    root: &Path,
) -> BTreeMap<Vec<String>, (u64, ObjectMeta)> {
    let mut logs = BTreeMap::<Vec<String>, (u64, ObjectMeta)>::new();
    for meta in listed {
        let Some(parts) = meta.location.prefix_match(root) else { continue };
        let mut names: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        let Some(number) = names.pop().and_then(|name| number_of(&name)) else { continue };
        if logs.get(&names).is_none_or(|&(latest, _)| latest < number) {
            logs.insert(names, (number, meta));
        }
    }
    logs
}

/// The number in `00000000000000000007.json`; `None` for the name of anything else.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

#[cfg(test)]
pub(crate) mod tests;
