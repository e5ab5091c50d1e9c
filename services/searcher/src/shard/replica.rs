//! A replica of a shard: it follows the manifests of the owner, and writes nothing to the store.
//!
//! It looks for the next manifest, fetches the files that are new, and replaces its searchers. In the same look it asks
//! where the log ends. Once a manifest has all entries up to there, the replica has everything that was acknowledged when
//! that look began, however much is written meanwhile. The log is asked before the manifests: entries after those that a
//! manifest has are trimmed only when that manifest is no longer among the last ten.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugin::shard::{Closing, Kept, Moment, Open, OpenError};
use store::{DataLogReader, Entry, Log, ObjectStore, RoleLogs};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};
use types::Backoff;

use super::Shared;
use super::garbage::KEPT;
use super::indexer::{Local, blocking, lock};
use super::local::ShardFolder;
use super::local_indexes::LocalIndexes;
use super::manifest::{self, Manifest};
use super::open::LOG;
use super::pack::PackError;
use super::status::Trouble;

/// How long after a look the next manifest may be looked for by its number. Later, it may have been pruned already.
const TRUST_NEXT: Duration = Duration::from_secs(60);
/// How many looks are remembered whose entries the manifest does not have. More come only if the owner writes no manifest for
/// long.
const MOST_ENDS: usize = 1_024;
/// How many manifests are read one by one before they are listed.
const MOST_NEXT: usize = 8;
/// After this many failures in a row to use the local folder, it is opened again.
const FAILURES: u32 = 3;
/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(1);

/// Follows a shard.
pub(crate) struct Replica {
    pub(crate) shared: Arc<Shared>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) logs: RoleLogs,
    pub(crate) folder: PathBuf,
    pub(crate) poll: Duration,
}

/// A replica's state.
pub(crate) struct Following {
    folder: Arc<ShardFolder>,
    local: Local,
    manifests: Log<Manifest>,
    log: DataLogReader,
    at: tokio::sync::Mutex<At>,
}

/// Where a replica is.
struct At {
    number: u64,
    manifest: Manifest,
    /// When the last look began that succeeded.
    looked: Moment,
    /// The last entry of the log that is known.
    end: u64,
    /// The manifest has all operations of the entries up to this one.
    covered: u64,
    /// An entry that is known to have operations.
    wanting: Option<u64>,
    /// Where the log ended in former looks whose entries the manifest does not have yet, and when the last such look began.
    ends: VecDeque<(u64, Moment)>,
}

impl At {
    fn new(number: u64, manifest: Manifest, looked: Moment) -> Self {
        let end = manifest.applied;
        Self { number, manifest, looked, end, covered: end, wanting: None, ends: VecDeque::new() }
    }

    /// Notes where the log ended in a look.
    fn ended(&mut self, end: u64, began: Moment) {
        self.end = self.end.max(end);
        if let Some((last, at)) = self.ends.back_mut()
            && *last == end
        {
            *at = began;
        } else if self.ends.len() < MOST_ENDS {
            self.ends.push_back((end, began));
        }
    }

    /// The last time at which the manifest has everything.
    fn current(&mut self) -> Option<Moment> {
        let mut current = None;
        while let Some((_, at)) = self.ends.pop_front_if(|(end, _)| *end <= self.covered) {
            current = Some(at);
        }
        current
    }
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    /// Look again later.
    #[error("{0}")]
    Store(String),
    /// Look again, and open the folder again if that fails too.
    #[error("{0}")]
    Local(String),
}

impl From<PackError> for LookError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Local { .. } => Self::Local(error.to_string()),
            PackError::Store(_)
            | PackError::Gone(_)
            | PackError::Damaged { .. }
            | PackError::Short { .. } => Self::Store(error.to_string()),
        }
    }
}

fn of_store(error: &impl ToString) -> LookError {
    LookError::Store(error.to_string())
}

async fn latest(manifests: &Log<Manifest>) -> Result<Entry<Manifest>, store::StoreError> {
    Ok(manifests.latest().await?.unwrap_or(Entry { number: 0, value: Manifest::default() }))
}

impl Open for Replica {
    type Opened = Following;
    type Data = ();

    async fn open(&self) -> Result<Following, OpenError> {
        let failed = |error: &dyn ToString| OpenError::Failed(error.to_string());
        let path = self.folder.clone();
        let folder = spawn_blocking(move || ShardFolder::open(path)).await;
        let folder = Arc::new(folder.map_err(io::Error::other).flatten().map_err(|error| failed(&error))?);
        let looked = Moment::now();
        let manifests = self.logs.of_shard(manifest::LOG);
        let of_manifest = |error: store::StoreError| {
            let is_damaged = error.is_of_content();
            if is_damaged {
                OpenError::Damaged(error.to_string())
            } else {
                OpenError::Failed(error.to_string())
            }
        };
        let Entry { number, value: manifest } = latest(&manifests).await.map_err(of_manifest)?;
        if let Err(error) = folder.sync(&self.objects, &manifest, None).await {
            let is_damaged = error.is_of_content();
            // A pack may have been removed because a later manifest does not name it.
            if is_damaged && latest(&manifests).await.map_err(of_manifest)?.number == number {
                return Err(OpenError::Damaged(error.to_string()));
            }
            return Err(failed(&error));
        }
        let catalog = self.shared.catalog.fresh().await.map_err(|error| failed(&error))?;
        let (of, named, heap) = (Arc::clone(&folder), manifest.clone(), self.shared.limits.heap);
        let local = spawn_blocking(move || LocalIndexes::open(of, heap, &named, &catalog)).await;
        let local = local.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        self.shared.views.publish_opened(local.refreshed().searchers);
        info!(manifest = number, "opened a replica");
        Ok(Following {
            folder,
            local: Arc::new(std::sync::Mutex::new(local)),
            log: DataLogReader::new(Arc::clone(&self.objects), LOG),
            manifests,
            at: tokio::sync::Mutex::new(At::new(number, manifest, looked)),
        })
    }

