//! Takes over shards that have lost their owner, and gives replicas to shards that have too few.
//!
//! [`crate::takeover::vacancy`] decides when this node acts, [`crate::takeover::owner_check`] whether it may take a shard.

use std::collections::{BTreeMap, BTreeSet};

use cluster::ClusterView;
use plugin::{Claim, Duty};
use store::{ClaimState, Farewell};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, debug, error, info, warn};
use types::{NodeId, Post, Reason, Role, ShardRef, limits};

use super::assignment::{Assignment, ShardDuty};
use super::begin::Acquisition;
use super::error::BeginError;
use super::{Supervisor, Tools};
use crate::node::cluster_store::StoreAccessError;
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::{AcquireError, STORE_LIMIT};
use crate::role::reasons::{REPLICA_ADDED, REPLICA_NOT_STARTED, REPLICA_SURPLUS, TAKEOVER_FAILED, TOOK_OVER};
use crate::supervisor::stopwatch::Stopwatch;
use crate::takeover::crash_detector::CrashDetector;
use crate::takeover::layouts::{self, Layouts};
use crate::takeover::owner_check::{AGAIN, Finding, OwnerCheck, is_needed};
use crate::takeover::surplus::Surplus;
use crate::takeover::twins::{self, Twin};
use crate::takeover::vacancy::{Action, Gone, Pace, Vacancies, owners_to_watch};

/// Finds shards that lack an owner or a replica, and what this node has to do for them.
pub(super) struct Takeover {
    vacancies: Vacancies,
    surplus: Surplus,
    view: watch::Receiver<ClusterView>,
    pub(super) layouts: watch::Receiver<Layouts>,
    crash_detector: CrashDetector,
    /// Owners that have crashed.
    gone: watch::Receiver<Gone>,
    /// Shards that an operator took from this node: it does not take them back on its own.
    refused: BTreeSet<(ShardRef, Action)>,
    /// At most one; dropping this aborts it.
    owner_check: JoinSet<(ShardRef, Finding)>,
    /// The shard that it checks.
    checking: Option<ShardRef>,
    /// The owner of a shard that is in another cluster on the same store.
    pub(super) twin: watch::Receiver<Option<Twin>>,
    /// When the next action may be due on this node.
    act_at: Option<Instant>,
    /// Dropping this aborts them.
    _tasks: JoinSet<()>,
}

/// Why the supervisor looks at the shards again.
pub(super) enum Trigger {
    /// The view, the specs or the crashed owners have changed, or an action may be due.
    Look,
    /// An owner check has ended.
    Found(ShardRef, Finding),
}

impl Takeover {
    pub(super) fn new(tools: &Tools) -> Self {
        let (sender, layouts) = watch::channel(BTreeMap::new());
        let (found, twin) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let (cluster_store, registry) = (tools.cluster_store.clone(), tools.registry.clone());
        let keep =
            layouts::keep(cluster_store, registry, tools.cluster.clone(), tools.catalog.clone(), sender);
        tasks.spawn(keep.instrument(Span::current()));
        if is_needed(&tools.registry) {
            let twins = twins::Watch {
                cluster: tools.cluster.clone(),
                mesh: tools.mesh.clone(),
                cluster_store: tools.cluster_store.clone(),
                layouts: layouts.clone(),
            };
            tasks.spawn(twins.keep(found).instrument(Span::current()));
            let isolation = tools.isolation.clone();
            tasks.spawn(isolation.keep(tools.cluster.watch()).instrument(Span::current()));
        }
        let crash_detector = CrashDetector::new(tools.cluster.clone(), tools.profile);
        Self {
            vacancies: Vacancies::new(Pace::of(tools.profile)),
            surplus: Surplus::default(),
            view: tools.cluster.watch(),
            layouts,
            gone: crash_detector.gone(),
            crash_detector,
            refused: BTreeSet::new(),
            owner_check: JoinSet::new(),
            checking: None,
            twin,
            act_at: None,
            _tasks: tasks,
        }
    }

