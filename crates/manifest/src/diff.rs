//! Finds the differences between a cluster and its manifest.

use std::collections::BTreeMap;

use types::{NodeId, Role};

use crate::model::{Manifest, NodeSpec};

/// A running node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its current role.
    pub role: Role,
}

/// The differences between a cluster and its manifest. The caller decides whether to act on drift and extra nodes: an
/// operator may have caused them on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Wanted but not running, in the order of the manifest.
    pub start: Vec<NodeSpec>,
    /// Running, but with another role, in the order of the manifest.
    pub drift: Vec<Drift>,
    /// Running but not in the manifest, by id.
    pub extra: Vec<NodeId>,
    /// Running as wanted, in the order of the manifest.
    pub unchanged: Vec<NodeId>,
}

impl Plan {
    /// Whether the cluster matches the manifest.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty() && self.drift.is_empty() && self.extra.is_empty()
    }
}

/// A node whose role differs from the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The node.
    pub id: NodeId,
    /// Its role in the manifest.
    pub wanted: Role,
    /// Its role now.
    pub found: Role,
}

/// Compares a manifest with the running nodes.
pub fn diff(desired: &Manifest, running: &BTreeMap<NodeId, Running>) -> Plan {
    let mut plan = Plan::default();
    for node in &desired.nodes {
        match running.get(&node.id) {
            None => plan.start.push(node.clone()),
            Some(found) if found.role == node.role => plan.unchanged.push(node.id.clone()),
            Some(found) => plan.drift.push(Drift {
                id: node.id.clone(),
                wanted: node.role.clone(),
                found: found.role.clone(),
            }),
        }
    }
    let is_wanted = |id: &NodeId| desired.nodes.iter().any(|node| node.id == *id);
    plan.extra = running.keys().filter(|id| !is_wanted(id)).cloned().collect();
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Profile;

    fn manifest(nodes: &[(&str, &str)]) -> Manifest {
        let node = |&(id, role): &(&str, &str)| NodeSpec {
            id: id.parse().unwrap(),
            role: role.parse().unwrap(),
            listen: None,
            gossip: None,
            labels: BTreeMap::new(),
            runs: None,
            restart: types::supervision::RestartPolicy::default(),
        };
        Manifest {
            cluster: "demo".parse().unwrap(),
            profile: Profile::Local,
            store: None,
            insecure: false,
            services: BTreeMap::new(),
            nodes: nodes.iter().map(node).collect(),
        }
    }

    /// The plan in a line: `+a ~b(storage/0>standby) -c =d`.
    fn planned(wanted: &[(&str, &str)], found: &[(&str, &str)]) -> String {
        let running = found.iter().map(|&(id, role)| {
            let role = role.parse().unwrap();
            (id.parse().unwrap(), Running { role })
        });
        let plan = diff(&manifest(wanted), &running.collect());
        let start = plan.start.iter().map(|node| format!("+{}", node.id));
        let drift = plan.drift.iter().map(|d| format!("~{}({}>{})", d.id, d.found, d.wanted));
        let extra = plan.extra.iter().map(|id| format!("-{id}"));
        let unchanged = plan.unchanged.iter().map(|id| format!("={id}"));
        let all: Vec<String> = start.chain(drift).chain(extra).chain(unchanged).collect();
        all.join(" ")
    }

    #[test]
    fn a_plan_lists_missing_drifted_extra_and_unchanged_nodes() {
        for (wanted, found, expected) in [
            (&[][..], &[][..], ""),
            (&[("b", "standby"), ("a", "storage/0")], &[], "+b +a"),
            (&[("a", "standby")], &[("a", "standby")], "=a"),
            (&[("a", "standby")], &[("a", "storage/0")], "~a(storage/0>standby)"),
            (&[("a", "storage/0")], &[("a", "storage/1")], "~a(storage/1>storage/0)"),
            (&[], &[("z", "standby"), ("y", "standby")], "-y -z"),
            (
                &[("a", "api_gateway"), ("b", "standby"), ("c", "standby")],
                &[("b", "api_gateway"), ("c", "standby"), ("d", "standby")],
                "+a ~b(api_gateway>standby) -d =c",
            ),
        ] {
            assert_eq!(planned(wanted, found), expected);
        }
    }

    #[test]
    fn a_cluster_that_matches_its_manifest_has_an_empty_plan() {
        let wanted = manifest(&[("a", "standby"), ("b", "api_gateway")]);
        let running = wanted.nodes.iter().map(|node| {
            let role = node.role.clone();
            (node.id.clone(), Running { role })
        });
        assert!(diff(&wanted, &running.collect()).is_empty());
    }
}
