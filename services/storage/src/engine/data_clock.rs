//! The time by which a shard's data is ordered and ages: *data time*. It never runs backwards.
//!
//! SlateDB stamps rows, tables and compactions with a clock, and stops when that clock is behind a stamp on the store.
//! A node's wall clock may be behind its predecessor's by any amount, and may be set while it runs. So data time begins
//! at the latest of the wall clock and all stamps on the store (see [`crate::engine::survey`]), and then advances with
//! a monotonic clock. If a wall clock is ahead once, data time stays ahead for as long as the data exists; nothing
//! depends on how far data time is from the time of day.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use slatedb_common::clock::{SystemClock, SystemClockTicker};
use tokio::time::Instant;

/// The wall clock of this machine. It may be wrong, and it may jump.
#[derive(Clone)]
pub(crate) struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    /// The machine's own clock.
    pub(crate) fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// Another clock.
    #[cfg(test)]
    pub(crate) fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Milliseconds since 1970; 0 before that.
    pub(crate) fn now_ms(&self) -> i64 {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// Data time, or another clock that was read once: a start time, plus the time that has passed since on a monotonic
/// clock. Changes of the wall clock do not affect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataClock {
    beginning: DateTime<Utc>,
    began: Instant,
}

impl DataClock {
    /// A clock that shows this many milliseconds since 1970 now.
    pub(crate) fn begin(now_ms: i64) -> Self {
        // The range is about 260,000 years before and after 1970.
        let beginning = DateTime::from_timestamp_millis(now_ms.max(0)).unwrap_or(DateTime::UNIX_EPOCH);
        Self { beginning, began: Instant::now() }
    }

    /// The current time.
    pub(crate) fn time(&self) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.began.elapsed()).unwrap_or(TimeDelta::MAX);
        self.beginning.checked_add_signed(passed).unwrap_or(self.beginning)
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        self.time().timestamp_millis()
    }
}

impl SystemClock for DataClock {
    fn now(&self) -> DateTime<Utc> {
        self.time()
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn ticker(&self, duration: Duration) -> SystemClockTicker<'_> {
        SystemClockTicker::new(self, duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_advances_with_monotonic_time_from_any_start() {
        for (begin, at) in [(0, 0), (-5, 0), (1_764_000_000_123, 1_764_000_000_123), (i64::MAX, 0)] {
            let clock = DataClock::begin(begin);
            assert_eq!(clock.now_ms(), at);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert_eq!(clock.now_ms(), at + 1_500);
        }
    }

    #[test]
    fn a_wall_clock_before_1970_shows_1970() {
        let before = WallClock::new(|| SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(before.now_ms(), 0);
        assert_eq!(WallClock::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1)).now_ms(), 1_000);
    }
}
