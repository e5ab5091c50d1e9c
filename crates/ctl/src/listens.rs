//! Finds addresses that several nodes of one machine would bind, before anything starts. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use types::{NodeId, Role, ServiceName};

/// The fixed addresses that services bind, by service, as the agent reports them.
pub(crate) type Listens = BTreeMap<ServiceName, Vec<SocketAddr>>;

/// Two nodes that want one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collision {
    pub(crate) first: NodeId,
    pub(crate) second: NodeId,
    pub(crate) address: SocketAddr,
}

/// What a node will bind: its API's address, if that is fixed, and those of its role.
#[derive(Debug, Clone)]
pub(crate) struct Binding<'a> {
    pub(crate) node: &'a NodeId,
    pub(crate) role: &'a Role,
    pub(crate) api: Option<SocketAddr>,
}

/// Every address that more than one of the nodes wants; each later node is named with the first that has it.
pub(crate) fn collisions<'a>(
    nodes: impl IntoIterator<Item = Binding<'a>>,
    listens: &Listens,
) -> Vec<Collision> {
    let mut taken: Vec<(&NodeId, SocketAddr)> = Vec::new();
    let mut found = Vec::new();
    for Binding { node, role, api } in nodes {
        let of_role = role.service().and_then(|service| listens.get(service)).into_iter().flatten().copied();
        for address in api.into_iter().chain(of_role).filter(|address| address.port() != 0) {
            match taken.iter().find(|(_, other)| overlap(*other, address)) {
                Some((first, _)) if *first != node => {
                    found.push(Collision { first: (*first).clone(), second: node.clone(), address });
                }
                _ => taken.push((node, address)),
            }
        }
    }
    found
}

/// Whether two listeners exclude each other: "any address" takes the port on all addresses.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_want_one_address_are_named_in_pairs() {
        let ids = ["a", "b", "c"].map(|id| id.parse::<NodeId>().unwrap());
        let gateway: Role = "api_gateway".parse().unwrap();
        let listens = |address: &str| {
            BTreeMap::from([("api_gateway".parse().unwrap(), vec![address.parse::<SocketAddr>().unwrap()])])
        };
        let binding = |index: usize, role, api: Option<&str>| Binding {
            node: &ids[index],
            role,
            api: api.map(|api| api.parse().unwrap()),
        };
        let standby = Role::Standby;
        for (address, nodes, expected) in [
            ("127.0.0.1:80", vec![binding(0, &gateway, None), binding(1, &gateway, None)], Some((0, 1))),
            ("127.0.0.1:0", vec![binding(0, &gateway, None), binding(1, &gateway, None)], None),
            ("127.0.0.1:80", vec![binding(0, &gateway, None), binding(1, &standby, None)], None),
            (
                "0.0.0.0:80",
                vec![binding(0, &gateway, None), binding(2, &standby, Some("127.0.0.1:80"))],
                Some((0, 2)),
            ),
            ("127.0.0.1:80", vec![binding(0, &gateway, Some("127.0.0.2:80"))], None),
        ] {
            let found = collisions(nodes, &listens(address));
            let found: Vec<_> = found.iter().map(|found| (&found.first, &found.second)).collect();
            let expected: Vec<_> = expected.iter().map(|(a, b)| (&ids[*a], &ids[*b])).collect();
            assert_eq!(found, expected, "{address}");
        }
    }
}
