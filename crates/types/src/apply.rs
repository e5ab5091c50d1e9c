//! The messages of `ctl` and `agent apply` about owners on the store that may belong to another cluster.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, NodeId, ServiceName, ShardId};

/// The nodes and processes of the cluster that is being started.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// Members in the views of its nodes.
    #[serde(default)]
    pub members: Vec<Incarnation>,
    /// Processes on this machine, members or not.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// An incarnation of a node.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incarnation {
    /// The node.
    pub node: NodeId,
    /// The number of the incarnation.
    pub generation: Generation,
}

/// An agent's process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its data folder.
    pub data_dir: String,
}

/// A live owner of a shard that does not belong to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The service.
    pub service: ServiceName,
    /// The shard.
    pub shard: ShardId,
    /// Its owner.
    pub node: NodeId,
    /// The number of the owner's claim.
    pub epoch: Epoch,
    /// The URL of the owner's API.
    pub http: String,
    /// The owner's process.
    pub pid: u32,
    /// The owner's data folder.
    pub data_dir: String,
    /// The store's URL.
    pub store: String,
}
