//! What runs now, and where it differs from the manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use client::Client;
use futures_util::future::join_all;
use manifest::{Plan, Running};
use types::api::{AgentSelf, Member};
use types::{NodeId, Phase, Post, Role};

use super::report::DriftRow;
use crate::process::Processes;
use crate::record::ClusterRecord;
use crate::render;

const ASK_LIMIT: Duration = Duration::from_secs(1);

/// The nodes whose processes run.
#[derive(Debug, Default)]
pub(super) struct Now {
    /// Their roles.
    pub(super) roles: BTreeMap<NodeId, Running>,
    /// Those that an operator has drained.
    pub(super) drained: BTreeSet<NodeId>,
    /// Those that are replicas.
    pub(super) replicas: BTreeSet<NodeId>,
}

pub(super) fn running(record: &ClusterRecord, asked: &[AgentSelf]) -> anyhow::Result<Now> {
    let mut processes = Processes::new()?;
    let mut now = Now::default();
    for node in record.nodes.iter().filter(|node| node.is_running(&mut processes)) {
        let own = asked.iter().find(|own| own.member.id == node.id);
        let state = own.and_then(|own| own.member.state.as_ref());
        if state.is_some_and(|state| state.phase == Phase::Stopped) {
            now.drained.insert(node.id.clone());
        }
        if state.is_some_and(|state| state.duty == Some(Post::Replica)) {
            now.replicas.insert(node.id.clone());
        }
        // A node that does not answer is reported when the wait for it ends.
        let role = state.map_or_else(|| node.role.clone(), |state| state.role.clone());
        now.roles.insert(node.id.clone(), Running { role });
    }
    Ok(now)
}

/// The self-report of each node of this cluster that answers.
pub(super) async fn ask_all(record: &ClusterRecord) -> anyhow::Result<Vec<AgentSelf>> {
    let client = Client::new("127.0.0.1")?.within(ASK_LIMIT);
    let calls = record.nodes.iter().map(|node| async {
        let own = client.at(&node.url()).ok()?.agent_self().await.ok()?;
        (own.cluster == record.cluster && own.member.id == node.id).then_some(own)
    });
    Ok(join_all(calls).await.into_iter().flatten().collect())
}

pub(super) async fn members(record: &ClusterRecord) -> anyhow::Result<Vec<Member>> {
    let node = record.nodes.first().context("a manifest has at least one node")?;
    Ok(Client::new(&node.url())?.members().await?.members)
}

/// Where nodes differ from the manifest: by their roles, or because they were drained. Pure.
pub(super) fn differences(plan: &Plan, now: &Now) -> Vec<DriftRow> {
    let found = |node: &NodeId, role: &Role| {
        let post = now.replicas.contains(node).then_some(Post::Replica);
        render::role_words(role, post)
    };
    let row = |node: &NodeId, wanted: &Role, found: String| DriftRow {
        node: node.clone(),
        wanted: wanted.clone(),
        found,
        restored: false,
    };
    let mut rows: Vec<_> = plan
        .drift
        .iter()
        .map(|drift| row(&drift.id, &drift.wanted, found(&drift.id, &drift.found)))
        .collect();
    for id in plan.unchanged.iter().filter(|id| now.drained.contains(id)) {
        if let Some(Running { role }) = now.roles.get(id) {
            rows.push(row(id, role, format!("{} but stopped", found(id, role))));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_node_and_one_with_another_role_differ_from_the_manifest() {
        let role = |role: &str| role.parse::<Role>().unwrap();
        let ids = ["a", "b", "c"].map(|id| id.parse::<NodeId>().unwrap());
        let drift = manifest::Drift { id: ids[2].clone(), wanted: Role::Standby, found: role("storage/1") };
        let plan = Plan { unchanged: ids[..2].to_vec(), drift: vec![drift], ..Plan::default() };
        let roles = ids.clone().into_iter().zip(["storage/0", "standby", "storage/1"].map(role));
        let now = Now {
            roles: roles.map(|(id, role)| (id, Running { role })).collect(),
            drained: BTreeSet::from([ids[0].clone()]),
            replicas: BTreeSet::from([ids[2].clone()]),
        };
        let rows = differences(&plan, &now);
        let rows: Vec<_> = rows.iter().map(|row| format!("{}: {}", row.node, row.found)).collect();
        assert_eq!(rows, ["c: storage/1 (replica)", "a: storage/0 but stopped"], "worded as in `ctl status`");
    }
}
