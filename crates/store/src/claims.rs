//! Who owns a shard: a log of takes, challenges, defences and releases, the number of a take being its epoch.
//!
//! Gossip may be wrong about who owns a shard; this log is not. Of all nodes that take a shard from the same state one
//! succeeds, and each take has a higher epoch than all before. Whether a shard *may* be taken from its holder is for
//! the runtime to decide. A node that suspects the holder to be dead *challenges* it. A live holder defends itself,
//! which makes the challenger's take fail, whichever of the two is faster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use types::{Epoch, ErrorKind, Generation, Holder, NodeId, ShardRef};

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
    /// Noted with each take.
    http: Option<Arc<str>>,
}

/// Who owns a shard, according to its latest entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimState {
    /// The number of the latest entry; 0 if there is none.
    pub number: u64,
    /// Its owner, if it has one.
    pub holder: Option<Holder>,
    /// When the holder took it, in Unix milliseconds of its own clock; for display only.
    pub since_ms: Option<u64>,
    /// The URL of the holder's API when it took it; unknown if an older version did.
    pub http: Option<String>,
    /// How often in a row an owner yielded it because it saw no other member.
    pub yielded: u32,
    /// What the latest entry is.
    pub latest: Latest,
}

/// What the latest entry of a claim is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Latest {
    /// There is none: the shard never had an owner.
    #[default]
    Never,
    /// The holder took it.
    Taken,
    /// Another node suspects the holder to be dead, and takes the shard unless the holder defends itself.
    Challenged {
        /// The challenger.
        by: NodeId,
        /// How many other members that node saw.
        sees: u32,
    },
    /// The holder answered a challenge.
    Defended,
    /// The holder released it.
    Released {
        /// The former holder.
        by: NodeId,
        /// The node for which it was released, if any.
        to: Option<NodeId>,
        /// Whether it was released because the former holder could not run it.
        is_refused: bool,
        /// Why, in words.
        why: Option<String>,
    },
}

impl ClaimState {
    /// The latest entry in words: `taken by a`, `released by a: leaving`, `released by a to b`.
    pub fn note(&self) -> Option<String> {
        let holder = self.holder.as_ref().map(|holder| holder.node.to_string()).unwrap_or_default();
        Some(match &self.latest {
            Latest::Never => return None,
            Latest::Taken => format!("taken by {holder}"),
            Latest::Challenged { by, .. } => format!("{by} challenges {holder}"),
            Latest::Defended => format!("defended by {holder}"),
            Latest::Released { by, to, is_refused, why } => {
                let verb = if *is_refused { "refused" } else { "released" };
                let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
                let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                format!("{verb} by {by}{to}{why}")
            }
        })
    }
}

/// Why a shard was not taken or released.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another node was first; decide again from this state.
    #[error("the claim has changed: {}", .0.note().as_deref().unwrap_or("it has no owner"))]
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

/// An entry of a claim's log. A kind that is not listed is reported as written by a newer version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record {
    Take {
        node: NodeId,
        generation: Generation,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<String>,
        #[serde(default, skip_serializing_if = "is_zero")]
        yielded: u32,
    },
    Challenge {
        by: NodeId,
        generation: Generation,
        /// How many other members the challenger sees.
        #[serde(default)]
        sees: u32,
        /// The holder that is challenged; repeated in each entry, so that the latest one is complete.
        holder: Holder,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<String>,
        #[serde(default, skip_serializing_if = "is_zero")]
        yielded: u32,
    },
    Defend {
        holder: Holder,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<String>,
        #[serde(default, skip_serializing_if = "is_zero")]
        yielded: u32,
    },
    Release {
        node: NodeId,
        generation: Generation,
        /// The take that ends.
        epoch: Epoch,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<NodeId>,
        /// Whether the node could not run it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        refused: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        #[serde(default, skip_serializing_if = "is_zero")]
        yielded: u32,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Record {
    /// The state of the claim when this is its latest entry.
    fn state(self, number: u64) -> ClaimState {
        match self {
            Self::Take { node, generation, at_ms, http, yielded } => ClaimState {
                number,
                holder: Some(Holder { node, generation, epoch: Epoch(number) }),
                since_ms: at_ms,
                http,
                yielded,
                latest: Latest::Taken,
            },
            Self::Challenge { by, sees, holder, since_ms, http, yielded, .. } => {
                let latest = Latest::Challenged { by, sees };
                ClaimState { number, holder: Some(holder), since_ms, http, yielded, latest }
            }
            Self::Defend { holder, since_ms, http, yielded } => {
                let latest = Latest::Defended;
                ClaimState { number, holder: Some(holder), since_ms, http, yielded, latest }
            }
            Self::Release { node, to, refused, why, yielded, .. } => ClaimState {
                number,
                holder: None,
                since_ms: None,
                http: None,
                yielded,
                latest: Latest::Released { by: node, to, is_refused: refused, why },
            },
        }
    }

    /// Whether it ends this take.
    fn is_release_of(&self, holder: &Holder) -> bool {
        matches!(self, Self::Release { node, generation, epoch, .. }
            if *node == holder.node && *generation == holder.generation && *epoch == holder.epoch)
    }
}

/// How a shard is released.
#[derive(Debug, Clone, Copy, Default)]
pub struct Farewell<'a> {
    /// The node that should take it, if there is one.
    pub to: Option<&'a NodeId>,
    /// Whether this node can't run it, so that others should try.
    pub is_refused: bool,
    /// Whether its owner sees no other member, and the new owner does.
    pub is_yielded: bool,
    /// Why, in words.
    pub why: Option<&'a str>,
}

