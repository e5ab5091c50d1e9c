//! Takes over shards that have lost their owner, and gives copies to shards that have too few.
//!
//! When it is this node's turn is decided in [`crate::takeover::vacancy`], whether a shard may be taken in [`crate::takeover::owner_check`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::ClusterView;
use plugin::{Claim, Duty};
use store::{ClaimError, ClaimState, Farewell};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, debug, error, info, warn};
use types::{ErrorKind, NodeId, Post, Problem, Role};

use super::{COPY_DRAIN, Supervisor, Tools};
use crate::node::cluster_store::unreadable;
use crate::role::lifecycle::{Happening, State};
use crate::supervisor::stopwatch::Stopwatch;
use crate::takeover::claim_watch::Keeper;
use crate::takeover::crash_detector::Lifelines;
use crate::takeover::layouts::{self, Layouts};
use crate::takeover::owner_check::{AGAIN, Finding, Inquiry, is_needed};
use crate::takeover::surplus::Surplus;
use crate::takeover::twins::{self, Twin};
use crate::takeover::vacancy::{
    Errand, Gone, Pace, Place, Vacancies, copies_elsewhere, is_owned, predecessors,
};

/// How long the store may take to answer before a node that acts by itself leaves it be.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(5);

fn no_answer() -> Problem {
    let detail = format!("the store did not answer within {STORE_LIMIT:?}");
    Problem::new(ErrorKind::Unavailable, "store-unavailable", detail)
}

/// What a node knows and does about shards that others ought to own.
pub(super) struct Succession {
    vacancies: Vacancies,
    surplus: Surplus,
    view: watch::Receiver<ClusterView>,
    pub(super) layouts: watch::Receiver<Layouts>,
    lifelines: Lifelines,
    /// Owners that have ended for sure.
    gone: watch::Receiver<Gone>,
    /// Shards that a person took from this node: it does not take them back by itself.
    renounced: BTreeSet<(Place, Errand)>,
    /// At most one; ends with this.
    inquiry: JoinSet<(Place, Finding)>,
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
    /// An inquiry has ended.
    Found(Place, Finding),
}

