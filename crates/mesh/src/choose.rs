//! Chooses the destination of a request: the cheaper of two candidates drawn at random.
//!
//! Pure: the caller passes the state of each candidate and the random number generator, so every choice can be replayed
//! in a test. (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.)
//!
//! The cost of a candidate is its estimated response time, times the requests in flight to it plus one. Its slow start decides
//! how often it is drawn, not what it costs. For equal costs each one's part of the requests is exactly its share. Candidates
//! with weights are drawn by their shares alone: with the cost divided by the weight, a candidate of weight 1 beside one of
//! weight 9 would get nothing as long as both are idle, and a fast one would get more than its part.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The estimate for a candidate without an answer so far, unless its rival is faster: then it may be as fast.
const UNKNOWN_MICROS: f32 = 30_000.0;

/// Estimates below this count as this one. Below a millisecond noise decides, and requests in flight say more.
const FINEST_MICROS: f32 = 1_000.0;

/// How long a new candidate takes to get its whole share.
pub(crate) const SLOW_START: Duration = Duration::from_secs(10);

/// The part of its share with which a new candidate begins.
const FIRST_PART: f64 = 0.1;

/// The state of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    /// This request was sent to it already.
    pub(crate) tried: bool,
    pub(crate) health: Health,
    /// Its estimated response time in microseconds; `None` before its first answer.
    pub(crate) micros: Option<f32>,
    /// The number of requests that this process has in flight to it.
    pub(crate) in_flight: u32,
    /// Its share of the requests relative to the other candidates; see [`share`].
    pub(crate) share: f64,
}

/// Whether a candidate should get requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Good,
    /// Opening a connection to it failed recently.
    Avoided,
    /// It failed too often.
    Ejected,
}

impl Standing {
    /// Whether no other candidate can be of a better rank.
    pub(crate) fn is_good(&self) -> bool {
        !self.tried && self.health == Health::Good
    }

    /// The rank; lower is better. An untried candidate ranks before every tried one.
    fn rank(&self, may_eject: bool) -> (bool, Health) {
        let is_pardoned = self.health == Health::Ejected && !may_eject;
        (self.tried, if is_pardoned { Health::Good } else { self.health })
    }

    /// What a request to it costs, if a rival has this estimate.
    fn cost(&self, rival: Option<f32>) -> f32 {
        let unknown = || rival.map_or(UNKNOWN_MICROS, |rival| rival.min(UNKNOWN_MICROS));
        let micros = self.micros.unwrap_or_else(unknown).max(FINEST_MICROS);
        micros * (self.in_flight as f32 + 1.0)
    }
}

/// The share of a candidate with this weight that has served for `age`: a tenth of its weight at first, and its whole weight
/// after ten seconds. Only the ratio of shares matters, so candidates that began together have equal ones.
pub(crate) fn share(weight: u32, age: Duration) -> f64 {
    let part = age.as_secs_f64() / SLOW_START.as_secs_f64();
    f64::from(weight) * part.clamp(FIRST_PART, 1.0)
}

/// Draws two candidates of the best rank at random and returns the cheaper one. If more than half of the candidates are
/// ejected, ejections are ignored: the rest would not bear the load.
///
/// `standing` returns the state of the candidate with an index below `len`, or `None` if it is not eligible.
pub(crate) fn choose<R: Rng>(
    len: usize,
    standing: impl Fn(usize) -> Option<Standing>,
    random: &mut R,
) -> Option<usize> {
    if len == 1 {
        return standing(0).map(|_| 0);
    }
    let best = Best::new(len, standing)?;
    let (first, first_at) = best.draw(random);
    if best.count == 1 {
        return Some(first.0);
    }
    let other = random.random_range(0..best.count - 1);
    let second = best.nth(if other < first_at { other } else { other + 1 })?;
    // The second draw ignores shares, so a candidate with a smaller one is a rival only that often.
    let is_rival = second.1.share >= first.1.share
        || random.random_bool((second.1.share / first.1.share).clamp(0.0, 1.0));
    let wins = is_rival && second.1.cost(first.1.micros) < first.1.cost(second.1.micros);
    Some(if wins { second.0 } else { first.0 })
}

/// Draws one candidate of the best rank, whatever a request to it costs: an operator who gives weights wants these parts, for
/// example to try a new version with a tenth of the requests.
pub(crate) fn choose_by_share<R: Rng>(
    len: usize,
    standing: impl Fn(usize) -> Option<Standing>,
    random: &mut R,
) -> Option<usize> {
    Best::new(len, standing).map(|best| best.draw(random).0.0)
}

/// The candidates of the best rank. They are looked up each time, since there are few and a list would have to be allocated.
struct Best<F> {
    len: usize,
    standing: F,
    may_eject: bool,
    rank: (bool, Health),
    /// Whether any of them has a share: then those without one are left out.
    any_share: bool,
    count: usize,
    /// The sum of their shares.
    share: f64,
}

impl<F: Fn(usize) -> Option<Standing>> Best<F> {
    /// `None` if there is no candidate. If more than half of all are ejected, ejections are ignored.
    fn new(len: usize, standing: F) -> Option<Self> {
        let all = || (0..len).filter_map(&standing);
        let (count, ejected) = all().fold((0, 0), |(count, ejected), found| {
            (count + 1, ejected + usize::from(found.health == Health::Ejected))
        });
        let may_eject = ejected * 2 <= count;
        let rank = all().map(|found| found.rank(may_eject)).min()?;
        let any_share = all().any(|found| found.rank(may_eject) == rank && found.share > 0.0);
        let mut best = Self { len, standing, may_eject, rank, any_share, count: 0, share: 0.0 };
        let (count, share) =
            best.iter().fold((0, 0.0), |(count, share), (_, found)| (count + 1, share + found.share));
        (best.count, best.share) = (count, share);
        Some(best)
    }

    fn iter(&self) -> impl Iterator<Item = (usize, Standing)> {
        let all = (0..self.len).filter_map(|at| Some((at, (self.standing)(at)?)));
        all.filter(|(_, found)| {
            found.rank(self.may_eject) == self.rank && (found.share > 0.0 || !self.any_share)
        })
    }

    fn nth(&self, at: usize) -> Option<(usize, Standing)> {
        self.iter().nth(at)
    }

    /// One of them, each with a probability proportional to its share, and its number among them.
    fn draw<R: Rng>(&self, random: &mut R) -> ((usize, Standing), usize) {
        let mut point = if self.count == 1 { 0.0 } else { random.random::<f64>() * self.share };
        let mut last = None;
        for (number, found) in self.iter().enumerate() {
            point -= found.1.share;
            last = Some((found, number));
            if point < 0.0 {
                break;
            }
        }
        // The last one if all shares are zero, or rounding has left a rest.
        last.expect("some candidate has the best rank")
    }
}

/// The candidates of the best rank, as a list.
pub(crate) fn of_best_rank(
    len: usize,
    standing: impl Fn(usize) -> Option<Standing>,
) -> Vec<(usize, Standing)> {
    Best::new(len, standing).map_or_else(Vec::new, |best| best.iter().collect())
}

/// One of the candidates, each with a probability proportional to its share.
pub(crate) fn draw<R: Rng>(all: &[(usize, Standing)], random: &mut R) -> usize {
    let whole: f64 = all.iter().map(|(_, found)| found.share).sum();
    let mut point = random.random::<f64>() * whole;
    for (at, (_, found)) in all.iter().enumerate() {
        point -= found.share;
        if point < 0.0 {
            return at;
        }
    }
    // All shares are zero, or rounding has left a rest.
    all.len() - 1
}

#[cfg(test)]
mod tests;
