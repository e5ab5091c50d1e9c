//! Who owns a shard: a log of takes and releases, the number of a take being its epoch.
//!
//! Gossip may be wrong about who owns a shard, this is not: of all that take a shard from the same state one
//! succeeds, and each take has a higher epoch than all before. Whether a shard *may* be taken from its holder
//! is not decided here, see the runtime.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use types::{Epoch, ErrorKind, Generation, Holder, NodeId, ServiceType, ShardId};

use crate::error::{Fault, StoreError};
use crate::log::{AppendError, LIMITS, Limits, Log, latest_of_each};
use crate::objects::Objects;

/// How many objects are read at once.
const AT_ONCE: usize = 16;

/// The claims of a cluster: a [`Log`] for each shard.
#[derive(Debug, Clone)]
pub struct Claims {
    objects: Objects,
    limits: Limits,
}

/// Who owns a shard, as its latest entry says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimState {
    /// The number of the latest entry; 0 if there is none.
    pub number: u64,
    /// Who owns it; `None` when nobody does.
    pub holder: Option<Holder>,
    /// The latest entry in words: `taken by a`, `released by a: leaving`, `released by a to b`.
    pub note: Option<String>,
}

/// Why a shard was not taken or released.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else was first; decide anew from this state.
    #[error("the claim has changed: {}", .0.note.as_deref().unwrap_or("nobody has it"))]
    Lost(ClaimState),
    /// It is not known whether the entry was written; read the claim before trying again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClaimError {
    /// What a caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost(_) => ErrorKind::Conflict,
            Self::Store(error) => error.kind(),
        }
    }

    /// What a person can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lost(_) => None,
            Self::Store(error) => error.hint(),
        }
    }
}

/// An entry of a claim's log. A kind that is not listed is a newer version's, and said to be so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record {
    Take {
        node: NodeId,
        generation: Generation,
    },
    Release {
        node: NodeId,
        generation: Generation,
        /// The take that ends.
        epoch: Epoch,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<NodeId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
}

impl Record {
    /// What the claim is when this is its latest entry.
    fn state(self, number: u64) -> ClaimState {
        match self {
            Self::Take { node, generation } => ClaimState {
                number,
                note: Some(format!("taken by {node}")),
                holder: Some(Holder { node, generation, epoch: Epoch(number) }),
            },
            Self::Release { node, to, why, .. } => {
                let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                ClaimState { number, holder: None, note: Some(format!("released by {node}{to}{why}")) }
            }
        }
    }
}

impl Claims {
    pub(crate) fn new(objects: Objects) -> Self {
        Self { objects, limits: LIMITS }
    }

    /// Who owns a shard. One LIST and one GET.
    pub async fn read(&self, service: &ServiceType, shard: ShardId) -> Result<ClaimState, StoreError> {
        let latest = self.log(service, shard).latest().await?;
        Ok(latest.map(|entry| entry.value.state(entry.number)).unwrap_or_default())
    }

