//! Takes over shards that have lost their owner, and gives replicas to shards that have too few.
//!
//! When it is this node's turn is decided in [`crate::takeover::vacancy`], whether a shard may be taken in [`crate::takeover::owner_check`].

use std::collections::{BTreeMap, BTreeSet};

use cluster::ClusterView;
use plugin::{Claim, Duty};
use store::{ClaimState, Farewell};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, debug, error, info, warn};
use types::{NodeId, Post, Problem, Reason, Role, limits};

use super::assignment::{Assignment, ShardDuty};
use super::begin::Acquisition;
use super::{Supervisor, Tools};
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::{AcquireError, STORE_LIMIT, no_answer};
use crate::role::reasons::{REPLICA_ADDED, REPLICA_NOT_STARTED, REPLICA_SURPLUS, TAKEOVER_FAILED, TOOK_OVER};
use crate::supervisor::stopwatch::Stopwatch;
use crate::takeover::crash_detector::CrashDetector;
use crate::takeover::layouts::{self, Layouts};
use crate::takeover::owner_check::{AGAIN, Finding, OwnerCheck, is_needed};
use crate::takeover::surplus::Surplus;
use crate::takeover::twins::{self, Twin};
use crate::takeover::vacancy::{
    Action, Gone, Pace, Place, Vacancies, is_owned, predecessors, replicas_elsewhere,
};

/// What a node knows and does about shards that others ought to own.
pub(super) struct Takeover {
    vacancies: Vacancies,
    surplus: Surplus,
    view: watch::Receiver<ClusterView>,
    pub(super) layouts: watch::Receiver<Layouts>,
    crash_detector: CrashDetector,
    /// Owners that have ended for sure.
    gone: watch::Receiver<Gone>,
    /// Shards that a person took from this node: it does not take them back by itself.
    refused: BTreeSet<(Place, Action)>,
    /// At most one; ends with this.
    owner_check: JoinSet<(Place, Finding)>,
    /// What it is about.
    asking: Option<Place>,
    /// The owner of a shard that is in another cluster on the same store.
    pub(super) twin: watch::Receiver<Option<Twin>>,
    /// When it may be this node's turn.
    turn_at: Option<Instant>,
    /// Read the specs; end with this.
    _tasks: JoinSet<()>,
}

/// What is to be looked after.
pub(super) enum Stir {
    /// The view or the specs have changed, or the time has come.
    Look,
    /// An owner check has ended.
    Found(Place, Finding),
}

impl Takeover {
    pub(super) fn new(tools: &Tools) -> Self {
        let (sender, layouts) = watch::channel(BTreeMap::new());
        let (found, twin) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let (cluster_store, registry) = (tools.cluster_store.clone(), tools.registry.clone());
        let keep =
            layouts::keep(cluster_store, registry, tools.cluster.watch(), tools.catalog.clone(), sender);
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
            asking: None,
            twin,
            turn_at: None,
            _tasks: tasks,
        }
    }

    /// Waits until there is something to look after. Cancel-safe.
    pub(super) async fn stir(&mut self) -> Stir {
        tokio::select! {
            biased;
            Some(found) = self.owner_check.join_next() => match found {
                Ok((place, finding)) => Stir::Found(place, finding),
                Err(error) => {
                    error!(%error, "the check of an owner failed");
                    if let Some(place) = self.asking.take() {
                        self.vacancies.failed(&place, Action::Own, Instant::now());
                    }
                    Stir::Look
                }
            },
            changed = changed(&mut self.view) => changed,
            changed = changed(&mut self.layouts) => changed,
            changed = changed(&mut self.gone) => changed,
            () = super::until(self.turn_at) => Stir::Look,
        }
    }

    /// A person took a shard, or the replica of one, from this node.
    pub(super) fn mark_refused(&mut self, role: &Role, duty: Option<Post>) {
        if let (Some(place), Some(duty)) = (place(role), duty) {
            if duty == Post::Primary {
                self.refused.insert((place.clone(), Action::Own));
            }
            self.refused.insert((place, Action::Replicate));
        }
    }

    /// Whether a person took it from this node.
    pub(super) fn has_refused(&self, place: &Place, action: Action) -> bool {
        self.refused.contains(&(place.clone(), action))
    }

    /// A person gave a shard to this node.
    pub(super) fn accept(&mut self, role: &Role) {
        if let Some(place) = place(role) {
            self.refused.retain(|(refused, _)| *refused != place);
        }
    }

    /// Once somebody else has done it, the person's word has had its effect.
    fn forget_what_others_took(&mut self, me: &NodeId) {
        let vacancies = &self.vacancies;
        self.refused.retain(|(place, action)| match action {
            Action::Own => vacancies.owner_now(place).is_none_or(|owner| owner.node == *me),
            Action::Replicate => !vacancies.has_all_replicas(place),
        });
    }
}

