//! A manifest after every check: what a cluster should look like.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use types::supervision::RestartPolicy;
use types::{ClusterId, NodeId, Profile, Role, ServiceName, ServiceType, ShardId};

use crate::tree::{Node, Position};

/// What a cluster should look like. Written as YAML it is a manifest again, once each `$` in it is doubled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// How far apart its nodes are.
    pub profile: Profile,
    /// The URL of the object store; a folder on this machine if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// What all nodes of a service have in common; services without settings may be absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// The nodes in the order of the file, each with its own id.
    pub nodes: Vec<NodeSpec>,
}

/// What all nodes of a service have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceSpec {
    /// Its type; the one that it is named after if absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// The type's settings, an object that only its plugin understands.
    pub settings: serde_json::Value,
    /// The number of its shards, for types whose shards have owners; as many as its nodes need if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// Copies of each shard beside its owner's.
    #[serde(skip_serializing_if = "is_none")]
    pub replicas: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(replicas: &u32) -> bool {
    *replicas == 0
}

/// A node as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "NodeEntry")]
pub struct NodeSpec {
    /// Its name.
    pub id: NodeId,
    /// What it does first; a person may change that while it runs.
    pub role: Role,
    /// Where its HTTP API listens; a free port if absent.
    pub listen: Option<SocketAddr>,
    /// Where it gossips; a free port if absent.
    pub gossip: Option<SocketAddr>,
    /// Labels that other nodes see.
    pub labels: BTreeMap<String, String>,
    /// The only services that it takes over by itself; all that it can run if absent.
    pub runs: Option<Vec<ServiceName>>,
    /// When its process is started again after it has ended.
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
    /// The type of a service; none if it is not said and the name is no type's.
    pub fn type_of(&self, service: &ServiceName) -> Option<ServiceType> {
        let told = self.services.get(service).and_then(|spec| spec.service_type.clone());
        told.or_else(|| service.default_type())
    }
}

/// A manifest without mistakes, and where its parts stand in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The manifest.
    pub manifest: Manifest,
    /// The places of its parts.
    pub(crate) places: Places,
}

/// Where the parts of a manifest stand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Places {
    /// Per service, the place of its key and its settings, if it has any.
    pub(crate) services: BTreeMap<ServiceName, (Position, Option<Node>)>,
    /// Per service, the place of its number of shards.
    pub(crate) shards: BTreeMap<ServiceName, Position>,
    /// The place of the store.
    pub(crate) store: Option<Position>,
    /// The place of each node's id or, where it has none in the file, of its entry.
    pub(crate) nodes: BTreeMap<NodeId, Position>,
}

impl Checked {
    /// Where a setting of a service stands, by its JSON pointer (RFC 6901) below `settings`.
    ///
    /// What is not in the file is shown by the nearest thing around it.
    pub fn settings_position(&self, service: &ServiceName, pointer: &str) -> Position {
        match self.places.services.get(service) {
            Some((_, Some(settings))) => settings.position_of(pointer),
            Some((key, None)) => *key,
            None => Position::START,
        }
    }

    /// Where the key of a setting stands, by the same pointer; else its value.
    pub fn settings_key_position(&self, service: &ServiceName, pointer: &str) -> Position {
        match self.places.services.get(service) {
            Some((_, Some(settings))) => settings.key_position_of(pointer),
            _ => self.settings_position(service, pointer),
        }
    }

    /// Where the number of shards of a service stands, or else the service, or else the beginning.
    pub fn shards_position(&self, service: &ServiceName) -> Position {
        let shards = self.places.shards.get(service).copied();
        shards.unwrap_or_else(|| self.settings_position(service, ""))
    }

    /// Where the store stands, or else the beginning.
    pub fn store_position(&self) -> Position {
        self.places.store.unwrap_or(Position::START)
    }

    /// Where a node stands; several nodes may share a place, when one entry has a count.
    pub fn node_position(&self, id: &NodeId) -> Position {
        self.places.nodes.get(id).copied().unwrap_or(Position::START)
    }
}

/// What an agent can run, to check the service types of a manifest against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Each service type.
    pub service_types: Vec<KnownType>,
}

/// A service type that an agent can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownType {
    /// Its name.
    pub name: ServiceType,
    /// Whether a role of it has a shard.
    pub is_sharded: bool,
    /// Whether one node at a time owns such a shard.
    pub is_owned: bool,
    /// Whether other nodes may have copies of it.
    pub is_replicated: bool,
}

impl Known {
    /// What is known of a type.
    pub(crate) fn named(&self, service_type: &ServiceType) -> Option<&KnownType> {
        self.service_types.iter().find(|known| known.name == *service_type)
    }
}
