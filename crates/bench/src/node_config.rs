//! The name, role and addresses of a node.

use std::net::SocketAddr;

/// The name, role and addresses of a node. They stay the same when it restarts.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    pub(crate) name: String,
    /// Two gateways, all others standbys, as in `manifests/demo.yaml`.
    pub(crate) role: &'static str,
    pub(crate) gossip: SocketAddr,
    pub(crate) api: SocketAddr,
}