/// The next change. When nobody is left who could change it, there is none.
async fn changed<T>(watched: &mut watch::Receiver<T>) -> Stir {
    match watched.changed().await {
        Ok(()) => Stir::Look,
        Err(_) => std::future::pending().await,
    }
}

/// The shard of a role.
pub(super) fn place(role: &Role) -> Option<Place> {
    role.service().cloned().zip(role.shard())
}

impl Supervisor {
    /// Does what has come up.
    pub(super) async fn succeed(&mut self, stir: Stir) {
        match stir {
            Stir::Look => {}
            Stir::Found(place, Finding::Vacant(state)) => self.inherit(&place, *state).await,
            Stir::Found(place, Finding::Leave(pause, why)) => {
                info!(service = %place.0, shard = %place.1, why, ?pause, "a shard is left alone");
                self.takeover.vacancies.put_off(&place, Instant::now() + pause, true);
            }
            Stir::Found(place, Finding::LeaveToOthers(pause, why)) => {
                info!(service = %place.0, shard = %place.1, why, ?pause, "a shard is left to others");
                self.takeover.vacancies.leave_to_others(&place, Instant::now() + pause);
            }
            Stir::Found(place, Finding::Wait(pause, why)) => {
                debug!(service = %place.0, shard = %place.1, why, ?pause, "a shard may be about to have an owner");
                self.takeover.vacancies.put_off(&place, Instant::now() + pause, false);
            }
            Stir::Found(place, Finding::Settling { epoch, pause, why }) => {
                info!(service = %place.0, shard = %place.1, why, ?pause, "a shard is left alone");
                let now = Instant::now();
                self.takeover.vacancies.note_epoch(&place, epoch, now);
                self.takeover.vacancies.put_off(&place, now + pause, false);
            }
            Stir::Found(place, Finding::Unknown(why)) => {
                debug!(service = %place.0, shard = %place.1, why, "nothing was found out about a shard");
                self.takeover.vacancies.put_off(&place, Instant::now() + AGAIN, false);
            }
        }
        self.look().await;
    }

    /// Whether this node waits to be needed, or has a replica and could own a shard.
    pub(super) fn is_free(&self) -> bool {
        let runs = matches!(self.state, State::Running { .. });
        runs && self.is_swept
            && self.assigned.duty.claim_watch().is_none()
            && (self.assigned.role == Role::Standby || self.assigned.duty.is_replica())
    }

