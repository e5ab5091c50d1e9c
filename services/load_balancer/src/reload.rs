//! New settings for a running balancer: targets, checks, algorithms and timeouts change in place.
//!
//! Connections stay, also those to a backend that is no longer listed. What a listener has fixed when it was opened, its
//! address, limits and proxies among it, needs a restart.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use mesh::Limits;
use plugin::Updated;
use plugin::http::Hosts;
use types::ServiceName;

use crate::listener::Listener;
use crate::plan::{HttpPlan, LimitsPlan, ListenerPlan, Plan};
use crate::service::{Balancer, leads_elsewhere};

/// What a listener has fixed when it was opened.
#[derive(Debug, Clone, PartialEq)]
struct Fixed {
    name: String,
    address: SocketAddr,
    limits: LimitsPlan,
    trust: Option<Vec<IpNet>>,
    /// The server names of each target.
    hosts: Vec<Vec<String>>,
    http: Option<HttpPlan>,
}

impl Fixed {
    fn of(listener: &Listener) -> Self {
        Self {
            name: listener.name.clone(),
            address: listener.wanted,
            limits: listener.admission.limits().clone(),
            trust: listener.trust.clone(),
            hosts: listener.pools.iter().map(|pool| pool.target.load().hosts.clone()).collect(),
            http: listener.http.clone(),
        }
    }

    fn planned(plan: &ListenerPlan) -> Self {
        Self {
            name: plan.name.clone(),
            address: plan.address,
            limits: plan.limits.clone(),
            trust: plan.trust.clone(),
            hosts: plan.targets.iter().map(|target| target.hosts.clone()).collect(),
            http: plan.http.clone(),
        }
    }

    /// What has changed of it, as keys of the settings of the new one. Pure.
    fn changed(&self, new: &Self) -> Vec<&'static str> {
        let both = |has_changed: fn(&HttpPlan, &HttpPlan) -> bool| match (&self.http, &new.http) {
            (Some(old), Some(new)) => has_changed(old, new),
            (None, _) | (_, None) => false,
        };
        let is_tcp = self.http.is_none() && new.http.is_none();
        let other_proxies = self.trust.is_some() && new.trust.is_some() && self.trust != new.trust;
        let changed = [
            ("address", self.address != new.address),
            ("mode", self.http.is_some() != new.http.is_some()),
            ("limits", self.limits != new.limits),
            ("proxy_protocol", self.trust.is_some() != new.trust.is_some()),
            ("trust", other_proxies || both(|old, new| old.trust != new.trust)),
            ("sni", is_tcp && self.hosts != new.hosts),
            ("tls", both(|old, new| old.certificates != new.certificates)),
            ("protocols", both(|old, new| (old.http1, old.http2) != (new.http1, new.http2))),
            ("service", both(|old, new| service(old) != service(new))),
            (
                "hosts",
                both(|old, new| hosts(old).is_some() && hosts(new).is_some() && hosts(old) != hosts(new)),
            ),
            ("timeouts", both(|old, new| timeouts(old) != timeouts(new))),
            ("retry", both(|old, new| old.limits.attempts != new.limits.attempts)),
        ];
        changed.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
    }
}

/// The service whose API is the target.
fn service(http: &HttpPlan) -> Option<&ServiceName> {
    http.service.as_ref().map(|(service, _)| service)
}

/// The hosts under which that may be requested.
fn hosts(http: &HttpPlan) -> Option<&Hosts> {
    http.service.as_ref().map(|(_, hosts)| hosts)
}

fn timeouts(http: &HttpPlan) -> [Duration; 3] {
    let Limits { connect, head, idle, .. } = &http.limits;
    [*connect, *head, *idle]
}

/// The settings that need a restart, as JSON pointers. Pure.
fn needs_restart(old: &[Fixed], new: &[Fixed]) -> Vec<String> {
    let mut pointers = Vec::new();
    if old.iter().any(|old| !new.iter().any(|new| new.name == old.name)) {
        pointers.push("/listeners".to_owned());
    }
    for (at, new) in new.iter().enumerate() {
        let Some(old) = old.iter().find(|old| old.name == new.name) else {
            pointers.push(format!("/listeners/{at}"));
            continue;
        };
        pointers.extend(old.changed(new).into_iter().map(|key| format!("/listeners/{at}/{key}")));
    }
    pointers
}

