//! Which connections come from one client, and how many it has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// One client: an IPv4 address, or an IPv6 network of 64 bits, from which one machine can take any address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey([u8; 8]);

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        let mut key = [0; 8];
        match address.to_canonical() {
            // No unicast network of IPv6 begins with `ff`.
            IpAddr::V4(address) => {
                key[0] = 0xff;
                key[4..].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => key.copy_from_slice(&address.octets()[..8]),
        }
        Self(key)
    }
}

impl ClientKey {
    /// The same for one client on every node.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The connections of each client. Its size is that of the open connections' clients.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Mutex<BTreeMap<ClientKey, u32>>>);

/// A connection of a client. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub struct ClientGuard {
    clients: Clients,
    key: ClientKey,
}

impl Clients {
    /// Counts a connection, unless the client already has `limit`.
    pub fn enter(&self, key: ClientKey, limit: u32) -> Option<ClientGuard> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&key).copied().unwrap_or_default();
        if count >= limit {
            return None;
        }
        counts.insert(key, count + 1);
        Some(ClientGuard { clients: self.clone(), key })
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> ClientKey {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv6_client_is_its_network_of_64_bits() {
        assert_eq!(key("2001:db8:1:2::3"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::3"), key("2001:db8:1:3::3"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }

    #[test]
    fn a_client_has_at_most_so_many_connections_and_leaves_nothing_behind() {
        let clients = Clients::default();
        let (one, other) = (key("10.0.0.1"), key("10.0.0.2"));
        let held: Vec<_> = (0..3).map(|_| clients.enter(one, 3).expect("within its limit")).collect();
        assert!(clients.enter(one, 3).is_none());
        assert!(clients.enter(other, 3).is_some());
        drop(held);
        assert!(clients.0.lock().unwrap().is_empty());
        assert!(clients.enter(one, 1).is_some());
    }
}
