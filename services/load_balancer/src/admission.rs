//! How many connections a listener has: those that are forwarded, those that wait, and those of each client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::plan::LimitsPlan;
use crate::refusal::Refusal;
use plugin::{ClientGuard, ClientKey, Clients};

/// The connections of a listener.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: ArcSwap<LimitsPlan>,
    permits: Arc<Permits>,
    queued: Arc<AtomicUsize>,
    clients: Clients,
}

/// The permits of connections that are forwarded.
#[derive(Debug)]
struct Permits {
    /// First in, first out.
    semaphore: Arc<Semaphore>,
    /// How many permits are to be taken back as soon as connections end: there are fewer now than there were.
    excess: AtomicUsize,
}

/// A place among the forwarded connections. It is free again when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    of: Arc<Permits>,
}

/// A connection that waits. It waits no more when this is dropped.
#[must_use]
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

/// The wait of one connection: it begins when it first has to, and has one end for all that it waits for.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    admission: &'a Admission,
    began: Option<(Place, Instant)>,
}

impl Admission {
    pub(crate) fn new(limits: LimitsPlan) -> Self {
        let semaphore = Arc::new(Semaphore::new(limits.connections));
        let permits = Arc::new(Permits { semaphore, excess: AtomicUsize::new(0) });
        let limits = ArcSwap::from_pointee(limits);
        Self { limits, permits, queued: Arc::default(), clients: Clients::default() }
    }

    /// Other limits from the next connection on. Connections that are open or queued stay, also those beyond the new limits.
    pub(crate) fn change(&self, limits: LimitsPlan) {
        let new = limits.connections;
        let old = self.limits.swap(Arc::new(limits)).connections;
        self.permits.resize(old, new);
    }

    /// How many connections wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Counts a connection of a client.
    pub(crate) fn client(&self, key: ClientKey) -> Result<Option<ClientGuard>, Refusal> {
        match self.limits.load().per_client {
            None => Ok(None),
            Some(limit) => self.clients.enter(key, limit).map(Some).ok_or(Refusal::PerClient),
        }
    }

    /// A wait that has not begun.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait { admission: self, began: None }
    }

    /// A place among the forwarded connections, perhaps after a wait.
    pub(crate) async fn permit(&self, wait: &mut Wait<'_>) -> Result<Permit, Refusal> {
        let permit = |permit| Permit { permit: Some(permit), of: Arc::clone(&self.permits) };
        let semaphore = || Arc::clone(&self.permits.semaphore);
        if let Ok(free) = semaphore().try_acquire_owned() {
            return Ok(permit(free));
        }
        let freed = wait.during(semaphore().acquire_owned()).await?;
        Ok(permit(freed.expect("the semaphore is never closed")))
    }

    fn place(&self) -> Result<Place, Refusal> {
        let limit = self.limits.load().queue;
        let count = |queued: usize| (queued < limit).then_some(queued + 1);
        self.queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .map_err(|_full| Refusal::QueueFull)?;
        Ok(Place(Arc::clone(&self.queued)))
    }
}

impl Permits {
    /// As many as `new` instead of `old`. Those that are in use beyond that go when they are free.
    fn resize(&self, old: usize, new: usize) {
        if new >= old {
            let mut more = new - old;
            while more > 0 && self.take_back() {
                more -= 1;
            }
            self.semaphore.add_permits(more);
        } else {
            self.excess.fetch_add(old - new, Ordering::AcqRel);
        }
        self.settle();
    }

    /// Takes free permits back, until none is free or enough were taken. Whoever frees one while another one does this does it
    /// once more, so that none is left over.
    fn settle(&self) {
        while self.excess.load(Ordering::Acquire) > 0 && self.semaphore.available_permits() > 0 {
            let excess = self.excess.swap(0, Ordering::AcqRel);
            let taken = self.semaphore.forget_permits(excess);
            self.excess.fetch_add(excess - taken, Ordering::AcqRel);
        }
    }

