//! What of a shard is on the store, besides its log: numbered manifests, of which the highest is the truth.
//!
//! A manifest names the files of all indexes, and the last entry of the log whose operations are all in them. What
//! follows that entry is replayed. Manifests are created if absent, one after the other, so they fence a former owner as
//! the log does: it fails to create the number that the next owner has created, finds another writer there, and stops.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use store::{AppendError, Entry, Log, StoreError};
use types::Epoch;
use uuid::Uuid;

/// The name of the log of manifests.
pub(crate) const LOG: &str = "manifest";
/// How often an opening reads the latest manifest again because the former owner has written one meanwhile.
const TRIES: usize = 64;

/// The state of a shard, as of one refresh.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The epoch of the claim under which it was written.
    pub(crate) epoch: u64,
    /// The number of its writer's first entry in the log, which no other opening of the shard has.
    pub(crate) opening: u64,
    /// The last entry of the log whose operations are all in the files.
    pub(crate) applied: u64,
    /// The number of the first operation after that entry.
    pub(crate) next_seq: u64,
    pub(crate) indexes: BTreeMap<Uuid, StoredIndex>,
}

/// An index in a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredIndex {
    /// Tantivy's `meta.json`.
    pub(crate) meta: serde_json::Value,
    /// Its files by name.
    pub(crate) files: BTreeMap<String, StoredFile>,
}

/// A file in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredFile {
    pub(crate) len: u64,
    pub(crate) crc: u32,
    pub(crate) pack: Uuid,
    /// Where it begins in the pack.
    pub(crate) offset: u64,
}

/// The length of a file and the CRC-32 of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

impl StoredFile {
    pub(crate) fn content(&self) -> Content {
        Content { len: self.len, crc: self.crc }
    }
}

/// Why a manifest was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// Another owner has written one: stop.
    #[error("manifest {number} was written by another owner, under epoch {epoch}")]
    Fenced { number: u64, epoch: u64 },
    /// It may have been written; the next attempt finds out.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes the manifests of one opening of a shard.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    log: Log<Manifest>,
    epoch: u64,
    opening: u64,
    number: u64,
    latest: Manifest,
}

impl Manifest {
    /// The names of the packs that it needs.
    pub(crate) fn packs(&self) -> impl Iterator<Item = Uuid> {
        self.indexes.values().flat_map(|index| index.files.values()).map(|file| file.pack)
    }

    /// A file with this name and content.
    pub(crate) fn file(&self, index: Uuid, name: &str, content: Content) -> Option<StoredFile> {
        self.indexes.get(&index)?.files.get(name).copied().filter(|file| file.content() == content)
    }

    /// The name of a file that could lead out of its folder. Nothing that this program writes has one.
    pub(crate) fn bad_name(&self) -> Option<&str> {
        let is_good = |name: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !name.starts_with('.') && !name.is_empty() && name.bytes().all(is_allowed)
        };
        let names = self.indexes.values().flat_map(|index| index.files.keys());
        names.map(String::as_str).find(|name| !is_good(name))
    }
}

impl ManifestWriter {
    /// Writes the latest manifest again, with the epoch and opening of this owner. From then on no former owner can write
    /// one. A former owner may write one just before; then its number is taken, and the latest one is read again.
    pub(crate) async fn open(log: Log<Manifest>, epoch: Epoch, opening: u64) -> Result<Self, ManifestError> {
        let mut lost = None;
        for _ in 0..TRIES {
            let Entry { number, value: latest } =
                log.latest().await?.unwrap_or(Entry { number: 0, value: Manifest::default() });
            if (latest.epoch, latest.opening) > (epoch.0, opening) {
                return Err(ManifestError::Fenced { number, epoch: latest.epoch });
            }
            let latest = Manifest { epoch: epoch.0, opening, ..latest };
            match log.append(number, &latest).await {
                Ok(number) => return Ok(Self { log, epoch: epoch.0, opening, number, latest }),
                Err(AppendError::Lost { latest }) => lost = Some(latest),
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
        Err(ManifestError::Fenced { number: lost.unwrap_or_default(), epoch: epoch.0 })
    }

    /// The latest manifest of this writer.
    pub(crate) fn latest(&self) -> &Manifest {
        &self.latest
    }

    /// The number of the latest manifest.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The log of manifests, for reading.
    pub(crate) fn log(&self) -> &Log<Manifest> {
        &self.log
    }

    /// Writes the next manifest, with this writer's epoch and opening.
    ///
    /// An attempt that got no answer may still be written, even during the next attempt. So each failure is followed by a
    /// read, and a manifest of this writer that is found there counts as written: the next one follows it.
    pub(crate) async fn append(&mut self, next: Manifest) -> Result<(), ManifestError> {
        let next = Manifest { epoch: self.epoch, opening: self.opening, ..next };
        loop {
            let failed = match self.log.append(self.number, &next).await {
                Ok(number) => {
                    (self.number, self.latest) = (number, next);
                    return Ok(());
                }
                Err(AppendError::Store(error)) => Some(error),
                Err(AppendError::Lost { .. }) => None,
            };
            let found = self.log.latest().await?;
            match (found, failed) {
                (Some(found), _) if found.number > self.number => {
                    let Manifest { epoch, opening, .. } = found.value;
                    if (epoch, opening) != (self.epoch, self.opening) {
                        return Err(ManifestError::Fenced { number: found.number, epoch });
                    }
                    (self.number, self.latest) = (found.number, found.value);
                    if self.latest == next {
                        return Ok(());
                    }
                }
                (_, Some(error)) => return Err(error.into()),
                // It was removed by hand: nothing that this owner knows is still true.
                (_, None) => return Err(ManifestError::Fenced { number: self.number, epoch: self.epoch }),
            }
        }
    }
}
