//! What is counted of requests, by listener and route.
//!
//! There are counts for the present listeners and routes alone, whatever clients send: [`Traffic::table`] says which these are.
//! A request looks its counts up by the place of its route, and adds to those of its core, which no other core writes.

mod codes;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::Method;
use mesh::{Durations, Mesh, PerCore, RoutePool};
use plugin::Metrics;

use codes::Codes;

use crate::table::{RouteTable, Target};

/// The route of requests to services under their own paths.
const SERVICES: &str = "_SERVICES";
/// The route of requests that no route takes.
const UNROUTED: &str = "_UNROUTED";

/// The methods with a name of their own (RFC 9110, section 9.3, and RFC 5789); any other one is `_OTHER`.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];

type Labels = Vec<(&'static str, String)>;

/// The counts of all present listeners and routes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// By listener and route.
    present: Mutex<BTreeMap<(String, String), Arc<RouteCounts>>>,
}

/// The counts as requests look them up.
#[derive(Debug)]
pub(crate) struct TrafficTable {
    listeners: Vec<Arc<ListenerTraffic>>,
    /// The addresses of each route, in the order of the settings.
    pools: Vec<Option<RoutePool>>,
}

/// The counts of one listener.
#[derive(Debug)]
pub(crate) struct ListenerTraffic {
    listener: String,
    /// In the order of the routes in the settings.
    routes: Vec<Arc<RouteCounts>>,
    services: Arc<RouteCounts>,
    unrouted: Arc<RouteCounts>,
}

/// The counts of one route on one listener. They take memory only once there was a request.
#[derive(Debug, Default)]
pub(crate) struct RouteCounts(OnceLock<Box<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    cores: PerCore<Core>,
    durations: Durations,
}

#[derive(Debug, Default)]
struct Core {
    in_flight: AtomicI64,
    received: AtomicU64,
    sent: AtomicU64,
    codes: Codes,
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// From [`method`].
    pub(crate) method: usize,
    /// The status of the answer.
    pub(crate) code: u16,
    /// None if that is [recorded](RouteCounts::shook_hands) already.
    pub(crate) took: Option<Duration>,
    /// The bytes of its body and of the answer's.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// The place of a method in [`METHODS`].
pub(crate) fn method(method: &Method) -> usize {
    let known = METHODS.iter().position(|known| *known == method.as_str());
    known.unwrap_or(METHODS.len() - 1)
}

impl Traffic {
    /// Declares the metrics.
    pub(crate) fn new(metrics: &Metrics) -> Arc<Self> {
        let traffic = Arc::new(Self::default());
        let of = Arc::clone(&traffic);
        let help = "Requests, by listener, route, method and status";
        metrics.observable_counters("requests", help, move || of.requests());
        let of = Arc::clone(&traffic);
        let help = "Time from a request's head to the end of its answer, of a WebSocket to the end of its handshake, by \
                    listener and route";
        metrics.observable_histograms("request_duration_seconds", help, move || {
            of.each(|counts| counts.durations.read())
        });
        let of = Arc::clone(&traffic);
        let help = "Bytes of the bodies of requests, by listener and route";
        metrics.observable_counters("request_bytes", help, move || {
            of.each(|counts| sum(counts, |core| &core.received))
        });
        let of = Arc::clone(&traffic);
        let help = "Bytes of the bodies of answers, by listener and route";
        metrics.observable_counters("response_bytes", help, move || {
            of.each(|counts| sum(counts, |core| &core.sent))
        });
        let of = Arc::clone(&traffic);
        let help = "Requests whose answers have not ended, by listener and route";
        metrics.observable_gauges("in_flight", help, move || {
            of.each(|counts| {
                counts.cores.iter().map(|core| core.in_flight.load(Ordering::Relaxed)).sum::<i64>()
            })
        });
        traffic
    }

