//! How a role starts without a command, with its shard if it has one; and how it ends once another node owns the shard.

use std::time::Duration;

use cluster::Timing;
use store::{ClaimState, Farewell};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use types::reason::CLAIM_PASSED;
use types::{NodeId, Reason, Role, ShardRef, Sharding, limits};

use super::assignment::{Assignment, ShardDuty};
use super::error::BeginError;
use super::{Supervisor, Tools};
use crate::failure::Failure;
use crate::role::lifecycle::Happening;
use crate::role::owner::{AcquireError, Candidate, Consent, release};
use crate::role::reasons::{CRASH_LOOP, ISOLATED};
use crate::role::running::Running;
use crate::takeover::claim_watch::ClaimWatch;
use crate::takeover::vacancy::has_candidate;

/// For how many gossip intervals a node looks for another candidate for its shard: a node that starts sees the others after
/// one or two.
const CANDIDATE_INTERVALS: u32 = 5;
/// The longest that it looks.
const CANDIDATE_LIMIT: Duration = Duration::from_secs(2);

/// How a shard is acquired.
pub(super) enum Acquisition {
    /// As a node starts: unless another node owns it.
    Start,
    /// By a command.
    Command {
        /// Whether it is taken even from its owner.
        is_forced: bool,
        /// The owner's answer before anything was disturbed.
        consent: Consent,
    },
    /// In a takeover: from a state of the claim that no live owner honours.
    Vacant(ClaimState),
}

/// After this many incarnations in a row that ended soon after they had begun to run a shard, it is left to others.
const FAILED_INCARNATIONS: u32 = 3;

impl Supervisor {
    /// Starts the first role of an incarnation. A process that keeps dying must not keep a shard that others could run.
    pub(super) async fn begin_first_role(&mut self) {
        let data = self.tools.data.clone();
        let Some(shard) = self.assigned.role.shard_ref() else { return self.begin().await };
        if !self.may_own().await {
            return self.begin().await;
        }
        let failed = data.failed_incarnations();
        if failed < FAILED_INCARNATIONS || !self.meets_a_candidate(&shard).await {
            self.is_on_trial = true;
            if let Err(error) = data.keep_failed_incarnations(failed.saturating_add(1)) {
                warn!(%error, "the start of the role could not be recorded");
            }
            return self.begin().await;
        }
        let why = format!(
            "this node ended {failed} times in a row soon after it had begun to run {}",
            self.assigned.role
        );
        warn!(role = %self.assigned.role, why, "leaving the shard to others");
        if let Ok(store) = self.tools.cluster_store.store().await
            && let Ok(state) = store.claims().read(&shard).await
            && let Some(holder) = state.holder.filter(|holder| self.tools.identity.is_mine(holder))
        {
            let farewell = Farewell { is_refused: true, why: Some(&why), ..Farewell::default() };
            release(&store.claims(), &shard, &holder, farewell).await;
        }
        // The next incarnation tries again, as this one does after a while.
        if let Err(error) = data.keep_failed_incarnations(0) {
            warn!(%error, "the number of failed incarnations could not be reset");
        }
        self.stand_by(Reason::new(CRASH_LOOP, why));
        self.publish().await;
    }

    /// Whether another candidate for the shard is in the view, or comes into it within the limit.
    async fn meets_a_candidate(&self, shard: &ShardRef) -> bool {
        let mut view = self.tools.cluster.watch();
        let service_type = self.tools.cluster_store.services().type_of(&shard.service);
        let met = view.wait_for(|view| has_candidate(view, shard, service_type.as_ref()));
        let limit = (Timing::of(self.tools.profile).interval * CANDIDATE_INTERVALS).min(CANDIDATE_LIMIT);
        matches!(timeout(limit, met).await, Ok(Ok(_)))
    }

    /// Whether a member of the role's service may own its shard.
    async fn may_own(&self) -> bool {
        let Some(service) = self.assigned.role.service() else { return false };
        let service_type = self.tools.cluster_store.service_type(service).await;
        let plugin = service_type.ok().and_then(|service_type| self.tools.registry.plugin(&service_type));
        plugin.is_some_and(|plugin| plugin.sharding() == Sharding::Owned)
    }

    /// This incarnation has run for long enough, or ends in an orderly way.
    pub(super) fn end_trial(&mut self) {
        if std::mem::take(&mut self.is_on_trial)
            && let Err(error) = self.tools.data.keep_failed_incarnations(0)
        {
            warn!(%error, "the number of failed incarnations could not be reset");
        }
    }

    /// Starts the assigned role, unless the node leaves meanwhile.
    pub(super) async fn begin(&mut self) {
        let leaving = self.tools.leaving.clone();
        let started = tokio::select! {
            biased;
            () = leaving.cancelled() => return,
            started = self.try_begin() => started,
        };
        match started {
            Ok(running) => self.mount(running),
            Err(BeginError::Acquire(
                error @ (AcquireError::Owned(_)
                | AcquireError::TakenFirst { .. }
                | AcquireError::LeftToOthers { .. }),
            )) => {
                warn!(role = %self.assigned.role, %error, "standing by instead");
                self.stand_by(error.reason());
            }
            Err(error) => {
                let hint = error.explain().hint;
                warn!(role = %self.assigned.role, %error, hint, "the role could not be started");
                self.refuse(&error.to_string()).await;
                self.assigned.duty = ShardDuty::None;
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                self.state = self.failed(Reason { text: format!("{error}{hint}"), ..error.reason() });
            }
        }
        self.publish().await;
    }

