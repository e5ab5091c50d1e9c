//! One node's view of its cluster, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use types::api::Member;
use types::{ClusterId, Generation, NodeId, Phase, Role, RoleState, ServiceName, ServiceType, ShardRef};

/// One node's view of its cluster: its live members by id, itself included. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq)]
struct Inner {
    cluster: ClusterId,
    me: NodeId,
    members: BTreeMap<NodeId, Member>,
    left: BTreeMap<NodeId, Generation>,
}

impl ClusterView {
    /// The view of node `me`.
    pub fn new(cluster: ClusterId, me: NodeId, members: impl IntoIterator<Item = Member>) -> Self {
        let members = members.into_iter().map(|member| (member.id.clone(), member)).collect();
        Self::with_left(cluster, me, members, BTreeMap::new())
    }

    /// The view of node `me`, with the nodes known to have left and the generation in which each left.
    pub fn with_left(
        cluster: ClusterId,
        me: NodeId,
        members: BTreeMap<NodeId, Member>,
        left: BTreeMap<NodeId, Generation>,
    ) -> Self {
        Self { inner: Arc::new(Inner { cluster, me, members, left }) }
    }

    /// The same view without these incarnations.
    #[must_use]
    pub fn without(&self, incarnations: &BTreeSet<(NodeId, Generation)>) -> Self {
        let is_removed = |member: &Member| incarnations.contains(&(member.id.clone(), member.generation));
        if !self.members().any(is_removed) {
            return self.clone();
        }
        let members = self.members().filter(|member| !is_removed(member));
        let members = members.map(|member| (member.id.clone(), member.clone())).collect();
        let Inner { cluster, me, left, .. } = &*self.inner;
        Self::with_left(cluster.clone(), me.clone(), members, left.clone())
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &ClusterId {
        &self.inner.cluster
    }

    /// The node that holds this view.
    pub fn me(&self) -> &NodeId {
        &self.inner.me
    }

    /// The live members, ordered by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.inner.members.values()
    }

    /// The live members except this node.
    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| member.id != self.inner.me)
    }

    /// One member.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.inner.members.get(id)
    }

    /// The members whose role is of this service, in any phase.
    pub fn of_service<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = &'a Member> {
        self.members().filter(move |member| {
            member.state.as_ref().is_some_and(|state| state.role.service() == Some(service))
        })
    }

    /// The owner of a shard according to its members: the one with the highest epoch.
    pub fn owner(&self, shard: &ShardRef) -> Option<&Member> {
        let owners = self.members().filter_map(|member| {
            let state = member.state.as_ref().filter(|state| state.owns(shard))?;
            Some((state.epoch, member))
        });
        owners.max_by_key(|(epoch, _)| *epoch).map(|(_, owner)| owner)
    }

    /// The members that have a replica of a shard, or open one.
    pub fn replicas<'a>(&'a self, shard: &'a ShardRef) -> impl Iterator<Item = &'a Member> {
        self.members().filter(|member| member.state.as_ref().is_some_and(|state| state.is_replica_of(shard)))
    }

    /// A service's name as members write it: a name that is a type's is written as the type is.
    pub fn normalized(&self, service: ServiceName) -> ServiceName {
        if !service.as_str().contains('-') {
            return service;
        }
        service.normalized(|service_type| {
            let runs =
                |state: &RoleState| state.role.service().is_some_and(|of| of.is_named_after(service_type));
            self.members().any(|member| {
                member.about.runnable.contains(service_type) || member.state.as_ref().is_some_and(runs)
            })
        })
    }

    /// The type of a service according to its members, or else the one that it is named after.
    pub fn type_of(&self, service: &ServiceName) -> Option<ServiceType> {
        let gossiped =
            self.of_service(service).find_map(|member| member.state.as_ref()?.service_type.clone());
        gossiped.or_else(|| service.default_type())
    }

    /// A ready standby that can run this type; another node than `me` if possible.
    pub fn spare(&self, service: &ServiceName, service_type: &ServiceType) -> Option<&NodeId> {
        let is_spare = |member: &&Member| {
            let state = member.state.as_ref();
            member.about.can_run(service, service_type)
                && state.is_some_and(|state| state.role == Role::Standby && state.phase == Phase::Ready)
        };
        let spares = self.members().filter(is_spare).map(|member| &member.id);
        spares.min_by_key(|id| *id == self.me())
    }

    /// Whether the view shows the member in this generation at `min_version` or later, or in a later generation.
    pub fn shows(&self, id: &NodeId, generation: Generation, min_version: u64) -> bool {
        self.member(id).is_some_and(|member| {
            member.generation > generation
                || (member.generation == generation && member.version >= min_version)
        })
    }

    /// Whether the node has announced its leave in this generation or a later one.
    pub fn has_left(&self, id: &NodeId, generation: Generation) -> bool {
        self.inner.left.get(id).is_some_and(|left| *left >= generation)
    }
}

#[cfg(test)]
mod tests {
    use types::api::About;
    use types::{Epoch, Post};

    use super::*;

    fn member(id: &str, (role, phase): (&str, Phase), duty: Post, epoch: Option<u64>) -> Member {
        let state = RoleState::starting(role.parse().unwrap());
        Member {
            id: id.parse().unwrap(),
            generation: Generation(1),
            version: 1,
            http: String::new(),
            gossip: String::new(),
            state: Some(RoleState { phase, duty: Some(duty), epoch: epoch.map(Epoch), ..state }),
            about: About::default(),
            store: None,
        }
    }

    #[test]
    fn a_shard_has_one_owner_and_any_number_of_replicas() {
        let members = [
            member("outdated", ("storage/0", Phase::Ready), Post::Primary, Some(3)),
            member("owner", ("storage/0", Phase::Starting), Post::Primary, Some(4)),
            member("drained", ("storage/1", Phase::Stopped), Post::Primary, Some(9)),
            member("opening", ("storage/0", Phase::Starting), Post::Replica, None),
            member("replica", ("storage/0", Phase::Degraded), Post::Replica, None),
            member("failed", ("storage/0", Phase::Failed), Post::Replica, None),
            member("other", ("sessions/0", Phase::Ready), Post::Primary, Some(7)),
        ];
        let view = ClusterView::new("test".parse().unwrap(), "owner".parse().unwrap(), members);
        let owner = |shard: &str| view.owner(&shard.parse().unwrap()).map(|owner| owner.id.to_string());
        assert_eq!(owner("storage/0").as_deref(), Some("owner"));
        assert_eq!(owner("storage/1"), None, "a drained node owns nothing");
        assert_eq!(owner("sessions/0").as_deref(), Some("other"));
        let shard = "storage/0".parse().unwrap();
        let replicas: Vec<_> = view.replicas(&shard).map(|replica| replica.id.as_str()).collect();
        assert_eq!(replicas, ["opening", "replica"]);
    }
}
