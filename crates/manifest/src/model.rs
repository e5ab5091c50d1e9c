//! A checked manifest: the desired state of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use types::supervision::RestartPolicy;
use types::{ClusterId, NodeId, Profile, Role, ServiceName, ServiceType, ShardId};

use crate::tree::{Node, Position};

/// The desired state of a cluster. Written as YAML, it is a manifest again once each `$` in it is doubled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// How far apart its nodes are.
    pub profile: Profile,
    /// The URL of the object store; if absent, a folder on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Whether services may listen on addresses that other machines reach, although nothing is encrypted or authenticated
    /// between nodes yet.
    #[serde(skip_serializing_if = "is_secure")]
    pub insecure: bool,
    /// What all nodes of a service have in common; services without settings may be absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// The nodes in the order of the file, each with its own id.
    pub nodes: Vec<NodeSpec>,
}

/// What all nodes of a service have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceSpec {
    /// The service's type; if absent, the type that it is named after.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// The settings, an object that only the type's plugin can interpret.
    pub settings: serde_json::Value,
    /// The number of shards, for types whose shards have owners; if absent, as many as the service's nodes need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// Replicas of each shard, not counting its owner.
    #[serde(skip_serializing_if = "is_none")]
    pub replicas: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_secure(insecure: &bool) -> bool {
    !insecure
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(replicas: &u32) -> bool {
    *replicas == 0
}

/// The desired state of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "NodeEntry")]
pub struct NodeSpec {
    /// Its name.
    pub id: NodeId,
    /// Its first role; an operator may change it while the node runs.
    pub role: Role,
    /// The address of its HTTP API; if absent, a free port.
    pub listen: Option<SocketAddr>,
    /// Its gossip address; if absent, a free port.
    pub gossip: Option<SocketAddr>,
    /// Labels that other nodes see.
    pub labels: BTreeMap<String, String>,
    /// The only services that it takes over on its own; if absent, all that it can run.
    pub runs: Option<Vec<ServiceName>>,
    /// When its process is restarted.
    pub restart: RestartPolicy,
}

/// A node as an entry of a manifest.
#[derive(Serialize)]
struct NodeEntry {
    id: NodeId,
    service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<ShardId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gossip: Option<SocketAddr>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<Vec<ServiceName>>,
    #[serde(skip_serializing_if = "is_default")]
    restart: RestartPolicy,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_default(restart: &RestartPolicy) -> bool {
    *restart == RestartPolicy::default()
}

impl From<NodeSpec> for NodeEntry {
    fn from(node: NodeSpec) -> Self {
        Self {
            id: node.id,
            service: node.role.service_name().to_owned(),
            shard: node.role.shard(),
            listen: node.listen,
            gossip: node.gossip,
            labels: node.labels,
            runs: node.runs,
            restart: node.restart,
        }
    }
}

impl Manifest {
    /// The type of a service; `None` if it is not given and the name can't be a type.
    pub fn type_of(&self, service: &ServiceName) -> Option<ServiceType> {
        let declared = self.services.get(service).and_then(|spec| spec.service_type.clone());
        declared.or_else(|| service.default_type())
    }
}

/// A manifest without mistakes, and the positions of its parts in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The manifest.
    pub manifest: Manifest,
    /// The positions of its parts.
    pub(crate) places: Places,
}

/// The positions of the parts of a manifest.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Places {
    /// For each service, the position of its key, and its settings if it has any.
    pub(crate) services: BTreeMap<ServiceName, (Position, Option<Node>)>,
    /// For each service, the position of its number of shards.
    pub(crate) shards: BTreeMap<ServiceName, Position>,
    /// The position of the store.
    pub(crate) store: Option<Position>,
    /// The position of each node's id, or of its entry if the file gives it no id.
    pub(crate) nodes: BTreeMap<NodeId, Position>,
}

impl Checked {
    /// The position of a setting of a service, by its JSON pointer (RFC 6901) below `settings`.
    ///
    /// If the setting is not in the file, this is the position of the nearest enclosing value.
    pub fn settings_position(&self, service: &ServiceName, pointer: &str) -> Position {
        match self.places.services.get(service) {
            Some((_, Some(settings))) => settings.position_of(pointer),
            Some((key, None)) => *key,
            None => Position::START,
        }
    }

    /// The position of the key of a setting, by the same pointer; if it has no key, the position of its value.
    pub fn settings_key_position(&self, service: &ServiceName, pointer: &str) -> Position {
        match self.places.services.get(service) {
            Some((_, Some(settings))) => settings.key_position_of(pointer),
            _ => self.settings_position(service, pointer),
        }
    }

    /// The position of a service's number of shards, else of the service, else the start.
    pub fn shards_position(&self, service: &ServiceName) -> Position {
        let shards = self.places.shards.get(service).copied();
        shards.unwrap_or_else(|| self.settings_position(service, ""))
    }

    /// The position of the store, else the start.
    pub fn store_position(&self) -> Position {
        self.places.store.unwrap_or(Position::START)
    }

    /// The position of a node. Nodes of one entry with a count share a position.
    pub fn node_position(&self, id: &NodeId) -> Position {
        self.places.nodes.get(id).copied().unwrap_or(Position::START)
    }
}

/// What an agent can run, to check the service types of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The service types.
    pub service_types: Vec<KnownType>,
}

/// A service type that an agent can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownType {
    /// Its name.
    pub name: ServiceType,
    /// Whether a role of it has a shard.
    pub is_sharded: bool,
    /// Whether such a shard has an owner, one node at a time.
    pub is_owned: bool,
    /// Whether such a shard may have replicas on other nodes.
    pub is_replicated: bool,
}

impl Known {
    /// The type of this name.
    pub(crate) fn named(&self, service_type: &ServiceType) -> Option<&KnownType> {
        self.service_types.iter().find(|known| known.name == *service_type)
    }
}
