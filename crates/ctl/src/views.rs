//! Compares the views of all nodes: which node sees which. Pure.

use std::collections::BTreeMap;

use types::api::{Member, Members};
use types::{Generation, NodeId, Phase, RoleState};

/// The view of each queried node; `None` if it did not answer.
pub(crate) type Views = BTreeMap<NodeId, Option<Members>>;

/// The expected state of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) id: NodeId,
    /// Whether it must be ready, not merely seen. Nodes that ran before may be in any state that an operator left them
    /// in.
    pub(crate) ready: bool,
}

/// A node that is not seen as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gap {
    pub(crate) viewer: NodeId,
    /// The node that is not seen; `None` if the viewer itself does not answer.
    pub(crate) node: Option<NodeId>,
    pub(crate) why: String,
}

/// Where the views differ from what is expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Convergence {
    pub(crate) gaps: Vec<Gap>,
    /// Nodes that report that they failed, with the reason.
    pub(crate) failed: Vec<(NodeId, String)>,
    /// Nodes whose own view shows everything.
    pub(crate) complete: usize,
}

/// Compares every view with what is expected.
pub(crate) fn compare(expected: &[Expected], views: &Views) -> Convergence {
    let mut convergence = Convergence::default();
    for viewer in expected {
        let before = convergence.gaps.len();
        match views.get(&viewer.id).and_then(Option::as_ref) {
            None => convergence.gaps.push(Gap {
                viewer: viewer.id.clone(),
                node: None,
                why: "does not answer".to_owned(),
            }),
            Some(view) => {
                if viewer.ready
                    && let Some(state) = find(view, &viewer.id).and_then(|member| member.state.as_ref())
                    && state.phase == Phase::Failed
                {
                    let reason = state.reason.clone().unwrap_or_default();
                    convergence.failed.push((viewer.id.clone(), reason));
                }
                for node in expected {
                    if let Some(why) = shortcoming(view, node, own_generation(views, &node.id)) {
                        convergence.gaps.push(Gap {
                            viewer: viewer.id.clone(),
                            node: Some(node.id.clone()),
                            why,
                        });
                    }
                }
            }
        }
        if convergence.gaps.len() == before {
            convergence.complete += 1;
        }
    }
    convergence
}

fn find<'a>(view: &'a Members, id: &NodeId) -> Option<&'a Member> {
    view.members.iter().find(|member| member.id == *id)
}

fn own_generation(views: &Views, id: &NodeId) -> Option<Generation> {
    let own = views.get(id)?.as_ref()?;
    find(own, id).map(|member| member.generation)
}

/// Why a node in a view is not as expected; `None` if it is.
fn shortcoming(view: &Members, node: &Expected, generation: Option<Generation>) -> Option<String> {
    let Some(member) = find(view, &node.id) else {
        return Some("not seen".to_owned());
    };
    if generation.is_some_and(|generation| member.generation < generation) {
        return Some("seen in an earlier incarnation".to_owned());
    }
    if !node.ready {
        return None;
    }
    match &member.state {
        None => Some("seen in a state that this version does not know".to_owned()),
        // An operator stopped its role, in an earlier incarnation.
        Some(state) if state.phase == Phase::Stopped || does_its_part(state) => None,
        Some(state) => Some(format!("seen {}", state.phase_and_reason())),
    }
}

/// Whether a node fulfils its role: it is ready, or degraded by something that it can't repair, such as a gateway whose
/// route leads to a server that is down. A degraded shard does not count: it is not with its owner yet.
pub(crate) fn does_its_part(state: &RoleState) -> bool {
    match state.phase {
        Phase::Ready => true,
        Phase::Degraded => state.role.shard().is_none(),
        _ => false,
    }
}

/// The gaps in words, a line for each viewer and reason: `n1 does not see n2, n3`.
pub(crate) fn in_words(gaps: &[Gap]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut grouped: BTreeMap<(&NodeId, &str), Vec<&str>> = BTreeMap::new();
    for gap in gaps {
        match &gap.node {
            None => lines.push(format!("{} {}", gap.viewer, gap.why)),
            Some(node) => grouped.entry((&gap.viewer, &gap.why)).or_default().push(node.as_str()),
        }
    }
    for ((viewer, why), nodes) in grouped {
        let nodes = nodes.join(", ");
        lines.push(match why.strip_prefix("seen ") {
            Some(how) => format!("{viewer} sees {nodes} {how}"),
            None => format!("{viewer} does not see {nodes}"),
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::member;

    fn view(of: &str, members: &[(&str, Phase)]) -> (NodeId, Option<Members>) {
        let members = members.iter().map(|&(id, phase)| member(id, "standby", phase)).collect();
        let viewed_by: NodeId = of.parse().unwrap();
        let members = Members { cluster: "c".parse().unwrap(), viewed_by: viewed_by.clone(), members };
        (viewed_by, Some(members))
    }

    fn expected(ids: &[&str]) -> Vec<Expected> {
        let expect = |id: &&str| Expected { id: id.parse().unwrap(), ready: true };
        ids.iter().map(expect).collect()
    }

    #[test]
    fn a_cluster_has_converged_only_when_every_node_sees_every_node_ready() {
        let both = [("a", Phase::Ready), ("b", Phase::Ready)];
        let views = Views::from([view("a", &both), view("b", &both)]);
        let convergence = compare(&expected(&["a", "b"]), &views);
        assert_eq!(convergence, Convergence { complete: 2, ..Convergence::default() });
    }

    #[test]
    fn each_gap_is_reported_with_its_reason() {
        let views = Views::from([
            view("a", &[("a", Phase::Ready), ("b", Phase::Starting)]),
            view("b", &[("b", Phase::Failed)]),
            ("c".parse().unwrap(), None),
        ]);
        let convergence = compare(&expected(&["a", "b", "c"]), &views);
        assert_eq!(convergence.complete, 0);
        assert_eq!(convergence.failed, [("b".parse().unwrap(), String::new())]);
        assert_eq!(
            in_words(&convergence.gaps),
            [
                "c does not answer",
                "a does not see c",
                "a sees b starting",
                "b does not see a, c",
                "b sees b failed",
            ]
        );
    }

    #[test]
    fn a_node_that_returned_must_be_seen_in_its_new_incarnation() {
        let mut views = Views::from([
            view("a", &[("a", Phase::Ready), ("b", Phase::Ready)]),
            view("b", &[("a", Phase::Ready), ("b", Phase::Ready)]),
        ]);
        let own = views.get_mut(&"b".parse::<NodeId>().unwrap()).unwrap();
        own.as_mut().unwrap().members[1].generation = Generation(2_000);
        let convergence = compare(&expected(&["a", "b"]), &views);
        assert_eq!(in_words(&convergence.gaps), ["a sees b in an earlier incarnation"]);
    }

    #[test]
    fn a_node_that_ran_before_need_only_be_seen() {
        let views = Views::from([view("a", &[("a", Phase::Failed)])]);
        let mut nodes = expected(&["a"]);
        nodes[0].ready = false;
        assert_eq!(compare(&nodes, &views).complete, 1);
    }
}
