//! The claim on a shard that this node owns, as its service uses it.
//!
//! The store decides. This process only has its last answer, which ages: the supervisor refreshes it regularly, and a
//! service asks the store again before it does what only the owner may do.

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

/// A poll that only looks for the next entry is trusted if the last confirmation is not older than this. Later, the
/// entry that it looks for may have been pruned already.
const TRUST_POLLS: Duration = Duration::from_secs(60);

/// What a node does with its role's shard.
#[derive(Debug, Clone)]
pub enum Duty {
    /// The role has no shard with an owner.
    None,
    /// It owns the shard through this claim.
    Primary(Claim),
    /// It follows the owner's data and writes nothing.
    Replica,
}

impl Duty {
    /// Whether the role has a shard with an owner, be it this node or another one.
    pub fn is_of_an_owned_shard(&self) -> bool {
        match self {
            Self::None => false,
            Self::Primary(_) | Self::Replica => true,
        }
    }
}

/// The claim on a shard that this node owns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Claim(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shard: ShardRef,
    holder: Holder,
    claims: Claims,
    /// The number of the latest entry of the claim's log that is known to leave it ours.
    seen: AtomicU64,
    /// When the request began in which the store last confirmed that the claim is ours.
    confirmed: watch::Sender<Instant>,
    passed: CancellationToken,
    /// Who owns the shard instead, in words.
    new_owner: OnceLock<String>,
    /// Why the service thinks that the claim has passed, until the supervisor has checked it.
    suspicion: watch::Sender<Option<String>>,
    /// Decides whether to yield to a challenge.
    policy: OnceLock<Policy>,
    /// The challenger to yield to.
    yielding: watch::Sender<Option<NodeId>>,
}

/// Decides from the number of other members that a challenger sees.
struct Policy(Box<dyn Fn(u32) -> bool + Send + Sync>);

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

/// Why the claim was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimLost {
    /// Stop: another node owns the shard, or no node does.
    #[error("the claim of epoch {epoch} on {shard} has passed: {now}")]
    Passed {
        /// The shard.
        shard: ShardRef,
        /// The epoch that was ours.
        epoch: Epoch,
        /// What the store states now: `owned by b since epoch 7`.
        now: String,
    },
    /// Wait, then try again: the store does not answer.
    #[error("whether the claim still holds is not known: {0}")]
    Unknown(#[from] StoreError),
}

impl Claim {
    /// A claim that was just taken; the take began at `asked_at`.
    pub fn new(claims: Claims, shard: ShardRef, holder: Holder, asked_at: Instant) -> Self {
        Self(Arc::new(Inner {
            seen: AtomicU64::new(holder.epoch.0),
            shard,
            holder,
            claims,
            confirmed: watch::channel(asked_at).0,
            passed: CancellationToken::new(),
            new_owner: OnceLock::new(),
            suspicion: watch::channel(None).0,
            policy: OnceLock::new(),
            yielding: watch::channel(None).0,
        }))
    }

    /// The number of the claim.
    pub fn epoch(&self) -> Epoch {
        self.0.holder.epoch
    }

    /// The owner: this node and its generation.
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

    /// Sets which challenges to yield to, by the number of other members that the challenger sees. By default, to none.
    /// For the supervisor; only the first call has an effect.
    pub fn yield_when(&self, policy: impl Fn(u32) -> bool + Send + Sync + 'static) {
        // Only the first policy counts.
        let _ = self.0.policy.set(Policy(Box::new(policy)));
    }

    /// Waits until the policy decides to yield to a challenge. Returns the challenger.
    pub async fn yielding(&self) -> NodeId {
        let mut yielding = self.0.yielding.subscribe();
        loop {
            // The sender exists as long as the claim.
            let _ = yielding.wait_for(Option::is_some).await;
            if let Some(to) = self.0.yielding.send_replace(None) {
                return to;
            }
        }
    }

    /// Reads the claim from the store, and defends it if it was challenged, unless the policy decides to yield.
    pub async fn confirm(&self) -> Result<(), ClaimLost> {
        let inner = &self.0;
        let asked_at = Instant::now();
        let mut now = inner.claims.read(&inner.shard).await?;
        while let (Some(holder), Latest::Challenged { by, sees }) = (&now.holder, &now.latest)
            && *holder == inner.holder
        {
            if inner.policy.get().is_some_and(|policy| policy.0(*sees)) {
                inner.yielding.send_replace(Some(by.clone()));
                // It is ours until it is released. `seen` does not advance, so the next poll judges this entry again.
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
        inner.new_owner.get_or_init(|| now.clone());
        inner.passed.cancel();
        Err(ClaimLost::Passed { shard: inner.shard.clone(), epoch: inner.holder.epoch, now })
    }

    /// The owner's regular poll: one small read. Returns whether it showed that nothing has changed; if not, call
    /// [`confirm`](Self::confirm).
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

    /// The time since the last confirmation by the store, counted from the start of its request.
    pub fn age(&self) -> Duration {
        self.0.confirmed.borrow().elapsed()
    }

    /// Waits until the last confirmation is not older than this.
    pub async fn younger_than(&self, age: Duration) {
        let mut confirmed = self.0.confirmed.subscribe();
        // The sender exists as long as the claim.
        let _ = confirmed.wait_for(|at| at.elapsed() <= age).await;
    }

    /// Waits until the store has shown that the claim has passed.
    pub async fn passed(&self) {
        self.0.passed.cancelled().await;
    }

    /// Who owns the shard now, in words, once the claim is known to have passed.
    pub fn new_owner(&self) -> Option<&str> {
        self.0.new_owner.get().map(String::as_str)
    }

    /// For services: reports that the data rejected a write because this node is no longer the owner. The supervisor
    /// then checks the claim.
    pub fn fenced(&self, why: impl Into<String>) {
        self.0.suspicion.send_replace(Some(why.into()));
    }

    /// Waits until the service calls [`fenced`](Self::fenced), and returns its reason. Each report is returned once.
    pub async fn suspected(&self) -> String {
        let mut suspicion = self.0.suspicion.subscribe();
        loop {
            // The sender exists as long as the claim.
            let _ = suspicion.wait_for(Option::is_some).await;
            if let Some(why) = self.0.suspicion.send_replace(None) {
                return why;
            }
        }
    }

    /// Removes entries of the claim's log that are no longer needed.
    pub async fn prune(&self) -> Result<usize, StoreError> {
        self.0.claims.prune(&self.0.shard).await
    }

    fn note_confirmed(&self, asked_at: Instant) {
        self.0.confirmed.send_modify(|confirmed| *confirmed = asked_at.max(*confirmed));
    }
}