    /// Looks whether it is this node's turn to do something.
    async fn look(&mut self) {
        let now = Instant::now();
        let takeover = &mut self.takeover;
        let seen = takeover.view.borrow_and_update().clone();
        let layouts = takeover.layouts.borrow_and_update().clone();
        takeover.crash_detector.hold(predecessors(&seen, &layouts));
        let gone = takeover.gone.borrow_and_update().clone();
        let view = seen.without(&gone);
        takeover.vacancies.look(&view, &gone, &layouts, now);
        takeover.forget_what_others_took(&self.tools.node);
        let copied = place(&self.assigned.role)
            .filter(|_| self.assigned.duty.is_replica() && matches!(self.state, State::Running { .. }));
        let copied = copied.as_ref().and_then(|place| Some((place, layouts.get(&place.0)?.replicas)));
        let surplus_at = takeover.surplus.look(&view, copied, now);
        takeover.turn_at = surplus_at.filter(|at| *at > now);
        if surplus_at.is_some_and(|at| at <= now) && !self.is_placed() {
            return Box::pin(self.end_surplus()).await;
        }
        let takeover = &mut self.takeover;
        if !takeover.owner_check.is_empty() || !self.is_free() {
            return;
        }
        let takeover = &mut self.takeover;
        match takeover.vacancies.turn(&view, &layouts, &takeover.refused, now) {
            Err(next) => takeover.turn_at = takeover.turn_at.into_iter().chain(next).min(),
            Ok((place, Action::Own)) => {
                let vacancies = &takeover.vacancies;
                let owner_check = OwnerCheck {
                    me: self.tools.identity.clone(),
                    last_owner: vacancies.last_owner(&place).cloned(),
                    known_for: vacancies.known_for(&place, now),
                    rebuffs: vacancies.rebuffs(&place),
                    epoch_known: vacancies.epoch_known(&place, now),
                    cluster: self.tools.cluster.clone(),
                    gone: takeover.gone.clone(),
                    mesh: self.tools.mesh.clone(),
                    cluster_store: self.tools.cluster_store.clone(),
                    place: place.clone(),
                };
                takeover.asking = Some(place);
                takeover.owner_check.spawn(owner_check.run().instrument(Span::current()));
            }
            Ok((place, Action::Replicate)) => self.follow(&place).await,
        }
    }

    /// Takes a shard that was found to be vacant, and runs it.
    async fn inherit(&mut self, place: &Place, state: ClaimState) {
        let view = self.tools.cluster.view().without(&self.takeover.gone.borrow());
        if !self.is_free() || is_owned(&view, place) || self.takeover.has_refused(place, Action::Own) {
            return;
        }
        self.take_over(place, state).await;
    }

    /// Takes a shard from a state of its claim in which it may be taken, and runs it.
    pub(super) async fn take_over(&mut self, place: &Place, state: ClaimState) {
        let began = Instant::now();
        let note = match state.holder.as_ref().map(|holder| holder.node.to_string()) {
            Some(node) => format!("took over from {node}, which did not run it any more"),
            None => state.note().map_or_else(|| "took over".to_owned(), |note| format!("took over: {note}")),
        };
        match self.try_inherit(place, state).await {
            Ok(true) => {
                info!(role = %self.assigned.role, note, took = ?began.elapsed(), "took a shard over");
                self.assigned.note = Some(Reason::new(TOOK_OVER, note));
                self.publish().await;
            }
            Ok(false) => {}
            Err(problem) => {
                warn!(service = %place.0, shard = %place.1, %problem, "a shard could not be taken over");
                self.takeover.vacancies.failed(place, Action::Own, Instant::now());
            }
        }
    }

