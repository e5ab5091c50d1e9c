//! Shards that this node owns on the store and does not run: from an earlier life, or because the store did not note that
//! they were given up. They are taken up again or given up, so that nobody waits for an owner who does nothing.

use std::time::Duration;

use store::Farewell;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use types::{Problem, Reason, Role, ServiceName, ShardId, Sharding};

use super::Supervisor;
use crate::node::cluster_store::{not_opened, unreadable};
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::release;
use crate::role::reasons::CLAIM_LEFT_OVER;

/// How long the store may take to say what this node owns.
const SWEEP_LIMIT: Duration = Duration::from_secs(3);

/// The pause before the next attempt, when the store did not do its part.
const PAUSE: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Looks after what was left over.
    pub(super) async fn tidy(&mut self) {
        if self.sweep().await {
            self.begin().await;
        }
        self.settle_orphans().await;
        if !self.is_swept || !self.orphans.is_empty() {
            self.tidy_at = Instant::now() + PAUSE;
        }
    }

    /// Looks once for shards that this node owned in an earlier life. The role becomes the one of such a shard, whatever
    /// the flags say, unless a person has said something since; all others are to be given up. Whether there was one to
    /// take up.
    pub(super) async fn sweep(&mut self) -> bool {
        self.is_swept |= !self.tools.registry.plugins().any(|plugin| plugin.sharding() == Sharding::Owned);
        if self.is_swept {
            return false;
        }
        let mut own = match timeout(SWEEP_LIMIT, self.own_shards()).await {
            Ok(Ok(own)) => own,
            Ok(Err(problem)) => {
                warn!(%problem, "whether this node owns shards can't be read yet");
                return false;
            }
            Err(_) => {
                warn!(limit = ?SWEEP_LIMIT, "the store does not say in time whether this node owns shards");
                return false;
            }
        };
        self.is_swept = true;
        if let Some(claim_watch) = self.assigned.duty.claim_watch() {
            let claim = claim_watch.claim();
            own.retain(|(service, shard)| (service, *shard) != (claim.service(), claim.shard()));
        }
        let is_idle = matches!(self.state, State::Starting { .. })
            || (self.assigned.role == Role::Standby && matches!(self.state, State::Running { .. }));
        let may_resume =
            self.tools.resumes && self.revision == 0 && self.assigned.duty.claim_watch().is_none() && is_idle;
        let mut resumed = None;
        if may_resume && !own.is_empty() {
            let is_wanted = |(service, shard): &(ServiceName, ShardId)| {
                self.assigned.role.service() == Some(service) && self.assigned.role.shard() == Some(*shard)
            };
            let (service, shard) = own.remove(own.iter().position(is_wanted).unwrap_or(0));
            resumed = Some(Role::Service { service, shard: Some(shard) });
        }
        for shard in own {
            self.orphans.insert(shard, "its owner has another role".to_owned());
        }
        let Some(role) = resumed else { return false };
        if role != self.assigned.role {
            info!(%role, instead_of = %self.assigned.role, "taking up what this node owned before");
            self.assigned.role = role;
            self.assigned.note = None;
            self.state = self.state.after(Happening::Start);
        }
        true
    }

    /// The shards that the store says are this node's, in whichever life.
    async fn own_shards(&self) -> Result<Vec<(ServiceName, ShardId)>, Problem> {
        let store = self.tools.cluster_store.store().await.map_err(|error| not_opened(&error))?;
        let all = store.claims().all().await.map_err(|error| unreadable(&error))?;
        let readable = all.into_iter().filter_map(|(shard, state)| match state {
            Ok(state) => Some((shard, state)),
            // Of other shards it says nothing.
            Err(error) => {
                warn!(%error, "a claim can't be understood");
                None
            }
        });
        let own = readable.filter(|(_, state)| {
            state.holder.as_ref().is_some_and(|holder| self.tools.identity.is_mine(holder))
        });
        let mut runnable = Vec::new();
        for ((service, shard), _) in own {
            // What it can't run any more is left to others.
            if let Ok(service_type) = self.tools.cluster_store.service_type(&service).await {
                let role = Role::Service { service: service.clone(), shard: Some(shard) };
                if self.tools.registry.check(role, &service_type).is_ok() {
                    runnable.push((service, shard));
                }
            }
        }
        Ok(runnable)
    }

    /// Gives up what this node owns and does not run, as far as the store lets it.
    pub(super) async fn settle_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let claims = match self.tools.cluster_store.store().await {
            Ok(store) => store.claims(),
            Err(_) => return,
        };
        for ((service, shard), why) in std::mem::take(&mut self.orphans) {
            let is_run = self.assigned.duty.claim_watch().is_some_and(|claim_watch| {
                (claim_watch.claim().service(), claim_watch.claim().shard()) == (&service, shard)
            });
            if is_run {
                continue;
            }
            let is_settled = match timeout(SWEEP_LIMIT, claims.read(&service, shard)).await {
                Ok(Ok(state)) => match state.holder.filter(|holder| self.tools.identity.is_mine(holder)) {
                    Some(holder) => {
                        let farewell = Farewell { why: Some(&why), ..Farewell::default() };
                        release(&claims, (&service, shard), &holder, farewell).await
                    }
                    None => true,
                },
                Ok(Err(_)) | Err(_) => false,
            };
            if !is_settled {
                self.orphans.insert((service, shard), why);
            }
        }
    }

    /// What is still to be given up.
    pub(super) fn left_over(&self) -> Option<Reason> {
        let shards: Vec<_> =
            self.orphans.keys().map(|(service, shard)| format!("{service}/{shard}")).collect();
        let is_any = !shards.is_empty();
        let text = || format!("the store has not noted yet that {} was given up", shards.join(", "));
        is_any.then(|| Reason::new(CLAIM_LEFT_OVER, text()))
    }
}
