//! Waits until the shards of a manifest's services have owners that run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use manifest::Manifest;
use tokio::time::{Instant, sleep};
use types::api::Member;
use types::{KeptRole, NodeId, Role, ServiceName, ShardId, ShardRef};

use super::{POLL, Starter};
use crate::exit::{Exit, Failure};
use crate::hints;
use crate::kept;
use crate::out::Progress;
use crate::record::NodeRecord;
use crate::render;
use crate::views::Expected;

impl Starter<'_> {
    /// Waits until every node that answers sees an owner for each shard of the manifest's services.
    pub(crate) async fn await_owners(
        &mut self,
        shards: &BTreeMap<ServiceName, u32>,
        limit: Duration,
        deadline: Instant,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let nodes = self.manifest.nodes.iter().map(|node| &node.id);
        let kept = kept::roles(self.state, &self.manifest.cluster, nodes);
        let wanted = wanted(self.manifest, shards, &kept);
        if wanted.is_empty() {
            return Ok(());
        }
        let nodes = self.record.nodes.iter();
        let expected: Vec<_> = nodes.map(|node| Expected { id: node.id.clone(), ready: false }).collect();
        loop {
            self.replace_lost_ports()?;
            let asked_at = Instant::now();
            let views = self.views(&expected).await;
            let seen: Vec<_> = views.values().flatten().collect();
            let without: BTreeSet<_> =
                seen.iter().flat_map(|view| ownerless(&wanted, &view.members)).collect();
            if !seen.is_empty() && without.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.ownerless(&without, limit).await.into());
            }
            let number = render::count(without.len(), "shard");
            progress.show(&format!("waiting for an owner of {number}"));
            sleep(POLL.max(asked_at.elapsed())).await;
        }
    }

    /// The error at the deadline: which shards have no owner, and why, as far as the store records it.
    async fn ownerless(&mut self, without: &BTreeSet<ShardRef>, limit: Duration) -> Failure {
        let mut notes = BTreeMap::new();
        for url in self.record.nodes.iter().map(NodeRecord::url) {
            let Ok(client) = self.client.at(&url) else { continue };
            if let Ok(claims) = client.claims().await {
                let noted = claims.claims.into_iter();
                notes = noted
                    .filter_map(|claim| Some((ShardRef::new(claim.service, claim.shard), claim.note?)))
                    .collect();
                break;
            }
        }
        let lines: Vec<_> = without
            .iter()
            .map(|shard| {
                let note = notes.get(shard).map_or("it never had an owner", String::as_str);
                format!("{shard} ({})", render::clean(note))
            })
            .collect();
        let what = match lines.len() {
            1 => "a shard has",
            _ => "shards have",
        };
        let message = format!("{what} no running owner after {limit:?}:\n  {}", lines.join("\n  "));
        let cluster = &self.manifest.cluster;
        Failure::new(Exit::NotConverged, message).hint(if self.is_fresh {
            "--timeout waits longer, --keep leaves the agents running for a look at them".to_owned()
        } else {
            format!(
                "`{}` shows more; --timeout waits longer",
                hints::command(&format!("status --cluster {cluster}"))
            )
        })
    }
}

/// The shards of services that the manifest has nodes for, without those that an operator has taken from all of its
/// nodes: these need no owner. Pure.
fn wanted(
    manifest: &Manifest,
    shards: &BTreeMap<ServiceName, u32>,
    kept: &BTreeMap<NodeId, KeptRole>,
) -> BTreeSet<ShardRef> {
    let is_elsewhere =
        |id: &NodeId, role: &Role| kept.get(id).is_some_and(|kept| kept.drained || kept.role != *role);
    let mut wanted = BTreeSet::new();
    for (service, shards) in shards {
        let nodes = manifest.nodes.iter().filter(|node| node.role.service() == Some(service));
        let nodes: Vec<_> = nodes.collect();
        if nodes.is_empty() {
            continue;
        }
        for shard in (0..*shards).filter_map(|shard| ShardId::try_from(shard).ok()) {
            let mut own = nodes.iter().filter(|node| node.role.shard() == Some(shard)).peekable();
            let has_nodes = own.peek().is_some();
            if !(has_nodes && own.all(|node| is_elsewhere(&node.id, &node.role))) {
                wanted.insert(ShardRef::new(service.clone(), shard));
            }
        }
    }
    wanted
}

/// Which of these shards no member runs as their owner. Pure.
fn ownerless(wanted: &BTreeSet<ShardRef>, members: &[Member]) -> BTreeSet<ShardRef> {
    let owned = members.iter().filter_map(|member| {
        let state = member.state.as_ref()?;
        let shard = state.role.shard_ref()?;
        (state.phase.is_serving() && state.owns(&shard)).then_some(shard)
    });
    let owned: BTreeSet<_> = owned.collect();
    wanted.difference(&owned).cloned().collect()
}

#[cfg(test)]
mod tests {
    use types::{Epoch, Phase, Post};

    use super::*;
    use crate::render::tests::member;

    fn words(shards: &BTreeSet<ShardRef>) -> Vec<String> {
        shards.iter().map(ShardRef::to_string).collect()
    }

    fn manifest(nodes: &str) -> Manifest {
        let text = format!("cluster: c\nservices:\n  storage: {{shards: 3}}\n{nodes}");
        manifest::parse("test.yaml", &text, &|_| None, None).unwrap().manifest
    }

    #[test]
    fn the_shards_of_services_with_nodes_are_waited_for_unless_an_operator_took_them_away() {
        let shards = BTreeMap::from([("storage".parse().unwrap(), 3)]);
        let kept = |nodes: &[(&str, &str, bool)]| {
            let kept = nodes.iter().map(|&(node, role, drained)| {
                (node.parse().unwrap(), KeptRole { role: role.parse().unwrap(), drained })
            });
            kept.collect::<BTreeMap<NodeId, _>>()
        };
        let two =
            "nodes:\n  - {id: a, service: storage, shard: 0}\n  - {id: b, service: storage, shard: 1}\n";
        for (nodes, kept, expected) in [
            (two, kept(&[]), &["storage/0", "storage/1", "storage/2"][..]),
            (two, kept(&[("a", "storage/0", true)]), &["storage/1", "storage/2"]),
            (two, kept(&[("a", "standby", false), ("b", "storage/1", false)]), &["storage/1", "storage/2"]),
            ("nodes:\n  - {id: a, service: standby}\n", kept(&[]), &[]),
        ] {
            assert_eq!(words(&wanted(&manifest(nodes), &shards, &kept)), expected, "{nodes} {kept:?}");
        }
    }

    #[test]
    fn a_shard_is_owned_once_its_owner_runs() {
        let wanted = BTreeSet::from(["storage/0".parse().unwrap()]);
        let owner = |phase, epoch: Option<u64>, duty| {
            let mut member = member("a", "storage/0", phase);
            let state = member.state.as_mut().unwrap();
            (state.epoch, state.duty) = (epoch.map(Epoch), duty);
            member
        };
        for (member, is_owned) in [
            (owner(Phase::Ready, Some(1), Some(Post::Primary)), true),
            (owner(Phase::Degraded, Some(1), Some(Post::Primary)), true),
            (owner(Phase::Starting, Some(1), Some(Post::Primary)), false),
            (owner(Phase::Ready, None, Some(Post::Replica)), false),
            (owner(Phase::Ready, None, None), false),
        ] {
            assert_eq!(ownerless(&wanted, std::slice::from_ref(&member)).is_empty(), is_owned, "{member:?}");
        }
        assert_eq!(words(&ownerless(&wanted, &[])), ["storage/0"]);
    }
}
