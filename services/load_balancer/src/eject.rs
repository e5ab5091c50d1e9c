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
/// How many seconds count as lately.
const WINDOW: usize = 10;
/// Fewer connects than this say nothing about the part that succeeds.
const ENOUGH: u64 = 20;

/// When a backend is taken out, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// After so many failures in a row.
    pub(crate) failures: u32,
    /// Or if less than this part of its connects succeeded lately, in percent.
    pub(crate) success: u32,
    /// The first time; each further time is longer by as much.
    pub(crate) time: Duration,
    /// The largest part of all backends that is out at a time, in percent.
    pub(crate) most: u32,
}

/// The failures of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ejection {
    /// In a row, up to now. Those while it is out count too.
    row: u32,
    /// Whether it has accepted nothing since it was taken out: one failure after its return is enough.
    is_on_trial: bool,
    /// How often in short succession it was taken out.
    times: u32,
    /// The end of the last time out.
    until: Option<Instant>,
    /// The connects of the last seconds.
    recent: Recent,
    /// Whether the part that succeeded took it out, not a row.
    by_rate: bool,
}

/// How many connects succeeded in each of the last ten seconds, and how many failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Recent {
    begin: Option<Instant>,
    /// Each with the second that it counts, since `begin`.
    seconds: [(u64, u32, u32); WINDOW],
}

impl Recent {
    fn count(&mut self, now: Instant, is_success: bool) {
        let second = self.second(now);
        let slot = &mut self.seconds[usize::try_from(second % WINDOW as u64).unwrap_or_default()];
        if slot.0 != second {
            *slot = (second, 0, 0);
        }
        let count = if is_success { &mut slot.1 } else { &mut slot.2 };
        *count = count.saturating_add(1);
    }

    /// Whether enough connects were made, and less than this part of them, in percent, succeeded.
    fn is_below(&mut self, percent: u32, now: Instant) -> bool {
        let second = self.second(now);
        let fresh = self.seconds.iter().filter(|slot| slot.0 + WINDOW as u64 > second);
        let (good, bad) =
            fresh.fold((0_u64, 0_u64), |all, slot| (all.0 + u64::from(slot.1), all.1 + u64::from(slot.2)));
        good + bad >= ENOUGH && good * 100 < u64::from(percent) * (good + bad)
    }

    /// Counted from 1, so that an empty slot belongs to no second.
    fn second(&mut self, now: Instant) -> u64 {
        1 + now.saturating_duration_since(*self.begin.get_or_insert(now)).as_secs()
    }
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
    pub(crate) fn succeeded(&mut self, now: Instant) {
        (self.row, self.is_on_trial) = (0, false);
        self.recent.count(now, true);
    }

    /// Whether too small a part of its connects took it out, not failures in a row.
    pub(crate) fn is_by_rate(&self) -> bool {
        self.by_rate
    }

    /// It did not. Takes it out if the rules say so and the others allow it. Returns for how long.
    pub(crate) fn failed(&mut self, now: Instant, rules: Rules, is_allowed: bool) -> Option<Duration> {
        self.row = self.row.saturating_add(1);
        self.recent.count(now, false);
        let is_in_row = self.row >= rules.failures || self.is_on_trial;
        if self.is_out(now) || !is_allowed || !(is_in_row || self.recent.is_below(rules.success, now)) {
            return None;
        }
        // A failed trial does not change why it is out.
        self.by_rate = self.row < rules.failures && (self.by_rate || !is_in_row);
        // What took it out once does not count again.
        self.recent = Recent::default();
        let well = self.until.map_or(Duration::MAX, |until| now.saturating_duration_since(until));
        let forgiven = u32::try_from(well.as_secs() / FORGIVES.as_secs()).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(forgiven).saturating_add(1);
        let time = rules.time.saturating_mul(self.times).min(LONGEST.max(rules.time));
        // A time that the clock can't express has no end.
        self.until = now.checked_add(time).or(self.until);
        self.is_on_trial = true;
        Some(time)
    }
}