    /// Whether it is this node's now: somebody else may have been faster.
    async fn try_inherit(&mut self, place: &Place, state: ClaimState) -> Result<bool, Problem> {
        let (service, shard) = place.clone();
        let role = Role::Service { service: service.clone(), shard: Some(shard) };
        // All that can fail without the shard comes first.
        let plan = timeout(STORE_LIMIT, self.prepare(&role, false)).await.map_err(|_| no_answer())??;
        let duty = match self.acquire(&role, Acquisition::Vacant(state)).await {
            Ok(duty) => duty,
            Err(AcquireError::Owned(problem)) => {
                info!(%role, %problem, "another node was faster");
                return Ok(false);
            }
            Err(AcquireError::LeftToOthers(problem) | AcquireError::Failed(problem)) => return Err(problem),
        };
        info!(%role, epoch = ?duty.claim().map(Claim::epoch), "taking a shard over");
        self.failed_change = None;
        let assigned = Assignment { role: role.clone(), terms: plan.terms, duty, note: None };
        let before = std::mem::replace(&mut self.assigned, assigned);
        self.state = self.state.after(Happening::Start);
        // Told before anything that takes time, so that nobody else looks for an owner.
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
                let problem = error.to_problem("role-not-started");
                self.refuse(&problem.detail).await;
                let was_replica = before.duty.is_replica();
                if was_replica && self.try_replicate(&before.role).await.is_ok() {
                    let text = format!("it could not own {role}: {}", problem.detail);
                    self.assigned.note = Some(Reason::new(TAKEOVER_FAILED, text));
                } else {
                    let text = format!("it could not run {role}: {}", problem.detail);
                    self.stand_by(Reason::new(TAKEOVER_FAILED, text));
                }
                self.publish().await;
                Err(problem)
            }
        }
    }

    /// Becomes a replica of a shard.
    async fn follow(&mut self, place: &Place) {
        let role = Role::Service { service: place.0.clone(), shard: Some(place.1) };
        let can =
            self.tools.cluster_store.services().plugin(&place.0).is_some_and(|plugin| plugin.replicates());
        if self.assigned.role != Role::Standby || !can {
            self.takeover.vacancies.failed(place, Action::Replicate, Instant::now());
            return;
        }
        info!(%role, "becoming a replica of a shard that has too few");
        self.failed_change = None;
        if let Err(problem) = self.try_replicate(&role).await {
            warn!(%role, %problem, "could not become a replica");
            self.takeover.vacancies.failed(place, Action::Replicate, Instant::now());
            let text = format!("it could not become a replica of {role}: {}", problem.detail);
            self.stand_by(Reason::new(REPLICA_NOT_STARTED, text));
        } else {
            let text = format!("a replica of {role} was missing");
            self.assigned.note = Some(Reason::new(REPLICA_ADDED, text));
        }
        self.publish().await;
    }

    /// Whether a person gave this node its role by a command.
    fn is_placed(&self) -> bool {
        match self.tools.data.asked() {
            Ok(asked) => asked.is_some_and(|asked| asked.role == self.assigned.role),
            // What can't be read may be a person's word.
            Err(_) => true,
        }
    }

    /// Stands by: the shard has more replicas than it is to have, and nobody placed this one.
    async fn end_surplus(&mut self) {
        let text = format!("{} had more replicas than it is to have", self.assigned.role);
        let why = Reason::new(REPLICA_SURPLUS, text);
        info!(role = %self.assigned.role, %why, "ending a replica that is one too many");
        self.finish(Some(why.clone()), false, &mut Stopwatch::start()).await;
        self.stand_by(why);
        self.publish().await;
    }

    /// Runs as a replica of a shard.
    pub(super) async fn try_replicate(&mut self, role: &Role) -> Result<(), Problem> {
        let plan = timeout(STORE_LIMIT, self.prepare(role, false)).await.map_err(|_| no_answer())??;
        let duty = ShardDuty::Replica;
        self.assigned = Assignment { role: role.clone(), terms: plan.terms, duty, note: None };
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let started = self.start(plan.prepared, role, Duty::Replica).await;
        let running = started.map_err(|error| error.to_problem("role-not-started"))?;
        self.mount(running);
        Ok(())
    }

    /// Whether a shard that somebody else owns is to have one more replica than it has.
    pub(super) fn wants_replica(&self, role: &Role) -> bool {
        let Some(place) = place(role) else { return false };
        let can =
            self.tools.cluster_store.services().plugin(&place.0).is_some_and(|plugin| plugin.replicates());
        let told = self.assigned.terms.as_ref().map_or(0, |terms| terms.replicas);
        let known = self.takeover.layouts.borrow().get(&place.0).map_or(0, |layout| layout.replicas);
        let others = replicas_elsewhere(&self.tools.cluster.view(), &place);
        can && u32::try_from(others).is_ok_and(|others| others < told.max(known))
    }

    /// Gives up a shard that this node can't run, so that others try.
    pub(super) async fn refuse(&mut self, why: &str) {
        if let Some(claim_watch) = self.assigned.duty.take_claim() {
            let farewell = Farewell { is_refused: true, why: Some(why), ..Farewell::default() };
            self.release(&claim_watch, farewell).await;
        }
    }
}
