//! How a role begins by itself, with its shard where it has one; and how it ends when the shard is somebody else's.

use std::time::Duration;

use cluster::Timing;
use store::{ClaimState, Farewell};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use types::reason::CLAIM_PASSED;
use types::{ErrorKind, NodeId, Problem, Reason, Role, Sharding, limits};

use super::assignment::{Assignment, ShardDuty};
use super::takeover::place;
use super::{Supervisor, Tools};
use crate::role::lifecycle::Happening;
use crate::role::owner::{AcquireError, Candidate, Consent, release};
use crate::role::reasons::{CRASH_LOOP, ISOLATED};
use crate::role::running::Running;
use crate::takeover::claim_watch::ClaimWatch;
use crate::takeover::vacancy::{Place, has_heir};

/// For how many gossip intervals it is looked for somebody else who could run a shard: a node that starts among others
/// sees them after one or two.
const HEIR_INTERVALS: u32 = 5;
/// The longest that is.
const HEIR_LIMIT: Duration = Duration::from_secs(2);

/// How a shard is acquired.
pub(super) enum Acquisition {
    /// As a node starts: unless somebody else owns it.
    Start,
    /// By a command.
    Command {
        /// Whether it is moved here, whoever owns it.
        is_forced: bool,
        /// What the owner said before anything was disturbed.
        consent: Consent,
    },
    /// In a takeover: from a state of the claim that no live owner honours.
    Vacant(ClaimState),
}

/// After so many lives in a row that ended soon after they had begun to run a shard, it is left to others.
const FAILED_LIVES: u32 = 3;