/// Whether one more of `all` backends may be taken out while `out` are: at most this part of them, in percent, but always one,
/// and never the last. Envoy's `max_ejection_percent` allows one, too.
pub(crate) fn may_eject(all: usize, out: usize, most: u32) -> bool {
    out + 1 < all && (out == 0 || (out + 1) * 100 <= all * most as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, success: 80, time: Duration::from_secs(10), most: 50 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_take_it_out_and_each_further_time_is_longer() {
        let (mut ejection, mut now) = (Ejection::default(), Instant::now());
        assert_eq!(ejection.failed(now, RULES, true), None);
        assert_eq!(ejection.failed(now, RULES, true), None);
        ejection.succeeded(now);
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
    fn at_most_the_given_part_are_taken_out_but_always_one_and_never_the_last() {
        let taken = |all, percent| (0..all).take_while(|out| may_eject(all, *out, percent)).count();
        for (all, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            assert_eq!(taken(all, 50), most, "of {all}");
        }
        for (all, percent, most) in [
            (10, 10, 1),
            (9, 10, 1),
            (2, 1, 1),
            (20, 10, 2),
            (10, 99, 9),
            (10, 100, 9),
            (2, 100, 1),
            (1, 100, 0),
        ] {
            assert_eq!(taken(all, percent), most, "{percent}% of {all}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn too_small_a_part_of_the_connects_of_ten_seconds_takes_it_out() {
        let rules = Rules { failures: 1_000, ..RULES };
        let now = Instant::now();
        let run = |pattern: &[bool], step: Duration| {
            let mut ejection = Ejection::default();
            let outs = pattern.iter().enumerate().map(|(at, is_success)| {
                let now = now + step * u32::try_from(at).unwrap();
                if *is_success {
                    ejection.succeeded(now);
                    return false;
                }
                ejection.failed(now, rules, true).is_some()
            });
            outs.filter(|is_out| *is_out).count()
        };
        let ms = Duration::from_millis;
        let mix = |good: usize, bad: usize| [vec![true; good], vec![false; bad]].concat();
        assert_eq!(run(&mix(16, 4), ms(1)), 0, "80% succeed");
        assert_eq!(run(&mix(15, 5), ms(1)), 1, "75% succeed");
        assert_eq!(run(&mix(10, 9), ms(1)), 0, "19 say nothing");
        assert_eq!(run(&mix(15, 5), ms(1_000)), 0, "they are spread over 20 seconds");
        assert_eq!(run(&mix(15, 5), ms(500)), 1, "these are not");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_trial_is_no_row_of_failures() {
        let rules = Rules { failures: 5, ..RULES };
        let (mut ejection, mut now) = (Ejection::default(), Instant::now());
        let failed = |ejection: &mut Ejection, now: &mut Instant| {
            let time = ejection.failed(*now, rules, true);
            *now += time.unwrap_or_default();
            (time.is_some(), ejection.is_by_rate(), ejection.row())
        };
        for _ in 0..15 {
            ejection.succeeded(now);
        }
        for row in 1..=4 {
            assert_eq!(failed(&mut ejection, &mut now), (false, false, row));
        }
        ejection.succeeded(now);
        assert_eq!(failed(&mut ejection, &mut now), (true, true, 1), "16 of 21 succeeded");
        assert_eq!(
            failed(&mut ejection, &mut now),
            (true, true, 2),
            "one failure is enough after its return"
        );
        for row in 3..=4 {
            assert_eq!(failed(&mut ejection, &mut now), (true, true, row));
        }
        assert_eq!(failed(&mut ejection, &mut now), (true, false, 5), "now they are a row");
        ejection.succeeded(now);
        assert_eq!(failed(&mut ejection, &mut now), (false, false, 1), "a success ends the trial");
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