    /// Waits for the next trigger. Cancel-safe.
    pub(super) async fn next_trigger(&mut self) -> Trigger {
        tokio::select! {
            biased;
            Some(found) = self.owner_check.join_next() => match found {
                Ok((shard, finding)) => Trigger::Found(shard, finding),
                Err(error) => {
                    error!(%error, "the check of an owner failed");
                    if let Some(shard) = self.checking.take() {
                        self.vacancies.failed(&shard, Action::Own, Instant::now());
                    }
                    Trigger::Look
                }
            },
            changed = changed(&mut self.view) => changed,
            changed = changed(&mut self.layouts) => changed,
            changed = changed(&mut self.gone) => changed,
            () = super::waits::until(self.act_at) => Trigger::Look,
        }
    }

    /// An operator took a shard, or a replica of one, from this node.
    pub(super) fn mark_refused(&mut self, role: &Role, duty: Option<Post>) {
        if let (Some(shard), Some(duty)) = (role.shard_ref(), duty) {
            if duty == Post::Primary {
                self.refused.insert((shard.clone(), Action::Own));
            }
            self.refused.insert((shard, Action::Replicate));
        }
    }

    /// Whether an operator took it from this node.
    pub(super) fn has_refused(&self, shard: &ShardRef, action: Action) -> bool {
        self.refused.contains(&(shard.clone(), action))
    }

    /// An operator gave a shard to this node.
    pub(super) fn accept(&mut self, role: &Role) {
        if let Some(shard) = role.shard_ref() {
            self.refused.retain(|(refused, _)| *refused != shard);
        }
    }

    /// Once another node has taken a shard or replica, the operator's command has had its effect.
    fn forget_what_others_took(&mut self, me: &NodeId) {
        let vacancies = &self.vacancies;
        self.refused.retain(|(shard, action)| match action {
            Action::Own => vacancies.owner_now(shard).is_none_or(|owner| owner.node == *me),
            Action::Replicate => !vacancies.has_all_replicas(shard),
        });
    }
}

/// Waits for the next change; forever once the sender is gone.
async fn changed<T>(watched: &mut watch::Receiver<T>) -> Trigger {
    match watched.changed().await {
        Ok(()) => Trigger::Look,
        Err(_) => std::future::pending().await,
    }
}

impl Supervisor {
    /// Acts on a trigger.
    pub(super) async fn handle(&mut self, trigger: Trigger) {
        match trigger {
            Trigger::Look => {}
            Trigger::Found(shard, Finding::Vacant(state)) => self.take_over_vacant(&shard, *state).await,
            Trigger::Found(shard, Finding::Leave(pause, why)) => {
                info!(%shard, why, ?pause, "a shard is left alone");
                self.takeover.vacancies.put_off(&shard, Instant::now() + pause, true);
            }
            Trigger::Found(shard, Finding::LeaveToOthers(pause, why)) => {
                info!(%shard, why, ?pause, "a shard is left to others");
                self.takeover.vacancies.leave_to_others(&shard, Instant::now() + pause);
            }
            Trigger::Found(shard, Finding::Wait(pause, why)) => {
                debug!(%shard, why, ?pause, "a shard may be about to have an owner");
                self.takeover.vacancies.put_off(&shard, Instant::now() + pause, false);
            }
            Trigger::Found(shard, Finding::Settling { epoch, pause, why }) => {
                info!(%shard, why, ?pause, "a shard is left alone");
                let now = Instant::now();
                self.takeover.vacancies.note_epoch(&shard, epoch, now);
                self.takeover.vacancies.put_off(&shard, now + pause, false);
            }
            Trigger::Found(shard, Finding::Unknown(why)) => {
                debug!(%shard, why, "an owner check had no result");
                self.takeover.vacancies.put_off(&shard, Instant::now() + AGAIN, false);
            }
        }
        self.look().await;
    }

    /// Whether this node could take a shard: it is a standby or has a replica.
    pub(super) fn is_free(&self) -> bool {
        let runs = matches!(self.state, State::Running { .. });
        runs && self.is_swept
            && self.assigned.duty.claim_watch().is_none()
            && (self.assigned.role == Role::Standby || self.assigned.duty.is_replica())
    }

