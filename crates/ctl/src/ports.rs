//! Free ports for the nodes of a cluster.
//!
//! They are below the range that the kernel uses for outgoing connections; otherwise any connection could take a port
//! between our check and the agent's start. Each cluster begins its search at its own fixed port, so that addresses
//! survive `ctl down` and `ctl up`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use types::NodeId;

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// Whether addresses are free on this machine or, in tests, in a table.
pub(crate) trait Free {
    fn tcp(&mut self, address: SocketAddr) -> bool;
    fn udp(&mut self, address: SocketAddr) -> bool;
}

/// Tries to bind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThisMachine;

impl Free for ThisMachine {
    fn tcp(&mut self, address: SocketAddr) -> bool {
        TcpListener::bind(address).is_ok()
    }

    fn udp(&mut self, address: SocketAddr) -> bool {
        UdpSocket::bind(address).is_ok()
    }
}

/// The addresses that a node wants. ctl chooses the port if it is 0, or if there is no address at all.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: NodeId,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) gossip: Option<SocketAddr>,
    /// Its previous addresses, used again if still free.
    pub(crate) before: Option<Addresses>,
}

/// Where a node will listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) gossip: SocketAddr,
}

/// Why a node has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    /// End the process that holds it, or change the manifest.
    #[error("node {id}: {kind} port {address} is busy")]
    Busy { id: NodeId, kind: &'static str, address: SocketAddr },
    #[error("node {0}: no port between {FIRST} and {last} is free", last = FIRST + COUNT - 1)]
    NoneLeft(NodeId),
}

