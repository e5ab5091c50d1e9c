//! What a node needs to know to join, and how fast each profile gossips.

use std::net::SocketAddr;
use std::time::Duration;

use types::api::About;
use types::{ClusterId, Generation, NodeId, Profile};

/// A cluster with more members than this can't be joined: the digest of a message lists every member, and one that
/// outgrows a datagram (65,507 bytes) ends gossip for everybody.
pub const MAX_MEMBERS: usize = 1_000;

/// The longest value a node may gossip, in bytes. Longer ones would block the node's later values.
pub const MAX_VALUE_BYTES: usize = 8 * 1024;

/// What a node needs to know to join.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The cluster; gossip from others is refused.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// This life of it, higher than every earlier one.
    pub generation: Generation,
    /// The UDP address to open.
    pub listen: SocketAddr,
    /// The UDP address at which others reach this node.
    pub advertise: SocketAddr,
    /// Where to look for others: `host:port`. Its own address among them is skipped.
    pub seeds: Vec<String>,
    /// How fast to gossip.
    pub profile: Profile,
    /// The URL of this node's HTTP API.
    pub http: String,
    /// What the node says of itself once.
    pub about: About,
    /// A cluster with this many others is full; [`MAX_MEMBERS`] unless a test wants it otherwise.
    pub max_members: usize,
}

/// The numbers of a profile. Measured with real processes: fast and without false alarms at 100 nodes, 10 % loss and
/// no idle core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Between two rounds of gossip.
    pub interval: Duration,
    /// Silence, in mean heartbeat intervals, after which a member is given up.
    pub phi_threshold: f64,
    /// The mean heartbeat interval that is assumed at first.
    pub initial_interval: Duration,
    /// Longer intervals are not learned from.
    pub max_interval: Duration,
    /// Intervals that the mean is made of.
    pub sampling_window: usize,
    /// How long what is known of a dead member is kept.
    pub grace: Duration,
}

impl Timing {
    /// The numbers of a profile.
    pub fn of(profile: Profile) -> Self {
        let interval = match profile {
            Profile::Local => Duration::from_millis(150),
            Profile::Lan => Duration::from_millis(200),
            Profile::Wan => Duration::from_secs(1),
        };
        Self {
            interval,
            phi_threshold: 10.0,
            initial_interval: interval * 3,
            max_interval: interval * 20,
            sampling_window: 300,
            grace: Duration::from_secs(600),
        }
    }

    /// How long a member is silent, about, before it is given up.
    pub fn silence(&self) -> Duration {
        self.interval.mul_f64(self.phi_threshold)
    }

    /// How long a new member that the failure detector has not listed yet is believed in without a heartbeat.
    pub fn newcomer_patience(&self) -> Duration {
        self.interval * 10
    }

    /// How often this process checks that it runs on time.
    pub fn stall_check(&self) -> Duration {
        self.interval / 2
    }
}