    /// Whether one permit fewer has to be taken back from now on.
    fn take_back(&self) -> bool {
        let one_less = |excess: usize| excess.checked_sub(1);
        self.excess.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        if self.of.take_back() {
            permit.forget();
        } else {
            drop(permit);
            self.of.settle();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wait<'_> {
    /// Waits for something, within the time that is left.
    pub(crate) async fn during<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Refusal> {
        let began = match &self.began {
            Some((_, began)) => *began,
            None => {
                let began = Instant::now();
                self.began = Some((self.admission.place()?, began));
                began
            }
        };
        match began.checked_add(self.admission.limits.load().wait) {
            Some(deadline) => timeout_at(deadline, awaited).await.map_err(|_elapsed| Refusal::QueueTimeout),
            None => Ok(awaited.await),
        }
    }

    /// When it began, if it did.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began.as_ref().map(|(_, began)| *began)
    }

    /// Ends the wait, so that its place in the queue is free. A later one begins anew.
    pub(crate) fn end(&mut self) {
        self.began = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limits(connections: usize) -> LimitsPlan {
        LimitsPlan { connections, per_client: None, queue: 9, wait: Duration::from_secs(5) }
    }

    /// Takes what is free now, and returns it.
    fn free(admission: &Admission) -> usize {
        admission.permits.semaphore.available_permits()
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_limit_lets_those_in_that_wait_and_a_lower_one_ends_none() {
        let admission = Admission::new(limits(1));
        let first = admission.permit(&mut admission.wait()).await.unwrap();
        let mut wait = admission.wait();
        let raised = async {
            tokio::task::yield_now().await;
            assert_eq!(admission.queued(), 1);
            admission.change(limits(2));
        };
        let (second, ()) = tokio::join!(admission.permit(&mut wait), raised);
        wait.end();
        admission.change(limits(1));
        drop(second.unwrap());
        assert_eq!(free(&admission), 0, "the first one has the only place");
        let mut wait = admission.wait();
        assert_eq!(admission.permit(&mut wait).await.unwrap_err(), Refusal::QueueTimeout);
        drop(first);
        assert_eq!(free(&admission), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_queue_refuses_new_ones_and_keeps_those_that_wait() {
        let admission = Admission::new(LimitsPlan { queue: 2, ..limits(1) });
        let first = admission.permit(&mut admission.wait()).await.unwrap();
        let (mut one, mut other) = (admission.wait(), admission.wait());
        let shortened = async {
            tokio::task::yield_now().await;
            admission.change(LimitsPlan { queue: 0, ..limits(1) });
            let mut late = admission.wait();
            assert_eq!(admission.permit(&mut late).await.unwrap_err(), Refusal::QueueFull);
            drop(first);
        };
        let queued = async { drop(admission.permit(&mut one).await.unwrap()) };
        let too = async { drop(admission.permit(&mut other).await.unwrap()) };
        tokio::join!(queued, too, shortened);
    }

    #[test]
    fn a_place_that_is_free_at_the_moment_when_the_limit_falls_is_not_left_over() {
        for _ in 0..500 {
            let admission = Admission::new(limits(2));
            let take = || Permit {
                permit: Arc::clone(&admission.permits.semaphore).try_acquire_owned().ok(),
                of: Arc::clone(&admission.permits),
            };
            let (first, _second) = (take(), take());
            std::thread::scope(|scope| {
                scope.spawn(|| drop(first));
                admission.change(limits(1));
            });
            assert_eq!(free(&admission), 0);
        }
    }

    proptest! {
        #[test]
        fn there_are_as_many_places_as_the_limit_says_whatever_changes(
            steps in proptest::collection::vec((any::<bool>(), 1_usize..12, 0_usize..12), 0..60),
        ) {
            let admission = Admission::new(limits(5));
            let mut held = Vec::new();
            for (takes, limit, place) in steps {
                if takes {
                    let free = Arc::clone(&admission.permits.semaphore).try_acquire_owned().ok();
                    held.extend(free.map(|permit| Permit { permit: Some(permit), of: Arc::clone(&admission.permits) }));
                } else {
                    if place < held.len() {
                        drop(held.swap_remove(place));
                    }
                    admission.change(limits(limit));
                }
                let limit = admission.limits.load().connections;
                prop_assert_eq!(free(&admission), limit.saturating_sub(held.len()));
            }
        }
    }
}
