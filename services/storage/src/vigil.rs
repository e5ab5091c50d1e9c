//! Notices that this process stood still: it was stopped, swapped out, or its machine slept.
//!
//! Pure: callers pass the time. Two clocks are compared, since a monotonic clock may stand still as well.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A process that stood still for longer may have missed what it must know; SlateDB's garbage collector may have
/// deleted the traces meanwhile.
pub(crate) const STALL: Duration = Duration::from_secs(60);

/// A moment on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub(crate) fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// As if this moment had been so long ago on the wall.
    #[cfg(test)]
    pub(crate) fn ago(time: Duration) -> Self {
        Self { wall: SystemTime::now() - time, ..Self::now() }
    }

    /// How long ago it was; the longer time if the clocks disagree.
    pub(crate) fn elapsed(&self) -> Duration {
        let wall = self.wall.elapsed().unwrap_or_default();
        self.steady.elapsed().max(wall)
    }

    /// Whether so much time lies between an earlier moment and this one that the process stood still, if it should
    /// have done something in between.
    pub(crate) fn is_long_after(&self, earlier: &Self) -> bool {
        let steady = self.steady.saturating_duration_since(earlier.steady);
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        steady.max(wall) > STALL
    }
}

/// Knows when the process was last seen to run.
#[derive(Debug)]
pub(crate) struct Vigil(Mutex<Moment>);

impl Vigil {
    /// It runs now.
    pub(crate) fn new(now: Moment) -> Self {
        Self(Mutex::new(now))
    }

    /// Whether the process stood still until now.
    pub(crate) fn is_late(&self, now: &Moment) -> bool {
        now.is_long_after(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The process runs. Says whether it stood still until now.
    pub(crate) fn beat(&self, now: Moment) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_late = now.is_long_after(&last);
        *last = now;
        was_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stood_still_is_late_on_either_clock() {
        let start = Moment::now();
        let after = |steady, wall| Moment {
            steady: start.steady + Duration::from_secs(steady),
            wall: start.wall + Duration::from_secs(wall),
        };
        for (steady, wall, late) in
            [(1, 1, false), (60, 60, false), (61, 61, true), (1, 61, true), (61, 1, true)]
        {
            let vigil = Vigil::new(start);
            assert_eq!(vigil.is_late(&after(steady, wall)), late, "{steady} {wall}");
            assert_eq!(vigil.beat(after(steady, wall)), late, "{steady} {wall}");
            assert!(!vigil.is_late(&after(steady, wall)), "told once");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_stall() {
        let start = Moment::now();
        let back = Moment { wall: start.wall - Duration::from_secs(3600), ..start };
        assert!(!Vigil::new(start).beat(back));
    }
}