    async fn try_begin(&mut self) -> Result<Option<Running>, BeginError> {
        let plan = self.prepare(&self.assigned.role, true).await?;
        let role = plan.role.clone();
        self.assigned.role = role.clone();
        // Published before the shard is taken: from the number of shards, other members know the shard of a key.
        self.assigned.terms = plan.terms;
        self.publish().await;
        if plan.is_owned && !self.assigned.duty.is_held() {
            self.assigned.duty = ShardDuty::None;
            self.assigned.duty = self.acquire(&role, Acquisition::Start).await?;
            self.publish().await;
        }
        let duty = self.assigned.duty.of_service();
        Ok(self.start(plan.prepared, &role, duty).await?)
    }

    /// Checks everything that can refuse the shard of a role, and disturbs nothing. Becoming a replica is no refusal.
    pub(super) async fn consent(&self, role: &Role, is_forced: bool) -> Result<Consent, AcquireError> {
        let Some(shard) = role.shard_ref() else { return Ok(Consent::default()) };
        let store = self.tools.cluster_store.shared_store().await?;
        match self.candidate().consent(store, &shard, is_forced).await {
            Err(AcquireError::Owned(_)) if !is_forced && self.wants_replica(role) => Ok(Consent::default()),
            outcome => outcome,
        }
    }

    fn candidate(&self) -> Candidate<'_> {
        let Tools { identity, cluster, mesh, cluster_store, .. } = &self.tools;
        Candidate { identity, cluster, mesh, services: cluster_store.services() }
    }

    /// Takes the shard of a role, or decides that the node is to have a replica. The only way to a claim.
    ///
    /// Until the outcome is known, the shard is listed as orphaned, since it may have to be released.
    pub(super) async fn acquire(&mut self, role: &Role, how: Acquisition) -> Result<ShardDuty, AcquireError> {
        let Some(shard) = role.shard_ref() else {
            return Err(AcquireError::NoShard(role.clone()));
        };
        let store = self.tools.cluster_store.shared_store().await?;
        self.orphans.insert(shard.clone(), "its take was not finished".to_owned());
        let (candidate, nothing) = (self.candidate(), Consent::default());
        let (taken, may_replicate) = match how {
            Acquisition::Start => (candidate.take(store, &shard, false, nothing).await, true),
            Acquisition::Command { is_forced, consent } => {
                (candidate.take(store, &shard, is_forced, consent).await, !is_forced)
            }
            Acquisition::Vacant(state) => (candidate.take_vacant(store, &shard, &state).await, false),
        };
        let poll = store.poll_interval();
        if taken.as_ref().err().is_none_or(AcquireError::is_settled) {
            self.orphans.remove(&shard);
        }
        match taken {
            Ok(claim) => {
                let (view, isolation) = (self.tools.cluster.watch(), self.tools.isolation.clone());
                Ok(ShardDuty::Primary(ClaimWatch::new(claim, poll, view, isolation)))
            }
            Err(error @ AcquireError::Owned(_)) if may_replicate && self.wants_replica(role) => {
                info!(%role, why = %error, "having a replica of the shard");
                Ok(ShardDuty::Replica)
            }
            Err(error) => Err(error),
        }
    }

    /// Releases a shard. Returns whether the store has recorded that; if not, it is retried later.
    pub(super) async fn release(&mut self, claim_watch: &ClaimWatch, farewell: Farewell<'_>) -> bool {
        let claim = claim_watch.claim();
        let is_noted = match self.tools.cluster_store.store().await {
            Ok(store) => release(&store.claims(), claim.shard_ref(), claim.holder(), farewell).await,
            Err(_) => false,
        };
        if !is_noted {
            let why = farewell.why.unwrap_or_default().to_owned();
            self.orphans.insert(claim.shard_ref().clone(), why);
        }
        is_noted
    }

    /// Another node owns the shard now: the running role ends, and the node becomes a replica if one is wanted, else a
    /// standby.
    pub(super) async fn step_down(&mut self) {
        let Some(claim_watch) = self.assigned.duty.take_claim() else {
            return;
        };
        self.failed_change = None;
        let claim = claim_watch.claim();
        let text = format!(
            "{} is not this node's any more: {}",
            self.assigned.role,
            claim.new_owner().unwrap_or("its claim has passed")
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

    /// Hands the shard to a challenger that sees other members, since this node sees none.
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
        // Released before the service stops: the challenger takes the shard soon, released or not. Writes that this node
        // still makes are fenced once the next owner opens the data.
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

    /// Becomes a standby without a command.
    pub(super) fn stand_by(&mut self, note: Reason) {
        info!(code = %note.code, %note, "standing by");
        let note = Some(note).filter(|note| !note.text.is_empty());
        self.assigned = Assignment { note, ..Assignment::new(Role::Standby) };
        self.state = self.state.after(Happening::Start).after(Happening::Started { at: Instant::now() });
    }
}
