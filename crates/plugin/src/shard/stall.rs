//! Detects that this process was paused: it was stopped, swapped out, or its machine was suspended.
//!
//! Callers pass the time. It comes from the clock since boot, which continues while a machine is suspended. The wall
//! clock is not used, since it may be set at any time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// A process that was paused for longer may have missed changes that it must react to, and the records of those changes
/// may have been collected as garbage in the meantime.
pub const STALL: Duration = Duration::from_secs(60);

/// How often it is checked whether the process was paused.
const BEAT: Duration = Duration::from_secs(1);

/// A point in time, as time since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(Duration);

impl Moment {
    /// The current time.
    pub fn now() -> Self {
        Self(since_boot())
    }

    /// The point in time that long ago.
    pub fn ago(time: Duration) -> Self {
        Self(since_boot().saturating_sub(time))
    }

    /// The point in time that long before this one.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The time that has passed since.
    pub fn elapsed(&self) -> Duration {
        since_boot().saturating_sub(self.0)
    }

    /// Whether the process must have been paused in between, if it should have done something since `earlier`.
    pub fn is_long_after(&self, earlier: &Self) -> bool {
        self.0.saturating_sub(earlier.0) > STALL
    }
}

/// `CLOCK_BOOTTIME`: monotonic, and includes the time for which the machine was suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// On other systems the monotonic clock, which may or may not count while the machine is suspended.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;

    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    // A day is added so that tests can use times before the start of this process.
    BEGAN.elapsed() + Duration::from_secs(86_400)
}

/// Remembers when the process last ran. Cluster membership has its own detector, with the limits of its failure detector.
#[derive(Debug)]
pub struct StallDetector(Mutex<Moment>);

impl StallDetector {
    /// A detector for a process that runs now.
    pub fn new(now: Moment) -> Self {
        Self(Mutex::new(now))
    }

    /// Whether the process was paused since the last beat.
    pub fn is_late(&self, now: &Moment) -> bool {
        now.is_long_after(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that the process runs now. Returns whether it was paused since the last beat.
    pub fn beat(&self, now: Moment) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_late = now.is_long_after(&last);
        *last = now;
        was_late
    }

    /// Beats once a second, and returns once the process was paused.
    pub async fn stalled(&self) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if self.beat(Moment::now()) {
                return;
            }
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_pause_ends_only_after_one() {
        StallDetector::new(Moment::ago(2 * STALL)).stalled().await;
        let running = StallDetector::new(Moment::now());
        assert!(tokio::time::timeout(10 * BEAT, running.stalled()).await.is_err());
    }

    #[test]
    fn moments_follow_one_another() {
        let (first, then) = (Moment::now(), Moment::now());
        assert!(then.0 >= first.0 && !then.is_long_after(&first));
        assert!(first.elapsed() < STALL);
    }
}
