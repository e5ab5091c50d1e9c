//! How a role begins by itself, with its shard where it has one; and how it ends when the shard is somebody else's.

use std::time::Duration;

use cluster::Timing;
use plugin::Duty;
use store::Farewell;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use types::{ErrorKind, NodeId, Problem, Role, Sharding, limits};

use super::takeover::place;
use super::{Supervisor, Tools};
use crate::role::lifecycle::Happening;
use crate::role::owner::{Candidate, Consent, release};
use crate::role::running::Running;
use crate::takeover::claim_watch::ClaimWatch;
use crate::takeover::vacancy::{Place, has_heir};

/// For how many gossip intervals it is looked for somebody else who could run a shard: a node that starts among others
/// sees them after one or two.
const HEIR_INTERVALS: u32 = 5;
/// The longest that is.
const HEIR_LIMIT: Duration = Duration::from_secs(2);

/// What a node has of its role's shard.
pub(super) enum Seat {
    Owner(ClaimWatch),
    Replica,
}

/// After so many lives in a row that ended soon after they had begun to run a shard, it is left to others.
const FAILED_LIVES: u32 = 3;

impl Supervisor {
    /// Begins the first role of a life. A process that dies again and again must not keep a shard that others could run.
    pub(super) async fn begin_life(&mut self) {
        let data = self.tools.data.clone();
        let Some(place) = place(&self.role) else { return self.begin().await };
        if !self.may_own().await {
            return self.begin().await;
        }
        let failed = data.failed_lives();
        if failed < FAILED_LIVES || !self.meets_an_heir(&place).await {
            self.is_on_trial = true;
            if let Err(error) = data.keep_failed_lives(failed.saturating_add(1)) {
                warn!(%error, "that this life has begun could not be kept");
            }
            return self.begin().await;
        }
        let why = format!(
            "{failed} lives of this node in a row ended soon after they had begun to run {}",
            self.role
        );
        warn!(role = %self.role, why, "leaving the shard to others");
        if let Ok(store) = self.tools.cluster_store.store().await
            && let Ok(state) = store.claims().read(&place.0, place.1).await
            && let Some(holder) = state.holder.filter(|holder| self.tools.identity.is_mine(holder))
        {
            let farewell = Farewell { is_refused: true, why: Some(&why), ..Farewell::default() };
            release(&store.claims(), (&place.0, place.1), &holder, farewell).await;
        }
        // The next life tries again, as this one does after a while.
        if let Err(error) = data.keep_failed_lives(0) {
            warn!(%error, "the number of failed lives could not be kept");
        }
        self.stand_by(why);
        self.publish().await;
    }

    /// Whether somebody else is there who could take the shard. Waits a moment for it to be seen.
    async fn meets_an_heir(&self, place: &Place) -> bool {
        let mut view = self.tools.cluster.watch();
        let service_type = self.tools.cluster_store.services().type_of(&place.0);
        let met = view.wait_for(|view| has_heir(view, place, service_type.as_ref()));
        let limit = (Timing::of(self.tools.profile).interval * HEIR_INTERVALS).min(HEIR_LIMIT);
        matches!(timeout(limit, met).await, Ok(Ok(_)))
    }

    /// Whether a member of the role's service may own its shard.
    async fn may_own(&self) -> bool {
        let Some(service) = self.role.service() else { return false };
        let service_type = self.tools.cluster_store.service_type(service).await;
        let plugin = service_type.ok().and_then(|service_type| self.tools.registry.plugin(&service_type));
        plugin.is_some_and(|plugin| plugin.sharding() == Sharding::Owned)
    }

    /// This life has run for long enough, or ends as it should.
    pub(super) fn end_trial(&mut self) {
        if std::mem::take(&mut self.is_on_trial)
            && let Err(error) = self.tools.data.keep_failed_lives(0)
        {
            warn!(%error, "that this life is sound could not be kept");
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
            Err(problem) if matches!(problem.code(), OWNED | REFUSED_HERE) => {
                warn!(role = %self.role, %problem, "standing by instead");
                self.stand_by(problem.detail);
            }
            Err(problem) => {
                warn!(role = %self.role, %problem, hint = problem.hint, "the role could not be started");
                self.refuse(&problem.detail).await;
                self.is_replica = false;
                let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                self.state = self.failed(format!("{}{hint}", problem.detail));
            }
        }
        self.publish().await;
    }

    async fn try_begin(&mut self) -> Result<Option<Running>, Problem> {
        let plan = self.prepare(&self.role, true).await?;
        let role = plan.role.clone();
        self.role = role.clone();
        // Told before the shard is taken: whoever has a key for it knows from this which shard that is.
        self.terms = plan.terms;
        self.publish().await;
        let is_held =
            self.claim_watch.as_ref().is_some_and(|claim_watch| claim_watch.claim().successor().is_none());
        if plan.is_owned && !is_held {
            (self.claim_watch, self.is_replica) = (None, false);
            let seat = self.acquire(&role, false, Consent::default()).await?;
            self.sit(seat);
            self.publish().await;
        }
        let duty = self.duty();
        self.start(plan.prepared, &role, duty).await.map_err(|error| error.to_problem("role-not-started"))
    }

    /// Notes what this node has of its role's shard.
    pub(super) fn sit(&mut self, seat: Seat) {
        (self.claim_watch, self.is_replica) = match seat {
            Seat::Owner(claim_watch) => (Some(claim_watch), false),
            Seat::Replica => (None, true),
        };
    }