    /// The table for these listeners and routes. The counts of those that were there before go on, and all others are
    /// forgotten. Call it again when the routes have changed.
    pub(crate) fn table<'a>(
        &self,
        listeners: impl IntoIterator<Item = &'a str>,
        routes: &'a RouteTable,
        mesh: &Mesh,
    ) -> TrafficTable {
        let ways = routes.ways();
        let table = self.set(listeners, ways.iter().map(|way| way.label.as_str()));
        let pools = ways.iter().map(|way| match &way.target {
            Target::Addresses { urls, weights } => {
                let weights = weights.iter().copied().chain(std::iter::repeat(1));
                Some(mesh.route_pool(&way.label, urls.iter().zip(weights)))
            }
            Target::Service(..) | Target::Redirect(_) | Target::Answer { .. } => None,
        });
        TrafficTable { pools: pools.collect(), ..table }
    }

    /// The counts for these listeners and routes, in the order of the settings.
    fn set<'a>(
        &self,
        listeners: impl IntoIterator<Item = &'a str>,
        routes: impl IntoIterator<Item = &'a str>,
    ) -> TrafficTable {
        let routes: Vec<_> = routes.into_iter().collect();
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = BTreeMap::new();
        let mut counts = |listener: &str, route: &str| {
            let key = (listener.to_owned(), route.to_owned());
            // Two routes may have the same label.
            let known = next.get(&key).or_else(|| present.get(&key)).cloned().unwrap_or_default();
            Arc::clone(next.entry(key).or_insert(known))
        };
        let of_listener = |listener: &'a str| {
            Arc::new(ListenerTraffic {
                listener: listener.to_owned(),
                routes: routes.iter().map(|route| counts(listener, route)).collect(),
                services: counts(listener, SERVICES),
                unrouted: counts(listener, UNROUTED),
            })
        };
        let table =
            TrafficTable { listeners: listeners.into_iter().map(of_listener).collect(), pools: Vec::new() };
        *present = next;
        table
    }

    fn requests(&self) -> Vec<(Labels, u64)> {
        let mut requests = Vec::new();
        self.look(|labels, counts| {
            let mut codes = BTreeMap::<_, u64>::new();
            for core in counts.cores.iter() {
                core.codes.read(|method, code, count| *codes.entry((method, code)).or_default() += count);
            }
            for ((method, code), count) in codes {
                let mut labels = labels.clone();
                let method = METHODS.get(method).copied().unwrap_or("_OTHER");
                labels.extend([("method", method.to_owned()), ("code", code.to_string())]);
                requests.push((labels, count));
            }
        });
        requests
    }

    fn each<V>(&self, read: impl Fn(&Counts) -> V) -> Vec<(Labels, V)> {
        let mut all = Vec::new();
        self.look(|labels, counts| all.push((labels, read(counts))));
        all
    }

    /// Visits the counts of routes that had requests.
    fn look(&self, mut visit: impl FnMut(Labels, &Counts)) {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        for ((listener, route), counts) in present.iter() {
            if let Some(counts) = counts.0.get() {
                visit(vec![("listener", listener.clone()), ("route", route.clone())], counts);
            }
        }
    }
}

fn sum(counts: &Counts, of: impl Fn(&Core) -> &AtomicU64) -> u64 {
    counts.cores.iter().map(|core| of(core).load(Ordering::Relaxed)).sum()
}

impl TrafficTable {
    /// The counts of a listener.
    pub(crate) fn of(&self, listener: &str) -> Option<&Arc<ListenerTraffic>> {
        self.listeners.iter().find(|traffic| traffic.listener == listener)
    }

    /// The addresses of the route at this place in the settings.
    pub(crate) fn pool(&self, place: usize) -> Option<&RoutePool> {
        self.pools.get(place)?.as_ref()
    }
}

impl ListenerTraffic {
    /// The counts of the route at this place in the settings.
    pub(crate) fn route(&self, place: usize) -> &Arc<RouteCounts> {
        self.routes.get(place).unwrap_or(&self.unrouted)
    }

    /// The counts of requests to services under their own paths.
    pub(crate) fn services(&self) -> &Arc<RouteCounts> {
        &self.services
    }

    /// Counts a request that was refused before it was routed, with this status.
    pub(crate) fn refused(&self, asked: Option<&Method>, code: u16) {
        self.unrouted.began();
        let method = asked.map_or(METHODS.len() - 1, method);
        self.unrouted.ended(Ended { method, code, took: Some(Duration::ZERO), received: 0, sent: 0 });
    }

