//! Listeners that change while a service runs: which open one goes on as which one of new settings, with its socket and its
//! connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::Endpoints;

/// An open listener, as far as it counts for which new one continues it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAddress {
    /// Its name.
    pub name: String,
    /// The address in the settings.
    pub wanted: SocketAddr,
    /// The address that it has bound.
    pub bound: SocketAddr,
}

/// For each listener of new settings, by name and address, the place of the open one that continues as it, if there is one.
/// Pure.
///
/// A listener with a port continues the one on that address; one on any free port continues the one of its name.
pub fn continued(open: &[OpenAddress], new: &[(&str, SocketAddr)]) -> Vec<Option<usize>> {
    let mut is_taken = vec![false; open.len()];
    let mut heirs = vec![None; new.len()];
    // Those with a port first, so that no other one takes their socket.
    let (with_port, free): (Vec<_>, Vec<_>) = (0..new.len()).partition(|at| new[*at].1.port() != 0);
    for at in with_port.into_iter().chain(free) {
        let (name, address) = new[at];
        let fits = |known: &OpenAddress| match address.port() {
            0 => known.name == name && known.wanted == address,
            _ => known.bound == address,
        };
        heirs[at] = (0..open.len()).find(|candidate| !is_taken[*candidate] && fits(&open[*candidate]));
        if let Some(heir) = heirs[at] {
            is_taken[heir] = true;
        }
    }
    heirs
}

/// Whether a new listener can't be opened while another one is: they overlap, because one has every address of the machine.
pub fn overlaps(new: SocketAddr, open: SocketAddr) -> bool {
    new.port() == open.port() && new != open && (new.ip().is_unspecified() || open.ip().is_unspecified())
}

/// The URL of a listener with another scheme.
pub fn with_scheme(url: &str, scheme: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

/// The endpoints of a service before a change. Puts them back when it is dropped, unless the change was made.
#[must_use]
#[derive(Debug)]
pub struct EndpointsBefore {
    endpoints: Endpoints,
    before: Option<BTreeMap<String, String>>,
}

impl EndpointsBefore {
    /// Those that there are now.
    pub fn of(endpoints: &Endpoints) -> Self {
        Self { endpoints: endpoints.clone(), before: Some(endpoints.urls()) }
    }

    /// The change was made: these are the endpoints from now on.
    pub fn replace(mut self, urls: BTreeMap<String, String>) {
        self.before = None;
        self.endpoints.replace(urls);
    }
}

impl Drop for EndpointsBefore {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.endpoints.replace(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_continues_the_one_on_its_address_whatever_the_names_are() {
        let known = |name: &str, wanted: &str, bound: &str| OpenAddress {
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
            let new: Vec<_> = new.iter().map(|(name, address)| (*name, address.parse().unwrap())).collect();
            assert_eq!(continued(&old, &new), expected, "{new:?}");
        }
    }

    #[test]
    fn every_address_of_the_machine_overlaps_each_of_them_on_the_same_port() {
        assert!(overlaps("0.0.0.0:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()));
        assert!(!overlaps("0.0.0.0:80".parse().unwrap(), "127.0.0.1:81".parse().unwrap()));
        assert!(!overlaps("127.0.0.1:80".parse().unwrap(), "127.0.0.2:80".parse().unwrap()));
    }

    #[test]
    fn an_endpoint_changes_its_scheme_with_tls() {
        assert_eq!(with_scheme("http://127.0.0.1:80", "https"), "https://127.0.0.1:80");
        assert_eq!(with_scheme("https://[::1]:80", "http"), "http://[::1]:80");
    }

    #[test]
    fn endpoints_are_as_before_unless_the_change_was_made() {
        let (cx, _failures) = crate::Context::for_test("echo".parse().unwrap());
        let urls = |name: &str| BTreeMap::from([(name.to_owned(), format!("tcp://{name}:1"))]);
        cx.endpoints.replace(urls("old"));
        let before = EndpointsBefore::of(&cx.endpoints);
        cx.endpoints.replace(urls("half"));
        drop(before);
        assert_eq!(cx.endpoints.urls(), urls("old"));
        EndpointsBefore::of(&cx.endpoints).replace(urls("new"));
        assert_eq!(cx.endpoints.urls(), urls("new"));
    }
}
