//! The keys that a node gossips, and how a member is built from them.

use std::collections::BTreeMap;

use chitchat::{ChitchatId, NodeState};
use serde::Serialize;
use types::api::{About, Member, StoreInfo};
use types::{Generation, NodeId, ServiceName};

use crate::config::MAX_VALUE_BYTES;

/// The node's role: a [`types::RoleState`] as JSON.
pub(crate) const ROLE: &str = "role";
/// The URL of the node's HTTP API.
pub(crate) const HTTP: &str = "http";
/// Facts about the node that do not change while it runs: an [`About`] as JSON.
pub(crate) const ABOUT: &str = "about";
/// The object store that the node uses: a [`StoreInfo`] as JSON.
pub(crate) const STORE: &str = "store";
/// The latest specs that the node has seen written: their numbers by service, as JSON.
pub(crate) const SPECS: &str = "specs";
/// Present once the node has announced that it leaves.
pub(crate) const LEFT: &str = "left";

/// The value is longer than [`MAX_VALUE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gossip value `{key}` has {len} bytes, at most {MAX_VALUE_BYTES} are allowed")]
pub(crate) struct ValueTooLong {
    pub(crate) key: &'static str,
    pub(crate) len: usize,
}

/// Encodes a value as it is gossiped.
pub(crate) fn encode(key: &'static str, value: &impl Serialize) -> Result<String, ValueTooLong> {
    let text =
        serde_json::to_string(value).expect("our own types have string keys and no failing serializer");
    if text.len() > MAX_VALUE_BYTES {
        return Err(ValueTooLong { key, len: text.len() });
    }
    Ok(text)
}

/// The specs that a node has announced.
pub(crate) fn specs(state: &NodeState) -> BTreeMap<ServiceName, u64> {
    state.get(SPECS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The member that a node's gossiped state describes; `None` until the essential keys have arrived.
///
/// If this version can't parse the role, the state is `None`, so that a newer node is not taken for a dead one.
pub(crate) fn member(id: &ChitchatId, state: &NodeState) -> Option<Member> {
    let node: NodeId = id.node_id.parse().ok()?;
    let role = state.get(ROLE)?;
    let http = state.get(HTTP)?;
    let about =
        state.get(ABOUT).and_then(|text| serde_json::from_str::<About>(text).ok()).unwrap_or_default();
    let store = state.get(STORE).and_then(|text| serde_json::from_str::<StoreInfo>(text).ok());
    Some(Member {
        id: node,
        generation: Generation(id.generation_id),
        version: state.max_version(),
        http: http.to_owned(),
        gossip: id.gossip_advertise_addr.to_string(),
        state: serde_json::from_str(role).ok(),
        about,
        store,
    })
}
