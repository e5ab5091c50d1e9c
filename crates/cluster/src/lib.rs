//! Membership by gossip: which nodes are alive and what each one does. No other crate depends on chitchat.
//!
//! [`Cluster::join`] runs gossip on its own thread and publishes a [`ClusterView`], a plain value, on every change.
//! Pure code in `liveness` and `stall` decides which nodes are alive; `driver` carries the decisions out.

mod announced;
mod changes;
mod config;
mod driver;
mod gossip;
mod keys;
mod liveness;
mod network;
mod order;
mod stall;
mod view;

pub use announced::Announced;
pub use changes::{Change, Changes, diff};
pub use config::{ClusterConfig, MAX_MEMBERS, MAX_VALUE_BYTES, Timing};
pub use gossip::{Cluster, JoinError};
pub use network::{MemoryNetwork, Network};
pub use order::{GossipError, Rival};
pub use view::ClusterView;
