//! Carries out a command: from one role to another, or to none, with a receipt and a way back.

use tokio::time::Instant;
use tracing::{info, warn};
use types::api::{Receipt, Wait};
use types::{ErrorKind, Problem, Role};

use super::{ANNOUNCE_LIMIT, DRAIN_LIMIT, RECEIPT_LIMIT, Supervisor, drained, unknown_role};
use crate::control::{Order, leaving};
use crate::identity::{Asked, DataDirError};
use crate::lifecycle::{Happening, State};
use crate::stopwatch::{Stopwatch, millis};

impl Supervisor {
    pub(super) async fn carry_out(&mut self, order: Order, wait: Wait) -> Result<Receipt, Problem> {
        let from = self.role.clone();
        let asked = match order {
            Order::Change(role) => {
                let role = self.tools.registry.check(role).map_err(|error| unknown_role(&error))?;
                Asked { role, drained: false }
            }
            Order::Drain => Asked { role: from.clone(), drained: true },
        };
        let is_done = match &self.state {
            State::Running { .. } => asked == Asked { role: from.clone(), drained: false },
            State::Stopped { .. } => asked == Asked { role: from.clone(), drained: true },
            _ => false,
        };
        let mut watch = Stopwatch::start();
        let mut in_flight = 0;
        if is_done {
            self.tools.data.keep(&asked).map_err(|error| not_kept(&error))?;
        } else {
            in_flight = self.change(&asked, &mut watch).await?;
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

    /// Prepares, keeps what was asked, and switches; what was kept before is kept again if that fails.
    async fn change(&mut self, asked: &Asked, watch: &mut Stopwatch) -> Result<u64, Problem> {
        let prepared = match asked.drained {
            true => None,
            false => self.prepare(&asked.role).map_err(|error| error.to_problem("bad-settings"))?,
        };
        let kept = self.tools.data.asked().map_err(|error| not_kept(&error))?;
        let outcome = match self.tools.data.keep(asked) {
            Ok(()) => {
                self.revision += 1;
                watch.step("prepare");
                self.switch(asked, prepared, watch).await
            }
            Err(error) => Err(not_kept(&error)),
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
        asked: &Asked,
        prepared: Option<Box<dyn plugin::Prepared>>,
        watch: &mut Stopwatch,
    ) -> Result<u64, Problem> {
        let (from, before) = (self.role.clone(), self.state.clone());
        let in_flight = self.finish(None, watch).await;
        if self.tools.leaving.is_cancelled() {
            return Err(leaving());
        }
        if asked.drained {
            self.state = self.state.after(drained(&self.tools.node, &asked.role));
            return Ok(in_flight);
        }
        self.role = asked.role.clone();
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let started = self.start(prepared, &asked.role).await.ok_or_else(leaving)?;
        watch.step("start");
        match started {
            Ok(running) => {
                self.mount(running);
                watch.step("mount");
                Ok(in_flight)
            }
            Err(error) => {
                warn!(role = %asked.role, %error, "the new role could not be started; going back");
                self.go_back(from, before).await;
                let problem = error.to_problem("role-not-started");
                let detail = format!("{} could not be started: {error}; {}", asked.role, self.present());
                Err(Problem { detail, ..problem })
            }
        }
    }

    async fn go_back(&mut self, role: Role, before: State) {
        self.role = role;
        if matches!(before, State::Running { .. }) {
            self.state = self.state.after(Happening::Start);
            self.begin().await;
        } else {
            self.state = before;
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
    pub(super) async fn finish(&mut self, reason: Option<String>, watch: &mut Stopwatch) -> u64 {
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
        running.drain(Instant::now() + DRAIN_LIMIT).await;
        watch.step("drain");
        self.unmount();
        running.stop().await;
        watch.step("stop");
        in_flight
    }
}

fn not_kept(error: &DataDirError) -> Problem {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Problem::new(ErrorKind::Unavailable, "not-kept", format!("{error}{source}"))
        .hint("nothing was changed; make room or the folder writable, then try again")
}