/// Chooses the addresses of all nodes, or names every fixed port that is busy.
pub(crate) fn assign(
    requests: &[Request],
    mut taken: BTreeSet<u16>,
    first: u16,
    free: &mut impl Free,
) -> Result<Vec<Addresses>, Vec<PortError>> {
    // Fixed ports first, so that no other node gets one of them.
    for request in requests {
        taken.extend([request.listen, request.gossip].iter().flatten().filter_map(fixed));
    }
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for request in requests {
        match one(request, &taken, first, free) {
            Ok(addresses) => {
                taken.extend([addresses.http.port(), addresses.gossip.port()]);
                found.push(addresses);
            }
            Err(mut busy) => errors.append(&mut busy),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

fn fixed(address: &SocketAddr) -> Option<u16> {
    (address.port() != 0).then_some(address.port())
}

fn one(
    request: &Request,
    taken: &BTreeSet<u16>,
    first: u16,
    free: &mut impl Free,
) -> Result<Addresses, Vec<PortError>> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let http_ip = request.listen.map_or(loopback, |address| address.ip());
    let gossip_ip = request.gossip.map_or(http_ip, |address| address.ip());
    let http_port = request.listen.as_ref().and_then(fixed);
    let gossip_port = request.gossip.as_ref().and_then(fixed);

    let mut busy = Vec::new();
    if let Some(port) = http_port
        && !free.tcp(SocketAddr::new(http_ip, port))
    {
        busy.push(PortError::Busy {
            id: request.id.clone(),
            kind: "TCP",
            address: SocketAddr::new(http_ip, port),
        });
    }
    if let Some(port) = gossip_port
        && !free.udp(SocketAddr::new(gossip_ip, port))
    {
        busy.push(PortError::Busy {
            id: request.id.clone(),
            kind: "UDP",
            address: SocketAddr::new(gossip_ip, port),
        });
    }
    if !busy.is_empty() {
        return Err(busy);
    }

    // One number for both ports where we may choose. If one is fixed, its number is tried first for the other.
    let before = request.before.map(|before| before.http.port());
    let preferred = [http_port, gossip_port, before];
    let preferred = preferred.into_iter().flatten();
    let searched = search(first).filter(|port| !taken.contains(port));
    preferred
        .chain(searched)
        .map(|port| Addresses {
            http: SocketAddr::new(http_ip, http_port.unwrap_or(port)),
            gossip: SocketAddr::new(gossip_ip, gossip_port.unwrap_or(port)),
        })
        .find(|addresses| {
            let is_ours = |port, fixed: Option<u16>| fixed == Some(port) || !taken.contains(&port);
            let may_have = is_ours(addresses.http.port(), http_port.or(gossip_port))
                && is_ours(addresses.gossip.port(), gossip_port.or(http_port));
            may_have && free.tcp(addresses.http) && free.udp(addresses.gossip)
        })
        .ok_or_else(|| vec![PortError::NoneLeft(request.id.clone())])
}

fn search(first: u16) -> impl Iterator<Item = u16> {
    let start = first.wrapping_sub(FIRST) % COUNT;
    (0..COUNT).map(move |step| FIRST + (start + step) % COUNT)
}

/// Where the search for a cluster begins: FNV-1a over its name and place.
pub(crate) fn first_for(key: &str) -> u16 {
    let hash =
        key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let slot = u16::try_from(hash % u32::from(COUNT / 10)).unwrap_or_default();
    FIRST + slot * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports that are busy for TCP and for UDP.
    struct Table(Vec<u16>, Vec<u16>);

    impl Free for Table {
        fn tcp(&mut self, address: SocketAddr) -> bool {
            !self.0.contains(&address.port())
        }
        fn udp(&mut self, address: SocketAddr) -> bool {
            !self.1.contains(&address.port())
        }
    }

    fn request(id: &str, listen: Option<&str>, gossip: Option<&str>) -> Request {
        Request {
            id: id.parse().unwrap(),
            listen: listen.map(|text| text.parse().unwrap()),
            gossip: gossip.map(|text| text.parse().unwrap()),
            before: None,
        }
    }

    fn assigned(requests: &[Request], busy: Table) -> Vec<String> {
        let mut busy = busy;
        match assign(requests, BTreeSet::new(), 10_000, &mut busy) {
            Ok(found) => found.iter().map(|a| format!("{} {}", a.http, a.gossip)).collect(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn nodes_get_one_number_for_both_ports_and_busy_ones_are_passed_over() {
        let requests = [request("a", None, None), request("b", None, None)];
        assert_eq!(
            assigned(&requests, Table(vec![10_000], vec![10_001, 10_003])),
            ["127.0.0.1:10002 127.0.0.1:10002", "127.0.0.1:10004 127.0.0.1:10004"]
        );
    }

    #[test]
    fn fixed_ports_are_kept_and_given_to_no_other_node() {
        let requests = [
            request("a", None, None),
            request("b", Some("127.0.0.1:10000"), None),
            request("c", Some("127.0.0.2:0"), Some("127.0.0.1:10001")),
        ];
        assert_eq!(
            assigned(&requests, Table(vec![], vec![])),
            [
                "127.0.0.1:10002 127.0.0.1:10002",
                "127.0.0.1:10000 127.0.0.1:10000",
                "127.0.0.2:10001 127.0.0.1:10001",
            ]
        );
    }

    #[test]
    fn every_fixed_port_that_is_busy_is_named() {
        let requests =
            [request("a", Some("127.0.0.1:7000"), None), request("b", None, Some("127.0.0.1:7001"))];
        assert_eq!(
            assigned(&requests, Table(vec![7000], vec![7001])),
            ["node a: TCP port 127.0.0.1:7000 is busy", "node b: UDP port 127.0.0.1:7001 is busy"]
        );
    }

    #[test]
    fn a_node_gets_the_port_back_that_it_had() {
        let mut again = request("a", None, None);
        let address = "127.0.0.1:12345".parse().unwrap();
        again.before = Some(Addresses { http: address, gossip: address });
        let requests = [again];
        assert_eq!(assigned(&requests, Table(vec![], vec![])), ["127.0.0.1:12345 127.0.0.1:12345"]);
        assert_eq!(assigned(&requests, Table(vec![12345], vec![])), ["127.0.0.1:10000 127.0.0.1:10000"]);
    }

    #[test]
    fn the_search_covers_the_range_once_from_any_start() {
        for key in ["", "demo", "/tmp/x/demo"] {
            let first = first_for(key);
            let all: BTreeSet<u16> = search(first).collect();
            assert_eq!(search(first).next(), Some(first));
            assert_eq!(all.len(), usize::from(COUNT));
            assert_eq!((all.first(), all.last()), (Some(&10_000), Some(&29_999)));
        }
    }
}
