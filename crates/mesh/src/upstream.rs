//! What is counted of the requests to one service, or to the addresses of one route.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use types::ServiceName;

use crate::base_url::BaseUrl;
use crate::counts::{ConnectResult, RetryReason};
use crate::durations::{Durations, DurationsRead};
use crate::lease::{Entered, Gauge};
use crate::outlier::EjectionReason;

/// The name under which requests for services wait that may not exist.
pub(crate) const OTHER: &str = "_OTHER";

/// The counts of the requests to one service, or to the addresses of one route.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    /// From the begin of an attempt to the end of its answer, or of a WebSocket's handshake.
    durations: Durations,
    budget_exhausted: AtomicU64,
    waiting: Gauge,
    retries: [AtomicU64; RetryReason::ALL.len()],
    ejections: [AtomicU64; EjectionReason::ALL.len()],
    connects: [AtomicU64; ConnectResult::ALL.len()],
    /// Open connections that were opened for a request to it, idle or not.
    open: AtomicUsize,
}

impl Upstream {
    pub(crate) fn retried(&self, reason: RetryReason) {
        self.retries[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ejected(&self, reason: EjectionReason) {
        self.ejections[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connected(&self, result: ConnectResult) {
        self.connects[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was opened for one of its requests.
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Such a connection has ended.
    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn durations(&self) -> &Durations {
        &self.durations
    }

    pub(crate) fn budget_was_exhausted(&self) {
        self.budget_exhausted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that waits for a member or a pause.
    pub(crate) fn waits(&self) -> Entered {
        self.waiting.enter()
    }

    pub(crate) fn read(&self) -> UpstreamRead {
        UpstreamRead {
            durations: self.durations.read(),
            budget_exhausted: self.budget_exhausted.load(Ordering::Relaxed),
            waiting: self.waiting.value(),
            retries: read(&self.retries),
            ejections: read(&self.ejections),
            connects: read(&self.connects),
            open: self.open.load(Ordering::Relaxed),
            idle: 0,
        }
    }
}

fn read<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|at| counts[at].load(Ordering::Relaxed))
}

/// The counts at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamRead {
    /// The durations of attempts, to the ends of their answers.
    pub durations: DurationsRead,
    /// Requests that were not sent again because the retry budget was exhausted.
    pub budget_exhausted: u64,
    /// Requests that wait now.
    pub waiting: usize,
    /// Requests that were sent again, in the order of [`RetryReason::ALL`].
    pub retries: [u64; RetryReason::ALL.len()],
    /// Ejections, in the order of [`EjectionReason::ALL`].
    pub ejections: [u64; EjectionReason::ALL.len()],
    /// Attempts to open a connection, in the order of [`ConnectResult::ALL`].
    pub connects: [u64; ConnectResult::ALL.len()],
    /// Open connections, idle or not. One that several routes use is counted where it was opened.
    pub open: usize,
    /// Those that wait for requests.
    pub idle: usize,
}

impl UpstreamRead {
    /// Adds other counts.
    pub(crate) fn add(&mut self, more: &Self) {
        self.durations.add(&more.durations);
        self.budget_exhausted += more.budget_exhausted;
        self.waiting += more.waiting;
        let counts = self.retries.iter_mut().chain(&mut self.ejections).chain(&mut self.connects);
        let added = more.retries.iter().chain(&more.ejections).chain(&more.connects);
        counts.zip(added).for_each(|(count, added)| *count += added);
        self.open += more.open;
        self.idle += more.idle;
    }
}

/// The addresses of a route, so that requests to them are counted under its name. They are shown for as long as this exists.
#[derive(Debug, Clone)]
pub struct RoutePool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    name: String,
    /// Each with its weight.
    addresses: Vec<(BaseUrl, u32)>,
    upstream: Arc<Upstream>,
}

impl RoutePool {
    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.0.upstream
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn addresses(&self) -> &[(BaseUrl, u32)] {
        &self.0.addresses
    }
}

/// The pools of routes, and services without members for which requests wait.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    routes: Mutex<Vec<Weak<Pool>>>,
    vacant: Mutex<BTreeMap<String, Arc<Upstream>>>,
}

impl Upstreams {
    /// Declares the addresses of a route. It goes on with the counts of one with this name that exists.
    pub(crate) fn route(&self, name: &str, addresses: Vec<(BaseUrl, u32)>) -> RoutePool {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = routes.iter().filter_map(Weak::upgrade);
        let upstream = known.find(|pool| pool.name == name).map(|pool| Arc::clone(&pool.upstream));
        let pool =
            Arc::new(Pool { name: name.to_owned(), addresses, upstream: upstream.unwrap_or_default() });
        routes.retain(|pool| pool.strong_count() > 0);
        routes.push(Arc::downgrade(&pool));
        RoutePool(pool)
    }

    /// The pools that exist.
    pub(crate) fn routes(&self) -> Vec<RoutePool> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().filter_map(Weak::upgrade).map(RoutePool).collect()
    }

    /// The counts of a service without members, if it is known to exist. All others share one, whatever clients ask for.
    pub(crate) fn vacant(&self, service: Option<&ServiceName>) -> Arc<Upstream> {
        let name = service.map_or(OTHER, ServiceName::as_str);
        let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(vacant.entry(name.to_owned()).or_default())
    }

    /// The number of requests that wait for each service without members. What nobody waits for is forgotten.
    pub(crate) fn waiting_for_vacant(&self) -> Vec<(String, usize)> {
        let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
        vacant.retain(|_, upstream| Arc::strong_count(upstream) > 1 || upstream.waiting.value() > 0);
        vacant.iter().map(|(name, upstream)| (name.clone(), upstream.waiting.value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_shown_while_its_pool_exists() {
        let upstreams = Upstreams::default();
        let pool = upstreams.route("/files", vec![("http://a".parse().unwrap(), 1)]);
        assert_eq!(upstreams.routes()[0].name(), "/files");
        drop(pool);
        assert!(upstreams.routes().is_empty());
    }

    #[test]
    fn a_route_that_is_replaced_keeps_its_counts() {
        let upstreams = Upstreams::default();
        let pool = |name: &str| upstreams.route(name, Vec::new());
        let (before, other) = (pool("/files"), pool("/other"));
        let after = pool("/files");
        assert!(Arc::ptr_eq(before.upstream(), after.upstream()));
        assert!(!Arc::ptr_eq(before.upstream(), other.upstream()));
    }

    #[test]
    fn a_service_without_members_is_shown_while_requests_wait_for_it() {
        let upstreams = Upstreams::default();
        let known = upstreams.vacant(Some(&"storage".parse().unwrap()));
        let (one, two) = (known.waits(), upstreams.vacant(None).waits());
        drop(known);
        let named = |name: &str, count| (name.to_owned(), count);
        assert_eq!(upstreams.waiting_for_vacant(), [named("_OTHER", 1), named("storage", 1)]);
        drop((one, two));
        assert!(upstreams.waiting_for_vacant().is_empty());
    }
}
