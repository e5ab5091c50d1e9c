//! Reads of a shard: documents by their ids, and the indexes for searches, at each read level.

use std::sync::Arc;
use std::time::Duration;

use plugin::shard::{NotOpen, Read, ReadLevel};
use serde_json::value::RawValue;
use tantivy::Searcher;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::open::Serving;
use super::pending::Logged;
use super::{OPENING, Role, Shard, ShardError, Shared, closed, lookup};
use crate::catalog::Index;
use crate::vectors::VectorFiles;

/// One index of a shard, as of its last refresh.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) index: Arc<Index>,
    pub(crate) searcher: Searcher,
    pub(crate) vectors: Arc<VectorFiles>,
}

/// A document that was found by its id.
#[derive(Debug, Clone)]
pub(crate) struct FoundDocument {
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    pub(crate) source: Box<RawValue>,
}

impl Snapshot {
    /// The document of an id. Blocking.
    pub(crate) fn document(&self, id: &str) -> Result<Option<FoundDocument>, ShardError> {
        Ok(lookup::find(&self.searcher, &self.index.schema, id)?)
    }
}

impl Shard {
    /// Reads a document by its id. Writes are visible at once at the owner.
    pub(crate) async fn get(
        &self,
        index: &Arc<Index>,
        id: &str,
        level: ReadLevel,
    ) -> Result<Read<Option<FoundDocument>>, ShardError> {
        let (open, staleness) = self.readable(level).await?;
        if let Some(open) = &open
            && let Some(logged) = open.pending.latest(index.uuid, id)
        {
            // All that is acknowledged of this id is in it.
            return Ok(Read { value: logged.document(), staleness });
        }
        // Read after what is pending, which is forgotten only once searchers have it.
        let Some(searcher) = self.0.views.searcher(index.uuid) else {
            return Ok(Read { value: None, staleness });
        };
        let (index, id) = (Arc::clone(index), id.to_owned());
        let found = spawn_blocking(move || lookup::find(&searcher, &index.schema, &id)).await;
        let found = found.map_err(ShardError::from).and_then(|found| Ok(found?));
        Ok(Read { value: found.map_err(|error| self.suspected(error))?, staleness })
    }

    /// The index for searches. `strong` first makes everything visible that was acknowledged before.
    pub(crate) async fn snapshot(
        &self,
        index: &Arc<Index>,
        level: ReadLevel,
    ) -> Result<Read<Snapshot>, ShardError> {
        let (open, mut staleness) = self.readable(level).await?;
        match (level, open) {
            (ReadLevel::Strong, Some(open)) => self.make_visible(&open.pending).await?,
            (ReadLevel::Primary | ReadLevel::Any, Some(open)) => {
                // What is pending is not in it.
                staleness = staleness.map(|staleness| staleness.max(open.pending.lag()));
            }
            (_, None) => {}
        }
        Ok(Read { value: self.seen(index)?, staleness })
    }

    /// The index with everything that was acknowledged before, and the number of the first operation after that. Only the owner.
    pub(crate) async fn snapshot_of_all(&self, index: &Arc<Index>) -> Result<(Snapshot, u64), ShardError> {
        let (open, _) = self.readable(ReadLevel::Strong).await?;
        let open = open.ok_or_else(closed)?;
        let end = open.pending.next_seq();
        self.make_visible(&open.pending).await?;
        Ok((self.seen(index)?, end))
    }

    /// What searches see of an index now.
    fn seen(&self, index: &Arc<Index>) -> Result<Snapshot, ShardError> {
        // First: if the shard is opened again in between, files of before are not kept for what comes after.
        let vectors = self.0.views.vectors();
        let searcher = self.0.views.searcher_or_empty(index);
        let searcher = searcher.map_err(|error| ShardError::Unavailable(error.to_string()))?;
        Ok(Snapshot { index: Arc::clone(index), searcher, vectors })
    }

    /// The operations that wrote the present documents of some ids; `None` for an id without a document. Only the owner.
    pub(crate) async fn present(
        &self,
        index: &Arc<Index>,
        ids: &Arc<[String]>,
    ) -> Result<Vec<Option<u64>>, ShardError> {
        let open = self.open().await?;
        let pending: Vec<_> = ids.iter().map(|id| open.pending.latest(index.uuid, id)).collect();
        // Read after what is pending, which is forgotten only once searchers have it.
        let searcher = self.0.views.searcher(index.uuid);
        let (index, ids) = (Arc::clone(index), Arc::clone(ids));
        let looking = spawn_blocking(move || {
            let of = |(id, pending): (&String, Option<Logged>)| match (pending, &searcher) {
                (Some(logged), _) => Ok(logged.source.is_some().then_some(logged.seq)),
                (None, None) => Ok(None),
                (None, Some(searcher)) => {
                    Ok(lookup::locate(searcher, &index.schema, id)?.map(|located| located.seq))
                }
            };
            ids.iter().zip(pending).map(of).collect::<Result<Vec<_>, lookup::LookupError>>()
        });
        let found = looking.await.map_err(ShardError::from).and_then(|found| Ok(found?));
        found.map_err(|error| self.suspected(error))
    }

    /// How far a replica may be behind the owner; `None` at the owner, or if that is not known yet.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        match &self.0.role {
            Role::Owner { .. } => None,
            Role::Replica { .. } => self.0.views.staleness(),
        }
    }

    /// Checks that a read of this level is possible here. Returns what is open, and how far behind that may be.
    async fn readable(&self, level: ReadLevel) -> Result<(Option<Serving>, Option<Duration>), ShardError> {
        let claim = match (&self.0.role, level) {
            (Role::Replica { .. }, ReadLevel::Any) => {
                return Ok((None, Some(self.0.viewable().await?)));
            }
            (Role::Owner { kept, claim }, ReadLevel::Any) => {
                if let Ok(open) = kept.get() {
                    return Ok((Some(open), Some(claim.age())));
                }
                return Ok((None, Some(self.0.viewable().await?)));
            }
            (Role::Owner { claim, .. }, ReadLevel::Primary | ReadLevel::Strong) => claim,
            (Role::Replica { .. }, ReadLevel::Primary | ReadLevel::Strong) => {
                return Err(ShardError::Elsewhere("this node has a replica of the shard".to_owned()));
            }
        };
        let open = self.open().await?;
        if level == ReadLevel::Primary {
            return Ok((Some(open), Some(claim.age())));
        }
        let began = tokio::time::Instant::now();
        let (answer, answered) = oneshot::channel();
        open.proofs.send(answer).await.map_err(|_| closed())?;
        match answered.await {
            Ok(Ok(())) => Ok((Some(open), Some(began.elapsed()))),
            Ok(Err(why)) => Err(ShardError::Unavailable(why)),
            Err(_) => Err(closed()),
        }
    }
}

impl Shared {
    /// Waits until there is something to search, a while. Returns how far behind that may be.
    async fn viewable(&self) -> Result<Duration, ShardError> {
        let opened = async {
            tokio::select! {
                () = self.views.opened() => {}
                () = self.stop.cancelled() => {}
            }
        };
        let _ = timeout(OPENING, opened).await;
        if let Some(staleness) = self.views.staleness() {
            return Ok(staleness);
        }
        let why = match &self.role {
            Role::Owner { kept, .. } => kept.get().err(),
            Role::Replica { kept, .. } => kept.get().err(),
        };
        Err(why.unwrap_or(NotOpen::Opening(None)).into())
    }
}
