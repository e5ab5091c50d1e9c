//! The configuration of an agent: data only, checked where it is used.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use plugin::http::Hosts;
use serde_json::Value;
use store::StoreUrl;
use types::{ClusterId, NodeId, Profile, Role, ServiceName, ServiceType};

/// The configuration of an agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The node's name; generated once and kept when there is none.
    pub node_id: Option<NodeId>,
    /// The HTTP listener; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The gossip address; none is the same as `listen`, port 0 the port that the HTTP listener got.
    pub gossip: Option<SocketAddr>,
    /// The address that other nodes use; derived from `listen` when there is none.
    pub advertise: Option<IpAddr>,
    /// Where to look for others, `host:port` each.
    pub seeds: Vec<String>,
    /// The role to start with, unless an operator has commanded another one before.
    pub role: Role,
    /// The type of the service of `role`. If there is none, it is that of the service's spec, or else the service's name.
    pub service_type: Option<ServiceType>,
    /// The only services whose shards the node takes over on its own; all that it can run if there is none.
    pub runs: Option<Vec<ServiceName>>,
    /// How many shards the service of `role` has, for a store that has no spec of it yet; another number than the one
    /// on the store is refused.
    pub shards: Option<NonZeroU32>,
    /// The command line of this agent as an operator can type it, for hints.
    pub command: Option<String>,
    /// How fast to gossip.
    pub profile: Profile,
    /// Where to keep what must survive a restart.
    pub data_dir: PathBuf,
    /// Labels that other members show.
    pub labels: BTreeMap<String, String>,
    /// The zone of the node.
    pub zone: Option<String>,
    /// Host names that requests may use, besides those that no foreign site can have.
    pub hosts: Hosts,
    /// The object store of the cluster; none is the folder `store` in the data folder, which suits a node that stays
    /// alone.
    pub store: Option<StoreUrl>,
    /// Settings by service, for a store that has none yet.
    pub settings: BTreeMap<ServiceName, Value>,
    /// Whether addresses other than loopback may be opened, though nothing is encrypted or authenticated.
    pub insecure: bool,
    /// Whether to forget the operator's last command.
    pub reset_role: bool,
    /// How often this node's process was restarted after it had ended without leaving.
    pub restarts: u64,
    /// Why it ended the last time, if it was restarted.
    pub last_end: Option<String>,
    /// Lines that this process could not log, as `/metrics` shows them.
    pub dropped_log_lines: Arc<AtomicU64>,
}

impl Config {
    /// The defaults, for a data folder.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            cluster: "coterie".parse().expect("the name follows the rule"),
            node_id: None,
            listen: ([127, 0, 0, 1], 10_000).into(),
            gossip: None,
            advertise: None,
            seeds: Vec::new(),
            role: Role::Standby,
            service_type: None,
            runs: None,
            shards: None,
            command: None,
            profile: Profile::default(),
            data_dir,
            labels: BTreeMap::new(),
            zone: None,
            hosts: Hosts::default(),
            store: None,
            settings: BTreeMap::new(),
            insecure: false,
            reset_role: false,
            restarts: 0,
            last_end: None,
            dropped_log_lines: Arc::default(),
        }
    }
}