    /// The counts of requests that no route takes.
    pub(crate) fn unrouted(&self) -> &Arc<RouteCounts> {
        &self.unrouted
    }
}

impl RouteCounts {
    fn here(&self) -> &Core {
        self.0.get_or_init(Box::default).cores.here()
    }

    /// Counts a request as in flight.
    pub(crate) fn began(&self) {
        self.here().in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that [`began`](Self::began), perhaps on another core.
    pub(crate) fn ended(&self, ended: Ended) {
        let counts = self.0.get_or_init(Box::default);
        let core = counts.cores.here();
        core.in_flight.fetch_sub(1, Ordering::Relaxed);
        core.codes.add(ended.method, ended.code);
        if ended.received > 0 {
            core.received.fetch_add(ended.received, Ordering::Relaxed);
        }
        if ended.sent > 0 {
            core.sent.fetch_add(ended.sent, Ordering::Relaxed);
        }
        if let Some(took) = ended.took {
            counts.durations.observe(took);
        }
    }

    /// Records the duration of a handshake that was accepted. How long its WebSocket lasts says nothing about the route.
    pub(crate) fn shook_hands(&self, took: Duration) {
        self.0.get_or_init(Box::default).durations.observe(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(method: usize, code: u16) -> Ended {
        Ended { method, code, took: Some(Duration::from_millis(3)), received: 5, sent: 7 }
    }

    fn shown(metrics: &Metrics) -> String {
        Metrics::encode_all([metrics]).unwrap()
    }

    #[test]
    fn requests_are_counted_by_listener_route_method_and_status() {
        let metrics = Metrics::new("coterie_gateway");
        let traffic = Traffic::new(&metrics);
        let table = traffic.set(["web", "plain"], ["/a", "/b"]);
        let counts = table.of("web").unwrap().route(1);
        counts.began();
        counts.began();
        counts.ended(ended(method(&Method::GET), 200));
        let unrouted = table.of("plain").unwrap().unrouted();
        unrouted.began();
        unrouted.ended(ended(method(&Method::from_bytes(b"BREW").unwrap()), 404));
        let text = shown(&metrics);
        for line in [
            r#"coterie_gateway_requests_total{listener="web",route="/b",method="GET",code="200"} 1"#,
            r#"coterie_gateway_requests_total{listener="plain",route="_UNROUTED",method="_OTHER",code="404"} 1"#,
            r#"coterie_gateway_in_flight{listener="web",route="/b"} 1"#,
            r#"coterie_gateway_request_bytes_total{listener="web",route="/b"} 5"#,
            r#"coterie_gateway_response_bytes_total{listener="web",route="/b"} 7"#,
            r#"coterie_gateway_request_duration_seconds_bucket{le="0.005",listener="web",route="/b"} 1"#,
            r#"coterie_gateway_request_duration_seconds_bucket{le="0.0025",listener="web",route="/b"} 0"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in:\n{text}");
        }
        assert!(!text.contains(r#"route="/a""#), "it had no request:\n{text}");
    }

    #[test]
    fn routes_that_are_gone_are_forgotten_and_those_that_stay_count_on() {
        let metrics = Metrics::new("coterie_gateway");
        let traffic = Traffic::new(&metrics);
        let old = traffic.set(["web"], ["/a", "/b", "/a"]);
        for place in 0..3 {
            old.of("web").unwrap().route(place).began();
        }
        let new = traffic.set(["web", "more"], ["/c", "/a"]);
        old.of("web").unwrap().route(0).ended(ended(0, 200));
        old.of("web").unwrap().route(1).ended(ended(0, 200));
        new.of("web").unwrap().route(1).began();
        let text = shown(&metrics);
        assert!(text.contains(r#"in_flight{listener="web",route="/a"} 2"#), "{text}");
        assert!(!text.contains(r#"route="/b""#), "{text}");
        assert!(traffic.set(["other"], []).of("web").is_none());
        assert!(!shown(&metrics).contains("web"), "{}", shown(&metrics));
    }
}
