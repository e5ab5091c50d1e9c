//! How far the members' wall clocks are apart, as estimated by this node.
//!
//! No decision compares wall clocks, but people compare the times of logs, events and expiry. Each peer is asked for its
//! time about every half minute. As in NTP (RFC 5905, section 8), the answer is taken to be of the middle of the exchange.
//! Of several exchanges the one with the shortest round trip counts, since its error is at most half of that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::Cluster;
use mesh::Mesh;
use plugin::Metrics;
use rand::RngExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::api::{CLOCK_WARNING_MS, Member};
use types::{Generation, NodeId};

/// How often, approximately, each peer is asked; one at a time.
const ROUND: Duration = Duration::from_secs(30);
/// The shortest pause between two requests: in a large cluster a round takes longer.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The pause before the first request, so that members are known and the start is over.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// How long an answer may take: after a longer time, the error of the estimate could exceed the limit for a warning.
const LIMIT: Duration = Duration::from_secs(2);
/// Exchanges that are kept of each peer.
const KEPT: usize = 8;
/// How long an exchange counts once there are later ones.
const FRESH: Duration = Duration::from_secs(600);
/// How fast two sound clocks may drift apart, in millionths: an oscillator's error and the rate at which NTP corrects it.
const DRIFT_PPM: u128 = 1_000;

/// One request to a peer and its answer.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    /// Unix microseconds on this node's clock as it asked.
    asked_at_us: i64,
    /// How long the answer took, by the monotonic clock.
    took: Duration,
    /// Unix microseconds on the peer's clock as it answered.
    answered_at_us: i64,
}

/// The result of one exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// How far the peer's clock is ahead of this node's, in microseconds.
    ahead_us: i64,
    /// The largest error of that, in either direction.
    within: Duration,
    at: Instant,
}

impl Exchange {
    fn sample(&self, at: Instant) -> Sample {
        let half = self.took / 2;
        let middle = self.asked_at_us.saturating_add(micros(half));
        Sample { ahead_us: self.answered_at_us.saturating_sub(middle), within: half, at }
    }
}

impl Sample {
    /// Whether both can be right if no clock was set in between.
    fn agrees_with(&self, other: &Self) -> bool {
        let apart = Duration::from_micros(self.ahead_us.abs_diff(other.ahead_us));
        let between = other.at.saturating_duration_since(self.at);
        let drift = between.as_nanos().saturating_mul(DRIFT_PPM) / 1_000_000;
        apart.as_nanos() <= (self.within + other.within).as_nanos() + drift
    }
}

/// The results of the latest exchanges with one peer.
#[derive(Debug, Default)]
struct Estimate(VecDeque<Sample>);

impl Estimate {
    fn add(&mut self, sample: Sample) {
        // Results from before a clock was set are outdated.
        self.0.retain(|kept| {
            sample.at.saturating_duration_since(kept.at) <= FRESH && kept.agrees_with(&sample)
        });
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The result with the smallest error.
    fn best(&self) -> Option<&Sample> {
        self.0.iter().min_by_key(|sample| sample.within)
    }
}

/// How far one clock is ahead of those of most others, given how far each of the others is ahead of it.
///
/// The median, so that a few wrong clocks among many do not make the others look wrong. Of the two middle values of an even
/// number, the one nearer to this clock counts.
fn ahead_of_most(mut others_us: Vec<i64>) -> Option<i64> {
    others_us.sort_unstable();
    let (low, high) =
        (others_us.get(others_us.len().checked_sub(1)? / 2)?, others_us.get(others_us.len() / 2)?);
    let median = if low.unsigned_abs() <= high.unsigned_abs() { low } else { high };
    Some(median.saturating_neg())
}

/// The pause between two requests if each of `peers` is to be asked once a round.
fn pause(peers: usize) -> Duration {
    let peers = u32::try_from(peers).unwrap_or(u32::MAX).max(1);
    (ROUND / peers).max(LEAST_PAUSE)
}

/// The estimates of the peers' clocks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Clocks(Arc<Mutex<BTreeMap<NodeId, (Generation, Estimate)>>>);

impl Clocks {
    /// Nothing is known yet.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let clocks = Self(Arc::default());
        let estimates = clocks.clone();
        let help = "How far a peer's clock is ahead of this node's, as estimated";
        metrics.observable_gauges("clock_skew_seconds", help, move || {
            let seconds = |ahead_us: i64| Duration::from_micros(ahead_us.unsigned_abs()).as_secs_f64();
            let signed =
                move |ahead_us: i64| seconds(ahead_us).copysign(if ahead_us < 0 { -1.0 } else { 1.0 });
            let ahead = estimates.ahead_us().into_iter();
            ahead.map(|(peer, us)| (vec![("peer", peer.to_string())], signed(us))).collect::<Vec<_>>()
        });
        clocks
    }

