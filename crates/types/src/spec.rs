//! What is settled on the object store: the spec of a service type, and who owns a shard.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Member;
use crate::id::{Epoch, Generation, NodeId};

/// What all members of a service type run with: a numbered record on the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spec {
    /// The plugin's settings; `null` for none.
    #[serde(default)]
    pub settings: Value,
    /// The number of shards, for types whose shards have owners. Never changes once written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// How many replicas each shard is to have beside its owner.
    #[serde(default, skip_serializing_if = "is_none")]
    pub replicas: u32,
}

impl Spec {
    /// The most replicas of a shard: each reads all that its owner writes.
    pub const MAX_REPLICAS: u32 = 8;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_none(replicas: &u32) -> bool {
    *replicas == 0
}

/// Who owns a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// In which of its lives it took the shard.
    pub generation: Generation,
    /// The number of its claim.
    pub epoch: Epoch,
}

impl Holder {
    /// Whether a member is the owner, in the life in which it took the shard.
    pub fn is(&self, member: &Member) -> bool {
        member.id == self.node && member.generation == self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::About;

    #[test]
    fn another_life_or_another_node_at_the_same_address_is_not_the_owner() {
        let holder = Holder { node: "a".parse().unwrap(), generation: Generation(4), epoch: Epoch(2) };
        for (node, generation, expected) in [("a", 4, true), ("a", 5, false), ("b", 4, false)] {
            let member = Member {
                id: node.parse().unwrap(),
                generation: Generation(generation),
                version: 1,
                http: "http://10.0.0.9:1".to_owned(),
                gossip: "10.0.0.9:1".to_owned(),
                state: None,
                about: About::default(),
                store: None,
            };
            assert_eq!(holder.is(&member), expected, "{node} {generation}");
        }
    }
}
