//! New settings for a running gateway: everything that may fail is done first, then all is swapped in one step.
//!
//! Listeners whose address stays keep their sockets and connections, whatever their names become. New ones are opened before
//! anything is swapped; those that are gone drain. What concerns connections, such as TLS, counts for those that are opened
//! from then on. Only a listener whose address overlaps with that of an old one needs a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugin::{
    EndpointsBefore, NextTls, OpenAddress, ServiceError, Tls, Updated, continued, overlaps, require_usable,
    with_scheme,
};
use tracing::info;
use types::limits;

use crate::listeners::{self, Arrival, OpenListener, Running};
use crate::service::GatewayService;
use crate::settings::{ListenerPlan, Plan};

/// The settings that need a restart, as JSON pointers. Pure.
fn fixed(known: &[OpenAddress], heirs: &[Option<usize>], new: &[ListenerPlan]) -> Vec<String> {
    let opened = heirs.iter().zip(new).filter(|(heir, _)| heir.is_none()).map(|(_, plan)| plan);
    let overlapping = opened.filter(|plan| known.iter().any(|old| overlaps(plan.address, old.bound)));
    overlapping.map(|plan| plan.pointer("address")).collect()
}

/// All that new settings need and that can fail.
struct Ready {
    plan: Plan,
    /// For each listener of the plan, the place of the old one that continues as it, or a new one.
    listeners: Vec<Next>,
    /// The URL of each listener.
    urls: BTreeMap<String, String>,
    endpoints: EndpointsBefore,
}

enum Next {
    Continued(usize, NextTls),
    Opened(Box<OpenListener>),
}

impl GatewayService {
    /// Applies new settings: all of them, or none.
    pub(crate) async fn reload(&self, plan: Plan) -> Updated {
        let known = self.known();
        let new: Vec<_> = plan.listeners.iter().map(|plan| (plan.name.as_str(), plan.address)).collect();
        let heirs = continued(&known, &new);
        let opened = heirs.iter().zip(&plan.listeners).filter(|(heir, _)| heir.is_none());
        let mut refused =
            opened.filter_map(|(_, new)| self.cx.may_listen(&new.name, new.scheme(), new.address).err());
        if let Some(error) = refused.next() {
            return Updated::Failed(error);
        }
        let fixed = fixed(&known, &heirs, &plan.listeners);
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

    fn known(&self) -> Vec<OpenAddress> {
        let running = self.listeners.lock();
        let known = |one: &Running| OpenAddress {
            name: one.plan.name.clone(),
            wanted: one.plan.address,
            bound: one.address,
        };
        running.iter().map(known).collect()
    }

    /// Does all that can fail. Dropping the result undoes it.
    async fn ready(&self, plan: Plan, heirs: &[Option<usize>]) -> Result<Ready, ServiceError> {
        let endpoints = &self.cx.endpoints;
        let before = endpoints.urls();
        let restore = EndpointsBefore::of(endpoints);
        let (mut listeners, mut urls) = (Vec::new(), BTreeMap::new());
        for (heir, listener) in heirs.iter().zip(&plan.listeners) {
            let name = listener.name.clone();
            let Some(at) = *heir else {
                for opened in listeners::open(&self.cx, vec![listener.clone()]).await? {
                    opened.tls().map_or(Ok(()), |tls| require_usable(&listener.name, tls))?;
                    urls.extend(endpoints.urls().get(&name).map(|url| (name.clone(), url.clone())));
                    listeners.push(Next::Opened(Box::new(opened)));
                }
                continue;
            };
            let (old, tls) = {
                let running = self.listeners.lock();
                (running[at].plan.clone(), running[at].tls.clone())
            };
            let old_tls = tls.map(|tls| (tls, (old.http1, old.http2)));
            let next = NextTls::prepare(old_tls, listener.tls()).await?;
            urls.extend(before.get(&old.name).map(|url| (name, with_scheme(url, listener.scheme()))));
            listeners.push(Next::Continued(at, next));
        }
        Ok(Ready { plan, listeners, urls, endpoints: restore })
    }

    /// Makes the new settings those of every request that begins from now on. Never fails and never waits.
    fn swap(&self, ready: Ready) {
        let Ready { plan, listeners, urls, endpoints } = ready;
        let Plan { listeners: plans, table, limits, hosts, access_log } = plan;
        let now = self.live.now();
        let mesh =
            if *now.mesh.limits() == limits { now.mesh.clone() } else { self.cx.mesh.with_limits(limits) };
        let mut table = table;
        table.inherit(&now.table);
        self.access_log.change(access_log);
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
                Next::Continued(at, next) => {
                    let Some(one) = old[at].take() else { continue };
                    let one = one.renewed(plan, next.tls().cloned());
                    certificates.push(next);
                    arrivals.push(Arc::clone(&one.arrival));
                    running.push(one);
                }
            }
        }
        let tls = running.iter().filter_map(|one| one.tls.clone());
        let tls = tls.chain(opened.iter().filter_map(|opened| opened.tls().cloned())).collect();
        let parts = Parts { table, mesh, hosts, arrivals, tls };
        self.live.replace(self.state(parts, Some(&now)));
        for continued in running.iter() {
            continued.apply(&self.cx, &self.live, &self.access_log);
        }
        for next in certificates {
            next.serve(&self.cx);
        }
        // Their first request finds the new state.
        let serve = |opened: Box<_>| Running::serve(&self.cx, *opened, &self.live, &self.access_log);
        running.extend(opened.into_iter().map(serve));
        drop(running);
        endpoints.replace(urls);
        for removed in old.into_iter().flatten() {
            info!(listener = %removed.plan.name, address = %removed.address, "removing a listener");
            self.listeners.remove(&self.cx, removed, limits::DRAIN);
        }
    }
}

/// What a state is made of, besides what stays for the life of the service.
pub(crate) struct Parts {
    pub(crate) table: crate::table::RouteTable,
    pub(crate) mesh: mesh::Mesh,
    pub(crate) hosts: plugin::http::Hosts,
    pub(crate) arrivals: Vec<Arc<Arrival>>,
    pub(crate) tls: Vec<Tls>,
}
