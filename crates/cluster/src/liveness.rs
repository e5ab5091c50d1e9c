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
}

#[derive(Debug)]
pub(crate) struct Liveness {
    patience: Duration,
    lives: BTreeMap<(NodeId, Generation), Life>,
    /// The latest life of each node that was ever live or left; earlier ones are history.
    latest: BTreeMap<NodeId, Generation>,
}

impl Liveness {
    /// `patience`: how long an unlisted newcomer is believed in without a heartbeat.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            lives: BTreeMap::new(),
            latest: BTreeMap::new(),
        }
    }

    /// Looks at everything that gossip shows. With `hold`, nobody who is live is given up.
    pub(crate) fn look(&mut self, now: Instant, hold: bool, sightings: Vec<Sighting>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut seen = BTreeSet::new();
        let mut candidates: BTreeMap<NodeId, (Generation, Member)> = BTreeMap::new();
        for sighting in sightings {
            let key = (sighting.node.clone(), sighting.generation);
            seen.insert(key.clone());
            let life = self.lives.entry(key).or_insert(Life {
                heartbeat: sighting.heartbeat,
                rose_at: None,
                was_listed: false,
                is_live: false,
            });
            life.observe(now, &sighting);
            let is_live = life.judge(now, hold, self.patience, &sighting);
            if !is_live && !sighting.left && life.rose_at.is_none() {
                verdict.pending += 1;
            }
            if sighting.left {
                let entry = verdict.left.entry(sighting.node.clone()).or_default();
                *entry = sighting.generation.max(*entry);
            }
            if is_live || sighting.left {
                let latest = self.latest.entry(sighting.node.clone()).or_default();
                *latest = sighting.generation.max(*latest);
            }
            if let Some(member) = sighting.member.filter(|_| is_live) {
                match candidates.get(&sighting.node) {
                    Some((generation, _)) if *generation >= sighting.generation => {}
                    _ => {
                        candidates.insert(sighting.node, (sighting.generation, member));
                    }
                }
            }
        }
        self.lives.retain(|key, _| seen.contains(key));
        let nodes: BTreeSet<&NodeId> = seen.iter().map(|(node, _)| node).collect();
        self.latest.retain(|node, _| nodes.contains(node));
        verdict.members = candidates
            .into_iter()
            .filter(|(node, (generation, _))| self.latest.get(node).is_none_or(|latest| generation >= latest))
            .map(|(node, (_, member))| (node, member))
            .collect();
        verdict
            .left
            .retain(|node, generation| self.latest.get(node) == Some(generation));
        verdict
    }
}

impl Life {
    fn observe(&mut self, now: Instant, sighting: &Sighting) {
        if sighting.heartbeat > self.heartbeat {
            self.heartbeat = sighting.heartbeat;
            self.rose_at = Some(now);
        }
        self.was_listed |= sighting.listed;
    }

    fn judge(&mut self, now: Instant, hold: bool, patience: Duration, sighting: &Sighting) -> bool {
        let is_known = sighting.member.is_some();
        let is_live = if sighting.left || !is_known {
            false
        } else if self.was_listed {
            sighting.listed || (hold && self.is_live)
        } else {
            let is_fresh = self
                .rose_at
                .is_some_and(|rose| now.saturating_duration_since(rose) <= patience);
            is_fresh || (hold && self.is_live)
        };
        self.is_live = is_live;
        is_live
    }
}

#[cfg(test)]
#[path = "liveness/tests.rs"]
mod tests;
