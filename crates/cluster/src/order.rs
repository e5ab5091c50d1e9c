//! The messages between a cluster handle and its driver.

use tokio::sync::oneshot;
use types::api::StoreInfo;
use types::{Generation, NodeId, RoleState, ServiceName};

/// Another live node with this node's id: a second node configured with it, or this node's own earlier incarnation that
/// the failure detector has not declared dead yet. Only a request to its URL shows which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its generation.
    pub generation: Generation,
    /// The URL of its HTTP API.
    pub http: String,
}

/// Why a change could not be gossiped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// The value is longer than [`crate::MAX_VALUE_BYTES`]; make it shorter.
    #[error("{0}")]
    TooLong(String),
    /// The node is leaving or has left.
    #[error("gossip has ended")]
    Ended,
}

/// A request to the driver.
#[derive(Debug)]
pub(crate) enum Command {
    SetRole { state: Box<RoleState>, done: oneshot::Sender<Result<u64, GossipError>> },
    SetStore { store: Box<StoreInfo>, done: oneshot::Sender<Result<(), GossipError>> },
    AnnounceSpec { service: ServiceName, number: u64, done: oneshot::Sender<Result<(), GossipError>> },
    Heartbeat { node: NodeId, generation: Generation, done: oneshot::Sender<Option<u64>> },
    Leave { done: oneshot::Sender<()> },
}
