//! Carries out a command: changes from one role to another, or to none, with a receipt; goes back if the change fails.

use store::Farewell;
use tokio::time::Instant;
use tracing::{info, warn};
use types::api::{Receipt, Release, Wait};
use types::{ErrorKind, NodeId, Problem, Reason, Role, limits};

use super::assignment::{Assignment, ShardDuty};
use super::begin::Acquisition;
use super::hand_over::Heir;
use super::{Plan, Supervisor, drained};
use crate::node::identity::{Asked, DataDirError};
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::{Consent, not_the_owner, ownerless};
use crate::role::reasons::{CHANGE_FAILED, HANDING_OVER};
use crate::supervisor::control::{Order, leaving};
use crate::supervisor::stopwatch::{Stopwatch, millis};
use crate::takeover::claim_watch::ClaimWatch;

/// The change that a command wants.
struct Wish {
    asked: Asked,
    /// Whether a shard is moved here even from its owner.
    is_forced: bool,
    /// The node that gets the shard that this node owns.
    successor: Option<NodeId>,
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
    pub(super) async fn carry_out(&mut self, order: Order, wait: Wait) -> Result<Receipt, Problem> {
        let from = self.assigned.role.clone();
        let duty = self.role_state().duty;
        if let Order::Release(release) = &order {
            self.disown(release).await;
        }
        let mut wish = self.wish(order)?;
        let mut watch = Stopwatch::start();
        let plan = match wish.asked.drained {
            true => None,
            false => Some(self.plan(&wish.asked.role).await?),
        };
        if let Some(plan) = &plan {
            wish.asked.role = plan.role.clone();
        }
        let asked = wish.asked.clone();
        let is_done = match &self.state {
            State::Running { .. } => {
                let terms = plan.as_ref().and_then(|plan| plan.terms.as_ref());
                let owns_it = !wish.is_forced
                    || self.assigned.duty.claim_watch().is_some()
                    || !self.assigned.duty.is_replica();
                asked == Asked { role: from.clone(), drained: false }
                    && terms == self.assigned.terms.as_ref()
                    && owns_it
            }
            State::Stopped { .. } => asked == Asked { role: from.clone(), drained: true },
            _ => false,
        };
        let mut in_flight = 0;
        if is_done {
            self.tools.data.keep(&asked).map_err(|error| not_kept(&error))?;
            (self.assigned.note, self.failed_change) = (None, None);
        } else {
            in_flight = self.change(&wish, plan, &mut watch).await?;
            if asked.drained || asked.role != from {
                self.takeover.mark_refused(&from, duty);
            }
        }
        if !asked.drained {
            self.takeover.accept(&asked.role);
        }
        let version = self.publish().await;
        let seen = self.confirm(version, wait, limits::RECEIPT).await;
        watch.step("receipt");
        info!(%from, to = %asked.role, in_flight, took = ?watch.began.elapsed(), "carried out a command");
        Ok(Receipt {
            node: self.tools.node.clone(),
            generation: self.tools.generation,
            version,
            from,
            to: asked.role,
            state: self.role_state(),
            changed: !is_done,
            steps: watch.steps,
            took_ms: millis(watch.began.elapsed()),
            in_flight,
            seen,
        })
    }

