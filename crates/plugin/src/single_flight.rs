//! Single-flight: work that several ask for at once is done once, and they share the outcome.
//!
//! One piece of work is done at a time. Everyone who waits drives it, not only the one who began it: a caller that is not
//! polled any more, or goes away, holds up nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

/// The work under way, if any: `K` says which, `T` is its outcome.
#[derive(Debug)]
pub struct SingleFlight<K, T: Clone>(Mutex<Option<Flight<K, T>>>);

#[derive(Debug, Clone)]
struct Flight<K, T: Clone> {
    key: K,
    since: Instant,
    work: Shared<BoxFuture<'static, T>>,
}

/// Work that was done while the caller waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed<K, T> {
    /// Which work; not always what the caller asked for.
    pub key: K,
    /// When it was begun, perhaps before the caller asked.
    pub since: Instant,
    /// What came of it.
    pub outcome: T,
}

impl<K, T: Clone> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone, T: Clone> SingleFlight<K, T> {
    /// Waits for the work under way, or begins this one if there is none.
    ///
    /// It may have been other work, or begun before the caller asked; [`Landed`] says so, and the caller decides whether
    /// to ask again. `keep` runs once for each outcome, before anything else is begun. It must not call this again.
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
    async fn work_that_many_wait_for_is_done_and_kept_once() {
        let (flights, kept) = (SingleFlight::<&str, u32>::default(), AtomicU32::new(0));
        let keep = |outcome: &u32| {
            kept.fetch_add(*outcome, Ordering::SeqCst);
        };
        let begun = Instant::now();
        let (one, other, late) = tokio::join!(
            flights.join("a", || work(1), keep),
            flights.join("a", || unreachable!("it is under way"), keep),
            flights.join("b", || unreachable!("one thing is done at a time"), keep),
        );
        assert_eq!(one, Landed { key: "a", since: begun, outcome: 1 });
        assert_eq!((&one, &one), (&other, &late));
        assert_eq!(flights.join("b", || work(10), keep).await.outcome, 10);
        assert_eq!(kept.into_inner(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_not_polled_or_goes_away_holds_up_nobody() {
        let flights = SingleFlight::<&str, u32>::default();
        let mut stuck = Box::pin(flights.join("a", || work(1), |_| ()));
        assert!((&mut stuck).now_or_never().is_none());
        assert_eq!(flights.join("b", || work(2), |_| ()).await.outcome, 1, "it drives what is under way");
        assert_eq!(flights.join("b", || work(2), |_| ()).await.outcome, 2);
        drop(stuck);
        let gone = flights.join("c", || work(3), |_| ()).now_or_never();
        assert!(gone.is_none());
        assert_eq!(flights.join("d", || work(4), |_| ()).await.outcome, 3);
    }
}
