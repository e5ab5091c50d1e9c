//! The members of each service, with their addresses.
//!
//! Rebuilt from the view whenever that changes. Whether a request for a service is sent, waits or fails is a pure function
//! of it.

mod candidate;
mod catalog;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use cluster::ClusterView;
use tokio::sync::watch;
use tokio::time::Instant;
use types::{Epoch, ServiceName, ShardId, ShardRef};

pub(crate) use self::candidate::Candidate;
pub(crate) use self::catalog::{Catalog, Prospect};

/// How long a role is expected back after its last member has left.
const RECENT: Duration = Duration::from_secs(10);

/// The members of each service, kept up to date. A request that finds no change takes no lock.
#[derive(Debug)]
pub(crate) struct Roster {
    view: watch::Receiver<ClusterView>,
    /// How long the failure detector takes to declare a member dead.
    detector: Duration,
    current: ArcSwap<Current>,
    /// Locked while the members are read anew.
    learned: Mutex<Learned>,
}

/// The members in the view that `view` has seen last.
#[derive(Debug)]
struct Current {
    catalog: Arc<Catalog>,
    view: watch::Receiver<ClusterView>,
    /// Whether the view's owner is gone, so that the view never changes again.
    is_final: bool,
    /// When something in the catalog is over, even without a change of the view.
    until: Option<Instant>,
}

/// Epochs that members reported before gossip did.
type Learned = BTreeMap<ShardRef, (Epoch, Instant)>;

impl Roster {
    /// A roster of a view. `detector` is how long the failure detector takes to declare a member dead.
    pub(crate) fn new(view: watch::Receiver<ClusterView>, detector: Duration) -> Self {
        let learned = Learned::new();
        let current = Current::new(view.clone(), &Catalog::default(), &learned, detector);
        Self { view, detector, current: ArcSwap::from_pointee(current), learned: Mutex::new(learned) }
    }

    /// The members in the present view.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        let current = self.current.load();
        if !current.is_stale() {
            return Arc::clone(&current.catalog);
        }
        let mut learned = self.learned();
        // Another thread may have been faster.
        let current = self.current.load();
        if current.is_stale() { self.renew(&mut learned) } else { Arc::clone(&current.catalog) }
    }

    /// Records that a shard has an owner with this epoch: members with a lower one get no more requests.
    pub(crate) fn learn(&self, service: &ServiceName, shard: ShardId, epoch: Epoch) {
        let shard = ShardRef::new(service.clone(), shard);
        let mut learned = self.learned();
        let known = learned.get(&shard);
        if known.is_none_or(|(known, _)| *known < epoch) {
            learned.insert(shard, (epoch, Instant::now()));
            self.renew(&mut learned);
        }
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, learned: &mut Learned) -> Arc<Catalog> {
        let now = Instant::now();
        // A replaced store starts its epochs again; a learned epoch must not outlive the old store.
        learned.retain(|_, (_, at)| now.saturating_duration_since(*at) < RECENT);
        let before = self.current.load();
        let current = Current::new(before.view.clone(), &before.catalog, learned, self.detector);
        let catalog = Arc::clone(&current.catalog);
        self.current.store(Arc::new(current));
        catalog
    }

    /// A receiver that has already seen every change up to now.
    pub(crate) fn changes(&self) -> watch::Receiver<ClusterView> {
        let mut changes = self.view.clone();
        changes.mark_unchanged();
        changes
    }
}

impl Current {
    fn new(
        mut view: watch::Receiver<ClusterView>,
        before: &Catalog,
        learned: &Learned,
        detector: Duration,
    ) -> Self {
        let now = Instant::now();
        // Read before the view, which may change for the last time in between.
        let is_final = view.has_changed().is_err();
        let seen = view.borrow_and_update().clone();
        let catalog = Catalog::new(&seen, before, learned, detector, now);
        let forgotten = learned.values().map(|(_, at)| *at + RECENT);
        let until = forgotten.chain(catalog.next_end()).min();
        Self { catalog: Arc::new(catalog), view, is_final, until }
    }

    fn is_stale(&self) -> bool {
        // The last change may not have been seen yet.
        self.view.has_changed().unwrap_or(!self.is_final)
            || self.until.is_some_and(|until| until <= Instant::now())
    }
}

#[cfg(test)]
mod tests;