    /// How far each peer's clock is ahead of this node's, in microseconds.
    pub(crate) fn ahead_us(&self) -> Vec<(NodeId, i64)> {
        let known = self.lock();
        let best = |(id, (_, estimate)): (&NodeId, &(Generation, Estimate))| {
            Some((id.clone(), estimate.best()?.ahead_us))
        };
        known.iter().filter_map(best).collect()
    }

    /// How far this node's clock is ahead of those of most others, in microseconds; none while no peer was asked.
    pub(crate) fn own_ahead_us(&self) -> Option<i64> {
        ahead_of_most(self.ahead_us().into_iter().map(|(_, ahead)| ahead).collect())
    }

    /// Asks one peer after the other until the node stops, and warns while this node's clock is far from theirs.
    pub(crate) async fn watch(self, cluster: Cluster, mesh: Mesh, stopping: CancellationToken) {
        let mut last: Option<NodeId> = None;
        let mut is_off = false;
        let mut next_pause = FIRST_PAUSE;
        loop {
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = sleep(next_pause.mul_f64(jitter)) => {}
            }
            let view = cluster.view();
            let peers: BTreeMap<&NodeId, &Member> = view.peers().map(|peer| (&peer.id, peer)).collect();
            self.lock().retain(|id, (generation, _)| {
                peers.get(id).is_some_and(|peer| peer.generation == *generation)
            });
            let after = peers.iter().find(|(id, _)| last.as_ref().is_none_or(|last| **id > last));
            if let Some((_, peer)) = after.or_else(|| peers.iter().next()) {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    sample = ask(&mesh, peer) => self.add(peer, sample),
                }
                last = Some(peer.id.clone());
            }
            next_pause = if self.lock().len() < peers.len() { LEAST_PAUSE } else { pause(peers.len()) };
            is_off = self.log_if_changed(is_off);
        }
    }

    fn add(&self, peer: &Member, sample: Option<Sample>) {
        if let Some(sample) = sample {
            let mut known = self.lock();
            let new = || (peer.generation, Estimate::default());
            known.entry(peer.id.clone()).or_insert_with(new).1.add(sample);
        }
    }

    /// Logs when this node's clock begins and ceases to be off. Returns whether it is.
    fn log_if_changed(&self, was_off: bool) -> bool {
        let ahead = self.own_ahead_us().unwrap_or_default();
        let ahead_ms = ahead / 1_000;
        let is_off = ahead_ms.unsigned_abs() > CLOCK_WARNING_MS;
        match (was_off, is_off) {
            (false, true) => warn!(
                ahead_ms,
                "this node's clock is not that of the other members; synchronize it, for example by NTP"
            ),
            (true, false) => {
                info!(ahead_ms, "this node's clock agrees with those of the other members again");
            }
            (false, false) | (true, true) => {}
        }
        is_off
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Generation, Estimate)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a peer for its time. None if it does not answer, or its version of Coterie does not report the time.
async fn ask(mesh: &Mesh, peer: &Member) -> Option<Sample> {
    let (asked_at_us, asked) = (now_us(), Instant::now());
    let agent = mesh.agent(&peer.http).itself(LIMIT).await.ok()?;
    let took = asked.elapsed();
    if took > LIMIT {
        // This process was paused, and found the answer afterwards.
        return None;
    }
    let is_it = agent.member.id == peer.id && agent.member.generation == peer.generation;
    let exchange = Exchange { asked_at_us, took, answered_at_us: agent.now_us.filter(|_| is_it)? };
    Some(exchange.sample(Instant::now()))
}

