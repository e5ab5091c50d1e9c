//! Carries out a command: changes from one role to another, or to none, with a receipt; goes back if the change fails.

use store::Farewell;
use tokio::time::Instant;
use tracing::{info, warn};
use types::api::{Receipt, Release, Wait};
use types::{NodeId, Reason, Role, limits};

use super::assignment::{Assignment, ShardDuty};
use super::begin::Acquisition;
use super::error::ChangeError;
use super::hand_over::NextOwner;
use super::start::Plan;
use super::{Supervisor, drained};
use crate::failure::Failure;
use crate::node::identity::KeptRole;
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::{Consent, NotTheOwner, new_owner};
use crate::role::reasons::{CHANGE_FAILED, HANDING_OVER};
use crate::supervisor::control::Order;
use crate::supervisor::stopwatch::{Stopwatch, millis};
use crate::takeover::claim_watch::ClaimWatch;

/// The change that a command wants.
struct Goal {
    wanted: KeptRole,
    /// Whether a shard is moved here even from its owner.
    is_forced: bool,
    /// The node that gets the shard that this node owns.
    next_owner: Option<NodeId>,
}

/// What a new role needs of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It has no shard with an owner.
    None,
    /// This node owns it already.
    Held,
    /// This node has a replica, which is enough.
    Replica,
    /// It is to be taken.
    Sought,
}

impl Supervisor {
    pub(super) async fn carry_out(&mut self, order: Order, wait: Wait) -> Result<Receipt, ChangeError> {
        let from = self.assigned.role.clone();
        let duty = self.role_state().duty;
        if let Order::Release(release) = &order {
            self.disown(release).await;
        }
        let mut goal = self.goal(order)?;
        let mut watch = Stopwatch::start();
        let plan = match goal.wanted.drained {
            true => None,
            false => Some(self.plan(&goal.wanted.role).await?),
        };
        if let Some(plan) = &plan {
            goal.wanted.role = plan.role.clone();
        }
        let wanted = goal.wanted.clone();
        let is_done = match &self.state {
            State::Running { .. } => {
                let terms = plan.as_ref().and_then(|plan| plan.terms.as_ref());
                let owns_it = !goal.is_forced
                    || self.assigned.duty.claim_watch().is_some()
                    || !self.assigned.duty.is_replica();
                wanted == KeptRole { role: from.clone(), drained: false }
                    && terms == self.assigned.terms.as_ref()
                    && owns_it
            }
            State::Stopped { .. } => wanted == KeptRole { role: from.clone(), drained: true },
            _ => false,
        };
        let mut in_flight = 0;
        if is_done {
            self.tools.data.keep(&wanted).map_err(ChangeError::NotKept)?;
            (self.assigned.note, self.failed_change) = (None, None);
        } else {
            in_flight = self.change(&goal, plan, &mut watch).await?;
            if wanted.drained || wanted.role != from {
                self.takeover.mark_refused(&from, duty);
            }
        }
        if !wanted.drained {
            self.takeover.accept(&wanted.role);
        }
        let version = self.publish().await;
        let seen = self.confirm(version, wait, limits::RECEIPT).await;
        watch.step("receipt");
        info!(%from, to = %wanted.role, in_flight, took = ?watch.began.elapsed(), "carried out a command");
        Ok(Receipt {
            node: self.tools.node.clone(),
            generation: self.tools.generation,
            version,
            from,
            to: wanted.role,
            state: self.role_state(),
            changed: !is_done,
            steps: watch.steps,
            took_ms: millis(watch.began.elapsed()),
            in_flight,
            seen,
        })
    }

    fn goal(&self, order: Order) -> Result<Goal, ChangeError> {
        match order {
            Order::Change { role, take } => {
                Ok(Goal { wanted: KeptRole { role, drained: false }, is_forced: take, next_owner: None })
            }
            Order::Drain => {
                let wanted = KeptRole { role: self.assigned.role.clone(), drained: true };
                Ok(Goal { wanted, is_forced: false, next_owner: None })
            }
            Order::Offer(offer) => Err(ChangeError::BadOrder(offer.shard_ref())),
            Order::Release(release) => {
                let claim = self.assigned.duty.claim_watch().map(ClaimWatch::claim);
                let is_ours = claim.is_some_and(|claim| {
                    *claim.shard_ref() == release.shard_ref() && claim.epoch() == release.epoch
                });
                if !is_ours {
                    return Err(NotTheOwner::new(&self.tools.node, &release).into());
                }
                let wanted = KeptRole { role: Role::Standby, drained: false };
                Ok(Goal { wanted, is_forced: false, next_owner: Some(release.to) })
            }
        }
    }

