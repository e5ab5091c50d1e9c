//! What `ctl` and `agent apply` tell each other of owners on the store that may belong to another cluster.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, NodeId, ServiceName, ShardId};

/// Who belongs to the cluster that is to be started.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// Members that are seen.
    #[serde(default)]
    pub members: Vec<Life>,
    /// Processes on this machine, seen or not.
    #[serde(default)]
    pub processes: Vec<Process>,
}

/// A node in one of its lives.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// The life.
    pub generation: Generation,
}

/// An agent's process.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number on its machine.
    pub pid: u32,
    /// Its data folder.
    pub data_dir: String,
}

/// The owner of a shard that is alive and does not belong to the cluster.
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
    /// Where the owner answers.
    pub http: String,
    /// The owner's process.
    pub pid: u32,
    /// The owner's data folder.
    pub data_dir: String,
    /// The store's URL.
    pub store: String,
}
