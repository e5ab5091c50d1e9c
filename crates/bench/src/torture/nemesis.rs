//! Injects faults: bursts in which they overlap, and calm between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use store::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::progress::progress;
use crate::torture::cluster::{Cluster, GATEWAYS};
use crate::torture::faults::{Fault, Resource};
use crate::torture::history::seconds;
use crate::torture::workload::Shared;

/// The length of a burst, and of the calm after it, in milliseconds.
const BURST: std::ops::Range<u64> = 4_000..16_000;
const CALM: std::ops::Range<u64> = 1_500..3_500;
/// The pause between two faults of a burst, in milliseconds.
const PAUSE: std::ops::Range<u64> = 30..270;
/// The largest number of nodes that may be affected at once.
const MAX_AFFECTED: usize = 3;
/// The time between two checks for crashed nodes.
const POLL: Duration = Duration::from_millis(200);

/// A fault that was injected, with times in nanoseconds since the run began.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) from: u64,
    /// `None` until it ends.
    pub(crate) to: Option<u64>,
    pub(crate) fault: Fault,
    /// Why it could not be injected.
    pub(crate) failed: Option<String>,
}

/// The faults injected so far, including the present ones. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Span>>>);

impl Journal {
    fn begin(&self, fault: Fault, from: u64) -> usize {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.push(Span { from, to: None, fault, failed: None });
        spans.len() - 1
    }

    fn end(&self, number: usize, to: u64, failed: Option<String>) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans[number].to = Some(to);
        spans[number].failed = failed;
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of faults of each kind that were injected, and that could not be.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let mut counts = BTreeMap::new();
        for span in self.spans() {
            let count: &mut (u64, u64) = counts.entry(span.fault.kind()).or_default();
            if span.failed.is_none() { count.0 += 1 } else { count.1 += 1 }
        }
        counts
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = self.to.map_or_else(|| "-".to_owned(), seconds);
        write!(f, "{:>11} {to:>11}  {}", seconds(self.from), self.fault)?;
        self.failed.as_ref().map_or(Ok(()), |why| write!(f, " (not done: {why})"))
    }
}

/// The source of faults.
pub(crate) struct Nemesis {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) store: Store,
    pub(crate) shared: Arc<Shared>,
    pub(crate) journal: Journal,
    pub(crate) skipped: Vec<&'static str>,
    pub(crate) longest_stop: Duration,
}

impl Nemesis {
    /// Injects faults until `until`. All faults have ended when it returns.
    pub(crate) async fn run(self: Arc<Self>, seed: u64, until: Instant) -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        while Instant::now() < until {
            let length = Duration::from_millis(rng.random_range(BURST));
            let calm = Duration::from_millis(rng.random_range(CALM));
            self.burst(&mut rng, until.min(Instant::now() + length)).await?;
            let acknowledged = self.shared.acknowledged();
            let now = seconds(self.shared.history.now());
            let faults = self.journal.spans().len();
            progress(&format!("{now} s: {faults} faults, {acknowledged} writes acknowledged"));
            sleep(calm).await;
        }
        Ok(())
    }

    async fn burst(self: &Arc<Self>, rng: &mut StdRng, until: Instant) -> anyhow::Result<()> {
        let mut running: JoinSet<anyhow::Result<Fault>> = JoinSet::new();
        let mut held = BTreeSet::new();
        while Instant::now() < until {
            while let Some(ended) = running.try_join_next() {
                release(ended??, &mut held);
            }
            let (fault, length) = Fault::choose(rng, &self.skipped, self.cluster.skews, self.longest_stop);
            if is_tolerable(fault, &held) && fault.resource().is_none_or(|resource| held.insert(resource)) {
                running.spawn(Arc::clone(self).inject(fault, length));
            }
            sleep(Duration::from_millis(rng.random_range(PAUSE))).await;
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn inject(self: Arc<Self>, fault: Fault, length: Duration) -> anyhow::Result<Fault> {
        let number = self.journal.begin(fault, self.shared.history.now());
        let failed = fault.begin(&self.cluster, &self.store).await.err().map(|error| format!("{error:#}"));
        if failed.is_none() {
            sleep(length).await;
            fault.end(&self.cluster).await?;
        }
        self.journal.end(number, self.shared.history.now(), failed);
        Ok(fault)
    }
}

/// Restarts nodes that have crashed, and updates the gateways' addresses, forever.
pub(crate) async fn restart_crashed(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    loop {
        for number in cluster.collect_crashed().await {
            let pause = rand::rng().random_range(100..3_000);
            sleep(Duration::from_millis(pause)).await;
            cluster.start_node(number).await?;
        }
        cluster.find_gateways().await;
        sleep(POLL).await;
    }
}

fn release(fault: Fault, held: &mut BTreeSet<Resource>) {
    if let Some(resource) = fault.resource() {
        held.remove(&resource);
    }
}

/// Whether at least one gateway and half of the nodes stay unaffected.
fn is_tolerable(fault: Fault, held: &BTreeSet<Resource>) -> bool {
    let node = |resource: &Resource| match resource {
        Resource::Process(node) | Resource::Links(node) | Resource::StoreLink(node) => Some(*node),
        // A node with a wrong clock serves as the others do.
        Resource::Proxies | Resource::Room | Resource::Clock(_) => None,
    };
    let Some(hit) = fault.resource().and_then(|resource| node(&resource)) else { return true };
    let affected: BTreeSet<_> = held.iter().filter_map(node).chain([hit]).collect();
    let gateways = affected.iter().filter(|node| **node < GATEWAYS).count();
    affected.len() <= MAX_AFFECTED && gateways < GATEWAYS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::skew::Range;

    #[test]
    fn one_gateway_and_half_of_the_nodes_stay_unaffected() {
        let held = BTreeSet::from([Resource::Process(0), Resource::Links(2), Resource::Room]);
        assert!(is_tolerable(Fault::Kill { node: 3 }, &held));
        assert!(!is_tolerable(Fault::Kill { node: 1 }, &held), "it is the last gateway");
        let held = BTreeSet::from([Resource::Process(0), Resource::Links(2), Resource::Process(3)]);
        assert!(!is_tolerable(Fault::Stop { node: 4 }, &held));
        assert!(is_tolerable(Fault::Stop { node: 2 }, &held), "this node is affected already");
        assert!(is_tolerable(Fault::Fill, &held));
    }

    #[test]
    fn the_same_seed_chooses_the_same_faults() {
        let skews = Range { is_signed: false };
        let choose = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..200)
                .map(|_| Fault::choose(&mut rng, &["cut", "fill"], skews, Duration::from_secs(15)))
                .collect::<Vec<_>>()
        };
        assert_eq!(choose(1), choose(1));
        assert_ne!(choose(1), choose(2));
        let kinds: BTreeSet<_> = choose(1).into_iter().map(|(fault, _)| fault.kind()).collect();
        assert!(kinds.len() == 8 && !kinds.contains("cut"), "{kinds:?}");
    }
}
