//! Detects that this process was paused: then its own clock made the other nodes look dead.
//!
//! A process that was paused for 1.5 seconds declares every healthy peer dead when it resumes. So a check runs at a
//! fixed interval. If it runs late, no member is declared dead until the others had time to send heartbeats.

use std::time::Duration;

use tokio::time::Instant;

/// A beat that is late by more than this many gossip intervals is a stall.
const LATE_ROUNDS: u32 = 1;
/// For this many gossip intervals after a stall no member is declared dead.
const HOLD_ROUNDS: u32 = 4;
/// The longest hold, in gossip intervals, on a machine that stalls again and again.
const LONGEST_HOLD_ROUNDS: u32 = 20;

#[derive(Debug)]
pub(crate) struct StallGuard {
    interval: Duration,
    beat: Duration,
    last: Instant,
    hold: Option<Hold>,
}

/// A period in which no member is declared dead.
#[derive(Debug, Clone, Copy)]
struct Hold {
    since: Instant,
    until: Instant,
}

impl StallGuard {
    pub(crate) fn new(interval: Duration, beat: Duration, now: Instant) -> Self {
        Self { interval, beat, last: now, hold: None }
    }

    /// Call this at every beat and before every evaluation. Returns the delay if it was a stall.
    pub(crate) fn beat(&mut self, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.last).saturating_sub(self.beat);
        self.last = now;
        if late > self.interval * LATE_ROUNDS {
            let current = self.hold.filter(|hold| hold.until + late >= now);
            let since = current.map_or(now, |hold| hold.since + late);
            let until = (now + self.interval * HOLD_ROUNDS).min(since + self.interval * LONGEST_HOLD_ROUNDS);
            self.hold = Some(Hold { since, until });
            return Some(late);
        }
        None
    }

    /// Whether no member may be declared dead now.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.hold.is_some_and(|hold| now < hold.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn after_a_late_beat_no_member_is_declared_dead_for_four_rounds() {
        let start = Instant::now();
        let mut guard = StallGuard::new(100 * MS, 25 * MS, start);
        assert_eq!(guard.beat(start + 25 * MS), None);
        assert_eq!(guard.beat(start + 120 * MS), None, "a little late is not a stall");
        assert!(!guard.holds(start + 120 * MS));
        let resumed = start + 1_620 * MS;
        assert_eq!(guard.beat(resumed), Some(1_475 * MS));
        assert!(guard.holds(resumed + 399 * MS));
        assert!(!guard.holds(resumed + 400 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_keeps_stalling_still_declares_members_dead_eventually() {
        let start = Instant::now();
        let mut guard = StallGuard::new(100 * MS, 25 * MS, start);
        let mut now = start;
        let mut free = 0;
        for _ in 0..100 {
            now += 200 * MS;
            guard.beat(now);
            free += u32::from(!guard.holds(now));
        }
        assert!(free > 0, "no member could be declared dead for {:?}", now - start);
    }
}
