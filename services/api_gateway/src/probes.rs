//! Probes the addresses of idle routes without active checks, so that a dead route is noticed before a client uses it.
//!
//! A probe is a TCP connection that is closed at once: cheap, and it means the same for every server. An address that a
//! request has reached since the last round is not probed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use mesh::BaseUrl;
use plugin::Health;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use types::ReasonCode;

use crate::table::{RouteTable, Way};

/// The mean time between two rounds.
const EVERY: Duration = Duration::from_secs(10);
/// The share by which that time varies at random, so that gateways do not probe in step.
const JITTER: f64 = 0.1;
/// The time limit of a probe; long enough for one lost packet.
const LIMIT: Duration = Duration::from_secs(3);
/// The largest number of concurrent probes.
const AT_ONCE: usize = 64;
/// No address of a route takes connections.
const UPSTREAM_UNREACHABLE: ReasonCode = ReasonCode::new("upstream-unreachable");
/// The number of routes, and of addresses of each route, that the health reason names.
const NAMED: usize = 3;

/// The state of the addresses of all routes.
#[derive(Debug)]
pub(crate) struct Probes {
    routes: Vec<Watched>,
    addresses: Vec<Address>,
    limit: Duration,
}

/// A route, and the indexes of its addresses.
#[derive(Debug)]
struct Watched {
    label: String,
    addresses: Vec<usize>,
}

/// A host and port; several routes may lead to it.
#[derive(Debug)]
struct Address {
    shown: String,
    urls: Vec<BaseUrl>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The number of requests that had reached it at the last round.
    reached: u64,
    /// Why the last probe failed, if it did.
    down: Option<&'static str>,
}

impl Probes {
    /// Probes for a table. Every address counts as up until a probe fails.
    pub(crate) fn new(table: &RouteTable, connect_limit: Duration) -> Self {
        let mut addresses: Vec<Address> = Vec::new();
        let mut place = |url: &BaseUrl| {
            let same = |address: &Address| {
                address.urls.iter().any(|known| known.host_and_port() == url.host_and_port())
            };
            match addresses.iter().position(same) {
                Some(at) => {
                    addresses[at].urls.push(url.clone());
                    at
                }
                None => {
                    let scheme = url.as_str().split("://").next().unwrap_or("http");
                    let shown = format!("{scheme}://{}", url.authority());
                    addresses.push(Address { shown, urls: vec![url.clone()], known: Mutex::default() });
                    addresses.len() - 1
                }
            }
        };
        let is_probed = |way: &&Way| !way.addresses().is_empty() && way.check.is_none();
        let with_addresses = table.ways().iter().filter(is_probed);
        let routes = with_addresses.map(|way| Watched {
            label: way.label.clone(),
            addresses: way.addresses().iter().map(&mut place).collect(),
        });
        let routes = routes.collect();
        Self { routes, addresses, limit: LIMIT.min(connect_limit) }
    }

    /// The same, with what earlier probes know of the same addresses. Call it once the table shares their URLs.
    #[must_use]
    pub(crate) fn knowing(self, old: &Self) -> Self {
        for address in &self.addresses {
            let reached = address.reached();
            let is_same = |known: &&Address| known.shown == address.shown;
            if let Some(why) = old.addresses.iter().find(is_same).and_then(Address::down) {
                *address.known.lock().unwrap_or_else(PoisonError::into_inner) =
                    Known { reached, down: Some(why) };
            }
        }
        self
    }

    /// Degraded while no address of some route is up.
    pub(crate) fn health(&self) -> Health {
        let dead: Vec<_> = self
            .routes
            .iter()
            .filter_map(|route| {
                let down: Option<Vec<_>> = (route.addresses.iter().map(|at| &self.addresses[*at]))
                    .map(|address| Some((address.shown.as_str(), address.down()?)))
                    .collect();
                Some((route.label.as_str(), down?))
            })
            .collect();
        if dead.is_empty() { Health::Ready } else { Health::degraded(UPSTREAM_UNREACHABLE, in_words(&dead)) }
    }

    /// The number of routes with no address that is up.
    pub(crate) fn dead_routes(&self) -> usize {
        let is_dead =
            |route: &&Watched| route.addresses.iter().all(|at| self.addresses[*at].down().is_some());
        self.routes.iter().filter(is_dead).count()
    }

