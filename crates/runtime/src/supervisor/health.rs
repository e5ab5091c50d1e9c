//! Checks the health of the running service, and stops it once it has failed.

use plugin::Health;
use tokio::time::Instant;
use tracing::error;
use types::{Reason, Role};

use super::assignment::ShardDuty;
use super::{RESIGN, Supervisor};
use crate::role::lifecycle::{Happening, State};
use crate::role::reasons;

/// After this many failures in a row, the shard is released to other nodes.
const FAILURES: u32 = 3;

impl Supervisor {
    pub(super) async fn probe(&mut self) {
        let twin = self
            .takeover
            .twin
            .borrow()
            .as_ref()
            .map(|twin| Reason::new(reasons::ANOTHER_CLUSTER, twin.to_string()));
        let Some(running) = &self.running else {
            if self.assigned.role == Role::Standby {
                let health = twin.map_or(Health::Ready, Health::Degraded);
                self.state = self.state.after(Happening::Probed(health));
            }
            return;
        };
        let mut health = running.health();
        if let Health::Failed(reason) = health {
            self.fail(reason).await;
            return;
        }
        if self.assigned.duty.is_replica()
            && let Some(twin) = twin
        {
            health = Health::Degraded(twin);
        }
        if let ShardDuty::Primary(claim_watch) = &mut self.assigned.duty {
            let age = claim_watch.claim().age();
            let other_store = self.tools.cluster_store.other_store();
            claim_watch.is_resigned = other_store.is_none() && age > RESIGN;
            if let Some(error) = other_store {
                health = Health::degraded(reasons::ANOTHER_STORE, error.to_string());
            } else if claim_watch.is_resigned {
                let epoch = claim_watch.claim().epoch();
                let text = format!(
                    "resigned epoch {epoch}: the store has not answered for {} s, so others may take the shard",
                    age.as_secs()
                );
                health = Health::degraded(reasons::OWNER_RESIGNED, text);
            }
        }
        self.state = self.state.after(Happening::Probed(health));
        if self.state.is_sound(Instant::now()) {
            self.end_trial();
        }
    }

    /// The running service failed: stops it; it is restarted after a pause.
    pub(super) async fn fail(&mut self, reason: Reason) {
        error!(role = %self.assigned.role, code = %reason.code, %reason, "the service failed");
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.unmount();
            self.state = self.failed(reason.clone());
            self.publish().await;
            running.stop().await;
            if matches!(self.state, State::Waiting { failures, .. } if failures >= FAILURES) {
                self.refuse(&reason.text).await;
                self.publish().await;
            }
        }
    }

    pub(super) fn failed(&self, reason: Reason) -> State {
        self.state.after(Happening::Failed { at: Instant::now(), reason, jitter: rand::random() })
    }
}