    /// What this node does with its role's shard.
    pub(super) fn duty(&self) -> Duty {
        match &self.claim_watch {
            Some(claim_watch) => Duty::Primary(claim_watch.claim().clone()),
            None if self.is_replica => Duty::Replica,
            None => Duty::None,
        }
    }

    /// Asks everything that can refuse the shard of a role, and disturbs nothing. Being a replica is no refusal.
    pub(super) async fn consent(&self, role: &Role, is_forced: bool) -> Result<Consent, Problem> {
        let Role::Service { service, shard: Some(shard) } = role else { return Ok(Consent::default()) };
        let store = self.tools.cluster_store.shared_store().await?;
        match self.candidate().consent(store, service, *shard, is_forced).await {
            Err(problem) if problem.code() == OWNED && !is_forced && self.wants_replica(role) => {
                Ok(Consent::default())
            }
            outcome => outcome,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        let Tools { identity, cluster, mesh, cluster_store, .. } = &self.tools;
        Candidate { identity, cluster, mesh, services: cluster_store.services() }
    }

    /// Takes the shard of a role, or finds that it is to be a replica. Until it is known what came of it, the shard is one
    /// that may have to be given up.
    pub(super) async fn acquire(
        &mut self,
        role: &Role,
        is_forced: bool,
        consent: Consent,
    ) -> Result<Seat, Problem> {
        let Role::Service { service, shard: Some(shard) } = role else {
            let detail = format!("{role} has no shard that could be owned");
            return Err(Problem::new(ErrorKind::Internal, "no-shard", detail));
        };
        let store = self.tools.cluster_store.shared_store().await?;
        self.orphans.insert((service.clone(), *shard), "its take was not finished".to_owned());
        let taken = self.candidate().take(store, service, *shard, is_forced, consent).await;
        if taken.as_ref().err().is_none_or(|problem| problem.status < 500) {
            self.orphans.remove(&(service.clone(), *shard));
        }
        let claim = match taken {
            Ok(claim) => claim,
            Err(problem) if problem.code() == OWNED && !is_forced && self.wants_replica(role) => {
                info!(%role, why = problem.detail, "having a replica of the shard");
                return Ok(Seat::Replica);
            }
            Err(problem) => return Err(problem),
        };
        let poll = store.poll_interval();
        let isolation = self.tools.isolation.clone();
        Ok(Seat::Owner(ClaimWatch::new(claim, poll, self.tools.cluster.watch(), isolation)))
    }

    /// Gives up a shard; what the store does not note is tried again later. Whether it has noted it.
    pub(super) async fn release(&mut self, claim_watch: &ClaimWatch, farewell: Farewell<'_>) -> bool {
        let claim = claim_watch.claim();
        let is_noted = match self.tools.cluster_store.store().await {
            Ok(store) => {
                let shard = (claim.service(), claim.shard());
                release(&store.claims(), shard, claim.holder(), farewell).await
            }
            Err(_) => false,
        };
        if !is_noted {
            let why = farewell.why.unwrap_or_default().to_owned();
            self.orphans.insert((claim.service().clone(), claim.shard()), why);
        }
        is_noted
    }

    /// Somebody else owns the shard now: whatever runs ends, and the node has a replica if one is wanted, or stands by.
    pub(super) async fn step_down(&mut self) {
        let Some(claim_watch) = self.claim_watch.take() else {
            return;
        };
        self.failed_change = None;
        let claim = claim_watch.claim();
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
        let role = self.role.clone();
        if !self.wants_replica(&role) {
            self.stand_by(why);
        } else if let Err(problem) = self.try_replicate(&role).await {
            warn!(%role, %problem, "could not become a replica");
            self.stand_by(why);
        }
        self.publish().await;
    }

    /// No other member reaches this node, and one that sees others wants the shard: it gets it.
    pub(super) async fn yield_shard(&mut self, to: NodeId) {
        let Some(claim_watch) = self.claim_watch.take() else { return };
        self.failed_change = None;
        let why = format!("{} saw no other member, and {to} does", self.tools.node);
        warn!(role = %self.role, epoch = %claim_watch.claim().epoch(), %to, "yielding a shard: no other member is seen");
        self.state = self.state.after(Happening::Drain { reason: Some(why.clone()) });
        let running = self.running.take();
        if let Some(running) = &running {
            running.gate.shut();
        }
        self.publish().await;
        // Released before it is stopped: the challenger takes it within a moment, from us or from nobody. What this node
        // still writes is fenced by whoever opens the data next.
        let farewell = Farewell { to: Some(&to), is_yielded: true, why: Some(&why), ..Farewell::default() };
        self.release(&claim_watch, farewell).await;
        self.unmount();
        if let Some(running) = running {
            running.drain(Instant::now() + limits::REPLICA_DRAIN).await;
            running.stop().await;
        }
        self.stand_by(why);
        self.publish().await;
    }

    /// Waits to be needed, though no person wanted it so.
    pub(super) fn stand_by(&mut self, note: String) {
        info!(note, "standing by");
        self.role = Role::Standby;
        (self.claim_watch, self.is_replica) = (None, false);
        self.terms = None;
        self.note = Some(note).filter(|note| !note.is_empty());
        self.state = self.state.after(Happening::Start).after(Happening::Started { at: Instant::now() });
    }
}

/// The code of the problem that a shard has another owner.
const OWNED: &str = "owned";
/// The code of the problem that this node could not run a shard a moment ago, and others may.
const REFUSED_HERE: &str = "refused-here";