impl Balancer {
    /// Applies new settings: all of them, or none. Never waits.
    pub(crate) fn reload(&self, plan: Plan) -> Updated {
        for listener in &plan.listeners {
            for target in &listener.targets {
                if let Err(error) = leads_elsewhere(&listener.name, target.source.service(), &self.cx) {
                    return Updated::Failed(error);
                }
            }
            let service = listener.http.as_ref().and_then(service);
            if let Err(error) = leads_elsewhere(&listener.name, service, &self.cx) {
                return Updated::Failed(error);
            }
        }
        let old: Vec<_> = self.listeners.iter().map(|(listener, _)| Fixed::of(listener)).collect();
        let new: Vec<_> = plan.listeners.iter().map(Fixed::planned).collect();
        let fixed = needs_restart(&old, &new);
        if !fixed.is_empty() {
            return Updated::NeedsRestart(fixed);
        }
        for plan in plan.listeners {
            let listener = self.listeners.iter().find(|(listener, _)| listener.name == plan.name);
            let Some((listener, _)) = listener else { continue };
            for (pool, target) in listener.pools.iter().zip(plan.targets) {
                pool.apply(target, plan.forward.clone());
            }
            listener.forward.store(plan.forward.into());
        }
        self.access_log.change(plan.access_log);
        Updated::Applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(name: &str) -> Fixed {
        let limits = LimitsPlan { connections: 5, per_client: None, queue: 0, wait: Duration::from_secs(1) };
        let address = "127.0.0.1:0".parse().unwrap();
        Fixed { name: name.to_owned(), address, limits, trust: None, hosts: vec![Vec::new()], http: None }
    }

    #[test]
    fn what_a_listener_has_fixed_is_named_with_its_place() {
        let old = [fixed("a"), fixed("b")];
        let with = |change: fn(&mut Fixed)| {
            let mut new = vec![fixed("b"), fixed("a")];
            change(&mut new[1]);
            needs_restart(&old, &new)
        };
        assert!(with(|_| ()).is_empty(), "the order does not matter");
        assert_eq!(with(|new| new.limits.connections = 6), ["/listeners/1/limits"]);
        assert_eq!(with(|new| new.address.set_port(81)), ["/listeners/1/address"]);
        assert_eq!(with(|new| new.trust = Some(Vec::new())), ["/listeners/1/proxy_protocol"]);
        assert_eq!(with(|new| new.hosts = vec![vec!["x".to_owned()]]), ["/listeners/1/sni"]);
        assert_eq!(with(|new| new.http = Some(http())), ["/listeners/1/mode"]);
        assert_eq!(with(|new| new.name = "c".to_owned()), ["/listeners", "/listeners/1"]);
    }

    fn http() -> HttpPlan {
        HttpPlan {
            certificates: Vec::new(),
            http1: true,
            http2: true,
            trust: Vec::new(),
            service: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn what_a_listener_in_http_mode_has_fixed_is_named() {
        let in_http = || Fixed { http: Some(http()), ..fixed("a") };
        let with = |change: fn(&mut HttpPlan)| {
            let mut new = http();
            change(&mut new);
            in_http().changed(&Fixed { http: Some(new), ..fixed("a") })
        };
        assert!(with(|_| ()).is_empty());
        assert_eq!(with(|new| new.http2 = false), ["protocols"]);
        assert_eq!(with(|new| new.trust = vec!["10.0.0.0/8".parse().unwrap()]), ["trust"]);
        assert_eq!(with(|new| new.service = Some(("storage".parse().unwrap(), Hosts::Any))), ["service"]);
        assert_eq!(with(|new| new.limits.head = Duration::from_secs(77)), ["timeouts"]);
        assert_eq!(with(|new| new.limits.attempts = 77), ["retry"]);
        let files = plugin::CertificateFiles { cert: "/a".into(), key: "/b".into() };
        let tls = Fixed { http: Some(HttpPlan { certificates: vec![files], ..http() }), ..fixed("a") };
        assert_eq!(in_http().changed(&tls), ["tls"]);
        let of = |hosts| Fixed {
            http: Some(HttpPlan { service: Some(("storage".parse().unwrap(), hosts)), ..http() }),
            ..fixed("a")
        };
        assert_eq!(of(Hosts::Any).changed(&of(Hosts::default())), ["hosts"]);
    }
}
