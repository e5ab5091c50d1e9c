//! Notices that this process was paused: it was stopped, swapped out, or its machine was suspended.
//!
//! Pure: callers pass the time. It is read from the clock that counts since boot and goes on while a machine is
//! suspended. The time of day plays no part, since it may be set at any moment.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A process that was paused for longer may have missed what it must know, and what tells of it may have been deleted as
/// garbage meanwhile.
pub const STALL: Duration = Duration::from_secs(60);

/// A moment, as time since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(Duration);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self(since_boot())
    }

    /// The moment that long ago.
    pub fn ago(time: Duration) -> Self {
        Self(since_boot().saturating_sub(time))
    }

    /// How long ago it was.
    pub fn elapsed(&self) -> Duration {
        since_boot().saturating_sub(self.0)
    }

    /// Whether so much time lies between an earlier moment and this one that the process was paused, if it should have
    /// done something in between.
    pub fn is_long_after(&self, earlier: &Self) -> bool {
        self.0.saturating_sub(earlier.0) > STALL
    }
}

/// `CLOCK_BOOTTIME`: monotonic, and it counts the time in which the machine was suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Elsewhere the monotonic clock, whether or not it counts while the machine is suspended.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // So that a moment in a test may lie before this process.
    BEGAN.elapsed() + Duration::from_secs(86_400)
}

/// Knows when the process was last seen to run. Cluster membership has its own, with the limits of its failure detector.
#[derive(Debug)]
pub struct StallDetector(Mutex<Moment>);

impl StallDetector {
    /// It runs now.
    pub fn new(now: Moment) -> Self {
        Self(Mutex::new(now))
    }

    /// Whether the process was paused until now.
    pub fn is_late(&self, now: &Moment) -> bool {
        now.is_long_after(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The process runs. Says whether it was paused until now.
    pub fn beat(&self, now: Moment) -> bool {
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
    fn a_process_that_was_paused_for_over_a_minute_is_late_once() {
        let start = Duration::from_secs(1_000);
        for (seconds, late) in [(1, false), (60, false), (61, true)] {
            let (detector, after) =
                (StallDetector::new(Moment(start)), Moment(start + Duration::from_secs(seconds)));
            assert_eq!(detector.is_late(&after), late, "{seconds}");
            assert_eq!(detector.beat(after), late, "{seconds}");
            assert!(!detector.is_late(&after), "reported once");
        }
    }

    #[test]
    fn moments_follow_one_another() {
        let (first, then) = (Moment::now(), Moment::now());
        assert!(then.0 >= first.0 && !then.is_long_after(&first));
        assert!(first.elapsed() < STALL);
    }
}