    /// Releases a shard that another node asks for, if this node owns it on the store but does not run it.
    async fn disown(&mut self, wanted: &Release) {
        let is_run = self
            .assigned
            .duty
            .claim_watch()
            .is_some_and(|claim_watch| *claim_watch.claim().shard_ref() == wanted.shard_ref());
        if !is_run {
            let why = format!("its owner does not run it, and {} wants it", wanted.to);
            self.orphans.insert(wanted.shard_ref(), why);
            self.settle_orphans().await;
        }
    }

    async fn plan(&self, role: &Role) -> Result<Plan, ChangeError> {
        let leaving = self.tools.leaving.clone();
        tokio::select! {
            biased;
            () = leaving.cancelled() => Err(ChangeError::Leaving),
            plan = self.prepare(role, true) => Ok(plan?),
        }
    }

    /// Checks everything that can refuse, writes the command to the data folder, and switches; restores the earlier command
    /// there if that fails.
    async fn change(
        &mut self,
        goal: &Goal,
        plan: Option<Plan>,
        watch: &mut Stopwatch,
    ) -> Result<u64, ChangeError> {
        watch.step("prepare");
        // First of all, so that a file that can't be read disturbs nothing.
        let kept = self.tools.data.kept_role().map_err(ChangeError::NotKept)?;
        let need = self.need(goal, plan.as_ref());
        let consent = match need {
            Need::Sought => {
                let leaving = self.tools.leaving.clone();
                let consent = tokio::select! {
                    biased;
                    () = leaving.cancelled() => return Err(ChangeError::Leaving),
                    consent = self.consent(&goal.wanted.role, goal.is_forced) => consent?,
                };
                watch.step("ask");
                consent
            }
            Need::None | Need::Held | Need::Replica => Consent::default(),
        };
        self.tools.data.keep(&goal.wanted).map_err(ChangeError::NotKept)?;
        self.revision += 1;
        self.failed_change = None;
        let outcome = self.switch(goal, plan, need, consent, watch).await;
        if outcome.is_err() {
            let restored = match &kept {
                Some(kept) => self.tools.data.keep(kept),
                None => self.tools.data.forget(),
            };
            if let Err(error) = restored {
                warn!(%error, "the earlier command could not be restored");
            }
        }
        outcome
    }

    /// What the new role needs of its shard.
    fn need(&self, goal: &Goal, plan: Option<&Plan>) -> Need {
        if !plan.is_some_and(|plan| plan.is_owned) {
            return Need::None;
        }
        let is_same = goal.wanted.role == self.assigned.role;
        if is_same && self.assigned.duty.is_held() {
            Need::Held
        } else if is_same && self.assigned.duty.is_replica() && !goal.is_forced {
            Need::Replica
        } else {
            Need::Sought
        }
    }

    /// From one role to another, or to none at all: drain, stop, release, take, start. Returns how many requests were in
    /// flight.
    async fn switch(
        &mut self,
        goal: &Goal,
        plan: Option<Plan>,
        need: Need,
        consent: Consent,
        watch: &mut Stopwatch,
    ) -> Result<u64, ChangeError> {
        let before = self.state.clone();
        let handing = |to| format!("handing {} over to {to}", self.assigned.role);
        let reason = goal.next_owner.as_ref().map(|to| Reason::new(HANDING_OVER, handing(to)));
        let gives_up = goal.wanted.role != self.assigned.role || goal.wanted.drained;
        let (in_flight, next_owner) = self.finish(reason, gives_up && goal.next_owner.is_none(), watch).await;
        if self.tools.leaving.is_cancelled() {
            return Err(ChangeError::Leaving);
        }
        if gives_up && let Some(claim_watch) = self.assigned.duty.take_claim() {
            let why = if goal.wanted.drained { "drained" } else { "its owner got another role" };
            if let Some(to) = &goal.next_owner {
                let farewell = Farewell { to: Some(to), why: Some(why), ..Farewell::default() };
                let is_noted = self.release(&claim_watch, farewell).await;
                watch.step("release");
                if !is_noted {
                    self.assigned.duty = ShardDuty::Primary(claim_watch);
                    self.go_back(before, goal, "the store did not note the release").await;
                    return Err(ChangeError::NotReleased.went_back(self.present()));
                }
            } else {
                self.assigned.duty = ShardDuty::Primary(claim_watch);
                self.hand_over(next_owner, why).await;
                watch.step("release");
            }
        }
        if goal.wanted.drained {
            self.assigned.note = None;
            self.state = self.state.after(drained(&self.tools.node, &goal.wanted.role));
            return Ok(in_flight);
        }
        let duty = match need {
            Need::None => ShardDuty::None,
            Need::Held => self.assigned.duty.take_claim().map_or(ShardDuty::None, ShardDuty::Primary),
            Need::Replica => ShardDuty::Replica,
            Need::Sought => match self.take(goal, consent).await {
                Ok(duty) => {
                    watch.step("take");
                    duty
                }
                Err(error) if self.tools.leaving.is_cancelled() => return Err(error),
                Err(error) => {
                    warn!(role = %goal.wanted.role, %error, "the shard could not be taken; going back");
                    self.go_back(before, goal, &error.to_string()).await;
                    return Err(error.went_back(self.present()));
                }
            },
        };
        let was_taken = matches!(duty, ShardDuty::Primary(_));
        let (prepared, terms) = plan.map_or((None, None), |plan| (plan.prepared, plan.terms));
        let assigned = Assignment { role: goal.wanted.role.clone(), terms, duty, note: None };
        let old = std::mem::replace(&mut self.assigned, assigned);
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let duty = self.assigned.duty.of_service();
        let leaving_token = self.tools.leaving.clone();
        let started = tokio::select! {
            biased;
            () = leaving_token.cancelled() => return Err(ChangeError::Leaving),
            started = self.start(prepared, &goal.wanted.role, duty) => started,
        };
        watch.step("start");
        match started {
            Ok(running) => {
                self.mount(running);
                watch.step("mount");
                Ok(in_flight)
            }
            Err(error) => {
                warn!(role = %goal.wanted.role, %error, "the new role could not be started; going back");
                self.refuse(&error.to_string()).await;
                self.assigned = old;
                self.go_back(before, goal, &error.to_string()).await;
                let not_started = ChangeError::NotStarted { role: goal.wanted.role.clone(), error };
                let cause = Box::new(not_started.went_back(self.present()));
                Err(match goal.wanted.role.shard_ref().filter(|_| was_taken) {
                    Some(shard) => {
                        let hint = new_owner(&self.tools.cluster.view(), &shard);
                        ChangeError::Ownerless { cause, shard, hint }
                    }
                    None => *cause,
                })
            }
        }
    }