    /// Probes idle addresses in rounds until `stopping`.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        self.run_with(stopping, |url: BaseUrl| async move {
            let (host, port) = url.host_and_port();
            TcpStream::connect((host, port)).await.map(drop)
        })
        .await;
    }

    async fn run_with<C, F>(&self, stopping: CancellationToken, connect: C)
    where
        C: Fn(BaseUrl) -> F,
        F: Future<Output = io::Result<()>>,
    {
        if self.addresses.is_empty() {
            return;
        }
        loop {
            let pause = EVERY.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER));
            let round = async {
                tokio::time::sleep(pause).await;
                self.round(&connect).await;
            };
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = round => {}
            }
        }
    }

    /// Probes each address that no request has reached since the last round.
    async fn round<C, F>(&self, connect: &C)
    where
        C: Fn(BaseUrl) -> F,
        F: Future<Output = io::Result<()>>,
    {
        let mut probes = Vec::new();
        for address in self.addresses.iter().filter(|address| address.is_idle()) {
            probes.push(self.probe(address, connect));
        }
        futures_util::stream::iter(probes).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    async fn probe<C, F>(&self, address: &Address, connect: &C)
    where
        C: Fn(BaseUrl) -> F,
        F: Future<Output = io::Result<()>>,
    {
        let Some(url) = address.urls.first() else { return };
        match tokio::time::timeout(self.limit, connect(url.clone())).await {
            Ok(Ok(())) => address.learn(None),
            // An error of this process is no evidence about the address.
            Ok(Err(error)) if is_our_own(&error) => {}
            Ok(Err(error)) => address.learn(Some(why(&error))),
            Err(_elapsed) => address.learn(Some("does not answer")),
        }
    }
}

impl Address {
    /// The number of requests that have reached it.
    fn reached(&self) -> u64 {
        self.urls.iter().map(BaseUrl::reached).fold(0, u64::wrapping_add)
    }

    /// Whether no request has reached it since the last call; if one has, it counts as up.
    fn is_idle(&self) -> bool {
        let reached = self.reached();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.reached == reached {
            return true;
        }
        *known = Known { reached, down: None };
        false
    }

    fn learn(&self, down: Option<&'static str>) {
        let why = down.map(|why| format!("it {why}"));
        for url in &self.urls {
            url.probed(why.as_deref());
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).down = down;
    }

    /// Why it is down; `None` if it is up or not probed yet.
    fn down(&self) -> Option<&'static str> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.down.filter(|_| known.reached == self.reached())
    }
}

/// Whether this process lacks a resource that a connection needs: a descriptor (`ENFILE`, `EMFILE`) or a local port.
fn is_our_own(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24)) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// The cause of a failed connection, in words that stay the same from round to round.
fn why(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refuses connections",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "is unreachable",
        io::ErrorKind::TimedOut => "does not answer",
        io::ErrorKind::PermissionDenied => "is forbidden to this process",
        _ if error.raw_os_error().is_none() => "has a name that is not found",
        _ => "can't be reached",
    }
}

