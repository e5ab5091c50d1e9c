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
use super::{OPENING, Role, Shard, ShardError, Shared, closed, lookup};
use crate::catalog::Index;

/// One index of a shard, as of its last refresh.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) index: Arc<Index>,
    pub(crate) searcher: Searcher,
}

/// A document that was found by its id.
#[derive(Debug, Clone)]
pub(crate) struct FoundDocument {
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    pub(crate) source: Box<RawValue>,
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
        let value = found.map_err(|error| ShardError::Unavailable(error.to_string()))??;
        Ok(Read { value, staleness })
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
        let searcher = self.0.views.searcher_or_empty(index);
        let searcher = searcher.map_err(|error| ShardError::Unavailable(error.to_string()))?;
        Ok(Read { value: Snapshot { index: Arc::clone(index), searcher }, staleness })
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
