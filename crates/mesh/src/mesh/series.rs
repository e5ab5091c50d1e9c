//! What is counted of the requests to each service and route, for metrics: only of members and addresses that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use types::ServiceName;
use types::backends::{Backend, BackendState};

use super::goal::Goal;
use super::history::History;
use super::{Inner, Mesh};
use crate::address::CLASSES;
use crate::base_url::BaseUrl;
use crate::targets::Kind;
use crate::upstream::{OTHER, RoutePool, Upstream, UpstreamRead};

/// The counts of the requests to one service, or to the addresses of one route.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamSeries {
    /// The service or the route.
    pub name: String,
    /// All its requests.
    pub read: UpstreamRead,
    /// Whether most members have disappeared at once.
    pub panic: bool,
    /// Each member, or address.
    pub members: Vec<UpstreamMember>,
}

/// A member, or the address of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamMember {
    /// The member's id, or the name of the address, by default host and port.
    pub name: String,
    /// Attempts by the class of their answers; those without one have the class `none`.
    pub attempts: [(&'static str, u64); CLASSES.len()],
    /// Attempts whose answers have not ended.
    pub in_flight: u32,
    /// Whether it gets requests.
    pub is_up: bool,
    /// Whether it gets none because it failed too often.
    pub is_ejected: bool,
    /// Its share of the requests relative to the others.
    pub weight: f64,
}

impl Mesh {
    /// Declares the addresses of a route: requests with this pool in their options are counted under its name.
    pub fn route_pool<'a>(
        &self,
        name: &str,
        addresses: impl IntoIterator<Item = (&'a BaseUrl, u32)>,
    ) -> RoutePool {
        let addresses = addresses.into_iter().map(|(url, weight)| (url.clone(), weight));
        self.0.counts.upstreams.route(name, addresses.collect())
    }

    /// The counts of all services that have members or for which requests wait, and of all routes with addresses.
    pub fn upstream_series(&self) -> Vec<UpstreamSeries> {
        let mut all = BTreeMap::<String, UpstreamSeries>::new();
        let catalog = self.0.roster.catalog();
        let idle = self.0.counts.idle();
        let read = |upstream: &Arc<Upstream>| UpstreamRead { idle: idle.of(upstream), ..upstream.read() };
        for service in catalog.services() {
            let read = catalog.upstream(service).map(read).unwrap_or_default();
            let pool = self.backends(service);
            let urls = catalog.members(service).iter().map(|member| &member.url);
            let members = pool.backends.iter().zip(urls);
            let members = members.map(|(backend, url)| UpstreamMember::new(backend, url)).collect();
            merge(&mut all, UpstreamSeries { name: pool.name, read, panic: pool.panic, members });
        }
        // The latest first. What a route shares with its predecessor is counted once.
        let (mut counted, mut seen) = (BTreeSet::new(), BTreeSet::new());
        for route in self.0.counts.upstreams.routes().into_iter().rev() {
            let addresses = route.addresses().iter().map(|(url, weight)| (url, *weight));
            let pool = self.backends_of_route(route.name(), addresses);
            let members = pool
                .backends
                .iter()
                .zip(route.addresses())
                .filter(|(_, (url, _))| seen.insert(url.identity()));
            let members = members.map(|(backend, (url, _))| UpstreamMember::new(backend, url)).collect();
            let is_first = counted.insert(Arc::as_ptr(route.upstream()));
            let read = if is_first { read(route.upstream()) } else { UpstreamRead::default() };
            merge(&mut all, UpstreamSeries { name: pool.name, read, panic: false, members });
        }
        for (name, waiting) in self.0.counts.upstreams.waiting_for_vacant() {
            let read = UpstreamRead { waiting, ..UpstreamRead::default() };
            merge(&mut all, UpstreamSeries { name, read, panic: false, members: Vec::new() });
        }
        let other = read(&self.0.counts.other);
        if other != UpstreamRead::default() {
            merge(
                &mut all,
                UpstreamSeries { name: OTHER.to_owned(), read: other, panic: false, members: Vec::new() },
            );
        }
        all.into_values().collect()
    }
}

/// Adds a series. A route that is replaced exists for as long as its last request, beside its successor.
fn merge(all: &mut BTreeMap<String, UpstreamSeries>, more: UpstreamSeries) {
    let Some(known) = all.get_mut(&more.name) else {
        all.insert(more.name.clone(), more);
        return;
    };
    known.read.add(&more.read);
    known.panic |= more.panic;
    for member in more.members {
        let Some(same) = known.members.iter_mut().find(|same| same.name == member.name) else {
            known.members.push(member);
            continue;
        };
        for (count, (_, more)) in same.attempts.iter_mut().zip(member.attempts) {
            count.1 += more;
        }
        same.in_flight += member.in_flight;
        (same.is_up, same.is_ejected) = (member.is_up, member.is_ejected);
        same.weight = member.weight;
    }
}

impl UpstreamMember {
    fn new(backend: &Backend, url: &BaseUrl) -> Self {
        let counts = url.state().attempts();
        Self {
            name: backend.node.as_ref().map_or_else(|| url.name().to_owned(), ToString::to_string),
            attempts: std::array::from_fn(|class| (CLASSES[class], counts[class])),
            in_flight: backend.in_flight,
            is_up: matches!(backend.state, BackendState::Serving | BackendState::SlowStart),
            is_ejected: backend.state == BackendState::Ejected,
            weight: backend.weight,
        }
    }
}

impl Inner {
    /// What is counted of requests to this goal; none for a service without members.
    pub(super) fn upstream(&self, goal: &Goal<'_>) -> Option<Arc<Upstream>> {
        match *goal {
            Goal::Service { service, .. } => self.roster.catalog().upstream(service).cloned(),
            Goal::Addresses { pool, .. } => pool.map(|pool| Arc::clone(pool.upstream())),
        }
    }

    /// The same where requests wait for a first member.
    pub(super) fn upstream_or_vacant(&self, goal: &Goal<'_>, history: &History) -> Arc<Upstream> {
        let vacant = || {
            let service = match *goal {
                Goal::Service { service, .. } => self.settled(service),
                Goal::Addresses { .. } => None,
            };
            self.counts.upstreams.vacant(service)
        };
        history.upstream.clone().unwrap_or_else(vacant)
    }

    /// The service, if it is known to exist.
    fn settled<'a>(&self, service: &'a ServiceName) -> Option<&'a ServiceName> {
        matches!(self.targets.kind(service), Kind::Settled(_)).then_some(service)
    }

    /// The id of the member at an address, or the name of the address.
    pub(super) fn member(&self, goal: &Goal<'_>, url: &BaseUrl) -> String {
        if let Goal::Service { service, .. } = *goal {
            let catalog = self.roster.catalog();
            if let Some(member) = catalog.members(service).iter().find(|member| member.url.is_same(url)) {
                return member.node.to_string();
            }
        }
        url.name().to_owned()
    }
}

/// The weight of an address that gets this part of the share of the oldest one.
pub(super) fn shown_weight(
    weight: u32,
    share: impl Fn(Duration) -> f64,
    age: Duration,
    oldest: Duration,
) -> f64 {
    let part = f64::from(weight) * share(age) / share(oldest);
    (part * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choose::share;

    #[test]
    fn the_shown_weight_is_the_part_that_a_member_gets_beside_the_oldest_one() {
        let seconds = Duration::from_secs;
        let shown =
            |weight, age, oldest| shown_weight(weight, |age| share(1, age), seconds(age), seconds(oldest));
        for (weight, age, oldest, expected) in [
            (1, 0, 0, 1.0),
            (1, 0, 60, 0.1),
            (1, 5, 60, 0.5),
            (9, 5, 60, 4.5),
            (9, 60, 60, 9.0),
            (1, 3, 3, 1.0),
        ] {
            assert!((shown(weight, age, oldest) - expected).abs() < 1e-9, "{weight} {age} {oldest}");
        }
    }
}