impl Claims {
    pub(crate) fn new(objects: Objects, http: Option<Arc<str>>) -> Self {
        Self { objects, limits: LIMITS, http }
    }

    /// Who owns a shard. One LIST and one GET.
    pub async fn read(&self, shard: &ShardRef) -> Result<ClaimState, StoreError> {
        let latest = self.log(shard).latest().await?;
        Ok(latest.map(|entry| entry.value.state(entry.number)).unwrap_or_default())
    }

    /// The owners of all shards that were ever claimed. One LIST, and one GET a shard.
    ///
    /// A claim whose latest entry can't be understood is an error of that shard alone; no earlier entry replaces it.
    pub async fn all(&self) -> Result<BTreeMap<ShardRef, Result<ClaimState, StoreError>>, StoreError> {
        let logs = latest_of_each(self.objects.list(&root()).await?, &root());
        let shards = logs.into_iter().filter_map(|(names, latest)| match names.as_slice() {
            [service, shard] => Some((ShardRef::new(service.parse().ok()?, shard.parse().ok()?), latest)),
            _ => None,
        });
        let read = |(shard, (number, listed)): (ShardRef, (u64, ObjectMeta))| async move {
            let read = async {
                match self.log(&shard).latest_since(number, &listed).await? {
                    Some(entry) => Ok(entry.value.state(entry.number)),
                    // Pruned since the listing, so there is a later one.
                    None => self.read(&shard).await,
                }
            };
            match read.await {
                Err(error) if !error.is_of_content() => Err(error),
                state => Ok((shard, state)),
            }
        };
        stream::iter(shards).map(read).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Takes a shard, from the state `seen`; the epoch of the holder is the number of the new entry.
    ///
    /// The caller decides whether it may be taken from the holder in `seen`. One PUT and one LIST.
    pub async fn take(
        &self,
        shard: &ShardRef,
        seen: &ClaimState,
        node: &NodeId,
        generation: Generation,
    ) -> Result<Holder, ClaimError> {
        // From a holder it is taken for another reason.
        let yielded = if seen.holder.is_none() { seen.yielded } else { 0 };
        let http = self.http.as_deref().map(str::to_owned);
        let record = Record::Take { node: node.clone(), generation, at_ms: now_ms(), http, yielded };
        match self.log(shard).append_seen(seen.number, &record).await {
            Ok(appended) => {
                let holder = Holder { node: node.clone(), generation, epoch: Epoch(appended.number) };
                if appended.latest == appended.number {
                    return Ok(holder);
                }
                // Later entries exist: we have lost it again, unless they only challenge us.
                let now = self.read(shard).await?;
                if now.holder.as_ref() == Some(&holder) { Ok(holder) } else { Err(ClaimError::Lost(now)) }
            }
            Err(AppendError::Lost { .. }) => self.lost(shard).await,
            Err(AppendError::Store(error)) => Err(error.into()),
        }
    }

    /// Challenges the holder in `seen`. The returned state has the number of the new entry: a take from that state
    /// succeeds unless the holder defends itself. `sees` is how many other members the challenger sees.
    /// One PUT and one LIST.
    pub async fn challenge(
        &self,
        shard: &ShardRef,
        seen: &ClaimState,
        node: &NodeId,
        generation: Generation,
        sees: u32,
    ) -> Result<ClaimState, ClaimError> {
        let Some(holder) = seen.holder.clone() else {
            return self.lost(shard).await;
        };
        let by = node.clone();
        let (since_ms, http, yielded) = (seen.since_ms, seen.http.clone(), seen.yielded);
        let record = Record::Challenge { by, generation, sees, holder, since_ms, http, yielded };
        self.append(shard, seen.number, record).await
    }

    /// Answers a challenge of the holder in `seen`, which must be the caller. One PUT and one LIST.
    pub async fn defend(&self, shard: &ShardRef, seen: &ClaimState) -> Result<ClaimState, ClaimError> {
        let Some(holder) = seen.holder.clone() else {
            return self.lost(shard).await;
        };
        let (since_ms, http, yielded) = (seen.since_ms, seen.http.clone(), seen.yielded);
        let record = Record::Defend { holder, since_ms, http, yielded };
        self.append(shard, seen.number, record).await
    }

    async fn append(&self, shard: &ShardRef, seen: u64, record: Record) -> Result<ClaimState, ClaimError> {
        match self.log(shard).append_seen(seen, &record).await {
            Ok(appended) if appended.latest > appended.number => self.lost(shard).await,
            Ok(appended) => Ok(record.state(appended.number)),
            Err(AppendError::Lost { .. }) => self.lost(shard).await,
            Err(AppendError::Store(error)) => Err(error.into()),
        }
    }

    /// Releases a shard. Only its holder can. Neither a second release nor a challenge in the meantime is an error.
    /// One LIST, one GET, one PUT and one LIST.
    pub async fn release(
        &self,
        shard: &ShardRef,
        holder: &Holder,
        farewell: Farewell<'_>,
    ) -> Result<(), ClaimError> {
        let log = self.log(shard);
        loop {
            let Some(latest) = log.latest().await? else {
                return self.lost(shard).await;
            };
            // An earlier attempt of ours whose answer was lost.
            if latest.value.is_release_of(holder) {
                return Ok(());
            }
            let now = latest.value.state(latest.number);
            if now.holder.as_ref() != Some(holder) {
                return Err(ClaimError::Lost(now));
            }
            let record = Record::Release {
                node: holder.node.clone(),
                generation: holder.generation,
                epoch: holder.epoch,
                to: farewell.to.cloned(),
                refused: farewell.is_refused,
                why: farewell.why.map(str::to_owned),
                yielded: if farewell.is_yielded { now.yielded.saturating_add(1) } else { 0 },
            };
            match log.append(now.number, &record).await {
                Ok(_) => return Ok(()),
                // Each time another node has written: a challenger, or a new owner.
                Err(AppendError::Lost { .. }) => {}
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
    }

    /// The owner's poll: `true` if the claim has no entry after `number`.
    ///
    /// One small GET of the next number; if it does not exist, the shard is still ours. (In a folder the claim's
    /// own entry is read as well: a folder that was unmounted has no next number either.)
    ///
    /// An owner polls once every [`poll_interval`](crate::Store::poll_interval), a second on a cloud store. There
    /// that is 2.6 million GETs a month for each owned shard, about 1 dollar at S3's price of 0.0004 dollars
    /// per 1,000.
    ///
    /// **Not after a pause of the process**: entries are pruned, and so is the next number once the claim has many
    /// later ones (see [`Log::prune`]). An owner whose last answer is older than a minute must [`read`](Self::read)
    /// the claim and compare the holder.
    pub async fn is_latest(&self, shard: &ShardRef, number: u64) -> Result<bool, StoreError> {
        let log = self.log(shard);
        if log.is_written(number + 1).await? {
            return Ok(false);
        }
        if self.objects.is_local() && !log.is_written(number).await? {
            let cause = format!("entry {number} of the claim is gone; is the folder still mounted?");
            return Err(self.objects.error(Fault::Missing, "read", &path(shard), cause));
        }
        Ok(true)
    }

    /// Removes entries far below the latest; returns how many. See [`Log::prune`].
    pub async fn prune(&self, shard: &ShardRef) -> Result<usize, StoreError> {
        self.log(shard).prune().await
    }

    async fn lost<T>(&self, shard: &ShardRef) -> Result<T, ClaimError> {
        Err(ClaimError::Lost(self.read(shard).await?))
    }

    fn log(&self, shard: &ShardRef) -> Log<Record> {
        Log::new(self.objects.clone(), path(shard), self.limits)
    }
}

/// The time on this node's clock, for display only.
fn now_ms() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(now.as_millis()).ok()
}

fn root() -> Path {
    Path::from("claims")
}

fn path(ShardRef { service, shard }: &ShardRef) -> Path {
    root().join(service.as_str()).join(shard.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
