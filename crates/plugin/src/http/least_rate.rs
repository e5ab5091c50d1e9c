//! The minimum rate at which a request's body has to arrive while it is held in memory.
//!
//! Pure: callers pass the time. A body that is forwarded as a stream needs no minimum rate, since it holds no memory.

use std::time::Duration;

use tokio::time::Instant;

/// Checks that a body arrives at [`LeastRate::BYTES_PER_SECOND`], measured over [`LeastRate::WINDOW`].
#[derive(Debug, Clone)]
pub struct LeastRate {
    /// When the current window began.
    since: Instant,
    /// Bytes that have arrived in it.
    arrived: usize,
}

/// The body arrives too slowly to be held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{arrived} bytes of the body came within {:?}; at least {} bytes per second are expected",
    LeastRate::WINDOW,
    LeastRate::BYTES_PER_SECOND
)]
pub struct TooSlow {
    /// Bytes that arrived within the window.
    pub arrived: usize,
}

impl LeastRate {
    /// The minimum rate, in bytes per second.
    pub const BYTES_PER_SECOND: usize = 8 * 1024;
    /// The time over which it is measured.
    pub const WINDOW: Duration = Duration::from_secs(10);
    /// How many bytes have to arrive within a window.
    const LEAST: usize = Self::BYTES_PER_SECOND * 10;

    /// Begins the first window.
    pub fn new(now: Instant) -> Self {
        Self { since: now, arrived: 0 }
    }

    /// When the current window ends. If nothing more arrives by then, call [`Self::window_ended`].
    pub fn deadline(&self) -> Instant {
        self.since + Self::WINDOW
    }

    /// Notes bytes that have arrived. Once a window has enough of them, the next one begins.
    pub fn arrived(&mut self, bytes: usize, now: Instant) {
        self.arrived = self.arrived.saturating_add(bytes);
        if self.arrived >= Self::LEAST {
            *self = Self::new(now);
        }
    }

    /// Notes that the body was not read for this long: such time does not count against the sender.
    pub fn paused(&mut self, pause: Duration) {
        self.since += pause;
    }

    /// The error for a window that has ended without enough bytes.
    pub fn window_ended(&self) -> TooSlow {
        TooSlow { arrived: self.arrived }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_at_the_minimum_rate_is_never_too_slow_and_one_below_it_is() {
        for (bytes_per_second, limit) in [(8 * 1024, None), (8 * 1024 - 1, Some(10)), (1, Some(10))] {
            let start = Instant::now();
            let mut rate = LeastRate::new(start);
            let late = (1..=100).find(|second| {
                let now = start + Duration::from_secs(*second);
                rate.arrived(bytes_per_second, now);
                now >= rate.deadline()
            });
            assert_eq!(late, limit, "{bytes_per_second} bytes per second");
        }
    }

    #[test]
    fn a_pause_of_the_reader_is_not_counted() {
        let start = Instant::now();
        let mut rate = LeastRate::new(start);
        rate.paused(Duration::from_secs(3));
        assert_eq!(rate.deadline(), start + Duration::from_secs(13));
        rate.arrived(5, start);
        assert_eq!(rate.window_ended(), TooSlow { arrived: 5 });
    }
}
