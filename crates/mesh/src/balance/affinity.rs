//! Affinity: requests with one key go to one candidate, as long as that does not get more than it can bear.
//!
//! Pure. Weighted rendezvous hashing gives each key an order of the candidates, the same on every node, so one that comes or goes
//! moves only its own share of the keys. The bound is that of consistent hashing with bounded loads (V. Mirrokni, M. Thorup,
//! M. Zadimoghaddam, 2018).

use types::KeyHash;

use crate::choose::Standing;

/// How many requests in flight a candidate may have, relative to its share of all.
const BOUND: f64 = 1.25;

/// Up to this many requests in flight a candidate is within its bound: of a handful of requests the mean says nothing, and the
/// requests that a browser sends at once belong together.
const NEVER_TOO_MANY: u32 = 8;

/// What requests have in common that should go to the same destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AffinityKey(KeyHash);

impl AffinityKey {
    /// The key with these bytes.
    pub fn of(key: &[u8]) -> Self {
        Self(KeyHash::of(key))
    }
}

/// The place in `all`, which is not empty, of the first in the key's order that is within its bound.
pub(super) fn choose(
    all: &[(usize, Standing)],
    AffinityKey(key): AffinityKey,
    name: impl Fn(usize) -> KeyHash,
) -> usize {
    let shares: f64 = all.iter().map(|(_, standing)| standing.share).sum();
    let in_flight: f64 = all.iter().map(|(_, standing)| f64::from(standing.in_flight)).sum();
    let has_room = |standing: &Standing| {
        let part = standing.share / shares;
        let bound = ((in_flight + 1.0) * part * BOUND).ceil();
        standing.in_flight < NEVER_TOO_MANY || f64::from(standing.in_flight) + 1.0 <= bound
    };
    let preference = |(at, standing): &(usize, Standing)| key.preference(name(*at), standing.share);
    let with_room = all.iter().enumerate().filter(|(_, (_, standing))| has_room(standing));
    let first = with_room.map(|(place, found)| (place, preference(found))).max_by(|a, b| a.1.total_cmp(&b.1));
    // Not all can be beyond 1.25 times their share; without any shares there is no bound.
    first.map_or(0, |(place, _)| place)
}
