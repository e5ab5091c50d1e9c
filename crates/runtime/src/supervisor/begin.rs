//! How a role begins by itself, with its shard where it has one; and how it ends when the shard is somebody else's.

use tokio::time::Instant;
use tracing::{info, warn};
use types::{ErrorKind, NodeId, Problem, Role};

use super::Supervisor;
use crate::keeper::Keeper;
use crate::lifecycle::Happening;
use crate::owner::{Candidate, release};
use crate::running::Running;

impl Supervisor {
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
            Err(problem) if problem.code() == OWNED => {
                warn!(role = %self.role, %problem, "standing by instead");
                self.stand_by(problem.detail);
            }
            Err(problem) => {
                warn!(role = %self.role, %problem, hint = problem.hint, "the role could not be started");
                self.give_up(&problem.detail).await;
                let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                self.state = self.failed(format!("{}{hint}", problem.detail));
            }
        }
        self.publish().await;
    }

    async fn try_begin(&mut self) -> Result<Option<Running>, Problem> {
        let role = self.role.clone();
        let plan = self.prepare(&role).await?;
        // Told before the shard is taken: whoever has a key for it knows from this which shard that is.
        self.terms = plan.terms;
        self.publish().await;
        let is_held = self.keeper.as_ref().is_some_and(|keeper| keeper.claim().successor().is_none());
        if plan.is_owned && !is_held {
            self.keeper = None;
            self.keeper = Some(self.acquire(&role, false).await?);
            self.publish().await;
        }
        let claim = self.keeper.as_ref().map(|keeper| keeper.claim().clone());
        self.start(plan.prepared, &role, claim).await.map_err(|error| error.to_problem("role-not-started"))
    }

    /// Takes the shard of a role. Until it is known what came of it, the shard is one that may have to be given up.
    pub(super) async fn acquire(&mut self, role: &Role, is_told: bool) -> Result<Keeper, Problem> {
        let Role::Service { service, shard: Some(shard) } = role else {
            let detail = format!("{role} has no shard that could be owned");
            return Err(Problem::new(ErrorKind::Internal, "no-shard", detail));
        };
        let store = self.tools.ground.shared_store().await?;
        let candidate = Candidate {
            node: &self.tools.node,
            generation: self.tools.generation,
            cluster: &self.tools.cluster,
            mesh: &self.tools.mesh,
        };
        self.strays.insert((service.clone(), *shard), "its take was not finished".to_owned());
        let taken = candidate.take(store, service, *shard, is_told).await;
        if taken.as_ref().err().is_none_or(|problem| problem.status < 500) {
            self.strays.remove(&(service.clone(), *shard));
        }
        let claim = taken?;
        Ok(Keeper::new(claim, store.poll_interval(), self.tools.cluster.watch()))
    }

    /// Gives up the shard, if there is one, and says why.
    pub(super) async fn give_up(&mut self, why: &str) {
        if let Some(keeper) = self.keeper.take() {
            self.release(&keeper, None, why).await;
        }
    }

    /// Gives up a shard; what the store does not note is tried again later. Whether it has noted it.
    pub(super) async fn release(&mut self, keeper: &Keeper, to: Option<&NodeId>, why: &str) -> bool {
        let claim = keeper.claim();
        let is_noted = match self.tools.ground.store().await {
            Ok(store) => {
                let shard = (claim.service(), claim.shard());
                release(&store.claims(), shard, claim.holder(), to, why).await
            }
            Err(_) => false,
        };
        if !is_noted {
            self.strays.insert((claim.service().clone(), claim.shard()), why.to_owned());
        }
        is_noted
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
        info!(note, "standing by");
        self.role = Role::Standby;
        self.keeper = None;
        self.terms = None;
        self.note = Some(note);
        self.state = self.state.after(Happening::Start).after(Happening::Started { at: Instant::now() });
    }
}

/// The code of the problem that a shard has another owner.
const OWNED: &str = "owned";
