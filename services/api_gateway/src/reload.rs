//! New settings for a running gateway: everything that may fail is done first, then all is swapped in one step.
//!
//! Listeners whose address stays keep their sockets and connections, whatever their names become. New ones are opened before
//! anything is swapped; those that are gone drain. What a listener has fixed when it was opened needs a restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use plugin::{Endpoints, NewCertificates, ServiceError, Tls, Updated};
use tracing::info;
use types::limits;

use crate::listeners::{self, Arrival, OpenListener, Running};
use crate::service::GatewayService;
use crate::settings::{ListenerPlan, Plan};

/// An old listener, as far as it counts for who continues it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    /// The address in the settings.
    wanted: SocketAddr,
    /// The address that it has bound.
    bound: SocketAddr,
}

/// For each listener of new settings, the old one that continues as it, if there is one. Pure.
///
/// A listener with a port continues the one on that address; one on any free port continues the one of its name.
fn continued(old: &[Known], new: &[ListenerPlan]) -> Vec<Option<usize>> {
    let mut is_taken = vec![false; old.len()];
    let mut heirs = vec![None; new.len()];
    // Those with a port first, so that no other one takes their socket.
    let (with_port, free): (Vec<_>, Vec<_>) = (0..new.len()).partition(|at| new[*at].address.port() != 0);
    for at in with_port.into_iter().chain(free) {
        let plan = &new[at];
        let fits = |known: &Known| match plan.address.port() {
            0 => known.name == plan.name && known.wanted == plan.address,
            _ => known.bound == plan.address,
        };
        heirs[at] = (0..old.len()).find(|candidate| !is_taken[*candidate] && fits(&old[*candidate]));
        if let Some(heir) = heirs[at] {
            is_taken[heir] = true;
        }
    }
    heirs
}

/// The settings of a listener that it fixed when it was opened and that have changed, as JSON pointers. Pure.
fn fixed(old: &ListenerPlan, new: &ListenerPlan) -> Vec<String> {
    let is_other_proxy = new.proxy_protocol && old.proxy_protocol && old.trust != new.trust;
    let changed = [
        ("tls", old.is_tls() != new.is_tls()),
        ("protocols", (old.http1, old.http2) != (new.http1, new.http2)),
        ("proxy_protocol", old.proxy_protocol != new.proxy_protocol),
        ("trust", is_other_proxy),
        ("max_connections", old.max_connections != new.max_connections),
    ];
    changed.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| new.pointer(key)).collect()
}

/// Whether a new listener can't be opened while an old one is: they overlap, because one has every address of the machine.
fn overlaps(new: SocketAddr, old: SocketAddr) -> bool {
    new.port() == old.port() && new != old && (new.ip().is_unspecified() || old.ip().is_unspecified())
}

/// Puts the endpoints back unless the new settings are applied.
struct Restore {
    endpoints: Endpoints,
    before: Option<BTreeMap<String, String>>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.endpoints.replace(before);
        }
    }
}

/// All that new settings need and that can fail.
struct Ready {
    plan: Plan,
    /// For each listener of the plan, the place of the old one that continues as it, or a new one.
    listeners: Vec<Next>,
    /// The URL of each listener.
    urls: BTreeMap<String, String>,
    restore: Restore,
}

enum Next {
    Continued(usize, Option<NewCertificates>),
    Opened(Box<OpenListener>),
}

impl GatewayService {
    /// Applies new settings: all of them, or none.
    pub(crate) async fn reload(&self, plan: Plan) -> Updated {
        let known = self.known();
        let heirs = continued(&known, &plan.listeners);
        let fixed = self.fixed(&known, &heirs, &plan.listeners);
        if !fixed.is_empty() {
            return Updated::NeedsRestart(fixed);
        }
        match self.ready(plan, &heirs).await {
            Ok(ready) => {
                self.swap(ready);
                Updated::Applied
            }
            Err(error) => Updated::Failed(error),
        }
    }

    fn known(&self) -> Vec<Known> {
        let running = self.listeners.lock();
        let known = |one: &Running| Known {
            name: one.plan.name.clone(),
            wanted: one.plan.address,
            bound: one.address,
        };
        running.iter().map(known).collect()
    }

