//! Clients that write, read, list and delete keys of small groups all the time, and record every answer.

mod client;
#[cfg(test)]
mod fake_searcher;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::Request;
use http_body_util::Full;
use rand::{Rng, RngExt};
use tokio::task::JoinSet;

use crate::torture::cluster::{Endpoints, SHARDS};
use crate::torture::history::{History, Key};
use crate::torture::protocol::Reads;
use crate::torture::service::Service;
pub(crate) use client::{Client, success};

/// The number of lanes. Each has one group in use at a time.
pub(crate) const LANES: u32 = 4;
/// The number of keys of a group.
const KEYS: u32 = 3;
/// The number of requests after which a group is retired: some 40 for each key.
const REQUESTS: u32 = 40 * KEYS;
/// The number of open outcomes after which a group is retired: they make the search long.
const OPEN: u32 = 6 * KEYS;
/// The number of unexpected answers kept.
const KEPT: usize = 20;

/// The number of requests by kind and outcome.
pub(crate) type Counts = BTreeMap<(&'static str, String), u64>;

/// The state that clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) history: History,
    service: Service,
    endpoints: Endpoints,
    reads: Reads,
    lanes: Vec<Mutex<Lane>>,
    stop: AtomicBool,
    counts: Mutex<Counts>,
    odd: Mutex<Vec<String>>,
    /// The answers that break a guarantee by themselves, with the keys they are about.
    wrong: Mutex<Vec<(Key, String)>>,
    /// The silence of each shard.
    silences: Vec<Mutex<Silence>>,
    acknowledged: AtomicU64,
    /// The staleness that answers stated.
    staleness: Mutex<Vec<Duration>>,
}

/// The present group of a lane.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    group: u32,
    requests: u32,
    open: u32,
}

/// The time without an acknowledged write to a shard, in nanoseconds since the run began.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    last: u64,
    /// The start and end of the longest one.
    longest: (u64, u64),
}

impl Shared {
    pub(crate) fn new(service: Service, endpoints: Endpoints, reads: Reads) -> Self {
        let lanes = (0..LANES).map(|_| Mutex::default()).collect();
        Self {
            history: History::begin(),
            service,
            endpoints,
            reads,
            lanes,
            stop: AtomicBool::new(false),
            counts: Mutex::default(),
            odd: Mutex::default(),
            wrong: Mutex::default(),
            silences: (0..SHARDS).map(|_| Mutex::default()).collect(),
            acknowledged: AtomicU64::new(0),
            staleness: Mutex::default(),
        }
    }

    /// A random gateway.
    pub(crate) fn gateway(&self, rng: &mut impl Rng) -> anyhow::Result<SocketAddr> {
        self.endpoints.gateway(rng.random_range(0..100)).context("there is no gateway")
    }

    pub(crate) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// The first unexpected answers.
    pub(crate) fn odd(&self) -> Vec<String> {
        lock(&self.odd).clone()
    }

    /// The answers that break a guarantee by themselves, with the keys they are about.
    pub(crate) fn wrong(&self) -> Vec<(Key, String)> {
        lock(&self.wrong).clone()
    }

    /// The number of writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The start and end of the longest time without an acknowledged write, for each shard.
    pub(crate) fn silences(&self) -> Vec<(u64, u64)> {
        self.silences.iter().map(|silence| lock(silence).longest).collect()
    }

    /// The staleness that answers stated.
    pub(crate) fn staleness(&self) -> Vec<Duration> {
        lock(&self.staleness).clone()
    }

    fn note_odd(&self, what: String) {
        let mut odd = lock(&self.odd);
        if odd.len() < KEPT && !odd.contains(&what) {
            odd.push(what);
        }
    }

    fn note_wrong(&self, key: Key, what: String) {
        lock(&self.wrong).push((key, what));
    }

    fn count(&self, what: &'static str, outcome: &str) {
        *lock(&self.counts).entry((what, outcome.to_owned())).or_default() += 1;
    }

    /// A lane's group. Starts a new one when the present one has reached its limits.
    fn group(&self, lane: u32) -> u32 {
        let mut lane = lock(&self.lanes[usize::try_from(lane).unwrap_or_default()]);
        lane.requests += 1;
        if lane.requests > REQUESTS || lane.open > OPEN {
            *lane = Lane { group: lane.group + 1, requests: 1, open: 0 };
        }
        lane.group
    }

    fn open(&self, key: Key) {
        let mut lane = lock(&self.lanes[usize::try_from(key.lane).unwrap_or_default()]);
        lane.open += u32::from(lane.group == key.group);
    }

    fn acknowledge(&self, key: Key) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let shard = usize::try_from(key.shard()).unwrap_or_default();
        lock(&self.silences[shard]).end(self.history.now());
    }
}

impl Silence {
    fn end(&mut self, now: u64) {
        if now.saturating_sub(self.last) > self.longest.1 - self.longest.0 {
            self.longest = (self.last, now);
        }
        self.last = self.last.max(now);
    }
}

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Workload {
    pub(crate) fn start(shared: &Arc<Shared>, clients: u32, seed: u64) -> Self {
        let mut running = JoinSet::new();
        for number in 1..=clients {
            running.spawn(Client::new(shared, number, seed).run());
        }
        Self { shared: Arc::clone(shared), clients: running }
    }

    /// Stops the clients after their present requests.
    pub(crate) async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        for silence in &self.shared.silences {
            lock(silence).end(self.shared.history.now());
        }
    }
}

/// Reads each key once more, with `clients` clients. Fails if a key can't be read.
pub(crate) async fn final_reads(shared: &Arc<Shared>, keys: Vec<Key>, clients: u32) -> anyhow::Result<()> {
    let keys = Arc::new(Mutex::new(keys));
    let mut reading = JoinSet::new();
    for number in 0..clients {
        let (mut client, keys) = (Client::new(shared, 1_000 + number, 0), Arc::clone(&keys));
        reading.spawn(async move {
            loop {
                let Some(key) = lock(&keys).pop() else { return anyhow::Ok(()) };
                client.read_until_known(key).await?;
            }
        });
    }
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(())
}

/// Puts a value under a name that is not one of the keys, until it is acknowledged.
pub(crate) async fn mark(shared: &Arc<Shared>, name: &str) -> anyhow::Result<()> {
    let request = |base: &str| Request::put(format!("{base}/kv/{name}")).body(Full::new("end".into()));
    let put = Client::last(shared).insist(request, success).await;
    put.with_context(|| format!("{name} could not be put"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
