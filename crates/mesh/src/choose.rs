//! Chooses the destination of a request by the power of two choices.
//!
//! Pure: the caller passes the state of each candidate and the random number generator, so every choice can be replayed
//! in a test. (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.)

use rand::{Rng, RngExt};

/// The state of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// This request was sent to it already.
    pub(crate) tried: bool,
    /// Opening a connection to it failed recently.
    pub(crate) avoided: bool,
    /// The number of requests that this mesh has in flight to it.
    pub(crate) in_flight: u32,
}

impl Standing {
    /// The rank; lower is better. An untried candidate ranks before every tried one.
    fn class(self) -> usize {
        usize::from(self.tried) * 2 + usize::from(self.avoided)
    }
}

/// Draws two candidates of the best rank at random and returns the one with fewer requests in flight.
///
/// `standing` returns the state of the candidate with an index below `len`, or `None` if it is not eligible.
pub(crate) fn choose<R: Rng>(
    len: usize,
    standing: impl Fn(usize) -> Option<Standing>,
    random: &mut R,
) -> Option<usize> {
    let mut sizes = [0_usize; 4];
    for candidate in (0..len).filter_map(&standing) {
        sizes[candidate.class()] += 1;
    }
    let class = sizes.iter().position(|&size| size > 0)?;
    let mut best = (0..len).filter_map(|at| {
        standing(at).filter(|candidate| candidate.class() == class).map(|candidate| (at, candidate.in_flight))
    });
    let size = sizes[class];
    if size == 1 {
        return best.next().map(|(at, _)| at);
    }
    let first = random.random_range(0..size);
    let second = (first + random.random_range(1..size)) % size;
    let (low, high) = (first.min(second), first.max(second));
    let one = best.nth(low)?;
    let Some(other) = best.nth(high - low - 1) else {
        return Some(one.0);
    };
    // With equal load the first draw wins, so that neither end of the list is preferred.
    let (drawn, rival) = if first < second { (one, other) } else { (other, one) };
    Some(if rival.1 < drawn.1 { rival.0 } else { drawn.0 })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn known(tried: bool, avoided: bool, in_flight: u32) -> Option<Standing> {
        Some(Standing { tried, avoided, in_flight })
    }

    /// How often each candidate is chosen in a thousand draws.
    fn draws(candidates: &[Option<Standing>]) -> Vec<u32> {
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..1000 {
            if let Some(at) = choose(candidates.len(), |at| candidates[at], &mut random) {
                counts[at] += 1;
            }
        }
        counts
    }

    #[test]
    fn of_two_candidates_the_less_loaded_always_wins() {
        assert_eq!(draws(&[known(false, false, 3), known(false, false, 2)]), [0, 1000]);
    }

    #[test]
    fn the_most_loaded_of_many_is_never_chosen() {
        let counts = draws(&[known(false, false, 9), known(false, false, 1), known(false, false, 1)]);
        assert_eq!(counts[0], 0);
        assert!(counts[1] > 400 && counts[2] > 400, "{counts:?}");
    }

    #[test]
    fn equal_candidates_are_chosen_equally_often() {
        let counts = draws(&[known(false, false, 0); 4]);
        assert!(counts.iter().all(|&count| (190..310).contains(&count)), "{counts:?}");
    }

    #[test]
    fn untried_beats_reachable_beats_the_rest() {
        let (fresh, unreachable) = (known(false, false, 9), known(false, true, 0));
        let (tried, hopeless) = (known(true, false, 0), known(true, true, 0));
        assert_eq!(draws(&[None, hopeless, tried, unreachable, fresh]), [0, 0, 0, 0, 1000]);
        assert_eq!(draws(&[None, hopeless, tried, unreachable]), [0, 0, 0, 1000]);
        assert_eq!(draws(&[None, hopeless, tried]), [0, 0, 1000]);
        assert_eq!(draws(&[None, hopeless]), [0, 1000]);
        assert_eq!(draws(&[None, None]), [0, 0]);
        assert!(draws(&[]).is_empty());
    }
}
