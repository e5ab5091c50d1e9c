//! Chooses the backend of a connection.
//!
//! Pure: the candidates, the client and the random number generator come in as arguments, so that one seed gives one
//! sequence of choices. Weights are relative; those of backends in slow start are smaller than the settings'.

use std::collections::BTreeMap;

use plugin::ClientKey;
use rand::{Rng, RngExt};
use types::KeyHash;

use crate::settings::Balance;

/// The largest share of the connections that affinity gives to a backend, relative to its fair share. (V. Mirrokni et al.,
/// "Consistent Hashing with Bounded Loads", 2016.)
const BOUND: f64 = 1.25;

/// A backend that may get the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// Names it among all that there ever were.
    pub(crate) id: u64,
    /// Names it on every balancer.
    pub(crate) key: &'a str,
    pub(crate) connections: u32,
    /// At least 1.
    pub(crate) weight: u64,
}

/// An algorithm with its state.
#[derive(Debug)]
pub(crate) enum Chooser {
    TwoChoices,
    LeastConnections,
    Source,
    RoundRobin(RoundRobin),
}

/// Smooth weighted round robin, as in nginx: each turn every backend gains its weight, and the one with the most loses the
/// sum of all weights. So a backend with a large weight gets its turns spread out.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    gained: BTreeMap<u64, i64>,
}

impl Chooser {
    pub(crate) fn new(balance: Balance) -> Self {
        match balance {
            Balance::TwoChoices => Self::TwoChoices,
            Balance::LeastConnections => Self::LeastConnections,
            Balance::Source => Self::Source,
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::default()),
        }
    }

    /// The index of the chosen candidate; `None` if there is none.
    pub(crate) fn choose(
        &mut self,
        candidates: &[Candidate<'_>],
        client: ClientKey,
        random: &mut impl Rng,
    ) -> Option<usize> {
        match (&mut *self, candidates) {
            (_, []) => None,
            (Self::RoundRobin(turns), _) => turns.choose(candidates),
            (_, [_]) => Some(0),
            (Self::TwoChoices, _) => Some(two_choices(candidates, random)),
            (Self::LeastConnections, _) => Some(least_connections(candidates, random)),
            (Self::Source, _) => source(candidates, client),
        }
    }

    /// Forgets a backend that is gone.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Self::RoundRobin(turns) = self {
            turns.gained.remove(&id);
        }
    }
}

/// Whether one has fewer connections than the other in relation to its weight.
fn is_better(one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    u64::from(one.connections) * other.weight < u64::from(other.connections) * one.weight
}

/// The better of two that are drawn by weight. With equal load it is the first draw, so that idle backends get
/// connections in proportion to their weights, too.
fn two_choices(candidates: &[Candidate<'_>], random: &mut impl Rng) -> usize {
    let first = drawn(candidates, None, random);
    let second = drawn(candidates, Some(first), random);
    if is_better(&candidates[second], &candidates[first]) { second } else { first }
}

/// Draws one by weight, except the one with this index. There are at least two.
fn drawn(candidates: &[Candidate<'_>], except: Option<usize>, random: &mut impl Rng) -> usize {
    let others = || candidates.iter().enumerate().filter(|(at, _)| Some(*at) != except);
    let total: u64 = others().map(|(_, candidate)| candidate.weight).sum();
    let mut left = random.random_range(0..total.max(1));
    let mut last = 0;
    for (at, candidate) in others() {
        last = at;
        if left < candidate.weight {
            return at;
        }
        left -= candidate.weight;
    }
    last
}

/// The best of all; of several equal ones, one drawn by weight.
fn least_connections(candidates: &[Candidate<'_>], random: &mut impl Rng) -> usize {
    let mut best: Vec<usize> = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        match best.first() {
            Some(first) if is_better(&candidates[*first], candidate) => {}
            Some(first) if !is_better(candidate, &candidates[*first]) => best.push(at),
            _ => best = vec![at],
        }
    }
    if best.len() == 1 {
        return best[0];
    }
    let equals: Vec<_> = best.iter().map(|at| candidates[*at]).collect();
    best[drawn(&equals, None, random)]
}

/// The first in the client's order of preference that has room. The order is that of weighted rendezvous hashing: a
/// backend that comes or goes moves only its own share of the clients.
fn source(candidates: &[Candidate<'_>], client: ClientKey) -> Option<usize> {
    let weights: u64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let connections: u64 = candidates.iter().map(|candidate| u64::from(candidate.connections)).sum();
    let has_room = |candidate: &Candidate<'_>| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "numbers of connections and weights are far below 2^52"
        )]
        let share = (connections + 1) as f64 * candidate.weight as f64 / weights.max(1) as f64;
        f64::from(candidate.connections) + 1.0 <= (share * BOUND).ceil()
    };
    let with_room = candidates.iter().enumerate().filter(|(_, candidate)| has_room(candidate));
    let preferred = with_room.max_by(|(_, a), (_, b)| score(a, client).total_cmp(&score(b, client)));
    preferred.map(|(at, _)| at)
}

/// The preference of a client for a backend: the same on every balancer.
fn score(candidate: &Candidate<'_>, client: ClientKey) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "weights are small")]
    let weight = candidate.weight as f64;
    KeyHash::of(client.as_bytes()).preference(KeyHash::of(candidate.key.as_bytes()), weight)
}

impl RoundRobin {
    fn choose(&mut self, candidates: &[Candidate<'_>]) -> Option<usize> {
        let weight = |candidate: &Candidate<'_>| i64::try_from(candidate.weight).unwrap_or(i64::MAX / 4096);
        let mut total = 0_i64;
        let mut chosen: Option<(usize, i64)> = None;
        for (at, candidate) in candidates.iter().enumerate() {
            let gained = self.gained.entry(candidate.id).or_default();
            *gained = gained.saturating_add(weight(candidate));
            total = total.saturating_add(weight(candidate));
            if chosen.is_none_or(|(_, most)| *gained > most) {
                chosen = Some((at, *gained));
            }
        }
        let (at, gained) = chosen?;
        self.gained.insert(candidates[at].id, gained.saturating_sub(total));
        Some(at)
    }
}

#[cfg(test)]
mod tests;
