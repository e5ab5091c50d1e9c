//! Decides which nodes are members, from what gossip shows of each of their lives.
//!
//! Chitchat's own live set moves only at the end of a gossip round and needs three heartbeats, which makes joins slow.
//! So a new life counts as soon as its essential keys have arrived and its heartbeat rose once; when the failure
//! detector has listed it, only the detector takes it off. A newcomer that the detector never lists (its heartbeat rose
//! only because two peers remembered a dead node differently) is given up when it stays silent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use types::api::Member;
use types::{Generation, NodeId};

/// What gossip shows of one life of a node right now.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) heartbeat: u64,
    /// Whether the failure detector holds it for alive.
    pub(crate) listed: bool,
    /// Whether the node said that it goes.
    pub(crate) left: bool,
    /// The URL of its HTTP API, once it has arrived.
    pub(crate) http: Option<String>,
    /// The member, once its essential keys have arrived.
    pub(crate) member: Option<Member>,
}

/// What was seen of one life so far.
#[derive(Debug, Clone, Copy)]
struct Life {
    heartbeat: u64,
    /// When the heartbeat rose last; none while it never did.
    rose_at: Option<Instant>,
    was_listed: bool,
    is_live: bool,
    has_left: bool,
}

/// The latest life of a node that was ever live or left.
#[derive(Debug, Clone, Copy)]
struct Latest {
    generation: Generation,
    /// When it was first seen to be over; none while it lives.
    over_at: Option<Instant>,
}

/// The outcome of one look.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// The live members, by id; of several lives of a node the latest.
    pub(crate) members: BTreeMap<NodeId, Member>,
    /// The nodes whose latest life has left.
    pub(crate) left: BTreeMap<NodeId, Generation>,
    /// Lives that may soon be live: worth another look in a few milliseconds.
    pub(crate) pending: usize,
    /// Whether only the failure detector can change the verdict, not time alone.
    pub(crate) is_settled: bool,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    patience: Duration,
    lives: BTreeMap<(NodeId, Generation), Life>,
    /// Earlier lives than these are history, unless their heartbeat rises after the latest one was over: then
    /// somebody else had the same name for a while.
    latest: BTreeMap<NodeId, Latest>,
}

impl Liveness {
    /// `patience`: how long an unlisted newcomer is believed in without a heartbeat.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, lives: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// Looks at everything that gossip shows. With `hold`, nobody who is live is given up.
    pub(crate) fn look(&mut self, now: Instant, hold: bool, sightings: Vec<Sighting>) -> Verdict {
        let mut verdict = Verdict { is_settled: true, ..Verdict::default() };
        let mut by_node: BTreeMap<NodeId, Vec<Sighting>> = BTreeMap::new();
        for sighting in sightings {
            by_node.entry(sighting.node.clone()).or_default().push(sighting);
        }
        let seen: BTreeSet<_> = by_node.values().flatten().map(Sighting::key).collect();
        self.lives.retain(|key, _| seen.contains(key));
        self.latest.retain(|node, _| by_node.contains_key(node));
        for (node, mut lives) in by_node {
            lives.sort_by_key(|sighting| sighting.generation);
            let outcomes: Vec<_> =
                lives.into_iter().map(|sighting| self.judge(now, hold, sighting)).collect();
            verdict.is_settled &= outcomes.iter().all(|outcome| outcome.is_settled);
            verdict.pending += outcomes.iter().filter(|outcome| outcome.is_pending).count();
            self.note_latest(now, &node, &outcomes);
            let Some(latest) = self.latest.get(&node).copied() else {
                continue;
            };
            let member = outcomes.into_iter().rev().find_map(|outcome| {
                let is_history = outcome.generation < latest.generation
                    && !matches!((outcome.rose_at, latest.over_at), (Some(rose), Some(over)) if rose > over);
                outcome.member.filter(|_| !is_history)
            });
            match member {
                Some(member) => {
                    verdict.members.insert(node, member);
                }
                None => {
                    verdict.left.extend(self.left(&node, latest.generation));
                }
            }
        }
        verdict
    }

    fn judge(&mut self, now: Instant, hold: bool, sighting: Sighting) -> Outcome {
        let life = self.lives.entry(sighting.key()).or_insert(Life {
            heartbeat: sighting.heartbeat,
            rose_at: None,
            was_listed: false,
            is_live: false,
            has_left: false,
        });
        life.observe(now, &sighting);
        let is_live = life.judge(now, hold, self.patience, &sighting);
        Outcome {
            generation: sighting.generation,
            left: sighting.left,
            is_pending: !is_live && !sighting.left && life.rose_at.is_none(),
            is_settled: life.was_listed || sighting.left,
            rose_at: life.rose_at,
            member: sighting.member.filter(|_| is_live),
        }
    }

    /// Notes the latest life that is live or has left, and when it was over.
    fn note_latest(&mut self, now: Instant, node: &NodeId, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let is_live = outcome.member.is_some();
            let known = self.latest.get(node).map(|latest| latest.generation);
            if (is_live || outcome.left) && known.is_none_or(|known| known < outcome.generation) {
                self.latest.insert(node.clone(), Latest { generation: outcome.generation, over_at: None });
            }
            if let Some(latest) =
                self.latest.get_mut(node).filter(|latest| latest.generation == outcome.generation)
            {
                latest.over_at = if is_live { None } else { latest.over_at.or(Some(now)) };
            }
        }
    }

    /// The node with its latest life, if that said goodbye.
    fn left(&self, node: &NodeId, latest: Generation) -> Option<(NodeId, Generation)> {
        let life = self.lives.get(&(node.clone(), latest))?;
        life.has_left.then(|| (node.clone(), latest))
    }
}

/// What was found of one life in one look.
#[derive(Debug)]
struct Outcome {
    generation: Generation,
    left: bool,
    is_pending: bool,
    is_settled: bool,
    rose_at: Option<Instant>,
    /// The member, if this life is live.
    member: Option<Member>,
}

impl Sighting {
    fn key(&self) -> (NodeId, Generation) {
        (self.node.clone(), self.generation)
    }
}

impl Life {
    fn observe(&mut self, now: Instant, sighting: &Sighting) {
        if sighting.heartbeat > self.heartbeat {
            self.heartbeat = sighting.heartbeat;
            self.rose_at = Some(now);
        }
        self.was_listed |= sighting.listed;
        self.has_left |= sighting.left;
    }

    fn judge(&mut self, now: Instant, hold: bool, patience: Duration, sighting: &Sighting) -> bool {
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
