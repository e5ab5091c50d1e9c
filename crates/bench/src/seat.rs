//! Where a node lives.

use std::net::SocketAddr;

/// Where a node lives: the same over all of its lives.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) name: String,
    /// Two gateways, all others standbys, as in `manifests/demo.yaml`.
    pub(crate) role: &'static str,
    pub(crate) gossip: SocketAddr,
    pub(crate) api: SocketAddr,
}
