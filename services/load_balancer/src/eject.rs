//! Passive ejection: a backend that fails to accept connections several times in a row is taken out for a while.
//!
//! Pure: time and rules come in as arguments. After the time the next connection tries it; one more failure takes it out
//! again, for longer. A success ends the row.

use std::time::Duration;

use tokio::time::Instant;

/// The longest time out.
const LONGEST: Duration = Duration::from_secs(300);
/// After so long in, the next time out is one step shorter.
const FORGIVES: Duration = Duration::from_secs(60);

/// When a backend is taken out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// After so many failures in a row.
    pub(crate) failures: u32,
    /// The first time; each further time is longer by as much.
    pub(crate) time: Duration,
}

/// The failures of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// In a row, up to now.
    row: u32,
    /// How often in short succession it was taken out.
    times: u32,
    /// The end of the last time out.
    until: Option<Instant>,
}

impl Ejection {
    /// Whether it is out now.
    pub(crate) fn is_out(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// The time when it came back, if it was out.
    pub(crate) fn back_since(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until <= now)
    }

    /// The number of failures in a row.
    pub(crate) fn row(&self) -> u32 {
        self.row
    }

    /// It accepted a connection.
    pub(crate) fn succeeded(&mut self) {
        self.row = 0;
    }

    /// It did not. Takes it out if the rules say so and `others` allow it. Returns for how long.
    pub(crate) fn failed(&mut self, now: Instant, rules: Rules, is_allowed: bool) -> Option<Duration> {
        self.row = self.row.saturating_add(1);
        if self.is_out(now) || self.row < rules.failures || !is_allowed {
            return None;
        }
        let well = self.until.map_or(Duration::MAX, |until| now.saturating_duration_since(until));
        let forgiven = u32::try_from(well.as_secs() / FORGIVES.as_secs()).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(forgiven).saturating_add(1);
        let time = rules.time.saturating_mul(self.times).min(LONGEST.max(rules.time));
        // A time that the clock can't express has no end.
        self.until = now.checked_add(time).or(self.until);
        // One failure after its return is enough.
        self.row = rules.failures.saturating_sub(1);
        Some(time)
    }
}

/// Whether one more of `all` backends may be taken out while `out` are: at most half, and never the last.
pub(crate) fn may_eject(all: usize, out: usize) -> bool {
    out < all / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, time: Duration::from_secs(10) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_take_it_out_and_each_further_time_is_longer() {
        let (mut ejection, mut now) = (Ejection::default(), Instant::now());
        assert_eq!(ejection.failed(now, RULES, true), None);
        assert_eq!(ejection.failed(now, RULES, true), None);
        ejection.succeeded();
        assert_eq!(ejection.failed(now, RULES, true), None, "the row was broken");
        assert_eq!(ejection.failed(now, RULES, true), None);
        assert_eq!(ejection.failed(now, RULES, true), Some(seconds(10)));
        assert!(ejection.is_out(now + seconds(9)) && !ejection.is_out(now + seconds(10)));
        assert_eq!(ejection.failed(now, RULES, true), None, "it is out already");
        for time in [20, 30, 40] {
            now += seconds(300);
            // The time out counts from its return, which these steps are far beyond: all is forgiven.
            let again = ejection.failed(now, RULES, true);
            assert_eq!(again, Some(seconds(10)), "{time}");
        }
        let mut at = now + seconds(10);
        for time in [20, 30, 40] {
            assert_eq!(ejection.failed(at, RULES, true), Some(seconds(time)), "one failure is enough");
            at += seconds(time);
        }
        for _ in 0..100 {
            let time = ejection.failed(at, RULES, true).unwrap();
            assert!(time <= LONGEST);
            at += time;
        }
        assert_eq!(ejection.failed(at + seconds(120), RULES, true), Some(LONGEST), "two steps are forgiven");
    }

    #[test]
    fn at_most_half_are_taken_out_and_never_the_last() {
        for (all, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            let taken = (0..all).take_while(|out| may_eject(all, *out)).count();
            assert_eq!(taken, most, "of {all}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_may_not_take_it_out_counts() {
        let (mut ejection, now) = (Ejection::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(ejection.failed(now, RULES, false), None);
        }
        assert!(!ejection.is_out(now));
        assert_eq!(ejection.failed(now, RULES, true), Some(seconds(10)));
    }
}
