//! What happened to the requests of all meshes that share their members, as totals since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::lease::Gauge;
use crate::outlier::EjectionReason;

/// Why a request was sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection could be opened.
    Connect,
    /// An idle connection was closed before the request was written to it.
    Closed,
    /// The connection broke before the answer.
    Reset,
    /// The answer was 503 or 429 with a short `Retry-After`.
    Overloaded,
    /// The member did not process it.
    NotProcessed,
}

impl RetryReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::Closed, Self::Reset, Self::Overloaded, Self::NotProcessed];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Overloaded => "overloaded",
            Self::NotProcessed => "not_processed",
        }
    }
}

/// The totals.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    retries: [AtomicU64; RetryReason::ALL.len()],
    ejections: [AtomicU64; EjectionReason::ALL.len()],
    budget_exhausted: AtomicU64,
    /// Requests that wait for a serving member now.
    pub(crate) waiting: Gauge,
}

/// The totals at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// Requests that were sent again, by reason.
    pub retries: [(RetryReason, u64); RetryReason::ALL.len()],
    /// Ejections, by reason.
    pub ejections: [(EjectionReason, u64); EjectionReason::ALL.len()],
    /// Requests that were not sent again because the retry budget was exhausted.
    pub budget_exhausted: u64,
    /// Requests that wait for a serving member now.
    pub waiting: usize,
}

impl Counts {
    pub(crate) fn retried(&self, reason: RetryReason) {
        self.retries[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ejected(&self, reason: EjectionReason) {
        self.ejections[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn budget_was_exhausted(&self) {
        self.budget_exhausted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> UpstreamCounts {
        UpstreamCounts {
            retries: RetryReason::ALL
                .map(|reason| (reason, self.retries[reason as usize].load(Ordering::Relaxed))),
            ejections: EjectionReason::ALL
                .map(|reason| (reason, self.ejections[reason as usize].load(Ordering::Relaxed))),
            budget_exhausted: self.budget_exhausted.load(Ordering::Relaxed),
            waiting: self.waiting.value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let counts = Counts::default();
        for (times, reason) in (1..).zip(RetryReason::ALL) {
            (0..times).for_each(|_| counts.retried(reason));
        }
        for (times, reason) in (1..).zip(EjectionReason::ALL) {
            (0..times).for_each(|_| counts.ejected(reason));
        }
        let now = counts.now();
        assert_eq!(now.retries.map(|(_, count)| count), [1, 2, 3, 4, 5]);
        assert_eq!(now.ejections.map(|(_, count)| count), [1, 2, 3]);
    }
}
