//! A manifest after every check: what a cluster should look like.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;
use types::{ClusterId, NodeId, Profile, Role, ServiceType, ShardId};

use crate::tree::{Node, Position};

/// What a cluster should look like. Written as YAML it is a manifest again, once each `$` in it is doubled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// The cluster's name.
    pub cluster: ClusterId,
    /// How far apart its nodes are.
    pub profile: Profile,
    /// What all nodes of a service type have in common; types without settings may be absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceType, ServiceSpec>,
    /// The nodes in the order of the file, each with its own id.
    pub nodes: Vec<NodeSpec>,
}

/// What all nodes of a service type have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceSpec {
    /// The type's settings, an object that only its plugin understands.
    pub settings: serde_json::Value,
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
        }
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
    /// Per service type, the place of its key and its settings, if it has any.
    pub(crate) services: BTreeMap<ServiceType, (Position, Option<Node>)>,
    /// The place of each node's id or, where it has none in the file, of its entry.
    pub(crate) nodes: BTreeMap<NodeId, Position>,
}

impl Checked {
    /// Where a setting of a service type stands, by its JSON pointer (RFC 6901) below `settings`.
    ///
    /// What is not in the file is shown by the nearest thing around it.
    pub fn settings_position(&self, service: &ServiceType, pointer: &str) -> Position {
        match self.places.services.get(service) {
            Some((_, Some(settings))) => settings.position_of(pointer),
            Some((key, None)) => *key,
            None => Position::START,
        }
    }

    /// Where a node stands; several nodes may share a place, when one entry has a count.
    pub fn node_position(&self, id: &NodeId) -> Position {
        self.places.nodes.get(id).copied().unwrap_or(Position::START)
    }
}

/// What an agent can run, to check the service types of a manifest against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Each service type, and whether a role of it has a shard.
    pub service_types: Vec<(ServiceType, bool)>,
}

impl Known {
    /// Whether roles of a type have a shard, if the type is known.
    pub(crate) fn is_sharded(&self, service: &ServiceType) -> Option<bool> {
        self.service_types.iter().find(|(known, _)| known == service).map(|(_, sharded)| *sharded)
    }
}