    /// Does what is due on this node.
    async fn look(&mut self) {
        let now = Instant::now();
        let takeover = &mut self.takeover;
        let seen = takeover.view.borrow_and_update().clone();
        let layouts = takeover.layouts.borrow_and_update().clone();
        takeover.crash_detector.hold(owners_to_watch(&seen, &layouts));
        let gone = takeover.gone.borrow_and_update().clone();
        let view = seen.without(&gone);
        takeover.vacancies.look(&view, &gone, &layouts, now);
        takeover.forget_what_others_took(&self.tools.node);
        let own_replica = self
            .assigned
            .role
            .shard_ref()
            .filter(|_| self.assigned.duty.is_replica() && matches!(self.state, State::Running { .. }));
        let own_replica =
            own_replica.as_ref().and_then(|shard| Some((shard, layouts.get(&shard.service)?.replicas)));
        let surplus_at = takeover.surplus.look(&view, own_replica, now);
        takeover.act_at = surplus_at.filter(|at| *at > now);
        if surplus_at.is_some_and(|at| at <= now) && !self.is_placed() {
            return Box::pin(self.end_surplus()).await;
        }
        let takeover = &mut self.takeover;
        if !takeover.owner_check.is_empty() || !self.is_free() {
            return;
        }
        let takeover = &mut self.takeover;
        match takeover.vacancies.next_action(&view, &layouts, &takeover.refused, now) {
            Err(next) => takeover.act_at = takeover.act_at.into_iter().chain(next).min(),
            Ok((shard, Action::Own)) => {
                let vacancies = &takeover.vacancies;
                let owner_check = OwnerCheck {
                    me: self.tools.identity.clone(),
                    last_owner: vacancies.last_owner(&shard).cloned(),
                    known_for: vacancies.known_for(&shard, now),
                    rebuffs: vacancies.rebuffs(&shard),
                    epoch_known: vacancies.epoch_known(&shard, now),
                    cluster: self.tools.cluster.clone(),
                    gone: takeover.gone.clone(),
                    mesh: self.tools.mesh.clone(),
                    cluster_store: self.tools.cluster_store.clone(),
                    shard: shard.clone(),
                };
                takeover.checking = Some(shard);
                takeover.owner_check.spawn(owner_check.run().instrument(Span::current()));
            }
            Ok((shard, Action::Replicate)) => self.become_replica(&shard).await,
        }
    }

    /// Takes a shard that was found to be vacant, and runs it.
    async fn take_over_vacant(&mut self, shard: &ShardRef, state: ClaimState) {
        let view = self.tools.cluster.view().without(&self.takeover.gone.borrow());
        if !self.is_free() || view.owner(shard).is_some() || self.takeover.has_refused(shard, Action::Own) {
            return;
        }
        self.take_over(shard, state).await;
    }

    /// Takes a shard from a state of its claim in which it may be taken, and runs it.
    pub(super) async fn take_over(&mut self, shard: &ShardRef, state: ClaimState) {
        let began = Instant::now();
        let note = match state.holder.as_ref().map(|holder| holder.node.to_string()) {
            Some(node) => format!("took over from {node}, which no longer ran it"),
            None => state.note().map_or_else(|| "took over".to_owned(), |note| format!("took over: {note}")),
        };
        match self.try_take_over(shard, state).await {
            Ok(true) => {
                info!(role = %self.assigned.role, note, took = ?began.elapsed(), "took a shard over");
                self.assigned.note = Some(Reason::new(TOOK_OVER, note));
                self.publish().await;
            }
            Ok(false) => {}
            Err(error) => {
                warn!(%shard, %error, "a shard could not be taken over");
                self.takeover.vacancies.failed(shard, Action::Own, Instant::now());
            }
        }
    }

