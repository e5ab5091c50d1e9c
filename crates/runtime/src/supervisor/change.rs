//! Carries out a command: from one role to another, or to none, with a receipt and a way back.

use store::Farewell;
use tokio::time::Instant;
use tracing::{info, warn};
use types::api::{Receipt, Release, Wait};
use types::{ErrorKind, NodeId, Problem, Role, limits};

use super::begin::Seat;
use super::hand_over::Heir;
use super::{Plan, Supervisor, drained};
use crate::node::cluster_store::Terms;
use crate::node::identity::{Asked, DataDirError};
use crate::role::lifecycle::{Happening, State};
use crate::role::owner::{Consent, not_the_owner, ownerless};
use crate::supervisor::control::{Order, leaving};
use crate::supervisor::stopwatch::{Stopwatch, millis};
use crate::takeover::claim_watch::ClaimWatch;

/// What a command comes down to.
struct Wish {
    asked: Asked,
    /// Whether a shard is moved here, whoever owns it.
    is_forced: bool,
    /// Who gets the shard that this node owns.
    successor: Option<NodeId>,
}

/// What a new role needs of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewSeat {
    /// It has none that is owned.
    None,
    /// This node owns it already.
    Held,
    /// This node has a replica, and that will do.
    Replica,
    /// It is to be taken.
    Sought,
}