    /// Takes the shard of the new role. If the node leaves meanwhile, a shard that it took is released as it winds down.
    async fn take(&mut self, goal: &Goal, consent: Consent) -> Result<ShardDuty, ChangeError> {
        let leaving = self.tools.leaving.clone();
        let how = Acquisition::Command { is_forced: goal.is_forced, consent };
        tokio::select! {
            biased;
            () = leaving.cancelled() => Err(ChangeError::Leaving),
            taken = self.acquire(&goal.wanted.role, how) => Ok(taken?),
        }
    }

    /// Runs the old role again, and records why. Its shard, which was released, is taken again if it is still free.
    async fn go_back(&mut self, before: State, goal: &Goal, why: &str) {
        let text = match goal.wanted.drained {
            true => format!("it could not be drained: {why}"),
            false => format!("it could not become {}: {why}", goal.wanted.role),
        };
        self.failed_change = Some(Reason::new(CHANGE_FAILED, text));
        if matches!(before, State::Running { .. }) {
            self.state = self.state.after(Happening::Start);
            if !self.assigned.duty.is_replica() {
                return self.begin().await;
            }
            // Its shard has an owner, and this node is a replica again whether one is missing or not.
            let role = self.assigned.role.clone();
            let note = self.assigned.note.take();
            match self.try_replicate(&role).await {
                Ok(()) => self.assigned.note = note,
                Err(error) => {
                    warn!(%role, %error, "could not become a replica again");
                    self.stand_by(error.reason());
                }
            }
        } else {
            self.state = before;
        }
        self.publish().await;
    }

    /// The role and phase of the node after it went back, in words.
    fn present(&self) -> String {
        match self.state.phase() {
            (phase, None) => format!("the node is {} again, {phase}", self.assigned.role),
            (phase, Some(reason)) => format!("the node is {} again, {phase}: {reason}", self.assigned.role),
        }
    }

    /// Announces the end of the running role, refuses new requests, lets running ones finish, and stops it. Returns how many
    /// were in flight and, if the shard is released, the member that takes it next, chosen during the announcement.
    pub(super) async fn finish(
        &mut self,
        reason: Option<Reason>,
        gives_up: bool,
        watch: &mut Stopwatch,
    ) -> (u64, Option<NextOwner>) {
        if self.running.is_none() {
            return (0, None);
        }
        self.state = self.state.after(Happening::Drain { reason });
        let version = self.publish().await;
        let next_owner = async { if gives_up { self.next_owner().await } else { None } };
        let (_, next_owner) = tokio::join!(self.confirm(version, Wait::All, limits::ANNOUNCE), next_owner);
        watch.step("announce");
        let Some(running) = self.running.take() else {
            return (0, next_owner);
        };
        let in_flight = running.gate.shut();
        running.drain(Instant::now() + limits::DRAIN).await;
        watch.step("drain");
        self.unmount();
        running.stop().await;
        watch.step("stop");
        (in_flight, next_owner)
    }
}
