//! Single-flight: work that several callers request at the same time is done once, and they share the outcome.
//!
//! One piece of work is done at a time. Every waiting caller drives it, not only the one that began it, so a caller that
//! is no longer polled or goes away does not delay the others.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// The work in progress, if any: `K` identifies it, `T` is its outcome.
#[derive(Debug)]
pub struct SingleFlight<K, T: Clone>(Mutex<Option<Flight<K, T>>>);

#[derive(Debug, Clone)]
struct Flight<K, T: Clone> {
    key: K,
    since: Instant,
    work: Shared<BoxFuture<'static, T>>,
}

/// Work that was completed while the caller waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed<K, T> {
    /// Which work it was; not always what the caller requested.
    pub key: K,
    /// When it began, perhaps before the call.
    pub since: Instant,
    /// Its outcome.
    pub outcome: T,
}

impl<K, T: Clone> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone, T: Clone> SingleFlight<K, T> {
    /// Waits for the work in progress, or begins this work if there is none.
    ///
    /// The completed work may be other work, or may have begun before the call: [`Landed`] shows both, and the caller
    /// decides whether to call again. `keep` runs once for each outcome, before other work begins. It must not call `join`.
    pub async fn join(
        &self,
        key: K,
        begin: impl FnOnce() -> BoxFuture<'static, T>,
        keep: impl FnOnce(&T),
    ) -> Landed<K, T> {
        let Flight { key, since, work } = {
            let begin = || Flight { key, since: Instant::now(), work: begin().shared() };
            self.flight().get_or_insert_with(begin).clone()
        };
        let outcome = work.clone().await;
        let mut flight = self.flight();
        if flight.as_ref().is_some_and(|flight| flight.work.ptr_eq(&work)) {
            *flight = None;
            keep(&outcome);
        }
        drop(flight);
        Landed { key, since, outcome }
    }

    fn flight(&self) -> MutexGuard<'_, Option<Flight<K, T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    fn work(outcome: u32) -> BoxFuture<'static, u32> {
        async move {
            sleep(Duration::from_secs(1)).await;
            outcome
        }
        .boxed()
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_several_callers_wait_for_is_done_and_kept_once() {
        let (flights, kept) = (SingleFlight::<&str, u32>::default(), AtomicU32::new(0));
        let keep = |outcome: &u32| {
            kept.fetch_add(*outcome, Ordering::SeqCst);
        };
        let begun = Instant::now();
        let (one, other, late) = tokio::join!(
            flights.join("a", || work(1), keep),
            flights.join("a", || unreachable!("it is in progress"), keep),
            flights.join("b", || unreachable!("one piece of work at a time"), keep),
        );
        assert_eq!(one, Landed { key: "a", since: begun, outcome: 1 });
        assert_eq!((&one, &one), (&other, &late));
        assert_eq!(flights.join("b", || work(10), keep).await.outcome, 10);
        assert_eq!(kept.into_inner(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_not_polled_or_goes_away_does_not_delay_others() {
        let flights = SingleFlight::<&str, u32>::default();
        let mut stuck = Box::pin(flights.join("a", || work(1), |_| ()));
        assert!((&mut stuck).now_or_never().is_none());
        assert_eq!(flights.join("b", || work(2), |_| ()).await.outcome, 1, "it drives the work in progress");
        assert_eq!(flights.join("b", || work(2), |_| ()).await.outcome, 2);
        drop(stuck);
        let gone = flights.join("c", || work(3), |_| ()).now_or_never();
        assert!(gone.is_none());
        assert_eq!(flights.join("d", || work(4), |_| ()).await.outcome, 3);
    }
}