    /// Who owns which shard, of all that were ever claimed. One LIST, and one GET a shard.
    pub async fn all(&self) -> Result<BTreeMap<(ServiceType, ShardId), ClaimState>, StoreError> {
        let logs = latest_of_each(self.objects.list(&root()).await?, &root());
        let shards = logs.into_iter().filter_map(|(names, latest)| match names.as_slice() {
            [service, shard] => {
                Some((service.parse::<ServiceType>().ok()?, shard.parse::<ShardId>().ok()?, latest))
            }
            _ => None,
        });
        let read = |(service, shard, (number, listed)): (ServiceType, ShardId, (u64, ObjectMeta))| async move {
            let state = match self.log(&service, shard).entry_as_listed(number, &listed).await? {
                Some(record) => record.state(number),
                // pruned since the list: so there is a later one
                None => self.read(&service, shard).await?,
            };
            Ok::<_, StoreError>(((service, shard), state))
        };
        stream::iter(shards).map(read).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Takes a shard, from the state that was `seen`; the epoch of the holder is the number of the new entry.
    ///
    /// Whether it may be taken from the holder in `seen` is the caller's to decide. One PUT and one LIST.
    pub async fn take(
        &self,
        service: &ServiceType,
        shard: ShardId,
        seen: &ClaimState,
        node: &NodeId,
        generation: Generation,
    ) -> Result<Holder, ClaimError> {
        let record = Record::Take { node: node.clone(), generation };
        match self.log(service, shard).append_seen(seen.number, &record).await {
            // others went on: it was ours, and is no more
            Ok(appended) if appended.latest > appended.number => self.lost(service, shard).await,
            Ok(appended) => Ok(Holder { node: node.clone(), generation, epoch: Epoch(appended.number) }),
            Err(AppendError::Lost { .. }) => self.lost(service, shard).await,
            Err(AppendError::Store(error)) => Err(error.into()),
        }
    }

    /// Gives a shard up, for anybody or `to` a node, and says `why`. Only the holder's own latest take can be
    /// released; doing it again is no error. Two GETs, one PUT and one LIST.
    pub async fn release(
        &self,
        service: &ServiceType,
        shard: ShardId,
        holder: &Holder,
        to: Option<&NodeId>,
        why: Option<&str>,
    ) -> Result<(), ClaimError> {
        let log = self.log(service, shard);
        let epoch = holder.epoch.0;
        let ours = Record::Take { node: holder.node.clone(), generation: holder.generation };
        if log.entry(epoch).await? != Some(ours) {
            return self.lost(service, shard).await;
        }
        let record = Record::Release {
            node: holder.node.clone(),
            generation: holder.generation,
            epoch: holder.epoch,
            to: to.cloned(),
            why: why.map(str::to_owned),
        };
        match log.append(epoch, &record).await {
            Ok(_) => Ok(()),
            Err(AppendError::Lost { .. }) => match log.entry(epoch + 1).await? {
                // an earlier try of ours whose answer was lost
                Some(Record::Release { node, generation, epoch, .. })
                    if node == holder.node && generation == holder.generation && epoch == holder.epoch =>
                {
                    Ok(())
                }
                Some(Record::Take { .. } | Record::Release { .. }) | None => self.lost(service, shard).await,
            },
            Err(AppendError::Store(error)) => Err(error.into()),
        }
    }

    /// The owner's poll: `true` if nobody wrote to the claim since it was taken.
    ///
    /// One small GET of the next number; nothing there means that it is still ours. (In a folder the claim's
    /// own entry is looked at as well: a folder that was unmounted has no next number either.)
    ///
    /// An owner asks once every [`poll_interval`](crate::Store::poll_interval), a second. On a cloud store
    /// that is 2.6 million GETs a month for each owned shard, about 1 dollar at S3's price of 0.0004 dollars
    /// per 1,000.
    ///
    /// **Not after a sleep**: entries are pruned, the next number too once the claim has moved on by far (see
    /// [`Log::prune`]). An owner whose last answer is older than a minute must [`read`](Self::read) the claim
    /// and compare the holder.
    pub async fn is_latest(
        &self,
        service: &ServiceType,
        shard: ShardId,
        holder: &Holder,
    ) -> Result<bool, StoreError> {
        let log = self.log(service, shard);
        if log.is_written(holder.epoch.0 + 1).await? {
            return Ok(false);
        }
        if self.objects.is_local() && !log.is_written(holder.epoch.0).await? {
            let cause = format!("entry {} of the claim is gone; is the folder still mounted?", holder.epoch);
            return Err(self.objects.odd(Fault::Missing, "read", &path(service, shard), cause));
        }
        Ok(true)
    }

    /// Removes what is far below the latest entry; returns how many. See [`Log::prune`].
    pub async fn prune(&self, service: &ServiceType, shard: ShardId) -> Result<usize, StoreError> {
        self.log(service, shard).prune().await
    }

    async fn lost<T>(&self, service: &ServiceType, shard: ShardId) -> Result<T, ClaimError> {
        Err(ClaimError::Lost(self.read(service, shard).await?))
    }

    fn log(&self, service: &ServiceType, shard: ShardId) -> Log<Record> {
        Log::new(self.objects.clone(), path(service, shard), self.limits)
    }
}

fn root() -> Path {
    Path::from("claims")
}

fn path(service: &ServiceType, shard: ShardId) -> Path {
    root().join(service.as_str()).join(shard.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
