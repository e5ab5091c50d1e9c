//! Notices that this very process was held up, for then its own clock is what made the others look dead.
//!
//! A process that was stopped for a second and a half declares every healthy peer dead when it goes on. So a check
//! runs at a steady beat; when a beat comes late, verdicts of death are held back until the others had time to be
//! heard again.

use std::time::Duration;

use tokio::time::Instant;

/// A beat later than this many rounds of gossip is a stall.
const LATE_ROUNDS: u32 = 1;
/// After a stall nobody is given up for this many rounds.
const HOLD_ROUNDS: u32 = 4;
/// On a machine that stalls again and again, verdicts are held back no longer than this many rounds in a row.
const LONGEST_HOLD_ROUNDS: u32 = 20;

#[derive(Debug)]
pub(crate) struct StallGuard {
    interval: Duration,
    beat: Duration,
    last: Instant,
    hold: Option<Hold>,
}

/// Verdicts are held back.
#[derive(Debug, Clone, Copy)]
struct Hold {
    since: Instant,
    until: Instant,
}

impl StallGuard {
    pub(crate) fn new(interval: Duration, beat: Duration, now: Instant) -> Self {
        Self { interval, beat, last: now, hold: None }
    }

    /// Called at every beat, and before every verdict. Returns how late it was, if that was a stall.
    pub(crate) fn beat(&mut self, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.last).saturating_sub(self.beat);
        self.last = now;
        if late > self.interval * LATE_ROUNDS {
            let going = self.hold.filter(|hold| hold.until + late >= now);
            let since = going.map_or(now, |hold| hold.since + late);
            let until = (now + self.interval * HOLD_ROUNDS).min(since + self.interval * LONGEST_HOLD_ROUNDS);
            self.hold = Some(Hold { since, until });
            return Some(late);
        }
        None
    }

    /// Whether verdicts of death must wait.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.hold.is_some_and(|hold| now < hold.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_late_beat_holds_verdicts_back_for_four_rounds() {
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
    async fn a_machine_that_stalls_for_ever_gives_up_the_dead_in_the_end() {
        let start = Instant::now();
        let mut guard = StallGuard::new(100 * MS, 25 * MS, start);
        let mut now = start;
        let mut free = 0;
        for _ in 0..100 {
            now += 200 * MS;
            guard.beat(now);
            free += u32::from(!guard.holds(now));
        }
        assert!(free > 0, "verdicts were held back for {:?}", now - start);
    }
}
