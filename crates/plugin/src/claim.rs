//! A shard that this node owns: the claim as a service sees it.
//!
//! The truth is on the store. What is known here of it has an age; the supervisor keeps it young, and a service asks
//! anew before it does what only the owner may.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use store::{ClaimError, Claims, Latest, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;
use types::{Epoch, Holder, NodeId, ServiceName, ShardId, ShardRef};

/// A poll that asks only for the next claim is trusted if the one before it was not longer ago than this: what it asks
/// for may have been pruned later.
const TRUST_POLLS: Duration = Duration::from_secs(60);

/// What the owner of a role does with its shard.
#[derive(Debug, Clone)]
pub enum Duty {
    /// There is nothing to own.
    None,
    /// It owns the shard.
    Primary(Claim),
    /// It has a copy that follows the owner's, and writes nothing.
    Replica,
}

impl Duty {
    /// Whether it is a duty for a shard that has an owner, this node or another one.
    pub fn is_of_an_owned_shard(&self) -> bool {
        match self {
            Self::None => false,
            Self::Primary(_) | Self::Replica => true,
        }
    }
}

/// A shard that this node owns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Claim(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shard: ShardRef,
    holder: Holder,
    claims: Claims,
    /// The number of the latest entry of the claim's log that is known to leave it ours.
    seen: AtomicU64,
    /// When the store last said that it is ours; the moment at which the question was asked.
    confirmed: watch::Sender<Instant>,
    passed: CancellationToken,
    /// Whose it is instead, in words.
    successor: OnceLock<String>,
    /// Why somebody believes that it has passed, until it was looked into.
    suspicion: watch::Sender<Option<String>>,
    /// Whether a challenge is to be yielded to.
    policy: OnceLock<Policy>,
    /// Who it is yielded to.
    yielding: watch::Sender<Option<NodeId>>,
}

/// Decides from the number of other members that a challenger sees.
struct Policy(Box<dyn Fn(u32) -> bool + Send + Sync>);

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

/// Why a shard can't be said to be ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimLost {
    /// Stop: somebody else owns it, or nobody.
    #[error("the claim of epoch {epoch} on {shard} has passed: {now}")]
    Passed {
        /// The shard.
        shard: ShardRef,
        /// The epoch that was ours.
        epoch: Epoch,
        /// What the store says now: `owned by b since epoch 7`.
        now: String,
    },
    /// Wait, then ask again: the store does not answer.
    #[error("whether the claim still holds is not known: {0}")]
    Unknown(#[from] StoreError),
}

impl Claim {
    /// A claim that was taken just now: the take was begun at `asked_at`.
    pub fn new(claims: Claims, shard: ShardRef, holder: Holder, asked_at: Instant) -> Self {
        Self(Arc::new(Inner {
            seen: AtomicU64::new(holder.epoch.0),
            shard,
            holder,
            claims,
            confirmed: watch::channel(asked_at).0,
            passed: CancellationToken::new(),
            successor: OnceLock::new(),
            suspicion: watch::channel(None).0,
            policy: OnceLock::new(),
            yielding: watch::channel(None).0,
        }))
    }

    /// The number of the claim.
    pub fn epoch(&self) -> Epoch {
        self.0.holder.epoch
    }

    /// The owner: this node in this life.
    pub fn holder(&self) -> &Holder {
        &self.0.holder
    }

    /// The service whose shard it is.
    pub fn service(&self) -> &ServiceName {
        &self.0.shard.service
    }

    /// The number of the shard.
    pub fn shard(&self) -> ShardId {
        self.0.shard.shard
    }

    /// The shard with its service.
    pub fn shard_ref(&self) -> &ShardRef {
        &self.0.shard
    }

    /// Decides which challenges are yielded to, from the number of other members that the challenger sees. By default
    /// none is. To be set once, by who watches over the claim.
    pub fn yield_when(&self, policy: impl Fn(u32) -> bool + Send + Sync + 'static) {
        // A second one changes nothing.
        let _ = self.0.policy.set(Policy(Box::new(policy)));
    }

    /// Waits until a challenge is to be yielded to. Gives the challenger.
    pub async fn yielding(&self) -> NodeId {
        let mut yielding = self.0.yielding.subscribe();
        loop {
            // The sender lives as long as the claim.
            let _ = yielding.wait_for(Option::is_some).await;
            if let Some(to) = self.0.yielding.send_replace(None) {
                return to;
            }
        }
    }

