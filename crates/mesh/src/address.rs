//! What is known about an address while it is used: its load, its response time, its failures.
//!
//! All of it is shared by the clones of a [`BaseUrl`](crate::BaseUrl), so it survives changes of the view. A request reads and
//! writes atomics only.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::choose::Health;
use crate::ewma::{PENALTY, PeakEwma};
use crate::outlier::{EjectionReason, Outlier, Service};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer that says nothing against the address.
    Answered,
    /// 500: the service's own answer. It is no sign of overload, but five in a row are a sign of a broken member.
    ServiceError,
    /// 502, 503 or 504.
    Unavailable,
    /// 429.
    Overloaded,
    /// No connection, a broken one, no answer in time, or one that is not HTTP.
    Failed,
    /// The address can't be judged: it did not process the request, an idle connection was closed just then, or the client
    /// is at fault.
    Unrelated,
    /// The client or its deadline ended the request before the answer.
    Cancelled,
}

/// The state of an address.
#[derive(Debug)]
pub(crate) struct AddressState {
    created: Instant,
    in_flight: AtomicU32,
    /// Requests for which a connection existed.
    reached: AtomicU64,
    /// When opening a connection failed last, in milliseconds of age plus one; 0 if none has failed since one was open.
    unreachable_ms: AtomicU64,
    ewma: PeakEwma,
    outlier: Outlier,
}

impl AddressState {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            created: now,
            in_flight: AtomicU32::new(0),
            reached: AtomicU64::new(0),
            unreachable_ms: AtomicU64::new(0),
            ewma: PeakEwma::default(),
            outlier: Outlier::default(),
        }
    }

    /// How long this process has known the address.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Records that a connection existed.
    pub(crate) fn mark_reached(&self) {
        self.reached.fetch_add(1, Ordering::Relaxed);
        if self.unreachable_ms.load(Ordering::Relaxed) != 0 {
            self.unreachable_ms.store(0, Ordering::Relaxed);
        }
    }

    /// Records that no connection could be opened.
    pub(crate) fn mark_unreachable(&self, now: Instant) {
        let millis = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
        self.unreachable_ms.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// When opening a connection failed last, unless one has been open since.
    pub(crate) fn unreachable_at(&self) -> Option<Instant> {
        let millis = self.unreachable_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.created + Duration::from_millis(millis))
    }

    /// The estimated response time in microseconds; `None` before the first answer.
    pub(crate) fn micros(&self, now: Instant) -> Option<f32> {
        self.ewma.micros(self.age(now))
    }

    /// Whether it should get requests. One that may not be ejected is at most avoided.
    pub(crate) fn health(&self, now: Instant, avoid: Duration, may_eject: bool) -> Health {
        if may_eject && self.service(now) != Service::In {
            Health::Ejected
        } else if self.unreachable_at().is_some_and(|at| now.saturating_duration_since(at) < avoid) {
            Health::Avoided
        } else {
            Health::Good
        }
    }

    pub(crate) fn service(&self, now: Instant) -> Service {
        self.outlier.service(self.age(now))
    }

    /// The reason of its ejection, and how long that still lasts.
    pub(crate) fn ejection(&self, now: Instant) -> Option<(EjectionReason, Duration)> {
        self.outlier.ejection(self.age(now))
    }

    /// Ejects it. Returns for how long; `None` if it is ejected already.
    pub(crate) fn eject(&self, reason: EjectionReason, now: Instant) -> Option<Duration> {
        self.outlier.eject(reason, self.age(now))
    }

    pub(crate) fn claim_probe(&self) -> bool {
        self.outlier.claim_probe()
    }

    pub(crate) fn release_probe(&self) {
        self.outlier.release_probe();
    }

    /// Call when a request is sent.
    pub(crate) fn asked(&self, now: Instant) {
        self.ewma.asked(self.age(now));
    }

    /// Records how an attempt ended and how long it took. Returns the reason if the address should be ejected.
    pub(crate) fn record(&self, outcome: Outcome, took: Duration, now: Instant) -> Option<EjectionReason> {
        let age = self.age(now);
        match outcome {
            Outcome::Answered => self.ewma.observe(took, age),
            Outcome::ServiceError | Outcome::Cancelled => self.ewma.observe_at_least(took, age),
            Outcome::Unavailable | Outcome::Overloaded | Outcome::Failed => {
                self.ewma.observe(took.max(PENALTY), age);
            }
            Outcome::Unrelated => {}
        }
        match outcome {
            Outcome::Answered => {
                self.outlier.succeeded(age);
                None
            }
            Outcome::ServiceError | Outcome::Unavailable | Outcome::Failed => self.outlier.failed(age),
            Outcome::Overloaded | Outcome::Unrelated | Outcome::Cancelled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The estimate in milliseconds and whether five such outcomes eject the address, after answers that took 20 ms.
    fn after(outcome: Outcome, took: Duration) -> (f32, bool) {
        let now = Instant::now();
        let state = AddressState::new(now);
        (0..3).for_each(|_| assert_eq!(state.record(Outcome::Answered, 20 * MS, now), None));
        let ejected = (0..5).any(|_| state.record(outcome, took, now).is_some());
        ((state.micros(now).unwrap() / 1_000.0).round(), ejected)
    }

    #[test]
    fn each_outcome_counts_for_cost_for_ejection_for_both_or_for_nothing() {
        for (outcome, fast, slow, ejects) in [
            (Outcome::Answered, 20.0, 6_000.0, false),
            (Outcome::ServiceError, 20.0, 6_000.0, true),
            (Outcome::Unavailable, 5_000.0, 6_000.0, true),
            (Outcome::Overloaded, 5_000.0, 6_000.0, false),
            (Outcome::Failed, 5_000.0, 6_000.0, true),
            (Outcome::Unrelated, 20.0, 20.0, false),
            (Outcome::Cancelled, 20.0, 6_000.0, false),
        ] {
            assert_eq!(after(outcome, MS), (fast, ejects), "{outcome:?}");
            assert_eq!(after(outcome, 6_000 * MS), (slow, ejects), "{outcome:?}");
        }
    }

    #[test]
    fn an_address_that_failed_is_avoided_for_a_while() {
        let (now, avoid) = (Instant::now(), 1_000 * MS);
        let state = AddressState::new(now);
        let health = |at| state.health(at, avoid, true);
        assert_eq!(health(now), Health::Good);
        state.mark_unreachable(now);
        assert_eq!(health(now + 999 * MS), Health::Avoided);
        assert_eq!(health(now + avoid), Health::Good);
        state.mark_unreachable(now);
        state.mark_reached();
        assert_eq!(health(now), Health::Good, "it was reached since");
    }

    #[test]
    fn an_address_that_may_not_be_ejected_is_not() {
        let now = Instant::now();
        let state = AddressState::new(now);
        assert!(state.eject(EjectionReason::Consecutive, now).is_some());
        assert_eq!(state.health(now, MS, true), Health::Ejected);
        assert_eq!(state.health(now, MS, false), Health::Good);
    }
}
