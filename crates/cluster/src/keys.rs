//! The keys that a node gossips, and how they become a member.

use chitchat::{ChitchatId, NodeState};
use serde::Serialize;
use types::api::{About, Member, StoreInfo};
use types::{Generation, NodeId};

use crate::config::MAX_VALUE_BYTES;

/// What the node does: a [`types::RoleState`] as JSON.
pub(crate) const ROLE: &str = "role";
/// The URL of its HTTP API.
pub(crate) const HTTP: &str = "http";
/// What it says of itself once: an [`About`] as JSON.
pub(crate) const ABOUT: &str = "about";
/// The object store that it uses: a [`StoreInfo`] as JSON.
pub(crate) const STORE: &str = "store";
/// Present once the node has said that it goes.
pub(crate) const LEFT: &str = "left";

/// The value is longer than [`MAX_VALUE_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gossip value `{key}` has {len} bytes, at most {MAX_VALUE_BYTES} are allowed")]
pub(crate) struct ValueTooLong {
    pub(crate) key: &'static str,
    pub(crate) len: usize,
}

/// A value as it is gossiped.
pub(crate) fn encode(key: &'static str, value: &impl Serialize) -> Result<String, ValueTooLong> {
    let text =
        serde_json::to_string(value).expect("our own types have string keys and no failing serializer");
    if text.len() > MAX_VALUE_BYTES {
        return Err(ValueTooLong { key, len: text.len() });
    }
    Ok(text)
}

/// The member that a node's gossiped state describes; none while the essential keys have not arrived.
///
/// A role that this version does not understand is shown as none, so that a newer node is never taken for a dead one.
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
