//! The algorithms that choose the destination of a request, and which of them a request uses.
//!
//! Pure but for the turn of round robin, which is one counter: callers pass the state of each candidate and the random number
//! generator.

mod affinity;
mod least;
mod turns;

use rand::Rng;
use types::KeyHash;

pub use self::affinity::AffinityKey;
pub use self::turns::Turns;
use crate::choose::{Standing, choose, choose_by_share, of_best_rank};

/// How the destination of a request is chosen. None of them chooses a candidate that is ejected or can't be reached while a
/// better one stands, and on a retry none chooses one that was tried.
#[derive(Debug, Clone, Copy, Default)]
pub enum Balance<'a> {
    /// The cheaper of two that are drawn at random, by response time and requests in flight.
    #[default]
    TwoChoices,
    /// One drawn at random in proportion to the weights, whatever a request to it costs.
    Shares,
    /// In turn, in proportion to the weights. Requests that share the turns take them from each other.
    RoundRobin(&'a Turns),
    /// The one with the fewest requests in flight in relation to its weight.
    LeastConnections,
    /// The same one for each key, unless that has too many requests in flight: then the next in the key's order.
    Affinity(AffinityKey),
}

impl Balance<'_> {
    /// The index of the chosen candidate; `None` if there is none. `standing` returns the state of the candidate with an index
    /// below `len`, or `None` if it is not eligible; `name` is a hash of what it is called on every node.
    pub(crate) fn choose<R: Rng>(
        self,
        len: usize,
        standing: impl Fn(usize) -> Option<Standing>,
        name: impl Fn(usize) -> KeyHash,
        random: &mut R,
    ) -> Option<usize> {
        let best = |standing| Some(of_best_rank(len, standing)).filter(|best| !best.is_empty());
        match self {
            Self::TwoChoices => choose(len, standing, random),
            Self::Shares => choose_by_share(len, standing, random),
            Self::RoundRobin(turns) => best(standing).map(|best| best[turns::choose(&best, turns)].0),
            Self::LeastConnections => best(standing).map(|best| best[least::choose(&best, random)].0),
            Self::Affinity(key) => best(standing).map(|best| best[affinity::choose(&best, key, name)].0),
        }
    }
}

#[cfg(test)]
mod tests;
