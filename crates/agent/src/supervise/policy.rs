//! Decides whether and when an agent that has ended is restarted. Pure: callers pass the time and a random number.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use types::Backoff;
use types::supervision::RestartPolicy;

/// The pause before the second restart in a row and later ones. The first is immediate: an owner that is back within
/// half a second keeps its shard.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// An agent that ran for this long has recovered: its next restart counts as the first again.
const RECOVERED_AFTER: Duration = Duration::from_secs(10 * 60);
/// Within this time an agent is restarted at most [`MAX_IN_WINDOW`] times.
const WINDOW: Duration = Duration::from_secs(10 * 60);
const MAX_IN_WINDOW: usize = 5;

/// The exit codes of a requested end: left, and aborted by a second signal.
const ORDERLY: [u8; 2] = [0, 130];
/// The exit code of wrong arguments.
pub(super) const USAGE: u8 = 2;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Its exit code; `None` if a signal killed it or the code is unknown.
    pub(super) code: Option<u8>,
    /// Whether its role had been ready.
    pub(super) was_ready: bool,
    /// Whether it reported that it would fail in the same way again.
    pub(super) is_final: bool,
    /// How long it ran.
    pub(super) ran: Duration,
}

/// What to do after an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the end was requested.
    Done,
    /// Restart it after this pause.
    Restart(Duration),
    /// Do not restart it, for this reason.
    GiveUp(String),
}

/// The ends so far.
#[derive(Debug)]
pub(super) struct Ends {
    policy: RestartPolicy,
    was_ready: bool,
    /// Restarts in a row.
    in_row: u32,
    /// The times of the restarts within [`WINDOW`].
    recent: VecDeque<Instant>,
}

impl Ends {
    /// `was_ready`: whether the role is known to have been ready before.
    pub(super) fn new(policy: RestartPolicy, was_ready: bool) -> Self {
        Self { policy, was_ready, in_row: 0, recent: VecDeque::new() }
    }

    /// What to do after an end. `jitter` is a random number in [0, 1).
    pub(super) fn after(&mut self, end: &End, now: Instant, jitter: f64) -> Next {
        self.was_ready |= end.was_ready;
        if end.code.is_some_and(|code| ORDERLY.contains(&code)) {
            return Next::Done;
        }
        if self.policy == RestartPolicy::No {
            return Next::GiveUp("its manifest says `restart: no`".to_owned());
        }
        if !self.was_ready {
            return Next::GiveUp("it was never ready".to_owned());
        }
        if end.is_final || end.code == Some(USAGE) {
            return Next::GiveUp("it would end in the same way again".to_owned());
        }
        if end.ran >= RECOVERED_AFTER {
            self.in_row = 0;
        }
        self.recent.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if self.policy == RestartPolicy::OnFailure && self.recent.len() >= MAX_IN_WINDOW {
            return Next::GiveUp(format!(
                "it was started again {} times within {} minutes",
                self.recent.len(),
                WINDOW.as_secs() / 60
            ));
        }
        let pause = pause(self.in_row, jitter);
        self.in_row += 1;
        self.recent.push_back(now);
        Next::Restart(pause)
    }
}

/// The pause before a restart; zero for the first in a row.
fn pause(restarts_before: u32, jitter: f64) -> Duration {
    if restarts_before == 0 { Duration::ZERO } else { BACKOFF.pause(restarts_before, jitter) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn killed(ran: Duration) -> End {
        End { code: None, was_ready: true, is_final: false, ran }
    }

    fn exited(code: u8) -> End {
        End { code: Some(code), ..killed(SECOND) }
    }

    #[tokio::test]
    async fn after_an_orderly_end_there_is_no_restart() {
        for policy in RestartPolicy::NAMES {
            for code in [0, 130] {
                let mut ends = Ends::new(policy.parse().unwrap(), true);
                assert_eq!(ends.after(&exited(code), Instant::now(), 1.0), Next::Done);
            }
        }
    }

    #[tokio::test]
    async fn an_agent_that_would_fail_again_is_not_restarted() {
        let now = Instant::now();
        for policy in [RestartPolicy::OnFailure, RestartPolicy::Always] {
            let gives_up = |mut ends: Ends, end: End| matches!(ends.after(&end, now, 1.0), Next::GiveUp(_));
            assert!(gives_up(Ends::new(policy, false), End { was_ready: false, ..exited(1) }));
            assert!(gives_up(Ends::new(policy, true), exited(2)));
            assert!(gives_up(Ends::new(policy, true), End { is_final: true, ..exited(1) }));
            // An agent that was ready once may fail before it is ready the next time.
            assert!(!gives_up(Ends::new(policy, true), End { was_ready: false, ..exited(1) }));
        }
        let mut never = Ends::new(RestartPolicy::No, true);
        assert!(
            matches!(never.after(&killed(SECOND), now, 1.0), Next::GiveUp(why) if why.contains("restart: no"))
        );
    }

    #[tokio::test]
    async fn the_first_restart_is_immediate_and_there_is_no_sixth_within_ten_minutes() {
        let now = Instant::now();
        let mut ends = Ends::new(RestartPolicy::OnFailure, false);
        let pauses: Vec<_> = (0..6).map(|_| ends.after(&killed(SECOND), now, 1.0)).collect();
        let restart = |seconds| Next::Restart(seconds * SECOND);
        assert_eq!(pauses[..5], [restart(0), restart(1), restart(2), restart(4), restart(8)]);
        assert!(
            matches!(&pauses[5], Next::GiveUp(why) if why.contains("5 times within 10 minutes")),
            "{pauses:?}"
        );
    }

    #[tokio::test]
    async fn pauses_grow_to_a_minute_and_are_reset_after_ten_minutes_of_health() {
        let mut now = Instant::now();
        let mut ends = Ends::new(RestartPolicy::Always, true);
        let pauses: Vec<_> = (0..9).map(|_| ends.after(&killed(SECOND), now, 1.0)).collect();
        assert_eq!(pauses[7..], [Next::Restart(60 * SECOND), Next::Restart(60 * SECOND)]);
        now += RECOVERED_AFTER;
        assert_eq!(ends.after(&killed(RECOVERED_AFTER), now, 1.0), Next::Restart(Duration::ZERO));
        // An agent that fails rarely, but never runs for ten minutes, is restarted each time.
        let mut ends = Ends::new(RestartPolicy::OnFailure, true);
        for _ in 0..20 {
            now += 3 * 60 * SECOND;
            assert!(matches!(ends.after(&killed(170 * SECOND), now, 0.0), Next::Restart(_)));
        }
        assert_eq!(pause(3, 0.0), 2 * SECOND);
    }
}
