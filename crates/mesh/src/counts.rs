//! What happened to the requests of all meshes that share their members, as totals since the start.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::lease::Gauge;
use crate::outlier::EjectionReason;
use crate::pool::Pools;
use crate::upstream::{Upstream, Upstreams};

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
    /// The answer had a status that its route repeats.
    Status,
    /// The member did not process it.
    NotProcessed,
}

impl RetryReason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Closed, Self::Reset, Self::Overloaded, Self::Status, Self::NotProcessed];

    /// The reason as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Overloaded => "overloaded",
            Self::Status => "status",
            Self::NotProcessed => "not_processed",
        }
    }
}

/// How opening a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectResult {
    /// It is open.
    Connected,
    /// No process listens at the address.
    Refused,
    /// It took too long.
    TimedOut,
    /// No TLS session came about, for instance because the certificate is not trusted.
    Tls,
    /// Another failure: the name is unknown, or the network does not reach the address.
    Failed,
}

impl ConnectResult {
    /// Every result.
    pub const ALL: [Self; 5] = [Self::Connected, Self::Refused, Self::TimedOut, Self::Tls, Self::Failed];

    /// The result as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Tls => "tls",
            Self::Failed => "failed",
        }
    }
}

/// The totals.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connects: [AtomicU64; ConnectResult::ALL.len()],
    /// The pools of every mesh.
    pools: Mutex<Vec<Weak<Pools>>>,
    retries: [AtomicU64; RetryReason::ALL.len()],
    ejections: [AtomicU64; EjectionReason::ALL.len()],
    budget_exhausted: AtomicU64,
    /// Requests that wait for a serving member now.
    pub(crate) waiting: Gauge,
    pub(crate) upstreams: Upstreams,
    /// Requests to addresses that belong to no route, and to services without members.
    pub(crate) other: Arc<Upstream>,
}

/// The number of idle connections by what they were opened for.
#[derive(Debug, Default)]
pub(crate) struct Idle(BTreeMap<usize, usize>);

impl Idle {
    pub(crate) fn add(&mut self, upstream: &Arc<Upstream>, number: usize) {
        *self.0.entry(Arc::as_ptr(upstream).addr()).or_default() += number;
    }

    pub(crate) fn of(&self, upstream: &Arc<Upstream>) -> usize {
        self.0.get(&Arc::as_ptr(upstream).addr()).copied().unwrap_or_default()
    }
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
    /// Attempts to open a connection, by result.
    pub connects: [(ConnectResult, u64); ConnectResult::ALL.len()],
    /// Open connections that carry requests.
    pub active: usize,
    /// Open connections that wait for requests.
    pub idle: usize,
}

impl Counts {
    pub(crate) fn retried(&self, reason: RetryReason, upstream: Option<&Arc<Upstream>>) {
        self.retries[reason as usize].fetch_add(1, Ordering::Relaxed);
        upstream.unwrap_or(&self.other).retried(reason);
    }

    pub(crate) fn ejected(&self, reason: EjectionReason, upstream: Option<&Arc<Upstream>>) {
        self.ejections[reason as usize].fetch_add(1, Ordering::Relaxed);
        upstream.unwrap_or(&self.other).ejected(reason);
    }

    pub(crate) fn budget_was_exhausted(&self) {
        self.budget_exhausted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connected(&self, result: ConnectResult, upstream: &Upstream) {
        self.connects[result as usize].fetch_add(1, Ordering::Relaxed);
        upstream.connected(result);
    }

    /// The number of idle connections that were opened for requests to each of these.
    pub(crate) fn idle(&self) -> Idle {
        let all = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pools: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
        drop(all);
        let mut idle = Idle::default();
        pools.iter().for_each(|pools| pools.idle(&mut idle));
        idle
    }

    /// Counts the open connections of these pools for as long as they exist.
    pub(crate) fn watch(&self, pools: &Arc<Pools>) {
        let mut all = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|pools| pools.strong_count() > 0);
        all.push(Arc::downgrade(pools));
    }

    /// Open connections: those that carry requests, and those that are idle.
    fn open(&self) -> (usize, usize) {
        let all = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.iter().filter_map(Weak::upgrade).map(|pools| pools.open());
        open.fold((0, 0), |all, pools| (all.0 + pools.0, all.1 + pools.1))
    }

    pub(crate) fn now(&self) -> UpstreamCounts {
        let (active, idle) = self.open();
        UpstreamCounts {
            connects: ConnectResult::ALL
                .map(|result| (result, self.connects[result as usize].load(Ordering::Relaxed))),
            active,
            idle,
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
            (0..times).for_each(|_| counts.retried(reason, None));
        }
        for (times, reason) in (1..).zip(EjectionReason::ALL) {
            (0..times).for_each(|_| counts.ejected(reason, None));
        }
        for (times, result) in (1..).zip(ConnectResult::ALL) {
            (0..times).for_each(|_| counts.connected(result, &counts.other));
        }
        let now = counts.now();
        let other = counts.other.read();
        assert_eq!(
            (other.connects, other.retries, other.ejections),
            ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], [1, 2, 3])
        );
        assert_eq!(now.connects.map(|(_, count)| count), [1, 2, 3, 4, 5]);
        assert_eq!(now.retries.map(|(_, count)| count), [1, 2, 3, 4, 5, 6]);
        assert_eq!(now.ejections.map(|(_, count)| count), [1, 2, 3]);
    }
}
