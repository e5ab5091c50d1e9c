//! Records on the object store: the spec of a service, and the owner of a shard.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Member;
use crate::id::{Epoch, Generation, NodeId, ServiceName, ServiceType};

/// The configuration of all members of a service: a numbered record on the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Spec {
    /// The service's type; absent where it is the service's name. Never changes once written.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// The plugin's settings; `null` for none.
    #[serde(default)]
    pub settings: Value,
    /// The number of shards, for types whose shards have owners. Never changes once written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// How many replicas each shard should have besides its owner.
    #[serde(default, skip_serializing_if = "is_none")]
    pub replicas: u32,
}

impl Spec {
    /// The most replicas of a shard: each reads all that its owner writes.
    pub const MAX_REPLICAS: u32 = 8;

    /// The type of a service that has this spec; `None` if the spec has none and the service's name is not a type's.
    pub fn type_of(&self, service: &ServiceName) -> Option<ServiceType> {
        self.service_type.clone().or_else(|| service.default_type())
    }

    /// The spec as it is written for a service: without its type if that is the service's name.
    #[must_use]
    pub fn written_for(self, service: &ServiceName) -> Self {
        let service_type = self.service_type.filter(|service_type| !service.is_named_after(service_type));
        Self { service_type, ..self }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(replicas: &u32) -> bool {
    *replicas == 0
}

/// The owner of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Holder {
    /// The node.
    pub node: NodeId,
    /// The number of the incarnation that took the shard.
    pub generation: Generation,
    /// The number of its claim.
    pub epoch: Epoch,
}

impl Holder {
    /// Whether a member is the owner, in the incarnation that took the shard.
    pub fn is(&self, member: &Member) -> bool {
        member.id == self.node && member.generation == self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::About;

    #[test]
    fn a_spec_without_a_type_is_of_the_type_that_its_service_is_named_after() {
        let written: Spec = serde_json::from_str(r#"{"settings": {}, "shards": 2}"#).unwrap();
        let storage: ServiceType = "storage".parse().unwrap();
        assert_eq!(written.type_of(&"storage".parse().unwrap()), Some(storage.clone()));
        let (sessions, storage_itself): (ServiceName, ServiceName) =
            ("sessions".parse().unwrap(), storage.clone().into());
        let typed = Spec { service_type: Some(storage.clone()), ..written };
        assert_eq!(typed.type_of(&sessions), Some(storage));
        assert_eq!(
            serde_json::to_string(&typed.clone().written_for(&sessions)).unwrap(),
            r#"{"type":"storage","settings":{},"shards":2}"#
        );
        let plain = serde_json::to_string(&typed.written_for(&storage_itself)).unwrap();
        assert_eq!(plain, r#"{"settings":{},"shards":2}"#);
    }

    #[test]
    fn another_incarnation_or_another_node_at_the_same_address_is_not_the_owner() {
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