/// Unix microseconds on this node's clock.
pub(crate) fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or_else(|before| -micros(before.duration()), micros)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000;
    const SECOND: i64 = 1_000_000;

    #[tokio::test]
    async fn a_clock_is_taken_to_be_read_in_the_middle_of_the_exchange() {
        let at = Instant::now();
        for (asked_at_us, took_ms, answered_at_us, ahead_us) in [
            (1_000 * MS, 10, 1_005 * MS, 0),
            (1_000 * MS, 10, 1_035 * MS, 30 * MS),
            (1_000 * MS, 10, 975 * MS, -30 * MS),
            (0, 0, i64::MAX, i64::MAX),
            (i64::MAX, 2_000, -SECOND, i64::MIN),
        ] {
            let took = Duration::from_millis(took_ms);
            let sample = Exchange { asked_at_us, took, answered_at_us }.sample(at);
            assert_eq!((sample.ahead_us, sample.within), (ahead_us, took / 2), "{asked_at_us}");
        }
    }

    /// Exchanges as `(seconds since the first, milliseconds that the peer seems ahead, milliseconds of round trip)`.
    fn best_of(exchanges: &[(u64, i64, u64)]) -> Option<i64> {
        let start = Instant::now();
        let mut estimate = Estimate::default();
        for (at_s, ahead_ms, round_trip_ms) in exchanges {
            estimate.add(Sample {
                ahead_us: ahead_ms * MS,
                within: Duration::from_millis(round_trip_ms / 2),
                at: start + Duration::from_secs(*at_s),
            });
        }
        estimate.best().map(|sample| sample.ahead_us / MS)
    }

    #[tokio::test]
    async fn of_late_exchanges_the_shortest_counts_unless_a_clock_was_set_since() {
        for (exchanges, best, why) in [
            (vec![], None, "nothing was measured"),
            (vec![(0, 40, 100)], Some(40), "there is one"),
            (vec![(0, 2, 4), (30, 40, 100)], Some(2), "the first was shorter"),
            (vec![(0, 40, 100), (30, 2, 4)], Some(2), "the second was shorter"),
            (vec![(0, 2, 4), (30, 30_000, 100)], Some(30_000), "the peer's clock was set ahead"),
            (vec![(0, 2, 4), (30, -3_600_000, 100), (60, -3_600_010, 40)], Some(-3_600_010), "set back"),
            (vec![(0, 2, 4), (30, 20, 10)], Some(2), "clocks drift, 30 ms in 30 s at most"),
            (vec![(0, 2, 4), (601, 3, 100)], Some(3), "the first is too old"),
            (
                (0..9).map(|at| (at, 9 - i64::try_from(at).unwrap(), 20 + 2 * at)).collect(),
                Some(8),
                "eight are kept",
            ),
        ] {
            assert_eq!(best_of(&exchanges), best, "{why}: {exchanges:?}");
        }
    }

    #[test]
    fn a_wrong_clock_is_reported_and_not_those_that_it_differs_from() {
        let own = |others: &[i64]| {
            let others = others.iter().map(|seconds| seconds * SECOND).collect();
            ahead_of_most(others).map(|ahead| ahead / SECOND)
        };
        for (others, ahead, why) in [
            (vec![], None, "no peer was asked"),
            (vec![30], Some(-30), "one of two: unknown which"),
            (vec![0, 30], Some(0), "one other is wrong"),
            (vec![-30, -30], Some(30), "this one is wrong"),
            (vec![0, 0, 30, 30], Some(0), "two of five others are wrong"),
            (vec![-30, -30, -30, 0], Some(30), "this one and another are wrong"),
            (vec![-3_600, 0, 0, 0, 30], Some(0), "in both directions"),
        ] {
            assert_eq!(own(&others), ahead, "{why}: {others:?}");
        }
    }

    #[test]
    fn a_round_takes_half_a_minute_until_the_cluster_is_large() {
        let s = Duration::from_secs;
        let pauses = [0, 1, 4, 30, 1_000].map(pause);
        assert_eq!(pauses, [s(30), s(30), Duration::from_millis(7_500), s(1), s(1)]);
    }
}