/// The health reason: dead routes, their addresses, and the cause of each failure.
fn in_words(dead: &[(&str, Vec<(&str, &'static str)>)]) -> String {
    let more = |shown: usize, all: usize| (all > shown).then(|| format!("{} more", all - shown));
    let routes = dead.iter().take(NAMED).map(|(route, addresses)| {
        let named = addresses.iter().take(NAMED).map(|(address, why)| format!("{address} {why}"));
        let named: Vec<_> = named.chain(more(NAMED, addresses.len())).collect();
        format!("no address of route {route} answers: {}", named.join(", "))
    });
    let routes: Vec<_> = routes.chain(more(NAMED, dead.len()).map(|more| format!("{more} routes"))).collect();
    routes.join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn probes(routes: &[(&str, &[&str])]) -> (Arc<Probes>, BTreeMap<String, BaseUrl>) {
        let mut urls = BTreeMap::new();
        let ways = routes.iter().map(|(prefix, to)| {
            let to: Vec<BaseUrl> = to.iter().map(|url| url.parse().unwrap()).collect();
            urls.extend(to.iter().map(|url| (url.to_string(), url.clone())));
            Way::to_addresses(prefix, to)
        });
        let table = RouteTable::new(ways.collect());
        (Arc::new(Probes::new(&table, Duration::from_secs(4))), urls)
    }

    fn refused() -> io::Result<()> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_is_degraded_while_none_of_its_addresses_answers_and_recovers() {
        let (probes, urls) = probes(&[("/a", &["http://a:1", "http://b:2/x"]), ("/b", &["http://b:2/y"])]);
        let (b_is_up, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
        let connect = async |url: BaseUrl| {
            tries.fetch_add(1, Ordering::SeqCst);
            if url.authority() == "b:2" && b_is_up.load(Ordering::SeqCst) { Ok(()) } else { refused() }
        };
        let stopping = CancellationToken::new();
        let checks = async {
            tokio::time::sleep(Duration::from_secs(8)).await;
            assert_eq!((tries.load(Ordering::SeqCst), probes.health()), (0, Health::Ready));
            tokio::time::sleep(Duration::from_secs(4)).await;
            let reason = "no address of route /a answers: http://a:1 refuses connections, http://b:2 refuses \
                        connections; no address of route /b answers: http://b:2 refuses connections";
            assert_eq!(probes.health(), Health::degraded(UPSTREAM_UNREACHABLE, reason));
            assert_eq!((probes.dead_routes(), tries.load(Ordering::SeqCst)), (2, 2), "b is tried once");
            let shown = |url: &str| urls[url].why_unreachable();
            assert_eq!(shown("http://a:1").as_deref(), Some("it refuses connections"));
            assert_eq!(
                shown("http://b:2/y"),
                shown("http://a:1"),
                "what dead_routes counts is shown as dead"
            );
            b_is_up.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(12)).await;
            assert_eq!(probes.health(), Health::Ready, "one address is enough");
            assert_eq!(shown("http://b:2/y"), None);
            b_is_up.store(false, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(12)).await;
            assert_ne!(probes.health(), Health::Ready);
            stopping.cancel();
        };
        tokio::join!(probes.run_with(stopping.clone(), connect), checks);
        let tried = tries.load(Ordering::SeqCst);
        assert!((6..=8).contains(&tried), "nothing is tried after the stop: {tried}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_a_request_reaches_is_not_probed_and_is_up_at_once() {
        let (probes, urls) = probes(&[("/a", &["http://a:1"])]);
        let tries = AtomicUsize::new(0);
        let connect = async |_: BaseUrl| {
            tries.fetch_add(1, Ordering::SeqCst);
            refused()
        };
        let stopping = CancellationToken::new();
        let checks = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            assert_eq!((tries.load(Ordering::SeqCst), probes.dead_routes()), (1, 1));
            urls["http://a:1"].mark_reached();
            assert_eq!(probes.health(), Health::Ready);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!((tries.load(Ordering::SeqCst), probes.health()), (1, Health::Ready));
            stopping.cancel();
        };
        tokio::join!(probes.run_with(stopping.clone(), connect), checks);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_times_out_and_is_the_only_one_of_its_address() {
        let (probes, _) = probes(&[("/a", &["http://a:1"]), ("/b", &["http://a:1/b"])]);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        struct Leaves<'a>(&'a AtomicUsize);
        impl Drop for Leaves<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let connect = async |_: BaseUrl| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _leaves = Leaves(&now);
            std::future::pending().await
        };
        let stopping = CancellationToken::new();
        let checks = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(probes.dead_routes(), 2);
            stopping.cancel();
        };
        tokio::join!(probes.run_with(stopping.clone(), connect), checks);
        assert_eq!((now.into_inner(), most.into_inner()), (0, 1));
    }

    #[test]
    fn only_the_first_dead_routes_and_addresses_are_named() {
        let addresses = vec![("http://a", "is unreachable"); 5];
        let dead = vec![("/x", addresses); 5];
        let route = "no address of route /x answers: http://a is unreachable, http://a is unreachable, \
                     http://a is unreachable, 2 more";
        assert_eq!(in_words(&dead), format!("{route}; {route}; {route}; 2 more routes"));
    }
}
