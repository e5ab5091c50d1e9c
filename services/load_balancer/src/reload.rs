//! New settings for a running balancer: everything that may fail is done first, then all is changed in one step.
//!
//! Listeners whose address stays keep their sockets and connections, whatever their names become. New ones are opened before
//! anything changes; those that are gone drain. Connections keep the settings with which they began, also those to a backend
//! that is no longer listed. Only another mode, and an address that overlaps with an open one, need a restart.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use plugin::{
    EndpointsBefore, NextTls, OpenAddress, ServiceError, Updated, continued, overlaps, require_usable,
    with_scheme,
};

use crate::balancer::{Balancer, leads_elsewhere};
use crate::listeners::{OpenListener, Running, scheme};
use crate::plan::Plan;
use crate::settings::Mode;

/// The settings that need a restart, as JSON pointers: an address that overlaps with an open one, and another mode. Pure.
fn fixed(open: &[(OpenAddress, Mode)], heirs: &[Option<usize>], new: &[(SocketAddr, Mode)]) -> Vec<String> {
    let each = heirs.iter().zip(new).enumerate().filter_map(|(place, (heir, (address, mode)))| {
        let key = match heir {
            Some(at) => (open[*at].1 != *mode).then_some("mode"),
            None => open.iter().any(|(old, _)| overlaps(*address, old.bound)).then_some("address"),
        };
        Some(format!("/listeners/{place}/{}", key?))
    });
    each.collect()
}

/// The mode of a listener.
fn mode(is_http: bool) -> Mode {
    if is_http { Mode::Http } else { Mode::Tcp }
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

impl Balancer {
    /// Applies new settings: all of them, or none.
    pub(crate) async fn reload(&self, plan: Plan) -> Updated {
        if let Err(error) = leads_elsewhere(&plan, &self.cx) {
            return Updated::Failed(error);
        }
        let known = self.known();
        let new: Vec<_> = plan.listeners.iter().map(|plan| (plan.name.as_str(), plan.address)).collect();
        let heirs = continued(&known, &new);
        let opened = heirs.iter().zip(&plan.listeners).filter(|(heir, _)| heir.is_none());
        let mut refused =
            opened.filter_map(|(_, new)| self.cx.may_listen(&new.name, scheme(new), new.address).err());
        if let Some(error) = refused.next() {
            return Updated::Failed(error);
        }
        let modes =
            self.listeners.lock().running.iter().map(|one| mode(one.protocols.is_some())).collect::<Vec<_>>();
        let open: Vec<_> = known.into_iter().zip(modes).collect();
        let wanted: Vec<_> =
            plan.listeners.iter().map(|plan| (plan.address, mode(plan.http.is_some()))).collect();
        let fixed = fixed(&open, &heirs, &wanted);
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
        let known = |one: &Running| OpenAddress {
            name: one.live.load().name.clone(),
            wanted: one.wanted,
            bound: one.address,
        };
        self.listeners.lock().running.iter().map(known).collect()
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
                let opened = OpenListener::open(listener.clone(), &self.cx).await?;
                opened.tls().map_or(Ok(()), |tls| require_usable(&listener.name, tls))?;
                urls.extend(endpoints.urls().get(&name).map(|url| (name.clone(), url.clone())));
                listeners.push(Next::Opened(Box::new(opened)));
                continue;
            };
            let (old, spoken) = {
                let all = self.listeners.lock();
                (all.running[at].live.load_full(), all.running[at].protocols)
            };
            let next = NextTls::prepare(old.lasting.tls.clone().zip(spoken), listener.tls()).await?;
            urls.extend(before.get(&old.name).map(|url| (name, with_scheme(url, scheme(listener)))));
            listeners.push(Next::Continued(at, next));
        }
        Ok(Ready { plan, listeners, urls, endpoints: restore })
    }

    /// Makes the new settings those of every connection and request that begins from now on. Never fails and never waits.
    fn swap(&self, ready: Ready) {
        let Ready { plan, listeners, urls, endpoints } = ready;
        self.access_log.change(plan.access_log);
        let mut all = self.listeners.lock();
        let mut old: Vec<_> = std::mem::take(&mut all.running).into_iter().map(Some).collect();
        for (plan, next) in plan.listeners.into_iter().zip(listeners) {
            match next {
                Next::Opened(opened) => {
                    all.running.push(Running::serve(&self.cx, *opened, &self.access_log, &self.lookup));
                }
                Next::Continued(at, next) => {
                    let Some(mut one) = old[at].take() else { continue };
                    one.change(plan, next.tls().cloned(), &self.cx, &self.lookup);
                    next.serve(&self.cx);
                    all.running.push(one);
                }
            }
        }
        drop(all);
        endpoints.replace(urls);
        for removed in old.into_iter().flatten() {
            self.listeners.remove(&removed, &self.cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_overlaps_and_another_mode_need_a_restart() {
        let open = |bound: &str, mode| {
            let bound: SocketAddr = bound.parse().unwrap();
            (OpenAddress { name: "a".to_owned(), wanted: bound, bound }, mode)
        };
        let old = [open("127.0.0.1:80", Mode::Tcp), open("127.0.0.1:81", Mode::Http)];
        for (heirs, new, expected) in [
            (vec![Some(0), Some(1)], vec![("127.0.0.1:80", Mode::Tcp), ("127.0.0.1:81", Mode::Http)], vec![]),
            (
                vec![None, Some(0)],
                vec![("127.0.0.1:82", Mode::Tcp), ("127.0.0.1:80", Mode::Http)],
                vec!["/listeners/1/mode"],
            ),
            (vec![None], vec![("0.0.0.0:80", Mode::Http)], vec!["/listeners/0/address"]),
            (vec![], vec![], vec![]),
        ] {
            let new: Vec<_> =
                new.into_iter().map(|(address, mode)| (address.parse().unwrap(), mode)).collect();
            assert_eq!(fixed(&old, &heirs, &new), expected, "{new:?}");
        }
    }
}
