//! How many connections of a listener one client may have: those beyond are closed before anything is
//! read from them but the header of the PROXY protocol, which names the client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use tracing::debug;

use super::{RefusalReason, Shared};
use crate::ClientGuard;
use crate::proxy_protocol::is_trusted;

/// How many connections one client may have. A client is an address, in IPv6 a network of 64 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerClient {
    /// The most connections at once.
    pub connections: u32,
    /// The networks that have no limit: proxies, whose connections are those of many clients.
    pub exempt: Vec<IpNet>,
}

/// A connection that a listener has accepted, with the settings at that time.
pub(super) struct Accepted {
    pub(super) peer: SocketAddr,
    pub(super) shared: Arc<Shared>,
    /// None if its client has no limit, or is not known yet.
    pub(super) client: Option<ClientGuard>,
}

/// The client of a connection has as many as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Accepted {
    /// Counts a connection, unless its client is known and has too many: then it is to be closed. Behind the PROXY protocol, the
    /// client is known once its header was read.
    pub(super) fn new(peer: SocketAddr, shared: Arc<Shared>) -> Result<Self, TooMany> {
        let is_known = shared.protocols.proxies.is_none();
        let client = if is_known { shared.enter(peer)? } else { None };
        Ok(Self { peer, shared, client })
    }
}

impl Shared {
    /// Counts a connection of a client, if clients have a limit.
    pub(super) fn enter(&self, client: SocketAddr) -> Result<Option<ClientGuard>, TooMany> {
        let Some(limit) = self.limits.per_client.as_ref().filter(|limit| limit.counts(client.ip())) else {
            return Ok(None);
        };
        match self.clients.enter(client.ip().into(), limit.connections) {
            Some(entered) => Ok(Some(entered)),
            None => {
                self.protocols.meters.refused(RefusalReason::PerClient);
                debug!(%client, limit = limit.connections, "closed a connection of a client that has too many");
                Err(TooMany)
            }
        }
    }
}

impl PerClient {
    fn counts(&self, client: IpAddr) -> bool {
        !is_trusted(client, &self.exempt)
    }
}

#[cfg(test)]
mod tests;
