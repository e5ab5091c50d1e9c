//! What is known about an address while it is used: its load, its response time, its failures.
//!
//! All of it is shared by the clones of a [`BaseUrl`](crate::BaseUrl), so it survives changes of the view. A request reads and
//! writes atomics only.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
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

/// Why no connection could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreachable {
    /// In words.
    pub(crate) why: String,
    /// A connection was there, and no TLS session came about: a check that opens a connection alone does not refute it.
    pub(crate) is_tls: bool,
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
    /// Why. Requests to an address that can be reached do not read it.
    unreachable: Mutex<Option<Unreachable>>,
    ewma: PeakEwma,
    outlier: Outlier,
    /// Attempts by the class of their answers, those without one first.
    attempts: [AtomicU64; CLASSES.len()],
    /// Its checks fail.
    is_down: AtomicBool,
    /// Why they fail. Requests do not read it.
    why_down: Mutex<Option<String>>,
    /// When its checks succeeded again, in milliseconds of age.
    back_ms: AtomicU64,
}

/// The classes of answers; attempts without an answer have the first.
pub(crate) const CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "_OTHER"];

impl AddressState {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            created: now,
            in_flight: AtomicU32::new(0),
            reached: AtomicU64::new(0),
            unreachable_ms: AtomicU64::new(0),
            unreachable: Mutex::default(),
            ewma: PeakEwma::default(),
            outlier: Outlier::default(),
            attempts: Default::default(),
            is_down: AtomicBool::new(false),
            why_down: Mutex::default(),
            back_ms: AtomicU64::new(0),
        }
    }

    /// How long this process has known the address.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }

    /// How long it could get requests: since its checks succeeded again, or this process knows it.
    pub(crate) fn serving_for(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(Duration::from_millis(self.back_ms.load(Ordering::Relaxed)))
    }

    /// Whether its checks fail.
    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Relaxed)
    }

    /// Why its checks fail, if they do.
    pub(crate) fn why_down(&self) -> Option<String> {
        self.why_down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what checks have found: why they fail, or `None` if they succeed.
    pub(crate) fn checked(&self, why_down: Option<String>, now: Instant) {
        let mut known = self.why_down.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() && why_down.is_none() {
            let millis = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
            self.back_ms.store(millis, Ordering::Relaxed);
        }
        self.is_down.store(why_down.is_some(), Ordering::Relaxed);
        if why_down.is_none() {
            self.refute_unreachable();
        }
        *known = why_down;
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

    /// Counts an attempt that has ended, with an answer of this status or without one.
    pub(crate) fn count(&self, status: Option<StatusCode>) {
        let class = status.map_or(0, |status| usize::from(status.as_u16() / 100).min(CLASSES.len() - 1));
        self.attempts[class].fetch_add(1, Ordering::Relaxed);
    }

    /// The number of attempts, by the class of their answers.
    pub(crate) fn attempts(&self) -> [u64; CLASSES.len()] {
        std::array::from_fn(|class| self.attempts[class].load(Ordering::Relaxed))
    }

    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Records that a connection existed.
    pub(crate) fn mark_reached(&self) {
        self.reached.fetch_add(1, Ordering::Relaxed);
        self.forget_unreachable();
    }

    /// Forgets that no connection could be opened: one was open since, or another process serves at the address.
    pub(crate) fn forget_unreachable(&self) {
        if self.unreachable_ms.load(Ordering::Relaxed) != 0 {
            self.unreachable_ms.store(0, Ordering::Relaxed);
            *self.unreachable() = None;
        }
    }

    /// Records that no connection could be opened.
    pub(crate) fn mark_unreachable(&self, why: Unreachable, now: Instant) {
        let millis = u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX);
        self.unreachable_ms.store(millis.saturating_add(1), Ordering::Relaxed);
        *self.unreachable() = Some(why);
    }

    /// Records that a connection without TLS was opened by a check or a probe, which says nothing about TLS.
    pub(crate) fn refute_unreachable(&self) {
        if self.unreachable_ms.load(Ordering::Relaxed) != 0 {
            let mut known = self.unreachable();
            if known.as_ref().is_none_or(|known| !known.is_tls) {
                self.unreachable_ms.store(0, Ordering::Relaxed);
                *known = None;
            }
        }
    }

    /// Why the last connection could not be opened, unless one has been open since.
    pub(crate) fn why_unreachable(&self) -> Option<String> {
        self.unreachable_at()?;
        self.unreachable().as_ref().map(|known| known.why.clone())
    }

    fn unreachable(&self) -> MutexGuard<'_, Option<Unreachable>> {
        self.unreachable.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether it was ejected, and a request is to find out whether it works again.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        matches!(self.service(now), Service::Due | Service::Overdue)
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

    fn refused() -> Unreachable {
        Unreachable { why: "it refuses connections".to_owned(), is_tls: false }
    }

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
        state.mark_unreachable(refused(), now);
        assert_eq!(health(now + 999 * MS), Health::Avoided);
        assert_eq!(health(now + avoid), Health::Good);
        state.mark_unreachable(refused(), now);
        state.mark_reached();
        assert_eq!(health(now), Health::Good, "it was reached since");
    }

    #[test]
    fn an_address_stays_unreachable_until_a_connection_or_a_check_succeeds() {
        let now = Instant::now();
        let state = AddressState::new(now);
        state.mark_unreachable(refused(), now);
        assert_eq!(state.why_unreachable().as_deref(), Some("it refuses connections"));
        state.checked(None, now);
        assert_eq!((state.why_unreachable(), state.unreachable_at()), (None, None));
        state.mark_unreachable(Unreachable { is_tls: true, ..refused() }, now);
        state.checked(None, now);
        state.refute_unreachable();
        assert!(state.why_unreachable().is_some(), "a check without TLS says nothing about the certificate");
        state.mark_reached();
        assert_eq!((state.why_unreachable(), state.unreachable_at()), (None, None));
    }

    #[test]
    fn an_address_whose_checks_succeed_again_begins_anew() {
        let created = Instant::now();
        let state = AddressState::new(created);
        let later = |seconds| created + Duration::from_secs(seconds);
        assert_eq!((state.is_down(), state.serving_for(later(60))), (false, Duration::from_secs(60)));
        state.checked(Some("refuses connections".to_owned()), later(60));
        assert_eq!((state.is_down(), state.why_down().as_deref()), (true, Some("refuses connections")));
        state.checked(None, later(90));
        state.checked(None, later(95));
        assert_eq!((state.is_down(), state.why_down()), (false, None));
        assert_eq!(state.serving_for(later(100)), Duration::from_secs(10));
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
