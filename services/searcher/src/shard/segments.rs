//! Stores the segments of each refresh: at most one pack, and one manifest.
//!
//! Refreshes do not wait for it: it stores the latest one, and skips those in between. It retries until it succeeds;
//! meanwhile the shard serves, and the log is not trimmed. Garbage is collected between two manifests, so nothing that
//! is about to be named is taken for garbage.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugin::Claim;
use store::{DataLog, ObjectStore};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};
use types::Backoff;
use uuid::Uuid;

use super::garbage::{Garbage, GarbageError};
use super::indexer::Refresh;
use super::manifest::{Manifest, ManifestError, ManifestWriter, StoredFile, StoredIndex};
use super::pack::{NewFile, PackError, upload};
use super::pending::Pending;
use super::status::{Meters, Status, Trouble};

/// The pauses after failures.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
/// After this many failures in a row to read a local file, the shard is opened again.
const UNREADABLE: u32 = 5;
/// How often garbage is collected.
const COLLECT: Duration = Duration::from_mins(3);

/// Stores segments.
pub(crate) struct SegmentStore<'a> {
    pub(crate) objects: &'a Arc<dyn ObjectStore>,
    pub(crate) log: &'a DataLog,
    pub(crate) claim: &'a Claim,
    pub(crate) pending: &'a Pending,
    pub(crate) status: &'a Status,
    pub(crate) meters: &'a Meters,
    pub(crate) garbage: Garbage,
}

/// Why a refresh was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreSegmentsError {
    /// Another owner has written a manifest: stop.
    #[error("{0}")]
    Fenced(String),
    /// Try again later.
    #[error("{0}")]
    Store(String),
    /// Try again with the next refresh; if that fails too, open the shard again.
    #[error("{path}: {error}", path = .path.display())]
    Local { path: PathBuf, error: std::io::Error },
    /// This is a bug.
    #[error("the state of an index is no JSON: {0}")]
    Meta(#[from] serde_json::Error),
}

impl From<PackError> for StoreSegmentsError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Local { path, error } => Self::Local { path, error },
            PackError::Store(_)
            | PackError::Gone(_)
            | PackError::Damaged { .. }
            | PackError::Short { .. } => Self::Store(error.to_string()),
        }
    }
}

impl From<ManifestError> for StoreSegmentsError {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Fenced { .. } => Self::Fenced(error.to_string()),
            ManifestError::Store(_) => Self::Store(error.to_string()),
        }
    }
}

impl SegmentStore<'_> {
    /// Stores refreshes until the shard has to be opened again. Returns why. May be dropped at any time: what it was
    /// storing is either named by a manifest, or garbage.
    pub(crate) async fn run(
        mut self,
        manifests: &mut ManifestWriter,
        mut refreshed: watch::Receiver<Refresh>,
    ) -> String {
        let mut collect = Instant::now();
        loop {
            let refresh = refreshed.borrow_and_update().clone();
            if let Err(why) = self.store_until_done(manifests, refresh, &mut refreshed).await {
                return why;
            }
            if Instant::now() >= collect {
                collect = Instant::now() + COLLECT;
                match self.garbage.collect(self.objects, manifests, self.log).await {
                    Ok(removed) => {
                        self.meters.garbage.inc_by(u64::try_from(removed).unwrap_or(u64::MAX));
                    }
                    Err(GarbageError::Fenced(why)) => return self.fenced(why),
                    Err(GarbageError::Store(why)) => debug!(why, "could not collect garbage"),
                }
            }
            tokio::select! {
                biased;
                changed = refreshed.changed() => if changed.is_err() {
                    return "indexing has ended".to_owned();
                },
                () = sleep_until(collect) => {}
            }
        }
    }

    /// Stores the latest refresh. Fails if the shard has to be opened again.
    async fn store_until_done(
        &self,
        manifests: &mut ManifestWriter,
        mut refresh: Refresh,
        refreshed: &mut watch::Receiver<Refresh>,
    ) -> Result<(), String> {
        let (mut retries, mut unreadable) = (PAUSES.retries(), 0);
        loop {
            let failed = match self.store(manifests, &refresh).await {
                Ok(()) => {
                    self.status.clear(Trouble::Store);
                    self.status.clear(Trouble::Unreadable);
                    self.pending.stored(refresh.next_seq);
                    return Ok(());
                }
                Err(StoreSegmentsError::Fenced(why)) => return Err(self.fenced(why)),
                Err(error) => error,
            };
            let (trouble, other) = match &failed {
                StoreSegmentsError::Local { .. } | StoreSegmentsError::Meta(_) => {
                    unreadable += 1;
                    (Trouble::Unreadable, Trouble::Store)
                }
                StoreSegmentsError::Store(_) | StoreSegmentsError::Fenced(_) => {
                    (Trouble::Store, Trouble::Unreadable)
                }
            };
            let why = failed.to_string();
            if unreadable >= UNREADABLE {
                return Err(why);
            }
            if self.status.why(trouble).is_none() {
                warn!(why, "segments can't be stored; it is tried again");
            }
            self.status.clear(other);
            self.status.set(trouble, format!("segments can't be stored: {why}"));
            // A later manifest of an attempt without an answer may be there already.
            self.pending.stored(manifests.latest().next_seq);
            sleep(retries.failed(rand::random())).await;
            refresh = refreshed.borrow_and_update().clone();
        }
    }

    fn fenced(&self, why: String) -> String {
        self.claim.fenced(why.clone());
        why
    }

    /// Stores a refresh: uploads the files that no manifest has, then appends a manifest.
    async fn store(
        &self,
        manifests: &mut ManifestWriter,
        refresh: &Refresh,
    ) -> Result<(), StoreSegmentsError> {
        let latest = manifests.latest();
        let mut indexes = BTreeMap::new();
        let mut new: Vec<(Uuid, String, NewFile)> = Vec::new();
        for (uuid, committed) in &refresh.indexes {
            let mut files = BTreeMap::new();
            for (name, file) in &committed.files {
                match latest.file(*uuid, name, file.content) {
                    Some(stored) => {
                        files.insert(name.clone(), stored);
                    }
                    None => new.push((*uuid, name.clone(), file.clone())),
                }
            }
            indexes.insert(*uuid, StoredIndex { meta: committed.meta()?, files });
        }
        let is_same = (latest.applied, latest.next_seq) == (refresh.applied, refresh.next_seq)
            && new.is_empty()
            && latest.indexes == indexes;
        if is_same {
            return Ok(());
        }
        if !new.is_empty() {
            let files: Vec<_> = new.iter().map(|(_, _, file)| file.clone()).collect();
            let stored: Vec<StoredFile> = upload(self.objects, &files).await?;
            let bytes = files.iter().map(|file| file.content.len).sum();
            self.meters.upload_bytes.inc_by(bytes);
            for ((uuid, name, _), stored) in new.into_iter().zip(stored) {
                if let Some(index) = indexes.get_mut(&uuid) {
                    index.files.insert(name, stored);
                }
            }
        }
        let Refresh { applied, next_seq, .. } = *refresh;
        manifests.append(Manifest { applied, next_seq, indexes, ..Manifest::default() }).await?;
        self.meters.uploads.inc();
        Ok(())
    }
}
