//! Shards that this node owns on the store but does not run: from an earlier incarnation, or because the store did not
//! record their release. The node resumes or releases them, so that no request waits for an owner that does not run them.

use std::time::Duration;

use store::Farewell;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use types::{Reason, Role, ShardRef, Sharding};

use super::Supervisor;
use crate::node::cluster_store::StoreAccessError;
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::release;
use crate::role::reasons::CLAIM_LEFT_OVER;

/// How long the store may take to list what this node owns.
const SWEEP_LIMIT: Duration = Duration::from_secs(3);

/// The pause before the next attempt, after the store failed.
const PAUSE: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Resumes or releases orphaned claims.
    pub(super) async fn tidy(&mut self) {
        if self.sweep().await {
            self.begin().await;
        }
        self.settle_orphans().await;
        if !self.is_swept || !self.orphans.is_empty() {
            self.tidy_at = Instant::now() + PAUSE;
        }
    }

    /// Looks once for shards that this node owned in an earlier incarnation. Unless an operator has given a command since,
    /// the node resumes one of them, whatever the flags say; the others are to be released. Returns whether it resumes one.
    pub(super) async fn sweep(&mut self) -> bool {
        self.is_swept |= !self.tools.registry.plugins().any(|plugin| plugin.sharding() == Sharding::Owned);
        if self.is_swept {
            return false;
        }
        let mut own = match timeout(SWEEP_LIMIT, self.own_shards()).await {
            Ok(Ok(own)) => own,
            Ok(Err(error)) => {
                warn!(%error, "whether this node owns shards can't be read yet");
                return false;
            }
            Err(_) => {
                warn!(limit = ?SWEEP_LIMIT, "the store does not answer in time whether this node owns shards");
                return false;
            }
        };
        self.is_swept = true;
        if let Some(claim_watch) = self.assigned.duty.claim_watch() {
            let claim = claim_watch.claim();
            own.retain(|shard| shard != claim.shard_ref());
        }
        let is_idle = matches!(self.state, State::Starting { .. })
            || (self.assigned.role == Role::Standby && matches!(self.state, State::Running { .. }));
        let may_resume =
            self.tools.resumes && self.revision == 0 && self.assigned.duty.claim_watch().is_none() && is_idle;
        let mut resumed = None;
        if may_resume && !own.is_empty() {
            let is_wanted = |shard: &ShardRef| self.assigned.role.is_of(shard);
            let shard = own.remove(own.iter().position(is_wanted).unwrap_or(0));
            resumed = Some(Role::from(shard));
        }
        for shard in own {
            self.orphans.insert(shard, "its owner has another role".to_owned());
        }
        let Some(role) = resumed else { return false };
        if role != self.assigned.role {
            info!(%role, instead_of = %self.assigned.role, "resuming a shard that this node owned before");
            self.assigned.role = role;
            self.assigned.note = None;
            self.state = self.state.after(Happening::Start);
        }
        true
    }

    /// The shards that this node owns on the store, under any of its generations.
    async fn own_shards(&self) -> Result<Vec<ShardRef>, StoreAccessError> {
        let all = self.tools.cluster_store.store().await?.claims().all().await?;
        let readable = all.into_iter().filter_map(|(shard, state)| match state {
            Ok(state) => Some((shard, state)),
            // The claims of other shards can still be read.
            Err(error) => {
                warn!(%error, "a claim can't be parsed");
                None
            }
        });
        let own = readable.filter(|(_, state)| {
            state.holder.as_ref().is_some_and(|holder| self.tools.identity.is_mine(holder))
        });
        let mut runnable = Vec::new();
        for (shard, _) in own {
            // A shard that this agent can't run any more is left to others.
            if let Ok(service_type) = self.tools.cluster_store.service_type(&shard.service).await
                && self.tools.registry.check(Role::from(&shard), &service_type).is_ok()
            {
                runnable.push(shard);
            }
        }
        Ok(runnable)
    }

    /// Releases the shards that this node owns and does not run, as far as the store allows it.
    pub(super) async fn settle_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let claims = match self.tools.cluster_store.store().await {
            Ok(store) => store.claims(),
            Err(_) => return,
        };
        for (shard, why) in std::mem::take(&mut self.orphans) {
            let is_run = self
                .assigned
                .duty
                .claim_watch()
                .is_some_and(|claim_watch| *claim_watch.claim().shard_ref() == shard);
            if is_run {
                continue;
            }
            let is_settled = match timeout(SWEEP_LIMIT, claims.read(&shard)).await {
                Ok(Ok(state)) => match state.holder.filter(|holder| self.tools.identity.is_mine(holder)) {
                    Some(holder) => {
                        let farewell = Farewell { why: Some(&why), ..Farewell::default() };
                        release(&claims, &shard, &holder, farewell).await
                    }
                    None => true,
                },
                Ok(Err(_)) | Err(_) => false,
            };
            if !is_settled {
                self.orphans.insert(shard, why);
            }
        }
    }

    /// The reason that names the shards that are still to be released.
    pub(super) fn left_over(&self) -> Option<Reason> {
        let shards: Vec<_> = self.orphans.keys().map(ShardRef::to_string).collect();
        let is_any = !shards.is_empty();
        let text = || format!("the store has not recorded yet that {} was released", shards.join(", "));
        is_any.then(|| Reason::new(CLAIM_LEFT_OVER, text()))
    }
}
