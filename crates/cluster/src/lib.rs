//! Membership by gossip: who is alive, what each node does. The only crate that names chitchat.
//!
//! [`Cluster::join`] runs gossip on a thread of its own; everybody else reads a [`ClusterView`], a value that is
//! published whenever it changes. What is decided about who is alive is decided by pure code in `liveness` and
//! `stall`; `driver` only carries it out.

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

pub use changes::{Change, Changes, diff};
pub use config::{ClusterConfig, MAX_MEMBERS, MAX_VALUE_BYTES, Timing};
pub use gossip::{Cluster, JoinError};
pub use network::{MemoryNetwork, Network};
pub use order::{GossipError, Rival};
pub use view::ClusterView;