    /// The settings that need a restart.
    fn fixed(&self, known: &[Known], heirs: &[Option<usize>], new: &[ListenerPlan]) -> Vec<String> {
        let running = self.listeners.lock();
        let each = heirs.iter().zip(new).flat_map(|(heir, plan)| match heir {
            Some(at) => fixed(&running[*at].plan, plan),
            None if known.iter().any(|old| overlaps(plan.address, old.bound)) => {
                vec![plan.pointer("address")]
            }
            None => Vec::new(),
        });
        each.collect()
    }

    /// Does all that can fail. Dropping the result undoes it.
    async fn ready(&self, plan: Plan, heirs: &[Option<usize>]) -> Result<Ready, ServiceError> {
        let endpoints = &self.cx.endpoints;
        let before = endpoints.urls();
        let restore = Restore { endpoints: endpoints.clone(), before: Some(before.clone()) };
        let (mut listeners, mut urls) = (Vec::new(), BTreeMap::new());
        for (heir, listener) in heirs.iter().zip(&plan.listeners) {
            let name = listener.name.clone();
            let Some(at) = *heir else {
                for opened in listeners::open(&self.cx, vec![listener.clone()]).await? {
                    if let Some(why) = opened.tls().and_then(Tls::missing) {
                        return Err(unreadable(listener, &why));
                    }
                    urls.extend(endpoints.urls().get(&name).map(|url| (name.clone(), url.clone())));
                    listeners.push(Next::Opened(Box::new(opened)));
                }
                continue;
            };
            let (old_name, tls) = {
                let running = self.listeners.lock();
                (running[at].plan.name.clone(), running[at].tls.clone())
            };
            let certificates = match tls {
                Some(tls) => {
                    let read = tls.read(listener.certificates.clone()).await;
                    Some(read.map_err(|why| unreadable(listener, &why))?)
                }
                None => None,
            };
            urls.extend(before.get(&old_name).map(|url| (name, url.clone())));
            listeners.push(Next::Continued(at, certificates));
        }
        Ok(Ready { plan, listeners, urls, restore })
    }

    /// Makes the new settings those of every request that begins from now on. Never fails and never waits.
    fn swap(&self, ready: Ready) {
        let Ready { plan, listeners, urls, mut restore } = ready;
        let Plan { listeners: plans, table, limits, hosts, access_log } = plan;
        let now = self.live.now();
        let mesh =
            if *now.mesh.limits() == limits { now.mesh.clone() } else { self.cx.mesh.with_limits(limits) };
        let mut table = table;
        table.inherit(&now.table);
        self.access_log.change(access_log);
        restore.before = None;
        let mut running = self.listeners.lock();
        let mut old: Vec<_> = std::mem::take(&mut *running).into_iter().map(Some).collect();
        let mut opened = Vec::new();
        let mut arrivals = Vec::new();
        let mut certificates = Vec::new();
        for (plan, next) in plans.into_iter().zip(listeners) {
            match next {
                Next::Opened(new) => {
                    arrivals.push(Arc::clone(new.arrival()));
                    opened.push(new);
                }
                Next::Continued(at, new) => {
                    let Some(mut one) = old[at].take() else { continue };
                    certificates.extend(one.tls.clone().zip(new));
                    let Arrival { id, in_flight, meters, .. } = &*one.arrival;
                    one.arrival = Arc::new(Arrival::new(*id, &plan, in_flight.clone(), meters.clone()));
                    one.plan = plan;
                    arrivals.push(Arc::clone(&one.arrival));
                    running.push(one);
                }
            }
        }
        let parts = Parts { table, mesh, hosts, arrivals };
        self.live.replace(self.state(parts, Some(&now)));
        for (tls, new) in certificates {
            tls.replace(new);
            // Those that are replaced together with the settings are served at once.
            self.cx.tasks.spawn("certificates", async move {
                tls.poll().await;
                Ok(())
            });
        }
        // Their first request finds the new state.
        let serve = |opened: Box<_>| Running::serve(&self.cx, *opened, &self.live, &self.access_log);
        running.extend(opened.into_iter().map(serve));
        drop(running);
        self.cx.endpoints.replace(urls);
        for removed in old.into_iter().flatten() {
            info!(listener = %removed.plan.name, address = %removed.address, "removing a listener");
            removed.retire(&self.cx, limits::DRAIN);
        }
    }
}

