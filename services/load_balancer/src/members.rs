//! The members of a service as backends: at the listener of their own that the settings name. Pure.

use cluster::ClusterView;
use types::{Generation, NodeId, Phase, ServiceName};

use crate::address::Address;
use crate::plan::Protocol;

/// A backend before its name is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: Address,
    /// As settings or gossip name it.
    pub(crate) named: String,
    pub(crate) member: Option<(NodeId, Generation)>,
    pub(crate) protocol: Protocol,
    pub(crate) weight: u32,
    pub(crate) is_backup: bool,
    pub(crate) is_leaving: bool,
    /// It has disappeared from gossip together with most others.
    pub(crate) is_kept: bool,
    /// It speaks TLS, as gossip says.
    pub(crate) is_tls: bool,
}

/// What the view says of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) entries: Vec<Entry>,
    /// Why there are no entries.
    pub(crate) why: Option<String>,
    /// A member is about to serve.
    pub(crate) is_soon: bool,
    /// No member is known that could have such a listener.
    pub(crate) is_unknown: bool,
}

impl Members {
    /// The same without members whose listener speaks TLS: requests are sent to them in plain text.
    pub(crate) fn without_tls(mut self) -> Self {
        let before = self.entries.len();
        self.entries.retain(|entry| !entry.is_tls);
        if self.entries.is_empty() && before > 0 {
            let why = "the members' listener speaks TLS, and in `mode: http` members are reached in plain text only; \
                       use `mode: tcp`";
            self.why = Some(why.to_owned());
        }
        self
    }

    /// The same for a node that has just started, and may not have met the members yet.
    pub(crate) fn just_met(self) -> Self {
        match self.is_unknown {
            true => Self { why: None, is_soon: true, ..self },
            false => self,
        }
    }
}

/// The members of a service that have a listener of this name. Those that drain are on their way out. The others are left
/// out: their address is that of the node's API.
pub(crate) fn of(view: &ClusterView, service: &ServiceName, listener: &str) -> Members {
    let service = view.normalized(service.clone());
    let mut members = Members { entries: Vec::new(), why: None, is_soon: false, is_unknown: false };
    let mut without = 0;
    for member in view.of_service(&service) {
        let Some(state) = &member.state else { continue };
        let is_leaving = match state.phase {
            Phase::Ready | Phase::Degraded => false,
            Phase::Draining => true,
            Phase::Starting => {
                members.is_soon = true;
                continue;
            }
            Phase::Stopped | Phase::Failed => continue,
        };
        let url = state.endpoints.get(listener);
        let address = url.and_then(|url| address_of(url));
        let is_tls = url.is_some_and(|url| url.starts_with("https:"));
        match address {
            Some(address) => members.entries.push(Entry {
                named: address.to_string(),
                address,
                member: Some((member.id.clone(), member.generation)),
                protocol: Protocol::Http1,
                weight: 1,
                is_backup: false,
                is_leaving,
                is_kept: false,
                is_tls,
            }),
            None => without += usize::from(!is_leaving),
        }
    }
    if members.entries.iter().all(|entry| entry.is_leaving) {
        members.why = Some(match (without, members.is_soon) {
            (1.., _) => format!("no member of {service} has a listener `{listener}`"),
            (0, true) => format!("no member of {service} serves yet"),
            (0, false) => format!("no member runs {service}"),
        });
        members.is_soon &= without == 0;
        members.is_unknown = without == 0;
    }
    members
}

/// Host and port of a gossiped URL: `http://10.0.0.7:8080`.
fn address_of(url: &str) -> Option<Address> {
    let (_, rest) = url.split_once("://")?;
    rest.split('/').next()?.parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use types::api::{About, Member};
    use types::{Generation, RoleState};

    use super::*;

    pub(crate) fn member(id: &str, service: &str, phase: Phase, endpoints: &[(&str, &str)]) -> Member {
        let endpoints: BTreeMap<_, _> =
            endpoints.iter().map(|(name, url)| ((*name).to_owned(), (*url).to_owned())).collect();
        let state = RoleState::starting(service.parse().unwrap());
        Member {
            id: id.parse().unwrap(),
            generation: Generation(1),
            version: 1,
            http: "http://10.0.0.1:7000".to_owned(),
            gossip: String::new(),
            state: Some(RoleState { phase, endpoints, ..state }),
            about: About::default(),
            store: None,
        }
    }

    fn found(members: Vec<Member>, service: &str) -> Members {
        let view = ClusterView::new("test".parse().unwrap(), "a".parse().unwrap(), members);
        of(&view, &service.parse().unwrap(), "web")
    }

    #[test]
    fn members_are_reached_at_their_own_listener_and_never_at_their_nodes_api() {
        let web = [("web", "http://10.0.0.1:80"), ("other", "tcp://10.0.0.1:81")];
        let named = [("web", "tcp://node-2.example:80/")];
        let members = found(
            vec![
                member("a", "api_gateway", Phase::Ready, &web),
                member("b", "api_gateway", Phase::Degraded, &named),
                member("c", "api_gateway", Phase::Draining, &web),
                member("d", "api_gateway", Phase::Starting, &web),
                member("e", "api_gateway", Phase::Ready, &[("other", "tcp://10.0.0.1:81")]),
                member("f", "api_gateway", Phase::Failed, &web),
                member("g", "api_gateway", Phase::Ready, &[("web", "nonsense")]),
                member("h", "storage", Phase::Ready, &web),
            ],
            "api_gateway",
        );
        let shown: Vec<_> = (members.entries.iter())
            .map(|entry| (entry.member.as_ref().unwrap().0.as_str(), &*entry.named, entry.is_leaving))
            .collect();
        let wanted =
            [("a", "10.0.0.1:80", false), ("b", "node-2.example:80", false), ("c", "10.0.0.1:80", true)];
        assert_eq!(shown, wanted);
        assert_eq!((members.why, members.is_soon), (None, true));
    }

    #[test]
    fn a_service_without_such_a_listener_is_no_target() {
        let why = |members: Vec<Member>| {
            let found = found(members, "storage");
            (found.why.unwrap(), found.is_soon)
        };
        let serving = || member("a", "storage/0", Phase::Ready, &[]);
        let starting = || member("b", "storage/1", Phase::Starting, &[]);
        assert_eq!(
            why(vec![serving(), starting()]),
            ("no member of storage has a listener `web`".to_owned(), false)
        );
        assert_eq!(why(vec![starting()]), ("no member of storage serves yet".to_owned(), true));
        assert_eq!(why(vec![]), ("no member runs storage".to_owned(), false));
    }

    #[test]
    fn a_node_that_has_just_started_waits_for_members_that_it_may_not_have_met() {
        let met = |members: Vec<Member>| {
            let found = found(members, "storage").just_met();
            (found.why, found.is_soon)
        };
        assert_eq!(met(vec![]), (None, true));
        let without = met(vec![member("a", "storage/0", Phase::Ready, &[])]);
        assert_eq!(without, (Some("no member of storage has a listener `web`".to_owned()), false));
    }
}
