//! Decides which nodes are members, from the gossip state of each of their incarnations.
//!
//! Chitchat's own live set changes only at the end of a gossip round and needs three heartbeats, which makes joins
//! slow. So a new incarnation is live as soon as its essential keys have arrived and its heartbeat has risen once.
//! After the failure detector has listed it, only the detector removes it. A newcomer that the detector never lists is
//! removed when it stays silent: its heartbeat may have risen only because two peers remembered a dead node
//! differently.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use types::api::Member;
use types::{Generation, NodeId};

/// The present gossip state of one incarnation of a node.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) heartbeat: u64,
    /// Whether the failure detector considers it alive.
    pub(crate) listed: bool,
    /// Whether the node has announced that it leaves.
    pub(crate) left: bool,
    /// The URL of its HTTP API, once it has arrived.
    pub(crate) http: Option<String>,
    /// The member, once its essential keys have arrived.
    pub(crate) member: Option<Member>,
}

/// The history of one incarnation.
#[derive(Debug, Clone, Copy)]
struct Incarnation {
    heartbeat: u64,
    /// When the heartbeat last rose; `None` if it never did.
    rose_at: Option<Instant>,
    was_listed: bool,
    is_live: bool,
    has_left: bool,
}

/// The latest incarnation of a node that was ever live or left.
#[derive(Debug, Clone, Copy)]
struct Latest {
    generation: Generation,
    /// When it was first seen to have ended; `None` while it is live.
    ended_at: Option<Instant>,
}

/// The result of one evaluation.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Evaluation {
    /// The live members by id; of several incarnations of a node, the latest.
    pub(crate) members: BTreeMap<NodeId, Member>,
    /// The nodes whose latest incarnation has left.
    pub(crate) left: BTreeMap<NodeId, Generation>,
    /// The number of incarnations that may soon be live: worth another evaluation in a few milliseconds.
    pub(crate) pending: usize,
    /// Whether only the failure detector, and not time alone, can change the result.
    pub(crate) is_settled: bool,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    patience: Duration,
    incarnations: BTreeMap<(NodeId, Generation), Incarnation>,
    /// Incarnations older than these are ignored, unless their heartbeat rises after the latest one has ended: then
    /// another node used the same id for a while.
    latest: BTreeMap<NodeId, Latest>,
}

impl Liveness {
    /// `patience`: how long an unlisted newcomer stays live without a heartbeat.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, incarnations: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// Evaluates the gossip state of every other node. With `hold`, no live member is declared dead.
    pub(crate) fn evaluate(&mut self, now: Instant, hold: bool, sightings: Vec<Sighting>) -> Evaluation {
        let mut evaluation = Evaluation { is_settled: true, ..Evaluation::default() };
        let mut by_node: BTreeMap<NodeId, Vec<Sighting>> = BTreeMap::new();
        for sighting in sightings {
            by_node.entry(sighting.node.clone()).or_default().push(sighting);
        }
        let seen: BTreeSet<_> = by_node.values().flatten().map(Sighting::key).collect();
        self.incarnations.retain(|key, _| seen.contains(key));
        self.latest.retain(|node, _| by_node.contains_key(node));
        for (node, mut incarnations) in by_node {
            incarnations.sort_by_key(|sighting| sighting.generation);
            let outcomes: Vec<_> =
                incarnations.into_iter().map(|sighting| self.evaluate_one(now, hold, sighting)).collect();
            evaluation.is_settled &= outcomes.iter().all(|outcome| outcome.is_settled);
            evaluation.pending += outcomes.iter().filter(|outcome| outcome.is_pending).count();
            self.note_latest(now, &node, &outcomes);
            let Some(latest) = self.latest.get(&node).copied() else {
                continue;
            };
            let member = outcomes.into_iter().rev().find_map(|outcome| {
                let is_history = outcome.generation < latest.generation
                    && !matches!((outcome.rose_at, latest.ended_at), (Some(rose), Some(end)) if rose > end);
                outcome.member.filter(|_| !is_history)
            });
            match member {
                Some(member) => {
                    evaluation.members.insert(node, member);
                }
                None => {
                    evaluation.left.extend(self.left(&node, latest.generation));
                }
            }
        }
        evaluation
    }

    fn evaluate_one(&mut self, now: Instant, hold: bool, sighting: Sighting) -> Outcome {
        let incarnation = self.incarnations.entry(sighting.key()).or_insert(Incarnation {
            heartbeat: sighting.heartbeat,
            rose_at: None,
            was_listed: false,
            is_live: false,
            has_left: false,
        });
        incarnation.observe(now, &sighting);
        let is_live = incarnation.update_live(now, hold, self.patience, &sighting);
        Outcome {
            generation: sighting.generation,
            left: sighting.left,
            is_pending: !is_live && !sighting.left && incarnation.rose_at.is_none(),
            is_settled: incarnation.was_listed || sighting.left,
            rose_at: incarnation.rose_at,
            member: sighting.member.filter(|_| is_live),
        }
    }

    /// Records the latest incarnation that is live or has left, and when it ended.
    fn note_latest(&mut self, now: Instant, node: &NodeId, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let is_live = outcome.member.is_some();
            let known = self.latest.get(node).map(|latest| latest.generation);
            if (is_live || outcome.left) && known.is_none_or(|known| known < outcome.generation) {
                self.latest.insert(node.clone(), Latest { generation: outcome.generation, ended_at: None });
            }
            if let Some(latest) =
                self.latest.get_mut(node).filter(|latest| latest.generation == outcome.generation)
            {
                latest.ended_at = if is_live { None } else { latest.ended_at.or(Some(now)) };
            }
        }
    }

    /// The node and the generation of its latest incarnation, if that has left.
    fn left(&self, node: &NodeId, latest: Generation) -> Option<(NodeId, Generation)> {
        let incarnation = self.incarnations.get(&(node.clone(), latest))?;
        incarnation.has_left.then(|| (node.clone(), latest))
    }
}

/// The result for one incarnation.
#[derive(Debug)]
struct Outcome {
    generation: Generation,
    left: bool,
    is_pending: bool,
    is_settled: bool,
    rose_at: Option<Instant>,
    /// The member, if this incarnation is live.
    member: Option<Member>,
}

impl Sighting {
    fn key(&self) -> (NodeId, Generation) {
        (self.node.clone(), self.generation)
    }
}

impl Incarnation {
    fn observe(&mut self, now: Instant, sighting: &Sighting) {
        if sighting.heartbeat > self.heartbeat {
            self.heartbeat = sighting.heartbeat;
            self.rose_at = Some(now);
        }
        self.was_listed |= sighting.listed;
        self.has_left |= sighting.left;
    }

    fn update_live(&mut self, now: Instant, hold: bool, patience: Duration, sighting: &Sighting) -> bool {
        let is_known = sighting.member.is_some();
        let is_live = if sighting.left || !is_known {
            false
        } else if self.was_listed {
            sighting.listed || (hold && self.is_live)
        } else {
            let is_fresh = self.rose_at.is_some_and(|rose| now.saturating_duration_since(rose) <= patience);
            is_fresh || (hold && self.is_live)
        };
        self.is_live = is_live;
        is_live
    }
}

#[cfg(test)]
#[path = "liveness/tests.rs"]
mod tests;
