//! What the handle of a cluster and the loop behind it say to each other.

use tokio::sync::oneshot;
use types::api::StoreInfo;
use types::{Generation, NodeId, RoleState};

/// Another live node with this node's id: a second owner of the id, or this node's own earlier life that the failure
/// detector has not given up yet. Only asking its URL tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its life.
    pub generation: Generation,
    /// The URL of its HTTP API.
    pub http: String,
}

/// Why a change could not be gossiped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// Make the value shorter.
    #[error("{0}")]
    TooLong(String),
    /// The node is on its way out.
    #[error("gossip has ended")]
    Ended,
}

/// What the loop is told.
#[derive(Debug)]
pub(crate) enum Command {
    SetRole { state: Box<RoleState>, done: oneshot::Sender<Result<u64, GossipError>> },
    SetStore { store: Box<StoreInfo>, done: oneshot::Sender<Result<(), GossipError>> },
    Heartbeat { node: NodeId, generation: Generation, done: oneshot::Sender<Option<u64>> },
    Leave { done: oneshot::Sender<()> },
}
