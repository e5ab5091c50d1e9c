//! Why a node could not start, or had to end; and what to do about it.

use cluster::JoinError;
use plugin::{RegistryError, SettingsError};
use store::{OpenError, StoreUrlError};
use types::NodeId;

use crate::node::identity::DataDirError;
use crate::node::listen::ListenError;
use crate::node::shard_count::ShardsError;
use crate::supervisor::{Unfit, Untyped};

/// Why a node could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Choose a role that this agent can run.
    #[error(transparent)]
    Role(#[from] RegistryError),
    /// Start with `--reset-role`.
    #[error("the role that an operator gave this node earlier: {0}")]
    KeptRole(#[source] RegistryError),
    /// Leave `--shards` out, or correct it.
    #[error(transparent)]
    Shards(#[from] ShardsError),
    /// Correct the settings.
    #[error("the settings of {service}: {source}")]
    Settings {
        /// The service, with its type where that differs from its name.
        service: String,
        /// What is wrong with them.
        source: SettingsError,
    },
    /// Repair or change the data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Choose a store that can be used, or repair this one.
    #[error(transparent)]
    Store(OpenError),
    /// Give the store as a URL.
    #[error(transparent)]
    StoreUrl(#[from] StoreUrlError),
    /// Change an address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Change the gossip address, or shorten what the node gossips.
    #[error(transparent)]
    Join(JoinError),
    /// Give this node another `--node-id`.
    #[error("node id `{node}` is taken: {http} answers under it")]
    IdTaken {
        /// The id.
        node: NodeId,
        /// The API of the agent that has it.
        http: String,
    },
    /// Look at the log, then start the agent again.
    #[error("gossip ended: {0}")]
    GossipEnded(String),
    /// A bug; the log says where.
    #[error("the {0} panicked")]
    Panicked(&'static str),
    /// A second signal came while the node was leaving.
    #[error("aborted by a second signal")]
    Aborted,
    /// The system can't notify the agent of signals.
    #[error("signals can't be listened for")]
    Signals(#[source] std::io::Error),
}

impl From<Unfit> for NodeError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Store(error) => Self::Store(error),
            Unfit::Role(Untyped::Given, error) => Self::Role(error),
            Unfit::Role(Untyped::Kept, error) => Self::KeptRole(error),
        }
    }
}

impl NodeError {
    /// What to do next, if that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Listen(error) => Some(error.hint().to_owned()),
            Self::Join(JoinError::Bind { .. }) => Some("choose another port with --gossip-addr".to_owned()),
            Self::IdTaken { .. } => {
                Some("give one of the two another --node-id, and a --data-dir of its own".to_owned())
            }
            Self::DataDir(DataDirError::InUse { .. }) => {
                Some("end that agent, or give this one another --data-dir or --node-id".to_owned())
            }
            Self::DataDir(DataDirError::OtherCluster { owner, .. }) => Some(format!(
                "give this node a --data-dir of its own, or --cluster {owner} to let it go on there"
            )),
            Self::Store(error) => error.hint(),
            Self::Role(RegistryError::UnknownType { .. }) => {
                Some("a service that has another name than its type is given that with --type".to_owned())
            }
            Self::KeptRole(_) => Some("--reset-role lets the node forget it".to_owned()),
            _ => None,
        }
    }
}