    fn wish(&self, order: Order) -> Result<Wish, Problem> {
        match order {
            Order::Change { role, take } => {
                Ok(Wish { asked: Asked { role, drained: false }, is_forced: take, successor: None })
            }
            Order::Drain => {
                let asked = Asked { role: self.assigned.role.clone(), drained: true };
                Ok(Wish { asked, is_forced: false, successor: None })
            }
            Order::Offer(offer) => {
                let detail = format!("{} is taken by the node that it was offered to", offer.shard_ref());
                Err(Problem::new(ErrorKind::Internal, "bad-order", detail))
            }
            Order::Release(release) => {
                let claim = self.assigned.duty.claim_watch().map(ClaimWatch::claim);
                let is_ours = claim.is_some_and(|claim| {
                    *claim.shard_ref() == release.shard_ref() && claim.epoch() == release.epoch
                });
                if !is_ours {
                    return Err(not_the_owner(&self.tools.node, &release));
                }
                let asked = Asked { role: Role::Standby, drained: false };
                Ok(Wish { asked, is_forced: false, successor: Some(release.to) })
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

    async fn plan(&self, role: &Role) -> Result<Plan, Problem> {
        let leaving = self.tools.leaving.clone();
        tokio::select! {
            biased;
            () = leaving.cancelled() => Err(crate::supervisor::control::leaving()),
            plan = self.prepare(role, true) => plan,
        }
    }

    /// Checks everything that can refuse, writes the command to the data folder, and switches; restores the earlier command
    /// there if that fails.
    async fn change(
        &mut self,
        wish: &Wish,
        plan: Option<Plan>,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        watch.step("prepare");
        // First of all, so that a file that can't be read disturbs nothing.
        let kept = self.tools.data.asked().map_err(|error| not_kept(&error))?;
        let need = self.need(wish, plan.as_ref());
        let consent = match need {
            Need::Sought => {
                let leaving = self.tools.leaving.clone();
                let consent = tokio::select! {
                    biased;
                    () = leaving.cancelled() => return Err(crate::supervisor::control::leaving()),
                    consent = self.consent(&wish.asked.role, wish.is_forced) => consent?,
                };
                watch.step("ask");
                consent
            }
            Need::None | Need::Held | Need::Replica => Consent::default(),
        };
        self.tools.data.keep(&wish.asked).map_err(|error| not_kept(&error))?;
        self.revision += 1;
        self.failed_change = None;
        let outcome = self.switch(wish, plan, need, consent, watch).await;
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
    fn need(&self, wish: &Wish, plan: Option<&Plan>) -> Need {
        if !plan.is_some_and(|plan| plan.is_owned) {
            return Need::None;
        }
        let is_same = wish.asked.role == self.assigned.role;
        if is_same && self.assigned.duty.is_held() {
            Need::Held
        } else if is_same && self.assigned.duty.is_replica() && !wish.is_forced {
            Need::Replica
        } else {
            Need::Sought
        }
    }

    /// From one role to another, or to none at all: drain, stop, release, take, start. Returns how many requests were in
    /// flight.
    async fn switch(
        &mut self,
        wish: &Wish,
        plan: Option<Plan>,
        need: Need,
        consent: Consent,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        let before = self.state.clone();
        let handing = |to| format!("handing {} over to {to}", self.assigned.role);
        let reason = wish.successor.as_ref().map(|to| Reason::new(HANDING_OVER, handing(to)));
        let gives_up = wish.asked.role != self.assigned.role || wish.asked.drained;
        let (in_flight, heir) = self.finish(reason, gives_up && wish.successor.is_none(), watch).await;
        if self.tools.leaving.is_cancelled() {
            return Err(leaving());
        }
        if gives_up && let Some(claim_watch) = self.assigned.duty.take_claim() {
            let why = if wish.asked.drained { "drained" } else { "its owner got another role" };
            if let Some(to) = &wish.successor {
                let farewell = Farewell { to: Some(to), why: Some(why), ..Farewell::default() };
                let is_noted = self.release(&claim_watch, farewell).await;
                watch.step("release");
                if !is_noted {
                    self.assigned.duty = ShardDuty::Primary(claim_watch);
                    self.go_back(before, wish, "the store did not note the release").await;
                    let detail = format!("the store did not note the release; {}", self.present());
                    return Err(Problem::new(ErrorKind::Unavailable, "not-released", detail)
                        .hint("try again when the store answers"));
                }
            } else {
                self.assigned.duty = ShardDuty::Primary(claim_watch);
                self.hand_over(heir, why).await;
                watch.step("release");
            }
        }
        if wish.asked.drained {
            self.assigned.note = None;
            self.state = self.state.after(drained(&self.tools.node, &wish.asked.role));
            return Ok(in_flight);
        }
        let duty = match need {
            Need::None => ShardDuty::None,
            Need::Held => self.assigned.duty.take_claim().map_or(ShardDuty::None, ShardDuty::Primary),
            Need::Replica => ShardDuty::Replica,
            Need::Sought => match self.take(wish, consent).await {
                Ok(duty) => {
                    watch.step("take");
                    duty
                }
                Err(problem) if self.tools.leaving.is_cancelled() => return Err(problem),
                Err(problem) => {
                    warn!(role = %wish.asked.role, %problem, "the shard could not be taken; going back");
                    self.go_back(before, wish, &problem.detail).await;
                    let detail = format!("{}; {}", problem.detail, self.present());
                    return Err(Problem { detail, ..problem });
                }
            },
        };
        let was_taken = matches!(duty, ShardDuty::Primary(_));
        let (prepared, terms) = plan.map_or((None, None), |plan| (plan.prepared, plan.terms));
        let assigned = Assignment { role: wish.asked.role.clone(), terms, duty, note: None };
        let old = std::mem::replace(&mut self.assigned, assigned);
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let duty = self.assigned.duty.of_service();
        let leaving_token = self.tools.leaving.clone();
        let started = tokio::select! {
            biased;
            () = leaving_token.cancelled() => return Err(leaving()),
            started = self.start(prepared, &wish.asked.role, duty) => started,
        };
        watch.step("start");
        match started {
            Ok(running) => {
                self.mount(running);
                watch.step("mount");
                Ok(in_flight)
            }
            Err(error) => {
                warn!(role = %wish.asked.role, %error, "the new role could not be started; going back");
                self.refuse(&error.to_string()).await;
                self.assigned = old;
                self.go_back(before, wish, &error.to_string()).await;
                let problem = error.to_problem("role-not-started");
                let detail = format!("{} could not be started: {error}; {}", wish.asked.role, self.present());
                let problem = Problem { detail, ..problem };
                Err(match wish.asked.role.shard_ref().filter(|_| was_taken) {
                    Some(shard) => ownerless(&shard, problem, &self.tools.cluster.view()),
                    None => problem,
                })
            }
        }
    }

    /// Takes the shard of the new role. If the node leaves meanwhile, a shard that it took is released as it winds down.
    async fn take(&mut self, wish: &Wish, consent: Consent) -> Result<ShardDuty, Problem> {
        let leaving = self.tools.leaving.clone();
        let how = Acquisition::Command { is_forced: wish.is_forced, consent };
        tokio::select! {
            biased;
            () = leaving.cancelled() => Err(crate::supervisor::control::leaving()),
            taken = self.acquire(&wish.asked.role, how) => Ok(taken?),
        }
    }

    /// Runs the old role again, and records why. Its shard, which was released, is taken again if it is still free.
    async fn go_back(&mut self, before: State, wish: &Wish, why: &str) {
        let text = match wish.asked.drained {
            true => format!("it could not be drained: {why}"),
            false => format!("it could not become {}: {why}", wish.asked.role),
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
                Err(problem) => {
                    warn!(%role, %problem, "could not become a replica again");
                    self.stand_by(Reason::from(&problem));
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
    ) -> (u64, Option<Heir>) {
        if self.running.is_none() {
            return (0, None);
        }
        self.state = self.state.after(Happening::Drain { reason });
        let version = self.publish().await;
        let heir = async { if gives_up { self.heir().await } else { None } };
        let (_, heir) = tokio::join!(self.confirm(version, Wait::All, limits::ANNOUNCE), heir);
        watch.step("announce");
        let Some(running) = self.running.take() else {
            return (0, heir);
        };
        let in_flight = running.gate.shut();
        running.drain(Instant::now() + limits::DRAIN).await;
        watch.step("drain");
        self.unmount();
        running.stop().await;
        watch.step("stop");
        (in_flight, heir)
    }
}

fn not_kept(error: &DataDirError) -> Problem {
    let mut detail = error.to_string();
    if let Some(source) = std::error::Error::source(error).map(ToString::to_string)
        && !detail.contains(&source)
    {
        detail = format!("{detail}: {source}");
    }
    let hint = match error {
        DataDirError::Damaged { .. } => "nothing was changed",
        _ => "nothing was changed; make room or the folder writable, then try again",
    };
    Problem::new(ErrorKind::Unavailable, "not-kept", detail).hint(hint)
}