    async fn serve(&self, opened: &Following, kept: &Kept<()>) -> String {
        let Shared { suspicion, status, meters, .. } = &*self.shared;
        status.clear(Trouble::Verifying);
        kept.open(());
        meters.openings.inc();
        tokio::select! {
            biased;
            why = suspicion.watch(&opened.local, status, meters) => why,
            why = self.follow(opened) => why,
        }
    }

    async fn close(&self, opened: Following, reason: Closing) {
        let local = Arc::clone(&opened.local);
        let closed = timeout(CLOSE, spawn_blocking(move || lock(&local).close())).await;
        let is_clean = matches!(closed, Ok(Ok(()))) && reason != Closing::Failed;
        if is_clean && let Err(error) = opened.folder.mark_clean() {
            info!(%error, "local files will be verified by the next opening");
        }
    }
}

impl Replica {
    /// Follows the owner until the folder has to be opened again. Returns why.
    async fn follow(&self, opened: &Following) -> String {
        let backoff = Backoff::new(self.poll, Duration::from_secs(2).max(self.poll));
        let (mut retries, mut failures) = (backoff.retries(), 0);
        let mut at = opened.at.lock().await;
        loop {
            let pause = match self.look(opened, &mut at).await {
                Ok(is_current) => {
                    self.shared.status.clear(Trouble::Store);
                    (failures, retries) = (0, backoff.retries());
                    if is_current { self.poll } else { Duration::ZERO }
                }
                Err(error) => {
                    let why = error.to_string();
                    debug!(why, "a replica can't follow its owner");
                    if matches!(error, LookError::Local(_)) {
                        failures += 1;
                    }
                    if failures >= FAILURES {
                        return why;
                    }
                    self.shared
                        .status
                        .set(Trouble::Store, format!("the replica can't follow its owner: {why}"));
                    retries.failed(rand::random())
                }
            };
            sleep(pause).await;
        }
    }

    /// Looks for a newer manifest, and follows it. Returns whether there was none.
    async fn look(&self, opened: &Following, at: &mut At) -> Result<bool, LookError> {
        let began = Moment::now();
        let end = opened.log.end(at.end.max(at.manifest.applied)).await.map_err(|error| of_store(&error))?;
        let newer = self.newer(&opened.manifests, at).await?;
        at.looked = began;
        if newer.as_ref().is_none_or(|newer| newer.number - at.number < KEPT) {
            at.ended(end, began);
        }
        let Some(Entry { number, value: manifest }) = newer else {
            self.note_current(opened, at).await?;
            return Ok(true);
        };
        opened.folder.sync(&self.objects, &manifest, Some(&at.manifest)).await?;
        let catalog = self.shared.catalog.now();
        let is_known = |uuid| catalog.index(uuid).is_some();
        let catalog = if manifest.indexes.keys().copied().all(is_known) {
            catalog
        } else {
            self.shared.catalog.fresh().await.map_err(|error| of_store(&error))?
        };
        let (next, before) = (manifest.clone(), at.manifest.clone());
        let followed = blocking(&opened.local, move |local| {
            local
                .follow(&next, Some(&before), &catalog)
                .map(|()| (local.refreshed().searchers, local.counts()))
        });
        let followed = followed.await.map_err(LookError::Local)?;
        let (searchers, (documents, segments)) =
            followed.map_err(|error| LookError::Local(error.to_string()))?;
        self.shared.views.publish(searchers);
        self.shared.meters.documents.set(i64::try_from(documents).unwrap_or(i64::MAX));
        self.shared.meters.segments.set(i64::try_from(segments).unwrap_or(i64::MAX));
        (at.number, at.manifest) = (number, manifest);
        self.note_current(opened, at).await?;
        Ok(false)
    }

    async fn note_current(&self, opened: &Following, at: &mut At) -> Result<(), LookError> {
        at.covered = at.covered.max(at.manifest.applied);
        while at.covered < at.end && at.wanting != Some(at.covered + 1) {
            let next = at.covered + 1;
            match opened.log.is_without_records(next).await.map_err(|error| of_store(&error))? {
                true => at.covered = next,
                false => at.wanting = Some(next),
            }
        }
        if let Some(current) = at.current() {
            self.shared.views.note_current(current);
        }
        Ok(())
    }

    /// The latest manifest, if it is newer.
    async fn newer(&self, manifests: &Log<Manifest>, at: &At) -> Result<Option<Entry<Manifest>>, LookError> {
        let mut newest = None;
        if at.looked.elapsed() <= TRUST_NEXT {
            for number in (at.number + 1..).take(MOST_NEXT) {
                match manifests.entry(number).await.map_err(|error| of_store(&error))? {
                    Some(value) => newest = Some(Entry { number, value }),
                    None => return Ok(newest),
                }
            }
        }
        let latest = latest(manifests).await.map_err(|error| of_store(&error))?;
        Ok((latest.number > at.number).then_some(latest))
    }
}
