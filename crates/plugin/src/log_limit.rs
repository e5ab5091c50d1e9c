//! Limits how often something is logged that clients can cause: they could fill the log otherwise.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often a condition is logged at most.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets a condition be logged from time to time, the first time at once.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// When it was logged last.
    last: Mutex<Option<Instant>>,
}

impl LogLimit {
    /// Whether the condition may be logged now: once every ten seconds.
    pub(crate) fn may_log(&self) -> bool {
        self.may_log_every(INTERVAL)
    }

    /// The same with another interval.
    pub(crate) fn may_log_every(&self, interval: Duration) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let may_log = last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if may_log {
            *last = Some(now);
        }
        may_log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_is_logged_at_once_and_then_every_ten_seconds_at_most() {
        let limit = LogLimit::default();
        assert!(limit.may_log() && !limit.may_log());
        tokio::time::advance(INTERVAL - Duration::from_millis(1)).await;
        assert!(!limit.may_log());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(limit.may_log() && !limit.may_log());
    }
}
