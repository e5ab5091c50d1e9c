//! A shard: its log, its Tantivy indexes and their manifests, at its owner or at a replica.
//!
//! The log is what is acknowledged. The indexes follow it in a local folder, and are stored as packs that manifests name.
//! See [`open`] for why no acknowledged operation is lost.

mod decide;
mod directory;
mod error;
mod garbage;
mod indexer;
mod local;
mod local_indexes;
mod lookup;
mod manifest;
mod open;
mod owner;
mod pack;
mod paths;
mod pending;
mod read;
mod replica;
mod segments;
mod status;
mod suspicion;
mod view;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plugin::queue::{NotQueued, QueueBytes, QueueFull};
use plugin::shard::{Kept, NotOpen, Pauses, keep_open};
use plugin::{Claim, Context, Duty, Health, ServiceError};
use tantivy::TantivyError;
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use types::Backoff;

pub(crate) use self::error::ShardError;
use self::error::closed;
use self::indexer::blocking;
use self::open::{Owner, PAUSES, Serving};
use self::owner::end_of;
use self::pending::Pending;
pub(crate) use self::read::{FoundDocument, Snapshot};
use self::replica::Replica;
use self::status::{Meters, Status, Trouble};
use self::suspicion::Suspicion;
pub(crate) use self::suspicion::is_of_content;
use self::view::Views;
use self::write::size;
pub(crate) use self::write::{Change, Condition, Outcome, Refused, Write, Written};
use crate::catalog::{Catalog, Index};

/// How long a request waits until the shard is open, unless its caller gives up before.
const OPENING: Duration = Duration::from_secs(30);
/// How long a write that is durable may wait until it is visible.
pub(crate) const VISIBLE: Duration = Duration::from_secs(30);
/// How long a write waits while too much is in no manifest yet. A sender that is refused at once may send everything again at
/// once, and what parses it then lacks the time to index.
const ROOM: Duration = Duration::from_secs(1);
/// An operation that is not visible for this long, and for ten refreshes, is reported.
const BEHIND: Duration = Duration::from_secs(10);
/// A replica that may be further behind is reported.
const REPLICA_BEHIND: Duration = Duration::from_secs(5);
/// How often a compaction tries to merge segments that another merge has just replaced, and the pause between.
const COMPACTION: (usize, Duration) = (50, Duration::from_millis(100));

/// The limits and pauses of a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The pause between two refreshes.
    pub(crate) refresh: Duration,
    /// Operations that are acknowledged and in no manifest yet, at most: bytes and number.
    pub(crate) max_behind: (usize, usize),
    /// How long a write may wait until it is visible.
    pub(crate) visible: Duration,
    /// The heap of all writers of this node, in bytes.
    pub(crate) heap: usize,
    /// The disk space of all local segments of this shard, in bytes.
    pub(crate) disk: u64,
}

/// When a write is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Refresh {
    /// Once it is durable.
    #[default]
    Durable,
    /// Once the next refresh has made it visible to searches, and a manifest has it.
    Wait,
    /// As `Wait`, with a refresh at once.
    Now,
}

/// A shard at its owner or at a replica. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shard(Arc<Shared>);

/// What requests and the tasks of a shard share.
struct Shared {
    role: Role,
    catalog: Catalog,
    limits: Limits,
    views: Views,
    status: Arc<Status>,
    suspicion: Suspicion,
    meters: Meters,
    queue: QueueBytes,
    is_draining: AtomicBool,
    stop: CancellationToken,
}

/// What is open.
enum Role {
    Owner { claim: Claim, kept: Kept<Serving> },
    Replica { kept: Kept<()>, poll: Duration },
}

impl Shard {
    /// Opens the shard; keeps it open in tasks of the context.
    pub(crate) async fn start(cx: &Context, catalog: Catalog, limits: Limits) -> Result<Self, ServiceError> {
        let missing = || ServiceError::internal("the role has no shard, or no data on the store");
        let shard = cx.role.shard_ref().ok_or_else(missing)?;
        let (objects, logs) = (cx.objects.clone().ok_or_else(missing)?, cx.logs.clone().ok_or_else(missing)?);
        let folder = cx.cache_dir.join("searcher").join(shard.service.as_str()).join(shard.shard.to_string());
        let poll = cx.objects_poll;
        let role = match &cx.duty {
            Duty::Primary(claim) => Role::Owner { claim: claim.clone(), kept: Kept::default() },
            Duty::Replica => Role::Replica { kept: Kept::default(), poll },
            Duty::None => return Err(missing()),
        };
        let shared = Arc::new(Shared {
            role,
            catalog,
            limits,
            views: Views::new(),
            status: Arc::default(),
            suspicion: Suspicion::default(),
            meters: Meters::new(&cx.metrics),
            queue: QueueBytes::new(limits.max_behind.0),
            is_draining: AtomicBool::new(false),
            stop: cx.shutdown.child_token(),
        });
        let of = Arc::clone(&shared);
        cx.tasks.spawn("shard", async move {
            match &of.role {
                Role::Owner { claim, kept } => {
                    let shared = Arc::clone(&of);
                    let owner = Owner { shared, claim: claim.clone(), objects, logs, folder };
                    keep_open(&owner, kept, PAUSES, &of.stop).await;
                }
                Role::Replica { kept, poll } => {
                    let longest = Duration::from_secs(2).max(*poll);
                    let pauses = Pauses {
                        backoff: Backoff::new(*poll, longest),
                        damaged: longest,
                        steady: Duration::ZERO,
                    };
                    let shared = Arc::clone(&of);
                    let replica = Replica { shared, objects, logs, folder, poll: *poll };
                    keep_open(&replica, kept, pauses, &of.stop).await;
                }
            }
            Ok(())
        });
        Ok(Self(shared))
    }