impl Supervisor {
    /// Begins the first role of a life. A process that dies again and again must not keep a shard that others could run.
    pub(super) async fn begin_life(&mut self) {
        let data = self.tools.data.clone();
        let Some(place) = place(&self.assigned.role) else { return self.begin().await };
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
            self.assigned.role
        );
        warn!(role = %self.assigned.role, why, "leaving the shard to others");
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
        self.stand_by(Reason::new(CRASH_LOOP, why));
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
        let Some(service) = self.assigned.role.service() else { return false };
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
            Err(AcquireError::Owned(problem) | AcquireError::LeftToOthers(problem)) => {
                warn!(role = %self.assigned.role, %problem, "standing by instead");
                self.stand_by(Reason::from(&problem));
            }
            Err(AcquireError::Failed(problem)) => {
                warn!(role = %self.assigned.role, %problem, hint = problem.hint, "the role could not be started");
                self.refuse(&problem.detail).await;
                self.assigned.duty = ShardDuty::None;
                let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                let reason = Reason::from(&problem);
                self.state = self.failed(Reason { text: format!("{reason}{hint}"), ..reason });
            }
        }
        self.publish().await;
    }

    async fn try_begin(&mut self) -> Result<Option<Running>, AcquireError> {
        let plan = self.prepare(&self.assigned.role, true).await?;
        let role = plan.role.clone();
        self.assigned.role = role.clone();
        // Told before the shard is taken: whoever has a key for it knows from this which shard that is.
        self.assigned.terms = plan.terms;
        self.publish().await;
        if plan.is_owned && !self.assigned.duty.is_held() {
            self.assigned.duty = ShardDuty::None;
            self.assigned.duty = self.acquire(&role, Acquisition::Start).await?;
            self.publish().await;
        }
        let duty = self.assigned.duty.of_service();
        let started = self.start(plan.prepared, &role, duty).await;
        started.map_err(|error| error.to_problem("role-not-started").into())
    }

    /// Asks everything that can refuse the shard of a role, and disturbs nothing. Being a replica is no refusal.
    pub(super) async fn consent(&self, role: &Role, is_forced: bool) -> Result<Consent, AcquireError> {
        let Role::Service { service, shard: Some(shard) } = role else { return Ok(Consent::default()) };
        let store = self.tools.cluster_store.shared_store().await?;
        match self.candidate().consent(store, service, *shard, is_forced).await {
            Err(AcquireError::Owned(_)) if !is_forced && self.wants_replica(role) => Ok(Consent::default()),
            outcome => outcome,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        let Tools { identity, cluster, mesh, cluster_store, .. } = &self.tools;
        Candidate { identity, cluster, mesh, services: cluster_store.services() }
    }

    /// Takes the shard of a role, or finds that the node is to have a replica. The only way to a claim.
    ///
    /// Until it is known what came of it, the shard counts as one that may have to be released.
    pub(super) async fn acquire(&mut self, role: &Role, how: Acquisition) -> Result<ShardDuty, AcquireError> {
        let Role::Service { service, shard: Some(shard) } = role else {
            let detail = format!("{role} has no shard that could be owned");
            return Err(Problem::new(ErrorKind::Internal, "no-shard", detail).into());
        };
        let place = (service.clone(), *shard);
        let store = self.tools.cluster_store.shared_store().await?;
        self.orphans.insert(place.clone(), "its take was not finished".to_owned());
        let (candidate, nothing) = (self.candidate(), Consent::default());
        let (taken, may_replicate) = match how {
            Acquisition::Start => (candidate.take(store, service, *shard, false, nothing).await, true),
            Acquisition::Command { is_forced, consent } => {
                (candidate.take(store, service, *shard, is_forced, consent).await, !is_forced)
            }
            Acquisition::Vacant(state) => {
                (candidate.take_vacant(store, service, *shard, &state).await, false)
            }
        };
        let poll = store.poll_interval();
        if taken.as_ref().err().is_none_or(AcquireError::is_settled) {
            self.orphans.remove(&place);
        }
        match taken {
            Ok(claim) => {
                let (view, isolation) = (self.tools.cluster.watch(), self.tools.isolation.clone());
                Ok(ShardDuty::Primary(ClaimWatch::new(claim, poll, view, isolation)))
            }
            Err(AcquireError::Owned(problem)) if may_replicate && self.wants_replica(role) => {
                info!(%role, why = problem.detail, "having a replica of the shard");
                Ok(ShardDuty::Replica)
            }
            Err(error) => Err(error),
        }
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
        let Some(claim_watch) = self.assigned.duty.take_claim() else {
            return;
        };
        self.failed_change = None;
        let claim = claim_watch.claim();
        let text = format!(
            "{} is not this node's any more: {}",
            self.assigned.role,
            claim.successor().unwrap_or("its claim has passed")
        );
        let why = Reason::new(CLAIM_PASSED, text);
        warn!(role = %self.assigned.role, epoch = %claim.epoch(), %why, "stepping down");
        self.state = self.state.after(Happening::Drain { reason: Some(why.clone()) });
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.publish().await;
            self.unmount();
            running.stop().await;
        }
        let role = self.assigned.role.clone();
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
        let Some(claim_watch) = self.assigned.duty.take_claim() else { return };
        self.failed_change = None;
        let why = Reason::new(ISOLATED, format!("{} saw no other member, and {to} does", self.tools.node));
        warn!(role = %self.assigned.role, epoch = %claim_watch.claim().epoch(), %to, "yielding a shard: no other member is seen");
        self.state = self.state.after(Happening::Drain { reason: Some(why.clone()) });
        let running = self.running.take();
        if let Some(running) = &running {
            running.gate.shut();
        }
        self.publish().await;
        // Released before it is stopped: the challenger takes it within a moment, from us or from nobody. What this node
        // still writes is fenced by whoever opens the data next.
        let farewell =
            Farewell { to: Some(&to), is_yielded: true, why: Some(&why.text), ..Farewell::default() };
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
    pub(super) fn stand_by(&mut self, note: Reason) {
        info!(code = %note.code, %note, "standing by");
        let note = Some(note).filter(|note| !note.text.is_empty());
        self.assigned = Assignment { note, ..Assignment::new(Role::Standby) };
        self.state = self.state.after(Happening::Start).after(Happening::Started { at: Instant::now() });
    }
}
