//! How many connections a listener has: those that are forwarded, those that wait, and those of each client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::client::{ClientGuard, ClientKey, Clients};
use crate::connection::Refusal;
use crate::plan::LimitsPlan;

/// The connections of a listener.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: LimitsPlan,
    /// First in, first out.
    permits: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    clients: Clients,
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
        let permits = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        Self { limits, permits, queued: Arc::default(), clients: Clients::default() }
    }

    pub(crate) fn limits(&self) -> &LimitsPlan {
        &self.limits
    }

    /// How many connections wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Counts a connection of a client.
    pub(crate) fn client(&self, key: ClientKey) -> Result<Option<ClientGuard>, Refusal> {
        match self.limits.per_client {
            None => Ok(None),
            Some(limit) => self.clients.enter(key, limit).map(Some).ok_or(Refusal::PerClient),
        }
    }

    /// A wait that has not begun.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait { admission: self, began: None }
    }

    /// A place among the forwarded connections, perhaps after a wait.
    pub(crate) async fn permit(&self, wait: &mut Wait<'_>) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = wait.during(Arc::clone(&self.permits).acquire_owned()).await?;
        Ok(permit.expect("the semaphore is never closed"))
    }

    fn place(&self) -> Result<Place, Refusal> {
        let count = |queued: usize| (queued < self.limits.queue).then_some(queued + 1);
        self.queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .map_err(|_full| Refusal::QueueFull)?;
        Ok(Place(Arc::clone(&self.queued)))
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
        match began.checked_add(self.admission.limits.wait) {
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