    /// Whether the shard is this node's now: another node may have been faster.
    async fn try_take_over(&mut self, shard: &ShardRef, state: ClaimState) -> Result<bool, BeginError> {
        let role = Role::from(shard);
        // First all that can fail without the shard.
        let plan = timeout(STORE_LIMIT, self.prepare(&role, false))
            .await
            .map_err(|_| StoreAccessError::NoAnswer(STORE_LIMIT))??;
        let duty = match self.acquire(&role, Acquisition::Vacant(state)).await {
            Ok(duty) => duty,
            Err(error @ (AcquireError::Owned(_) | AcquireError::TakenFirst { .. })) => {
                info!(%role, %error, "another node was faster");
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        info!(%role, epoch = ?duty.claim().map(Claim::epoch), "taking a shard over");
        self.failed_change = None;
        let assigned = Assignment { role: role.clone(), terms: plan.terms, duty, note: None };
        let before = std::mem::replace(&mut self.assigned, assigned);
        self.state = self.state.after(Happening::Start);
        // Published before anything that takes time, so that no other node looks for an owner.
        self.publish().await;
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.unmount();
            running.drain(Instant::now() + limits::REPLICA_DRAIN).await;
            running.stop().await;
        }
        let duty = self.assigned.duty.of_service();
        match self.start(plan.prepared, &role, duty).await {
            Ok(running) => {
                self.mount(running);
                Ok(true)
            }
            Err(error) => {
                self.refuse(&error.to_string()).await;
                let was_replica = before.duty.is_replica();
                if was_replica && self.try_replicate(&before.role).await.is_ok() {
                    let text = format!("it could not own {role}: {error}");
                    self.assigned.note = Some(Reason::new(TAKEOVER_FAILED, text));
                } else {
                    let text = format!("it could not run {role}: {error}");
                    self.stand_by(Reason::new(TAKEOVER_FAILED, text));
                }
                self.publish().await;
                Err(error.into())
            }
        }
    }

    /// Becomes a replica of a shard.
    async fn become_replica(&mut self, shard: &ShardRef) {
        let role = Role::from(shard);
        let can = self.tools.cluster_store.services().replicates(&shard.service);
        if self.assigned.role != Role::Standby || !can {
            self.takeover.vacancies.failed(shard, Action::Replicate, Instant::now());
            return;
        }
        info!(%role, "becoming a replica of a shard that has too few");
        self.failed_change = None;
        if let Err(error) = self.try_replicate(&role).await {
            warn!(%role, %error, "could not become a replica");
            self.takeover.vacancies.failed(shard, Action::Replicate, Instant::now());
            let text = format!("it could not become a replica of {role}: {error}");
            self.stand_by(Reason::new(REPLICA_NOT_STARTED, text));
        } else {
            let text = format!("a replica of {role} was missing");
            self.assigned.note = Some(Reason::new(REPLICA_ADDED, text));
        }
        self.publish().await;
    }

    /// Whether an operator gave this node its role by a command.
    fn is_placed(&self) -> bool {
        match self.tools.data.kept_role() {
            Ok(kept) => kept.is_some_and(|kept| kept.role == self.assigned.role),
            // A record that can't be read may be an operator's command.
            Err(_) => true,
        }
    }

    /// Stands by: the shard has more replicas than are wanted, and no operator placed this one.
    async fn end_surplus(&mut self) {
        let text = format!("{} had more replicas than it is to have", self.assigned.role);
        let why = Reason::new(REPLICA_SURPLUS, text);
        info!(role = %self.assigned.role, %why, "ending a surplus replica");
        self.finish(Some(why.clone()), false, &mut Stopwatch::start()).await;
        self.stand_by(why);
        self.publish().await;
    }

    /// Runs as a replica of a shard.
    pub(super) async fn try_replicate(&mut self, role: &Role) -> Result<(), BeginError> {
        let plan = timeout(STORE_LIMIT, self.prepare(role, false))
            .await
            .map_err(|_| StoreAccessError::NoAnswer(STORE_LIMIT))??;
        let duty = ShardDuty::Replica;
        self.assigned = Assignment { role: role.clone(), terms: plan.terms, duty, note: None };
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let running = self.start(plan.prepared, role, Duty::Replica).await?;
        self.mount(running);
        Ok(())
    }

    /// Whether a shard that another node owns lacks a replica.
    pub(super) fn wants_replica(&self, role: &Role) -> bool {
        let Some(shard) = role.shard_ref() else { return false };
        let can = self.tools.cluster_store.services().replicates(&shard.service);
        let wanted = self.assigned.terms.as_ref().map_or(0, |terms| terms.replicas);
        let known = self.takeover.layouts.borrow().get(&shard.service).map_or(0, |layout| layout.replicas);
        let view = self.tools.cluster.view();
        let others = view.replicas(&shard).filter(|replica| replica.id != *view.me()).count();
        can && u32::try_from(others).is_ok_and(|others| others < wanted.max(known))
    }

    /// Releases a shard that this node can't run, so that others try.
    pub(super) async fn refuse(&mut self, why: &str) {
        if let Some(claim_watch) = self.assigned.duty.take_claim() {
            let farewell = Farewell { is_refused: true, why: Some(why), ..Farewell::default() };
            self.release(&claim_watch, farewell).await;
        }
    }
}
