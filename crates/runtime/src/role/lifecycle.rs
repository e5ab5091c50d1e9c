//! The state machine of a role, as a pure function: an event goes in, the next state comes out.

use std::time::Duration;

use plugin::Health;
use tokio::time::Instant;
use types::{Backoff, Phase, Reason};

/// The pause before a restart.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
/// A service that ran this long has recovered: the next failure counts as the first.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// The state of a role.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// The service is being started.
    Starting { failures: u32 },
    /// The service runs.
    Running { failures: u32, since: Instant, health: Health },
    /// The service failed and is started again at `retry_at`.
    Waiting { failures: u32, retry_at: Instant, reason: Reason },
    /// Requests in flight are being finished.
    Draining { reason: Option<Reason> },
    /// Nothing runs, on an operator's command.
    Stopped { reason: Reason },
}

/// An event that changes the state of a role.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Happening {
    /// A start was begun, by a command or by the node itself.
    Start,
    /// The service is up.
    Started { at: Instant },
    /// The start failed, or the running service did. `jitter` is a random number in [0, 1).
    Failed { at: Instant, reason: Reason, jitter: f64 },
    /// The pause is over.
    Retry,
    /// The service's health was checked.
    Probed(Health),
    /// A drain was begun.
    Drain { reason: Option<Reason> },
    /// The service has been stopped by a command.
    Stopped { reason: Reason },
}

impl State {
    /// The state after something happened.
    pub(crate) fn after(&self, happening: Happening) -> Self {
        match happening {
            Happening::Start => Self::Starting { failures: 0 },
            Happening::Started { at } => {
                Self::Running { failures: self.failures(at), since: at, health: Health::Ready }
            }
            Happening::Failed { at, reason, jitter } => {
                let failures = self.failures(at) + 1;
                Self::Waiting { failures, retry_at: at + BACKOFF.pause(failures, jitter), reason }
            }
            Happening::Retry => match self {
                Self::Waiting { failures, .. } => Self::Starting { failures: *failures },
                other => other.clone(),
            },
            Happening::Probed(health) => match self {
                Self::Running { failures, since, .. } => {
                    Self::Running { failures: *failures, since: *since, health }
                }
                other => other.clone(),
            },
            Happening::Drain { reason } => Self::Draining { reason },
            Happening::Stopped { reason } => Self::Stopped { reason },
        }
    }

    /// Failures in a row.
    fn failures(&self, now: Instant) -> u32 {
        match self {
            Self::Running { since, .. } if now.saturating_duration_since(*since) >= RECOVERED_AFTER => 0,
            Self::Starting { failures } | Self::Running { failures, .. } | Self::Waiting { failures, .. } => {
                *failures
            }
            Self::Draining { .. } | Self::Stopped { .. } => 0,
        }
    }

    /// The phase that is gossiped, with the reason.
    pub(crate) fn phase(&self) -> (Phase, Option<Reason>) {
        match self {
            Self::Starting { .. } => (Phase::Starting, None),
            Self::Running { health, .. } => match health {
                Health::Ready => (Phase::Ready, None),
                Health::Degraded(reason) => (Phase::Degraded, Some(reason.clone())),
                Health::Failed(reason) => (Phase::Failed, Some(reason.clone())),
            },
            Self::Waiting { failures, reason, .. } => {
                let times = if *failures == 1 { "once".to_owned() } else { format!("{failures} times") };
                let text = format!("{reason} (failed {times}, will be tried again)");
                (Phase::Failed, Some(Reason { text, ..reason.clone() }))
            }
            Self::Draining { reason } => (Phase::Draining, reason.clone()),
            Self::Stopped { reason } => (Phase::Stopped, Some(reason.clone())),
        }
    }

    /// Whether it has run long enough to count as sound.
    pub(crate) fn is_sound(&self, now: Instant) -> bool {
        matches!(self, Self::Running { since, .. } if now.saturating_duration_since(*since) >= RECOVERED_AFTER)
    }

    /// When the service is to be started again, if it failed.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::Waiting { retry_at, .. } => Some(*retry_at),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::reasons::TASK_FAILED;

    fn because(text: &str) -> Reason {
        Reason::new(TASK_FAILED, text)
    }

    fn failed(at: Instant, reason: &str) -> Happening {
        Happening::Failed { at, reason: because(reason), jitter: 1.0 }
    }

    #[tokio::test]
    async fn a_service_that_keeps_failing_waits_longer_and_reports_why() {
        let now = Instant::now();
        let once = State::Starting { failures: 0 }.after(failed(now, "port taken"));
        assert_eq!(once.phase().0, Phase::Failed);
        assert_eq!(once.phase().1.unwrap(), because("port taken (failed once, will be tried again)"));
        let again = once.after(Happening::Retry);
        assert_eq!(again, State::Starting { failures: 1 });
        let twice = again.after(failed(now, "port taken"));
        assert_eq!(twice.retry_at(), Some(now + Duration::from_millis(400)));
    }

    #[tokio::test]
    async fn a_service_that_ran_for_a_minute_has_recovered() {
        let now = Instant::now();
        let running = State::Starting { failures: 5 }.after(Happening::Started { at: now });
        let soon = running.after(failed(now + Duration::from_secs(1), "x"));
        assert!(matches!(soon, State::Waiting { failures: 6, .. }));
        let late = running.after(failed(now + RECOVERED_AFTER, "x"));
        assert!(matches!(late, State::Waiting { failures: 1, .. }));
    }

    #[tokio::test]
    async fn a_probe_changes_only_a_running_service() {
        let now = Instant::now();
        let running = State::Starting { failures: 0 }.after(Happening::Started { at: now });
        let degraded = running.after(Happening::Probed(Health::Degraded(because("slow disk"))));
        assert_eq!(degraded.phase(), (Phase::Degraded, Some(because("slow disk"))));
        let stopped = State::Stopped { reason: because("drained") };
        assert_eq!(stopped.after(Happening::Probed(Health::Ready)), stopped);
        assert_eq!(stopped.after(Happening::Retry), stopped);
    }
}
