//! How a role begins by itself, with its shard where it has one; and how it ends when the shard is somebody else's.

use plugin::{Claim, ServiceError};
use tokio::time::Instant;
use tracing::{info, warn};
use types::{ErrorKind, NodeId, Problem, Role, Sharding};

use super::Supervisor;
use crate::keeper::Keeper;
use crate::lifecycle::{Happening, State};
use crate::owner::{Candidate, release};
use crate::running::Running;

/// Why a role did not begin.
enum Hindrance {
    /// Its shard is somebody else's.
    Owned(Problem),
    /// It failed.
    Failed(ServiceError),
}

impl Supervisor {
    /// Takes up the shard that this node owned in an earlier life, whatever its flags say; gives up all others.
    pub(super) async fn resume(&mut self) {
        if !self.tools.registry.plugins().any(|plugin| plugin.sharding() == Sharding::Owned) {
            return;
        }
        let claims = match self.tools.ground.store().await {
            Ok(store) => store.claims(),
            // Its role will say so, if it needs the store.
            Err(_) => return,
        };
        let all = match claims.all().await {
            Ok(all) => all,
            Err(error) => {
                warn!(%error, "whether this node owns shards can't be read");
                return;
            }
        };
        let mut own: Vec<_> = all
            .into_iter()
            .filter_map(|((service, shard), state)| {
                let holder = state.holder.filter(|holder| holder.node == self.tools.node)?;
                Some((Role::Service { service, shard: Some(shard) }, holder))
            })
            .filter(|(role, _)| self.tools.registry.check(role.clone()).is_ok())
            .collect();
        let is_wanted = |role: &Role| *role == self.role;
        let may_resume = self.tools.resumes && matches!(self.state, State::Starting { .. });
        let resumed = match own.iter().position(|(role, _)| is_wanted(role)) {
            Some(at) if may_resume => Some(own.remove(at)),
            None if may_resume && !own.is_empty() => Some(own.remove(0)),
            _ => None,
        };
        if let Some((role, holder)) = resumed
            && role != self.role
        {
            info!(%role, instead_of = %self.role, epoch = %holder.epoch, "resuming what this node owned before");
            self.role = role;
        }
        for (role, holder) in own {
            if role != self.role
                && let Role::Service { service, shard: Some(shard) } = &role
            {
                let claim = Claim::new(claims.clone(), service.clone(), *shard, holder, Instant::now());
                release(&claims, &claim, None, Some("its owner was started with another role")).await;
            }
        }
    }

    /// Starts the role as it is, unless the node is told to leave meanwhile.
    pub(super) async fn begin(&mut self) {
        let leaving = self.tools.leaving.clone();
        let started = tokio::select! {
            biased;
            () = leaving.cancelled() => return,
            started = self.try_begin() => started,
        };
        match started {
            Ok(running) => self.mount(running),
            Err(Hindrance::Owned(problem)) => {
                warn!(role = %self.role, %problem, "standing by instead");
                self.stand_by(problem.detail);
            }
            Err(Hindrance::Failed(error)) => {
                warn!(role = %self.role, %error, "the role could not be started");
                self.give_up(&error.to_string()).await;
                self.state = self.failed(error.to_string());
            }
        }
        self.publish().await;
    }

    async fn try_begin(&mut self) -> Result<Option<Running>, Hindrance> {
        let role = self.role.clone();
        let plan = self.prepare(&role).await.map_err(Hindrance::Failed)?;
        let is_held = self.keeper.as_ref().is_some_and(|keeper| keeper.claim().successor().is_none());
        if plan.is_owned && !is_held {
            self.keeper = None;
            let taken = self.acquire(&role, false).await.map_err(|problem| {
                if problem.code() == "owned" {
                    Hindrance::Owned(problem)
                } else {
                    Hindrance::Failed(ServiceError::unavailable(problem.detail))
                }
            })?;
            self.keeper = Some(taken);
        }
        self.terms = plan.terms;
        self.publish().await;
        let claim = self.keeper.as_ref().map(|keeper| keeper.claim().clone());
        self.start(plan.prepared, &role, claim).await.map_err(Hindrance::Failed)
    }

    /// Takes the shard of a role.
    pub(super) async fn acquire(&self, role: &Role, is_told: bool) -> Result<Keeper, Problem> {
        let tools = &self.tools;
        let Role::Service { service, shard: Some(shard) } = role else {
            let detail = format!("{role} has no shard that could be owned");
            return Err(Problem::new(ErrorKind::Internal, "no-shard", detail));
        };
        let store =
            tools.ground.shared_store().await.map_err(|error| error.to_problem("store-unavailable"))?;
        let candidate = Candidate {
            node: &tools.node,
            generation: tools.generation,
            cluster: &tools.cluster,
            mesh: &tools.mesh,
        };
        let claim = candidate.take(store, service, *shard, is_told).await?;
        Ok(Keeper::new(claim, store.poll_interval(), tools.cluster.watch()))
    }

    /// Gives up the shard, if there is one, and says why.
    pub(super) async fn give_up(&mut self, why: &str) {
        if let Some(keeper) = self.keeper.take() {
            self.release(&keeper, None, Some(why)).await;
        }
    }

    /// Whether the store has noted it.
    pub(super) async fn release(&self, keeper: &Keeper, to: Option<&NodeId>, why: Option<&str>) -> bool {
        match self.tools.ground.store().await {
            Ok(store) => release(&store.claims(), keeper.claim(), to, why).await,
            Err(_) => false,
        }
    }

    /// Somebody else owns the shard now: whatever runs ends, and the node stands by.
    pub(super) async fn step_down(&mut self) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        let claim = keeper.claim();
        let why = format!(
            "{} is not this node's any more: {}",
            self.role,
            claim.successor().unwrap_or("its claim has passed")
        );
        warn!(role = %self.role, epoch = %claim.epoch(), why, "stepping down");
        self.state = self.state.after(Happening::Drain { reason: Some(why.clone()) });
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.publish().await;
            self.unmount();
            running.stop().await;
        }
        self.stand_by(why);
        self.publish().await;
    }

    /// Waits to be needed, though no person wanted it so.
    fn stand_by(&mut self, note: String) {
        self.role = Role::Standby;
        self.keeper = None;
        self.terms = None;
        self.note = Some(note);
        self.state = self.state.after(Happening::Start).after(Happening::Started { at: Instant::now() });
    }
}