/// What a node was before a change.
struct Before {
    role: Role,
    state: State,
    terms: Option<Terms>,
    claim_watch: Option<ClaimWatch>,
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
                let owns_it = !wish.is_forced || self.claim_watch.is_some() || !self.is_replica;
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
            (self.note, self.failed_change) = (None, None);
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
                let asked = Asked { role: self.role.clone(), drained: true };
                Ok(Wish { asked, is_forced: false, successor: None })
            }
            Order::Offer(offer) => {
                let detail = format!("{}/{} is taken by who it was offered to", offer.service, offer.shard);
                Err(Problem::new(ErrorKind::Internal, "bad-order", detail))
            }
            Order::Release(release) => {
                let claim = self.claim_watch.as_ref().map(ClaimWatch::claim);
                let is_ours = claim.is_some_and(|claim| {
                    (claim.service(), claim.shard(), claim.epoch())
                        == (&release.service, release.shard, release.epoch)
                });
                if !is_ours {
                    return Err(not_the_owner(&self.tools.node, &release));
                }
                let asked = Asked { role: Role::Standby, drained: false };
                Ok(Wish { asked, is_forced: false, successor: Some(release.to) })
            }
        }
    }

    /// Gives up a shard that somebody asks for, that the store says is this node's, and that this node does not run.
    async fn disown(&mut self, wanted: &Release) {
        let is_run = self.claim_watch.as_ref().is_some_and(|claim_watch| {
            (claim_watch.claim().service(), claim_watch.claim().shard()) == (&wanted.service, wanted.shard)
        });
        if !is_run {
            let why = format!("its owner does not run it, and {} wants it", wanted.to);
            self.orphans.insert((wanted.service.clone(), wanted.shard), why);
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

    /// Asks everything that can refuse, keeps what was asked, and switches; what was kept before is kept again if that
    /// fails.
    async fn change(
        &mut self,
        wish: &Wish,
        plan: Option<Plan>,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        watch.step("prepare");
        // Whether it can be read is found out before anything is disturbed.
        let kept = self.tools.data.asked().map_err(|error| not_kept(&error))?;
        let seat = self.seat(wish, plan.as_ref());
        let consent = match seat {
            NewSeat::Sought => {
                let leaving = self.tools.leaving.clone();
                let consent = tokio::select! {
                    biased;
                    () = leaving.cancelled() => return Err(crate::supervisor::control::leaving()),
                    consent = self.consent(&wish.asked.role, wish.is_forced) => consent?,
                };
                watch.step("ask");
                consent
            }
            NewSeat::None | NewSeat::Held | NewSeat::Replica => Consent::default(),
        };
        self.tools.data.keep(&wish.asked).map_err(|error| not_kept(&error))?;
        self.revision += 1;
        self.failed_change = None;
        let outcome = self.switch(wish, plan, seat, consent, watch).await;
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

    /// What the new role needs of its shard.
    fn seat(&self, wish: &Wish, plan: Option<&Plan>) -> NewSeat {
        if !plan.is_some_and(|plan| plan.is_owned) {
            return NewSeat::None;
        }
        let is_same = wish.asked.role == self.role;
        let is_held =
            self.claim_watch.as_ref().is_some_and(|claim_watch| claim_watch.claim().successor().is_none());
        if is_same && is_held {
            NewSeat::Held
        } else if is_same && self.is_replica && !wish.is_forced {
            NewSeat::Replica
        } else {
            NewSeat::Sought
        }
    }

    /// From one role to another, or to none at all: drain, stop, release, take, start. Returns how many requests were in
    /// flight.
    async fn switch(
        &mut self,
        wish: &Wish,
        plan: Option<Plan>,
        seat: NewSeat,
        consent: Consent,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        let mut before = Before {
            role: self.role.clone(),
            state: self.state.clone(),
            terms: self.terms.clone(),
            claim_watch: None,
            is_replica: self.is_replica,
            note: self.note.take(),
        };
        let reason = wish.successor.as_ref().map(|to| format!("handing {} over to {to}", self.role));
        let gives_up = wish.asked.role != self.role || wish.asked.drained;
        let (in_flight, heir) = self.finish(reason, gives_up && wish.successor.is_none(), watch).await;
        if self.tools.leaving.is_cancelled() {
            return Err(leaving());
        }
        if gives_up && let Some(claim_watch) = self.claim_watch.take() {
            let why = if wish.asked.drained { "drained" } else { "its owner got another role" };
            if let Some(to) = &wish.successor {
                let farewell = Farewell { to: Some(to), why: Some(why), ..Farewell::default() };
                let is_noted = self.release(&claim_watch, farewell).await;
                watch.step("release");
                if !is_noted {
                    before.claim_watch = Some(claim_watch);
                    self.go_back(before, wish, "the store did not note the release").await;
                    let detail = format!("the store did not note the release; {}", self.present());
                    return Err(Problem::new(ErrorKind::Unavailable, "not-released", detail)
                        .hint("try again when the store answers"));
                }
            } else {
                self.claim_watch = Some(claim_watch);
                self.hand_over(heir, why).await;
                watch.step("release");
            }
        }
        if wish.asked.drained {
            self.state = self.state.after(drained(&self.tools.node, &wish.asked.role));
            return Ok(in_flight);
        }
        let seat = match seat {
            NewSeat::None => None,
            NewSeat::Held => self.claim_watch.take().map(Seat::Owner),
            NewSeat::Replica => Some(Seat::Replica),
            NewSeat::Sought => match self.take(wish, consent).await {
                Ok(seat) => {
                    watch.step("take");
                    Some(seat)
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
        self.role = wish.asked.role.clone();
        self.state = self.state.after(Happening::Start);
        let (prepared, terms) = plan.map_or((None, None), |plan| (plan.prepared, plan.terms));
        self.terms = terms;
        let was_taken = matches!(seat, Some(Seat::Owner(_)));
        match seat {
            Some(seat) => self.sit(seat),
            None => self.is_replica = false,
        }
        self.publish().await;
        let duty = self.duty();
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
                self.go_back(before, wish, &error.to_string()).await;
                let problem = error.to_problem("role-not-started");
                let detail = format!("{} could not be started: {error}; {}", wish.asked.role, self.present());
                let problem = Problem { detail, ..problem };
                Err(match &wish.asked.role {
                    Role::Service { service, shard: Some(shard) } if was_taken => {
                        ownerless(service, *shard, problem, &self.tools.cluster.view())
                    }
                    _ => problem,
                })
            }
        }
    }

    /// Takes the shard of the new role. What is cut short as the node leaves is given up when it winds down.
    async fn take(&mut self, wish: &Wish, consent: Consent) -> Result<Seat, Problem> {
        let leaving = self.tools.leaving.clone();
        tokio::select! {
            biased;
            () = leaving.cancelled() => Err(crate::supervisor::control::leaving()),
            taken = self.acquire(&wish.asked.role, wish.is_forced, consent) => taken,
        }
    }

    /// Runs the old role again, and says why. Its shard, which was given up, is taken again if it is still free.
    async fn go_back(&mut self, before: Before, wish: &Wish, why: &str) {
        self.role = before.role;
        self.failed_change = Some(match wish.asked.drained {
            true => format!("it could not be drained: {why}"),
            false => format!("it could not become {}: {why}", wish.asked.role),
        });
        self.terms = before.terms;
        (self.claim_watch, self.is_replica) = (before.claim_watch, before.is_replica);
        self.note = before.note;
        if matches!(before.state, State::Running { .. }) {
            self.state = self.state.after(Happening::Start);
            if !self.is_replica {
                return self.begin().await;
            }
            // Its shard has an owner, and this node is a replica again whether one is missing or not.
            let role = self.role.clone();
            if let Err(problem) = self.try_replicate(&role).await {
                warn!(%role, %problem, "could not become a replica again");
                self.stand_by(problem.detail);
            }
            self.publish().await;
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

    /// Announces the end of what runs, refuses new requests, lets running ones finish, and stops it. Returns how many were
    /// in flight and, if the shard is given up, who takes it next: looked for while all goes on.
    pub(super) async fn finish(
        &mut self,
        reason: Option<String>,
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