impl Succession {
    pub(super) fn new(tools: &Tools) -> Self {
        let (sender, layouts) = watch::channel(BTreeMap::new());
        let (found, twin) = watch::channel(None);
        let mut tasks = JoinSet::new();
        if is_needed(&tools.registry) {
            let (ground, registry) = (tools.ground.clone(), tools.registry.clone());
            let keep = layouts::keep(ground, registry, tools.cluster.watch(), sender);
            tasks.spawn(keep.instrument(Span::current()));
            let twins = twins::Watch {
                cluster: tools.cluster.clone(),
                mesh: tools.mesh.clone(),
                ground: tools.ground.clone(),
                layouts: layouts.clone(),
            };
            tasks.spawn(twins.keep(found).instrument(Span::current()));
            let sight = tools.sight.clone();
            tasks.spawn(sight.keep(tools.cluster.watch()).instrument(Span::current()));
        }
        let lifelines = Lifelines::new(tools.cluster.clone(), tools.profile);
        Self {
            vacancies: Vacancies::new(Pace::of(tools.profile)),
            surplus: Surplus::default(),
            view: tools.cluster.watch(),
            layouts,
            gone: lifelines.gone(),
            lifelines,
            renounced: BTreeSet::new(),
            inquiry: JoinSet::new(),
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
            Some(found) = self.inquiry.join_next() => match found {
                Ok((place, finding)) => Stir::Found(place, finding),
                Err(error) => {
                    error!(%error, "an inquiry about a shard failed");
                    if let Some(place) = self.asking.take() {
                        self.vacancies.failed(&place, Errand::Own, Instant::now());
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

    /// A person took a shard, or the copy of one, from this node.
    pub(super) fn renounce(&mut self, role: &Role, duty: Option<Post>) {
        if let (Some(place), Some(duty)) = (place(role), duty) {
            if duty == Post::Primary {
                self.renounced.insert((place.clone(), Errand::Own));
            }
            self.renounced.insert((place, Errand::Follow));
        }
    }

    /// Whether a person took it from this node.
    pub(super) fn has_renounced(&self, place: &Place, errand: Errand) -> bool {
        self.renounced.contains(&(place.clone(), errand))
    }

    /// A person gave a shard to this node.
    pub(super) fn accept(&mut self, role: &Role) {
        if let Some(place) = place(role) {
            self.renounced.retain(|(renounced, _)| *renounced != place);
        }
    }

    /// Once somebody else has done it, the person's word has had its effect.
    fn forget_what_others_took(&mut self, me: &NodeId) {
        let vacancies = &self.vacancies;
        self.renounced.retain(|(place, errand)| match errand {
            Errand::Own => vacancies.owner_now(place).is_none_or(|owner| owner.node == *me),
            Errand::Follow => !vacancies.has_all_copies(place),
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
                self.succession.vacancies.put_off(&place, Instant::now() + pause, true);
            }
            Stir::Found(place, Finding::LeaveToOthers(pause, why)) => {
                info!(service = %place.0, shard = %place.1, why, ?pause, "a shard is left to others");
                self.succession.vacancies.leave_to_others(&place, Instant::now() + pause);
            }
            Stir::Found(place, Finding::Wait(pause, why)) => {
                debug!(service = %place.0, shard = %place.1, why, ?pause, "a shard may be about to have an owner");
                self.succession.vacancies.put_off(&place, Instant::now() + pause, false);
            }
            Stir::Found(place, Finding::Settling { epoch, pause, why }) => {
                info!(service = %place.0, shard = %place.1, why, ?pause, "a shard is left alone");
                let now = Instant::now();
                self.succession.vacancies.note_epoch(&place, epoch, now);
                self.succession.vacancies.put_off(&place, now + pause, false);
            }
            Stir::Found(place, Finding::Unknown(why)) => {
                debug!(service = %place.0, shard = %place.1, why, "nothing was found out about a shard");
                self.succession.vacancies.put_off(&place, Instant::now() + AGAIN, false);
            }
        }
        self.look().await;
    }

    /// Whether this node waits to be needed, or has a copy and could own a shard.
    pub(super) fn is_free(&self) -> bool {
        let runs = matches!(self.state, State::Running { .. });
        runs && self.is_swept && self.keeper.is_none() && (self.role == Role::Standby || self.is_replica)
    }

    /// Looks whether it is this node's turn to do something.
    async fn look(&mut self) {
        let now = Instant::now();
        let succession = &mut self.succession;
        let seen = succession.view.borrow_and_update().clone();
        let layouts = succession.layouts.borrow_and_update().clone();
        succession.lifelines.hold(predecessors(&seen, &layouts));
        let gone = succession.gone.borrow_and_update().clone();
        let view = seen.without(&gone);
        succession.vacancies.look(&view, &gone, &layouts, now);
        succession.forget_what_others_took(&self.tools.node);
        let copied =
            place(&self.role).filter(|_| self.is_replica && matches!(self.state, State::Running { .. }));
        let copied = copied.as_ref().and_then(|place| Some((place, layouts.get(&place.0)?.replicas)));
        let surplus_at = succession.surplus.look(&view, copied, now);
        succession.turn_at = surplus_at.filter(|at| *at > now);
        if surplus_at.is_some_and(|at| at <= now) && !self.is_placed() {
            return Box::pin(self.end_surplus()).await;
        }
        let succession = &mut self.succession;
        if !succession.inquiry.is_empty() || !self.is_free() {
            return;
        }
        let succession = &mut self.succession;
        match succession.vacancies.turn(&view, &layouts, &succession.renounced, now) {
            Err(next) => succession.turn_at = succession.turn_at.into_iter().chain(next).min(),
            Ok((place, Errand::Own)) => {
                let vacancies = &succession.vacancies;
                let inquiry = Inquiry {
                    me: self.tools.identity.clone(),
                    last_owner: vacancies.last_owner(&place).cloned(),
                    known_for: vacancies.known_for(&place, now),
                    rebuffs: vacancies.rebuffs(&place),
                    epoch_known: vacancies.epoch_known(&place, now),
                    cluster: self.tools.cluster.clone(),
                    gone: succession.gone.clone(),
                    mesh: self.tools.mesh.clone(),
                    ground: self.tools.ground.clone(),
                    place: place.clone(),
                };
                succession.asking = Some(place);
                succession.inquiry.spawn(inquiry.run().instrument(Span::current()));
            }
            Ok((place, Errand::Follow)) => self.follow(&place).await,
        }
    }

    /// Takes a shard that was found to be vacant, and runs it.
    async fn inherit(&mut self, place: &Place, state: ClaimState) {
        let view = self.tools.cluster.view().without(&self.succession.gone.borrow());
        if !self.is_free() || is_owned(&view, place) || self.succession.has_renounced(place, Errand::Own) {
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
                info!(role = %self.role, note, took = ?began.elapsed(), "took a shard over");
                self.note = Some(note);
                self.publish().await;
            }
            Ok(false) => {}
            Err(problem) => {
                warn!(service = %place.0, shard = %place.1, %problem, "a shard could not be taken over");
                self.succession.vacancies.failed(place, Errand::Own, Instant::now());
            }
        }
    }

    /// Whether it is this node's now: somebody else may have been faster.
    async fn try_inherit(&mut self, place: &Place, state: ClaimState) -> Result<bool, Problem> {
        let (service, shard) = place.clone();
        let role = Role::Service { service: service.clone(), shard: Some(shard) };
        // All that can fail without the shard comes first.
        let plan = timeout(STORE_LIMIT, self.prepare(&role)).await.map_err(|_| no_answer())??;
        let store = self.tools.ground.shared_store().await?;
        let (claims, asked_at) = (store.claims(), Instant::now());
        let poll = store.poll_interval();
        self.strays.insert(place.clone(), "its take was not finished".to_owned());
        let taking = claims.take(&service, shard, &state, &self.tools.node, self.tools.generation);
        // What is not known to have failed is given up as a stray.
        let taken = timeout(STORE_LIMIT, taking).await.map_err(|_| no_answer())?;
        let holder = match taken {
            Ok(holder) => holder,
            Err(ClaimError::Lost(now)) => {
                self.strays.remove(place);
                info!(%service, %shard, note = now.note(), "somebody else was faster");
                return Ok(false);
            }
            Err(ClaimError::Store(error)) => return Err(unreadable(&error)),
        };
        self.strays.remove(place);
        let claim = Claim::new(claims, service, shard, holder, asked_at);
        info!(%role, epoch = %claim.epoch(), "taking a shard over");
        let sight = self.tools.sight.clone();
        let keeper = Keeper::new(claim.clone(), poll, self.tools.cluster.watch(), sight);
        let copied = self.is_replica.then(|| self.role.clone());
        (self.note, self.failed_change) = (None, None);
        self.role = role.clone();
        self.terms = plan.terms;
        (self.keeper, self.is_replica) = (Some(keeper), false);
        self.state = self.state.after(Happening::Start);
        // Told before anything that takes time, so that nobody else looks for an owner.
        self.publish().await;
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.unmount();
            running.drain(Instant::now() + COPY_DRAIN).await;
            running.stop().await;
        }
        match self.start(plan.prepared, &role, Duty::Primary(claim)).await {
            Ok(running) => {
                self.mount(running);
                Ok(true)
            }
            Err(error) => {
                let problem = error.to_problem("role-not-started");
                self.refuse(&problem.detail).await;
                let is_copy = match &copied {
                    Some(role) => self.try_follow(role).await.is_ok(),
                    None => false,
                };
                if is_copy {
                    self.note = Some(format!("it could not own {role}: {}", problem.detail));
                } else {
                    self.stand_by(format!("it could not run {role}: {}", problem.detail));
                }
                self.publish().await;
                Err(problem)
            }
        }
    }

    /// Becomes a copy of a shard.
    async fn follow(&mut self, place: &Place) {
        let role = Role::Service { service: place.0.clone(), shard: Some(place.1) };
        let can = self.tools.registry.plugin(&place.0).is_some_and(|plugin| plugin.replicates());
        if self.role != Role::Standby || !can {
            self.succession.vacancies.failed(place, Errand::Follow, Instant::now());
            return;
        }
        info!(%role, "becoming a copy of a shard that has too few");
        self.failed_change = None;
        if let Err(problem) = self.try_follow(&role).await {
            warn!(%role, %problem, "could not become a copy");
            self.succession.vacancies.failed(place, Errand::Follow, Instant::now());
            self.stand_by(format!("it could not become a replica of {role}: {}", problem.detail));
        } else {
            self.note = Some(format!("a copy of {role} was missing"));
        }
        self.publish().await;
    }

    /// Whether a person gave this node its role by a command.
    fn is_placed(&self) -> bool {
        match self.tools.data.asked() {
            Ok(asked) => asked.is_some_and(|asked| asked.role == self.role),
            // What can't be read may be a person's word.
            Err(_) => true,
        }
    }

    /// Stands by: the shard has more copies than it is to have, and nobody placed this one.
    async fn end_surplus(&mut self) {
        let why = format!("{} had more replicas than it is to have", self.role);
        info!(role = %self.role, why, "ending a copy that is one too many");
        self.finish(Some(why.clone()), false, &mut Stopwatch::start()).await;
        self.stand_by(why);
        self.publish().await;
    }

    /// Runs as a copy of a shard.
    pub(super) async fn try_follow(&mut self, role: &Role) -> Result<(), Problem> {
        let plan = timeout(STORE_LIMIT, self.prepare(role)).await.map_err(|_| no_answer())??;
        self.role = role.clone();
        self.terms = plan.terms;
        self.is_replica = true;
        self.note = None;
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let started = self.start(plan.prepared, role, Duty::Replica).await;
        let running = started.map_err(|error| error.to_problem("role-not-started"))?;
        self.mount(running);
        Ok(())
    }

    /// Whether a shard that somebody else owns is to have one more copy than it has.
    pub(super) fn wants_copy(&self, role: &Role) -> bool {
        let Some(place) = place(role) else { return false };
        let can = self.tools.registry.plugin(&place.0).is_some_and(|plugin| plugin.replicates());
        let told = self.terms.as_ref().map_or(0, |terms| terms.replicas);
        let known = self.succession.layouts.borrow().get(&place.0).map_or(0, |layout| layout.replicas);
        let others = copies_elsewhere(&self.tools.cluster.view(), &place);
        can && u32::try_from(others).is_ok_and(|others| others < told.max(known))
    }

    /// Gives up a shard that this node can't run, so that others try.
    pub(super) async fn refuse(&mut self, why: &str) {
        if let Some(keeper) = self.keeper.take() {
            let farewell = Farewell { is_refused: true, why: Some(why), ..Farewell::default() };
            self.release(&keeper, farewell).await;
        }
    }
}