    /// Reads the claim on the store anew. Whoever doubts that its owner is there is told that it is, unless the claim is to
    /// be yielded.
    pub async fn confirm(&self) -> Result<(), ClaimLost> {
        let inner = &self.0;
        let asked_at = Instant::now();
        let mut now = inner.claims.read(&inner.shard).await?;
        while let (Some(holder), Latest::Challenged { by, sees }) = (&now.holder, &now.latest)
            && *holder == inner.holder
        {
            if inner.policy.get().is_some_and(|policy| policy.0(*sees)) {
                inner.yielding.send_replace(Some(by.clone()));
                // It is ours until it is given up. The entry is not noted, so that it is judged again at the next poll.
                self.note_confirmed(asked_at);
                return Ok(());
            }
            info!(shard = %inner.shard, %by, "defending a shard");
            now = match inner.claims.defend(&inner.shard, &now).await {
                Ok(now) | Err(ClaimError::Lost(now)) => now,
                Err(ClaimError::Store(error)) => return Err(error.into()),
            };
        }
        if now.holder.as_ref() == Some(&inner.holder) {
            inner.seen.fetch_max(now.number, Ordering::SeqCst);
            self.note_confirmed(asked_at);
            return Ok(());
        }
        let now = match &now.holder {
            Some(holder) => format!("owned by {} since epoch {}", holder.node, holder.epoch),
            None => now.note().unwrap_or_else(|| "nobody owns it".to_owned()),
        };
        inner.successor.get_or_init(|| now.clone());
        inner.passed.cancel();
        Err(ClaimLost::Passed { shard: inner.shard.clone(), epoch: inner.holder.epoch, now })
    }

    /// The owner's poll: one small read. Whether it says that all is as it was; if not, [`confirm`](Self::confirm).
    pub async fn poll_next(&self) -> bool {
        let inner = &self.0;
        if self.age() > TRUST_POLLS {
            return false;
        }
        let asked_at = Instant::now();
        let is_latest = inner.claims.is_latest(&inner.shard, self.latest()).await;
        let is_ours = is_latest.is_ok_and(|is_latest| is_latest);
        if is_ours {
            self.note_confirmed(asked_at);
        }
        is_ours
    }

    /// The number of the latest entry of the claim's log that is known to leave it ours.
    pub fn latest(&self) -> u64 {
        self.0.seen.load(Ordering::SeqCst)
    }

    /// How long ago the store was last asked and said that it is ours.
    pub fn age(&self) -> Duration {
        self.0.confirmed.borrow().elapsed()
    }

    /// Waits until what is known is not older than this.
    pub async fn younger_than(&self, age: Duration) {
        let mut confirmed = self.0.confirmed.subscribe();
        // The sender lives as long as the claim.
        let _ = confirmed.wait_for(|at| at.elapsed() <= age).await;
    }

    /// Waits until the claim is known to have passed.
    pub async fn passed(&self) {
        self.0.passed.cancelled().await;
    }

    /// Whose the shard is now, in words, once the claim is known to have passed.
    pub fn successor(&self) -> Option<&str> {
        self.0.successor.get().map(String::as_str)
    }

    /// The service says that its data told it that it is no longer the owner; the supervisor finds out.
    pub fn fenced(&self, why: impl Into<String>) {
        self.0.suspicion.send_replace(Some(why.into()));
    }

    /// Waits until the service says that it was fenced, and why. Each time is told once.
    pub async fn suspected(&self) -> String {
        let mut suspicion = self.0.suspicion.subscribe();
        loop {
            // The sender lives as long as the claim.
            let _ = suspicion.wait_for(Option::is_some).await;
            if let Some(why) = self.0.suspicion.send_replace(None) {
                return why;
            }
        }
    }

    /// Removes entries of the claim's log that nobody needs any more.
    pub async fn prune(&self) -> Result<usize, StoreError> {
        self.0.claims.prune(&self.0.shard).await
    }

    fn note_confirmed(&self, asked_at: Instant) {
        self.0.confirmed.send_modify(|confirmed| *confirmed = asked_at.max(*confirmed));
    }
}