/// What a state is made of, besides what stays for the life of the service.
pub(crate) struct Parts {
    pub(crate) table: crate::table::RouteTable,
    pub(crate) mesh: mesh::Mesh,
    pub(crate) hosts: plugin::http::Hosts,
    pub(crate) arrivals: Vec<Arc<Arrival>>,
}

fn unreadable(listener: &ListenerPlan, why: &str) -> ServiceError {
    ServiceError::unavailable(format!("listener `{}` has no usable certificate: {why}", listener.name))
        .hint("put the certificate and its key there; it is tried again from time to time")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str, address: &str) -> ListenerPlan {
        ListenerPlan {
            place: Some(0),
            inherits: Vec::new(),
            name: name.to_owned(),
            address: address.parse().unwrap(),
            trust: Vec::new(),
            max_connections: 10,
            ready: None,
            proxy_protocol: false,
            certificates: Vec::new(),
            http1: true,
            http2: true,
        }
    }

    #[test]
    fn a_listener_continues_the_one_on_its_address_whatever_the_names_are() {
        let known = |name: &str, wanted: &str, bound: &str| Known {
            name: name.to_owned(),
            wanted: wanted.parse().unwrap(),
            bound: bound.parse().unwrap(),
        };
        let old = [
            known("web", "127.0.0.1:8080", "127.0.0.1:8080"),
            known("free", "127.0.0.1:0", "127.0.0.1:41234"),
            known("other", "127.0.0.1:0", "127.0.0.1:41235"),
        ];
        for (new, expected) in [
            (vec![("web", "127.0.0.1:8080"), ("free", "127.0.0.1:0")], vec![Some(0), Some(1)]),
            (vec![("renamed", "127.0.0.1:8080")], vec![Some(0)]),
            (vec![("web", "127.0.0.1:8081")], vec![None]),
            (vec![("web", "0.0.0.0:8080")], vec![None]),
            (vec![("free", "127.0.0.1:0"), ("web", "127.0.0.1:41234")], vec![None, Some(1)]),
            (vec![("renamed", "127.0.0.1:0")], vec![None]),
            (vec![("other", "127.0.0.1:0"), ("free", "127.0.0.1:0")], vec![Some(2), Some(1)]),
            (vec![("free", "[::1]:0")], vec![None]),
        ] {
            let plans: Vec<_> = new.iter().map(|(name, address)| plan(name, address)).collect();
            assert_eq!(continued(&old, &plans), expected, "{new:?}");
        }
    }

    #[test]
    fn what_a_listener_fixed_when_it_was_opened_is_named() {
        let old = plan("web", "127.0.0.1:8080");
        let with = |change: fn(&mut ListenerPlan)| {
            let mut new = plan("renamed", "127.0.0.1:8080");
            change(&mut new);
            fixed(&old, &new)
        };
        assert!(with(|_| ()).is_empty());
        assert!(with(|new| new.ready = Some("/r".to_owned())).is_empty());
        assert!(with(|new| new.trust = vec!["10.0.0.0/8".parse().unwrap()]).is_empty());
        assert_eq!(with(|new| new.http2 = false), ["/listeners/0/protocols"]);
        assert_eq!(with(|new| new.max_connections = 11), ["/listeners/0/max_connections"]);
        let inherited = with(|new| (new.max_connections, new.inherits) = (11, vec!["max_connections"]));
        assert_eq!(inherited, ["/max_connections"]);
        assert_eq!(with(|new| new.proxy_protocol = true), ["/listeners/0/proxy_protocol"]);
        assert!(overlaps("0.0.0.0:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()));
        assert!(!overlaps("0.0.0.0:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()));
        assert!(!overlaps("127.0.0.1:80".parse().unwrap(), "127.0.0.2:80".parse().unwrap()));
    }
}