    /// Writes all, in order; each is refused or durable on its own. Only the owner. A request of more than eight mebibytes
    /// becomes several records of the log, so after [`ShardError::OutcomeUnknown`] a part of it may be durable. After
    /// [`ShardError::NotVisible`] all of it is that was not refused.
    pub(crate) async fn write(
        &self,
        writes: Vec<Write>,
        refresh: Refresh,
    ) -> Result<Vec<Result<Written, Refused>>, ShardError> {
        let results = self.write_durably(writes).await?;
        self.until_visible(end_of(&results), refresh).await?;
        Ok(results)
    }

    /// Waits as the request wants it, until all operations below this number are visible to searches and in a manifest.
    pub(crate) async fn until_visible(&self, end: u64, refresh: Refresh) -> Result<(), ShardError> {
        if refresh == Refresh::Durable || end == 0 {
            return Ok(());
        }
        let limit = self.0.limits.visible;
        let waiting = async {
            let Ok(open) = self.open().await else { return false };
            if refresh == Refresh::Now {
                open.pending.want(end);
            }
            open.pending.until_stored(end).await
        };
        let why = match timeout(limit, waiting).await {
            Ok(true) => return Ok(()),
            Ok(false) => "the shard was closed meanwhile".to_owned(),
            Err(_) => {
                let trouble = [Trouble::Store, Trouble::Unreadable, Trouble::DiskFull, Trouble::Indexing];
                let why = trouble.into_iter().find_map(|trouble| self.0.status.why(trouble));
                why.unwrap_or_else(|| format!("its segments were not stored within {limit:?}"))
            }
        };
        Err(ShardError::NotVisible(format!("it is durable, but not visible to all searches yet: {why}")))
    }

    async fn write_durably(&self, writes: Vec<Write>) -> Result<Vec<Result<Written, Refused>>, ShardError> {
        let open = self.open().await?;
        if self.0.is_draining.load(Ordering::SeqCst) {
            return Err(ShardError::Elsewhere("the shard is about to move to another node".to_owned()));
        }
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.check_indexes(&writes).await?;
        if let Some(why) = self.0.status.why(Trouble::DiskFull) {
            return Err(ShardError::NoSpace(why));
        }
        if timeout(ROOM, open.pending.until_less_behind(self.0.limits.max_behind)).await.is_err() {
            let behind = open.pending.behind().operations;
            return Err(ShardError::Behind(format!(
                "{behind} operations are in no manifest on the store yet"
            )));
        }
        let size = writes.iter().map(size).sum();
        let space = self.0.queue.reserve(size).ok_or_else(|| ShardError::Behind(QueueFull.to_string()))?;
        let answered = open.writes.put(writes, space).map_err(|error| match error {
            NotQueued::Full(full) => ShardError::Behind(full.to_string()),
            NotQueued::Closed => ShardError::Opening("it is being opened again".to_owned()),
        })?;
        let unknown = || ShardError::OutcomeUnknown("the shard was closed meanwhile".to_owned());
        answered.await.map_err(|_| unknown())?
    }

    /// Makes everything visible that was acknowledged before, here and in a manifest. Only the owner.
    pub(crate) async fn refresh(&self) -> Result<(), ShardError> {
        let open = self.open().await?;
        let end = open.pending.next_seq();
        self.make_visible(&open.pending).await?;
        if open.pending.until_stored(end).await { Ok(()) } else { Err(closed()) }
    }

