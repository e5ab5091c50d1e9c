//! Removes what is no longer needed from the store: packs, entries of the log, and manifests.
//!
//! A pack is garbage if none of the last manifests names it, and it is old by the store's own timestamps, compared with
//! that of an object just written. Packs are listed first, and manifests are read afterwards; if the newest is another
//! opening's, nothing is removed. So a process that was paused in the middle removes only what was garbage before:
//!
//! * The next owner names packs that the manifest names which it found, and those that it wrote itself. The former ones
//!   are named by a manifest that was read here, since only this owner wrote manifests until then. The latter ones were
//!   written after its first manifest, so they are not in a list that was made before that manifest was there.
//! * This owner collects between two of its manifests, so it has no pack that it is about to name.
//!
//! So no data depends on the timestamps. If the store's clock is set, packs are removed too early for a replica, which then reads
//! a later manifest, or too late.
//!
//! The log is trimmed up to the oldest of those manifests, so that each of them can be opened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::TryStreamExt;
use store::object_store::path::Path;
use store::object_store::{self, ObjectStoreExt};
use store::{DataLog, DataLogError, ObjectStore, StoreError};
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use super::manifest::{Manifest, ManifestWriter};
use super::pack;

/// How many manifests can be opened.
pub(crate) const KEPT: u64 = 10;
/// A pack that is younger stays: a replica may be fetching it.
const AGE: Duration = Duration::from_mins(15);
/// The log is trimmed only if it loses at least this many entries, as that adds one.
const TRIM: u64 = 32;
/// At most this many packs are removed at once, since no segments are stored meanwhile.
const MOST: usize = 200;
/// How long each request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Collects the garbage of a shard.
#[derive(Debug)]
pub(crate) struct Garbage {
    /// How old a pack must be.
    age: Duration,
    /// Below which entry the log was trimmed last.
    trimmed: u64,
}

impl Default for Garbage {
    fn default() -> Self {
        Self { age: AGE, trimmed: 0 }
    }
}

/// Why garbage was not collected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GarbageError {
    /// Another owner has opened the shard: stop.
    #[error("{0}")]
    Fenced(String),
    /// Try again later.
    #[error("{0}")]
    Store(String),
}

impl From<object_store::Error> for GarbageError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<StoreError> for GarbageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<DataLogError> for GarbageError {
    fn from(error: DataLogError) -> Self {
        match error {
            DataLogError::Fenced { .. } => Self::Fenced(error.to_string()),
            DataLogError::Trimmed { .. } | DataLogError::TooLong(_) | DataLogError::Store(_) => {
                Self::Store(error.to_string())
            }
        }
    }
}

async fn limited<T>(request: impl Future<Output = object_store::Result<T>>) -> Result<T, GarbageError> {
    let late = |_| GarbageError::Store(format!("no answer within {LIMIT:?}"));
    Ok(timeout(LIMIT, request).await.map_err(late)??)
}

impl Garbage {
    /// A collector of packs however young.
    #[cfg(test)]
    pub(crate) fn impatient() -> Self {
        Self { age: Duration::ZERO, ..Self::default() }
    }

    /// Removes garbage. Returns how many objects it removed.
    pub(crate) async fn collect(
        &mut self,
        objects: &Arc<dyn ObjectStore>,
        manifests: &ManifestWriter,
        log: &DataLog,
    ) -> Result<usize, GarbageError> {
        let old = self.old_packs(objects).await?;
        let kept = kept(manifests).await?;
        let named: BTreeSet<Uuid> = kept.iter().flat_map(Manifest::packs).collect();
        let mut removed = 0;
        for pack in old.into_iter().filter(|pack| !named.contains(pack)).take(MOST) {
            match limited(objects.delete(&pack::location(pack))).await {
                Ok(()) => removed += 1,
                Err(error) => {
                    debug!(%error, %pack, "could not remove a pack");
                    break;
                }
            }
        }
        let oldest = kept.iter().map(|manifest| manifest.applied).min().unwrap_or_default();
        if oldest + 1 >= self.trimmed + TRIM {
            removed += log.trim(oldest + 1).await?;
            self.trimmed = oldest + 1;
        }
        removed += manifests.log().prune().await?;
        Ok(removed)
    }

    /// The packs that are old enough.
    async fn old_packs(&self, objects: &Arc<dyn ObjectStore>) -> Result<Vec<Uuid>, GarbageError> {
        let mark = Path::from("garbage").join("now");
        limited(objects.put(&mark, "{}".into())).await?;
        let now = limited(objects.head(&mark)).await?.last_modified;
        let listed: Vec<_> = limited(objects.list(Some(&Path::from(pack::FOLDER))).try_collect()).await?;
        let is_old = |meta: &&object_store::ObjectMeta| is_old(now - meta.last_modified, self.age);
        Ok(listed.iter().filter(is_old).filter_map(|meta| pack::id_of(&meta.location)).collect())
    }
}

/// Whether a pack is old enough. One from the future was written before the store's clock was set back: otherwise it would
/// stay until then.
fn is_old(age: TimeDelta, least: Duration) -> bool {
    age.abs().to_std().is_ok_and(|age| age >= least)
}

/// The last manifests. They are read, since one that was written without an answer counts too.
async fn kept(manifests: &ManifestWriter) -> Result<Vec<Manifest>, GarbageError> {
    let gone = |number| GarbageError::Store(format!("manifest {number} is gone"));
    let latest = manifests.log().latest().await?.ok_or_else(|| gone(manifests.number()))?;
    if latest.number != manifests.number() {
        return Err(GarbageError::Fenced(format!("manifest {} was written by another owner", latest.number)));
    }
    let mut kept = vec![latest.value];
    for number in (1..latest.number).rev().take(usize::try_from(KEPT - 1).unwrap_or(usize::MAX)) {
        kept.push(manifests.log().entry(number).await?.ok_or_else(|| gone(number))?);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_of_a_clock_that_was_set_back_is_not_young_for_years() {
        for (seconds, expected) in
            [(0, false), (899, false), (900, true), (-899, false), (-900, true), (-100_000_000, true)]
        {
            assert_eq!(is_old(TimeDelta::seconds(seconds), AGE), expected, "{seconds}");
        }
        assert!(is_old(TimeDelta::MIN, AGE) && is_old(TimeDelta::MAX, AGE));
    }
}
