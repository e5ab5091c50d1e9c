//! Carries out a command: from one role to another, or to none, with a receipt and a way back.

use std::time::Duration;

use store::Farewell;
use tokio::time::Instant;
use tracing::{info, warn};
use types::api::{Receipt, Release, Wait};
use types::{ErrorKind, NodeId, Problem, Role};

use super::begin::Seat;
use super::{
    ANNOUNCE_LIMIT, COPY_DRAIN, DRAIN_LIMIT, Plan, RECEIPT_LIMIT, Supervisor, drained, unknown_role,
};
use crate::control::{Order, leaving};
use crate::ground::Terms;
use crate::identity::{Asked, DataDirError};
use crate::keeper::Keeper;
use crate::lifecycle::{Happening, State};
use crate::owner::ownerless;
use crate::stopwatch::{Stopwatch, millis};

/// What a command comes down to.
struct Wish {
    asked: Asked,
    /// Whether a shard is moved here, whoever owns it.
    is_told: bool,
    /// Who gets the shard that this node owns.
    successor: Option<NodeId>,
}

/// What a node was before a change.
struct Before {
    role: Role,
    state: State,
    terms: Option<Terms>,
    keeper: Option<Keeper>,
    is_replica: bool,
    note: Option<String>,
}

impl Supervisor {
    pub(super) async fn carry_out(&mut self, order: Order, wait: Wait) -> Result<Receipt, Problem> {
        let from = self.role.clone();
        let duty = self.role_state().duty;
        if let Order::Release(release) = &order {
            self.disown(release).await;
        }
        let wish = self.wish(order)?;
        let mut watch = Stopwatch::start();
        let plan = match wish.asked.drained {
            true => None,
            false => Some(self.plan(&wish.asked.role).await?),
        };
        let asked = wish.asked.clone();
        let is_done = match &self.state {
            State::Running { .. } => {
                let terms = plan.as_ref().and_then(|plan| plan.terms.as_ref());
                let owns_it = !wish.is_told || self.keeper.is_some() || !self.is_replica;
                asked == Asked { role: from.clone(), drained: false }
                    && terms == self.terms.as_ref()
                    && owns_it
            }
            State::Stopped { .. } => asked == Asked { role: from.clone(), drained: true },
            _ => false,
        };
        let mut in_flight = 0;
        if is_done {
            self.tools.data.keep(&asked).map_err(|error| not_kept(&error))?;
            self.note = None;
        } else {
            in_flight = self.change(&wish, plan, &mut watch).await?;
            if asked.drained || asked.role != from {
                self.succession.renounce(&from, duty);
            }
        }
        if !asked.drained {
            self.succession.accept(&asked.role);
        }
        let version = self.publish().await;
        let seen = self.confirm(version, wait, RECEIPT_LIMIT).await;
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
                let role = self.tools.registry.check(role).map_err(|error| unknown_role(&error))?;
                Ok(Wish { asked: Asked { role, drained: false }, is_told: take, successor: None })
            }
            Order::Drain => {
                let asked = Asked { role: self.role.clone(), drained: true };
                Ok(Wish { asked, is_told: false, successor: None })
            }
            Order::Release(release) => {
                let claim = self.keeper.as_ref().map(Keeper::claim);
                let is_ours = claim.is_some_and(|claim| {
                    (claim.service(), claim.shard(), claim.epoch())
                        == (&release.service, release.shard, release.epoch)
                });
                if !is_ours {
                    let detail = format!(
                        "{} does not own {}/{} under epoch {}",
                        self.tools.node, release.service, release.shard, release.epoch
                    );
                    return Err(Problem::new(ErrorKind::Changed, "not-the-owner", detail)
                        .hint("GET /v1/claims says who owns what"));
                }
                let asked = Asked { role: Role::Standby, drained: false };
                Ok(Wish { asked, is_told: false, successor: Some(release.to) })
            }
        }
    }

    /// Gives up a shard that somebody asks for, that the store says is this node's, and that this node does not run.
    async fn disown(&mut self, wanted: &Release) {
        let is_run = self.keeper.as_ref().is_some_and(|keeper| {
            (keeper.claim().service(), keeper.claim().shard()) == (&wanted.service, wanted.shard)
        });
        if !is_run {
            let why = format!("its owner does not run it, and {} wants it", wanted.to);
            self.strays.insert((wanted.service.clone(), wanted.shard), why);
            self.settle_strays().await;
        }
    }

    async fn plan(&self, role: &Role) -> Result<Plan, Problem> {
        let leaving = self.tools.leaving.clone();
        tokio::select! {
            biased;
            () = leaving.cancelled() => Err(crate::control::leaving()),
            plan = self.prepare(role) => plan,
        }
    }

    /// Takes the shard, keeps what was asked, and switches; what was kept before is kept again if that fails.
    async fn change(
        &mut self,
        wish: &Wish,
        plan: Option<Plan>,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        watch.step("prepare");
        let is_owned = plan.as_ref().is_some_and(|plan| plan.is_owned);
        let is_held = wish.asked.role == self.role
            && self.keeper.as_ref().is_some_and(|keeper| keeper.claim().successor().is_none());
        // Whether it can be read is found out before anything is disturbed.
        let kept = self.tools.data.asked().map_err(|error| not_kept(&error))?;
        let is_copy_enough = wish.asked.role == self.role && self.is_replica && !wish.is_told;
        let mut taken = (is_owned && is_copy_enough).then_some(Seat::Copy);
        if is_owned && !is_held && !is_copy_enough {
            let leaving = self.tools.leaving.clone();
            taken = Some(tokio::select! {
                biased;
                () = leaving.cancelled() => return Err(crate::control::leaving()),
                taken = self.acquire(&wish.asked.role, wish.is_told) => taken?,
            });
            watch.step("take");
        }
        let outcome = match self.tools.data.keep(&wish.asked) {
            Ok(()) => {
                self.revision += 1;
                self.switch(wish, plan, taken, watch).await
            }
            Err(error) => {
                if let Some(Seat::Owner(taken)) = &taken {
                    self.release(taken, why("what was asked could not be kept")).await;
                }
                Err(not_kept(&error))
            }
        };
        if outcome.is_err() {
            let restored = match &kept {
                Some(kept) => self.tools.data.keep(kept),
                None => self.tools.data.forget(),
            };
            if let Err(error) = restored {
                warn!(%error, "what was asked before could not be written back");
            }
        }
        outcome
    }

    /// From one role to another, or to none at all. Returns how many requests were in flight.
    async fn switch(
        &mut self,
        wish: &Wish,
        plan: Option<Plan>,
        taken: Option<Seat>,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        let mut before = Before {
            role: self.role.clone(),
            state: self.state.clone(),
            terms: self.terms.clone(),
            keeper: None,
            is_replica: self.is_replica,
            note: self.note.take(),
        };
        let reason = wish.successor.as_ref().map(|to| format!("handing {} over to {to}", self.role));
        // The shard has no owner until its copy has ended, and what the copy answers may be waiting for that owner.
        let is_promoted =
            self.is_replica && wish.asked.role == self.role && matches!(taken, Some(Seat::Owner(_)));
        let limit = if is_promoted { COPY_DRAIN } else { DRAIN_LIMIT };
        let in_flight = self.finish(reason, limit, watch).await;
        if self.tools.leaving.is_cancelled() {
            if let Some(Seat::Owner(taken)) = &taken {
                self.release(taken, why("leaving")).await;
            }
            return Err(leaving());
        }
        if wish.asked.role != self.role || wish.asked.drained {
            before.keeper = self.keeper.take();
        }
        let needs_no_way_back = wish.asked.drained || wish.asked.role == Role::Standby;
        if needs_no_way_back && let Some(keeper) = &before.keeper {
            let why = if wish.asked.drained { "drained" } else { "its owner got another role" };
            let farewell = Farewell { to: wish.successor.as_ref(), why: Some(why), is_refused: false };
            let is_noted = self.release(keeper, farewell).await;
            watch.step("release");
            if !is_noted && wish.successor.is_some() {
                self.go_back(before).await;
                let detail = format!("the store did not note the release; {}", self.present());
                return Err(Problem::new(ErrorKind::Unavailable, "not-released", detail)
                    .hint("try again when the store answers"));
            }
        }
        if wish.asked.drained {
            self.state = self.state.after(drained(&self.tools.node, &wish.asked.role));
            return Ok(in_flight);
        }
        self.role = wish.asked.role.clone();
        self.state = self.state.after(Happening::Start);
        let (prepared, terms) = plan.map_or((None, None), |plan| (plan.prepared, plan.terms));
        self.terms = terms;
        let was_taken = matches!(taken, Some(Seat::Owner(_)));
        match taken {
            Some(seat) => self.sit(seat),
            None => self.is_replica = false,
        }
        self.publish().await;
        let duty = self.duty();
        let leaving_token = self.tools.leaving.clone();
        let started = tokio::select! {
            biased;
            () = leaving_token.cancelled() => {
                if let Some(keeper) = &before.keeper {
                    self.release(keeper, why("leaving")).await;
                }
                return Err(leaving());
            }
            started = self.start(prepared, &wish.asked.role, duty) => started,
        };
        watch.step("start");
        match started {
            Ok(running) => {
                self.mount(running);
                watch.step("mount");
                if !needs_no_way_back && let Some(keeper) = before.keeper {
                    self.publish().await;
                    self.release(&keeper, why("its owner got another role")).await;
                    watch.step("release");
                }
                Ok(in_flight)
            }
            Err(error) => {
                warn!(role = %wish.asked.role, %error, "the new role could not be started; going back");
                self.refuse(&error.to_string()).await;
                self.go_back(before).await;
                let problem = error.to_problem("role-not-started");
                let detail = format!("{} could not be started: {error}; {}", wish.asked.role, self.present());
                let problem = Problem { detail, ..problem };
                Err(match &wish.asked.role {
                    Role::Service { service, shard: Some(shard) } if was_taken => {
                        ownerless(service, *shard, problem)
                    }
                    _ => problem,
                })
            }
        }
    }

    async fn go_back(&mut self, before: Before) {
        self.role = before.role;
        self.terms = before.terms;
        (self.keeper, self.is_replica) = (before.keeper, before.is_replica);
        self.note = before.note;
        if matches!(before.state, State::Running { .. }) {
            self.state = self.state.after(Happening::Start);
            self.begin().await;
        } else {
            self.state = before.state;
            self.publish().await;
        }
    }

    /// What the node is after it went back, in words.
    fn present(&self) -> String {
        match self.state.phase() {
            (phase, None) => format!("the node is {} again, {phase}", self.role),
            (phase, Some(reason)) => format!("the node is {} again, {phase}: {reason}", self.role),
        }
    }

    /// Announces the end of what runs, refuses new requests, lets running ones finish, and stops it.
    pub(super) async fn finish(
        &mut self,
        reason: Option<String>,
        limit: Duration,
        watch: &mut Stopwatch,
    ) -> u64 {
        if self.running.is_none() {
            return 0;
        }
        self.state = self.state.after(Happening::Drain { reason });
        let version = self.publish().await;
        self.confirm(version, Wait::All, ANNOUNCE_LIMIT).await;
        watch.step("announce");
        let Some(running) = self.running.take() else {
            return 0;
        };
        let in_flight = running.gate.shut();
        running.drain(Instant::now() + limit).await;
        watch.step("drain");
        self.unmount();
        running.stop().await;
        watch.step("stop");
        in_flight
    }
}

/// How a shard is given up for nobody in particular.
fn why(why: &str) -> Farewell<'_> {
    Farewell { why: Some(why), ..Farewell::default() }
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