    /// Merges all segments of an index into one, without deleted documents. Only the owner.
    pub(crate) async fn compact(&self, index: &Arc<Index>) -> Result<(), ShardError> {
        let open = self.open().await?;
        self.make_visible(&open.pending).await?;
        let (tries, pause) = COMPACTION;
        let mut failed: Option<TantivyError> = None;
        for _ in 0..tries {
            let local = open.local.upgrade().ok_or_else(closed)?;
            let of = Arc::clone(index);
            let merging =
                blocking(&local, move |local| local.merge(&of)).await.map_err(ShardError::Unavailable)?;
            drop(local);
            let Some(merging) = merging.map_err(|error| ShardError::Unavailable(error.to_string()))? else {
                return if open.pending.until_merged().await { Ok(()) } else { Err(closed()) };
            };
            if let Err(error) = merging.await {
                failed = Some(error);
                sleep(pause).await;
            }
        }
        match (failed, self.0.status.why(Trouble::DiskFull)) {
            (_, Some(why)) => Err(ShardError::NoSpace(why)),
            // Segments that another merge has replaced.
            (None | Some(TantivyError::InvalidArgument(_)), None) => {
                Err(ShardError::Unavailable("new segments keep arriving".to_owned()))
            }
            (Some(error), None) => {
                let why = format!("the segments can't be merged: {error}");
                Err(self.suspected(ShardError::LocalDamage(why)))
            }
        }
    }

    /// Reports that a request has failed as it does if a local file is damaged: they are verified.
    pub(crate) fn suspect(&self, why: &str) {
        self.0.suspicion.report(why);
    }

    fn suspected(&self, error: ShardError) -> ShardError {
        self.suspect(&error.to_string());
        error
    }

    pub(crate) fn health(&self) -> Health {
        let shared = &self.0;
        match &shared.role {
            Role::Owner { kept, .. } => match kept.get() {
                Ok(open) => {
                    let lag = open.pending.lag();
                    let health = shared.status.health(None);
                    if health == Health::Ready && lag > BEHIND.max(10 * shared.limits.refresh) {
                        return status::indexing_behind(lag);
                    }
                    health
                }
                Err(why) => shared.status.health(Some(why)),
            },
            Role::Replica { kept, poll } => {
                let health = shared.status.health(kept.get().err());
                match self.staleness() {
                    Some(staleness)
                        if health == Health::Ready && staleness > REPLICA_BEHIND.max(10 * *poll) =>
                    {
                        status::replica_behind(staleness)
                    }
                    // Reads wait until it is known.
                    None if health == Health::Ready => shared.status.health(Some(NotOpen::Opening(None))),
                    _ => health,
                }
            }
        }
    }

    /// The epoch of the claim, at the owner.
    pub(crate) fn epoch(&self) -> Option<u64> {
        match &self.0.role {
            Role::Owner { claim, .. } => Some(claim.epoch().0),
            Role::Replica { .. } => None,
        }
    }

    /// Indexes and uploads what is acknowledged, until the deadline; what is left is replayed by the next owner.
    pub(crate) async fn drain(&self, deadline: tokio::time::Instant) {
        self.0.is_draining.store(true, Ordering::SeqCst);
        if let Role::Owner { kept, .. } = &self.0.role
            && kept.get().is_ok()
        {
            // What is left is replayed.
            let _ = timeout_at(deadline, self.refresh()).await;
        }
    }

    /// Closes the shard, and waits until it is closed. Does not wait for merges.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        match &self.0.role {
            Role::Owner { kept, .. } => kept.ended().await,
            Role::Replica { kept, .. } => kept.ended().await,
        }
    }

    /// Makes everything visible that was acknowledged before.
    async fn make_visible(&self, pending: &Pending) -> Result<(), ShardError> {
        let end = pending.next_seq();
        if let Some(why) = self.0.status.why(Trouble::DiskFull).filter(|_| !pending.is_visible(end)) {
            return Err(ShardError::NoSpace(why));
        }
        pending.want(end);
        if pending.until_visible(end).await { Ok(()) } else { Err(closed()) }
    }

    /// What requests use of the open shard. Waits for it, a while.
    async fn open(&self) -> Result<Serving, ShardError> {
        match &self.0.role {
            Role::Owner { .. } if self.0.stop.is_cancelled() => {
                Err(ShardError::Elsewhere("the shard is being closed".to_owned()))
            }
            Role::Owner { kept, .. } => Ok(kept.opened(OPENING).await?),
            Role::Replica { .. } => {
                Err(ShardError::Elsewhere("this node has a replica of the shard".to_owned()))
            }
        }
    }

    /// Checks that all indexes still exist.
    async fn check_indexes(&self, writes: &[Write]) -> Result<(), ShardError> {
        let missing = |indexes: &crate::catalog::Indexes| {
            writes.iter().map(|write| &write.index).find(|index| indexes.index(index.uuid).is_none()).cloned()
        };
        if missing(&self.0.catalog.now()).is_none() {
            return Ok(());
        }
        // It may be newer than what is known here.
        let fresh = self.0.catalog.fresh().await;
        let fresh = fresh.map_err(|error| ShardError::Unavailable(error.to_string()))?;
        missing(&fresh).map_or(Ok(()), |index| Err(ShardError::NoIndex(index.name.clone())))
    }
}

#[cfg(test)]
mod tests;
