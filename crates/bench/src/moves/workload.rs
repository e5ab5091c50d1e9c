//! Clients that write and read keys without a pause, and check every answer against earlier ones.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use rand::RngExt;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use types::KeyHash;

use crate::moves::ledger::{self, Key, ReadCheck};
use crate::progress::progress;
use crate::rows::{Row, Target};
use crate::stats::{Summary, millis};
use crate::wire::{Answer, Connection, Protocol};

/// The number of keys of each writer.
const KEYS: usize = 16;
/// The number of failures kept with their details.
const KEPT: usize = 50;
/// The time limit of a request; the gateway itself waits for 10 s at most.
const LIMIT: Duration = Duration::from_secs(30);

/// A failed request or a wrong answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    /// The time by the clock of the nodes' logs.
    #[serde(with = "log_time")]
    pub(crate) at: SystemTime,
    /// The move in progress, and for how long.
    during: String,
    request: String,
    took_ms: f64,
    why: String,
}

/// The outcome of all requests.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The latencies in milliseconds.
    pub(crate) puts: Vec<f64>,
    pub(crate) gets: Vec<f64>,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    /// Reads that returned an older version than the known one, or one that no client wrote.
    pub(crate) stale: u64,
    /// Keys whose final version is older than the acknowledged one.
    pub(crate) lost: u64,
    pub(crate) keys: usize,
    pub(crate) per_second: f64,
    /// The longest time without an acknowledged write to the moving shard in each stage, in milliseconds.
    pub(crate) silences: Vec<f64>,
    pub(crate) failures: Vec<Failure>,
}

impl Outcome {
    /// What must never happen, each with the target 0.
    pub(crate) fn violations(&self, nodes: usize) -> [Row; 3] {
        let exact = |count: u64| Summary::of(&[f64::from(u32::try_from(count).unwrap_or(u32::MAX))]);
        let none = |what: String, unit, count| {
            Row::new(what, nodes, unit).ours(exact(count)).target(Target::Max(0.0))
        };
        let (puts, gets) = (self.puts.len(), self.gets.len());
        let (keys, acknowledged) = (self.keys, self.acknowledged);
        [
            none(format!("failed of {puts} PUT and {gets} GET"), "requests", self.failed),
            none(format!("stale of {gets} GET"), "requests", self.stale),
            none(format!("lost of {keys} keys, {acknowledged} acknowledged PUT"), "keys", self.lost),
        ]
    }
}

#[derive(Debug)]
struct Shared {
    gateway: SocketAddr,
    keys: Vec<Key>,
    stop: AtomicBool,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
    stage: Mutex<(String, Instant)>,
    /// The start of each stage.
    stages: Mutex<Vec<Instant>>,
    /// The times at which writes to the moving shard were acknowledged.
    acks: Mutex<Vec<Instant>>,
    shards: NonZeroU32,
    failures: Mutex<Vec<Failure>>,
}

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    began: Instant,
    writers: JoinSet<Vec<f64>>,
    readers: JoinSet<Vec<f64>>,
}

/// A client with its own connection, which is opened again after a failed request.
#[derive(Debug)]
struct Client {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    took_ms: Vec<f64>,
}

impl Workload {
    /// Starts clients that send requests through this gateway; every other one writes.
    pub(crate) fn start(clients: usize, gateway: SocketAddr, shards: NonZeroU32) -> Self {
        let writers = clients.div_ceil(2);
        let shared = Arc::new(Shared {
            gateway,
            keys: (0..writers).flat_map(|writer| ledger::keys(writer, KEYS, shards)).collect(),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            stage: Mutex::new(("before the first move".to_owned(), Instant::now())),
            stages: Mutex::default(),
            acks: Mutex::default(),
            shards,
            failures: Mutex::default(),
        });
        let mut workload = Self {
            shared: Arc::clone(&shared),
            began: Instant::now(),
            writers: JoinSet::new(),
            readers: JoinSet::new(),
        };
        for writer in 0..writers {
            let client = Client::new(&shared);
            workload.writers.spawn(client.write(writer * KEYS..(writer + 1) * KEYS));
        }
        for _ in writers..clients {
            workload.readers.spawn(Client::new(&shared).read());
        }
        workload
    }

    /// Sets the move in progress, which is reported with failures.
    pub(crate) fn stage(&self, stage: String) {
        self.shared.stages.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        *self.shared.stage.lock().unwrap_or_else(PoisonError::into_inner) = (stage, Instant::now());
    }

    /// The numbers of requests, of failed ones, and of stale ones so far.
    pub(crate) fn so_far(&self) -> (u64, u64, u64) {
        let shared = &self.shared;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (count(&shared.sent), count(&shared.failed), count(&shared.stale))
    }

    /// Stops the clients after their present requests, then reads every key.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Outcome> {
        let shared = Arc::clone(&self.shared);
        shared.stop.store(true, Ordering::Relaxed);
        let mut outcome = Outcome::default();
        while let Some(took) = self.writers.join_next().await {
            outcome.puts.extend(took?);
        }
        while let Some(took) = self.readers.join_next().await {
            outcome.gets.extend(took?);
        }
        let count = u32::try_from(outcome.puts.len() + outcome.gets.len()).unwrap_or(u32::MAX);
        outcome.per_second = f64::from(count) / self.began.elapsed().as_secs_f64();
        self.stage("the final read of every key".to_owned());
        let mut client = Client::new(&shared);
        for key in &shared.keys {
            let found = client.get(key).await;
            if found.is_none_or(|version| version < key.acknowledged()) {
                outcome.lost += 1;
                progress(&format!("LOST {}: {found:?}, acknowledged {}", key.name, key.acknowledged()));
            }
        }
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        outcome.acknowledged = count(&shared.acknowledged);
        outcome.failed = count(&shared.failed);
        outcome.stale = count(&shared.stale);
        outcome.keys = shared.keys.len();
        let stages = shared.stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut acks = shared.acks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        acks.sort_unstable();
        outcome.silences = silences(&stages, &acks).into_iter().map(millis).collect();
        outcome.failures = shared.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(outcome)
    }
}

impl Client {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), connection: None, took_ms: Vec::new() }
    }

    async fn write(mut self, own: std::ops::Range<usize>) -> Vec<f64> {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            let key = &shared.keys[rand::rng().random_range(own.clone())];
            let version = key.send();
            let answer = self.checked(Method::PUT, key, key.value(version)).await;
            if answer.is_some_and(|answer| answer.status == StatusCode::OK) {
                key.acknowledge(version);
                if KeyHash::of(key.name.as_bytes()).shard(shared.shards).as_u32() == 0 {
                    shared.acks.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.took_ms
    }

    async fn read(mut self) -> Vec<f64> {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            let key = &shared.keys[rand::rng().random_range(0..shared.keys.len())];
            self.get(key).await;
        }
        self.took_ms
    }

    /// The version of a key, 0 if it has no value; `None` if the read failed.
    async fn get(&mut self, key: &Key) -> Option<u64> {
        let floor = key.floor();
        let answer = self.checked(Method::GET, key, String::new()).await?;
        let version = match answer.status {
            StatusCode::NOT_FOUND => 0,
            _ => match key.version(&answer.body) {
                Some(version) => version,
                None => {
                    let why = format!("{} with the value `{}`", answer.status, answer.excerpt());
                    self.note(&Method::GET, key, why);
                    return None;
                }
            },
        };
        let result = key.read(floor, version);
        if result != ReadCheck::Right {
            self.shared.stale.fetch_add(1, Ordering::Relaxed);
            let node = node(&answer);
            self.keep(&Method::GET, key, format!("{result:?}: {version} at {floor:?}, from `{node}`"));
        }
        Some(version)
    }

    /// The answer, if a correct cluster may give it.
    async fn checked(&mut self, method: Method, key: &Key, body: String) -> Option<Answer> {
        let began = Instant::now();
        let outcome = timeout(LIMIT, self.send(&method, key, body)).await;
        self.took_ms.push(millis(began.elapsed()));
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
        let why = match outcome {
            Ok(Ok(answer)) => {
                let is_missing = answer.status == StatusCode::NOT_FOUND
                    && answer.headers.contains_key(types::api::NODE)
                    && answer.excerpt().contains("no-such-key");
                if answer.status == StatusCode::OK || (method == Method::GET && is_missing) {
                    return Some(answer);
                }
                format!("{} from `{}`: {}", answer.status, node(&answer), answer.excerpt())
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {LIMIT:?}"),
        };
        self.connection = None;
        self.note(&method, key, why);
        None
    }

    async fn send(&mut self, method: &Method, key: &Key, body: String) -> anyhow::Result<Answer> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(self.shared.gateway, Protocol::Http1).await?),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("/storage/kv/{}", key.name))
            .header(HOST, self.shared.gateway.to_string())
            .body(Full::new(Bytes::from(body)))?;
        let answer = connection.send(request).await?;
        if answer.headers.get(CONNECTION).is_some_and(|value| value == "close") {
            self.connection = None;
        }
        Ok(answer)
    }

    fn note(&self, method: &Method, key: &Key, why: String) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.keep(method, key, why);
    }

    fn keep(&self, method: &Method, key: &Key, why: String) {
        let during = {
            let stage = self.shared.stage.lock().unwrap_or_else(PoisonError::into_inner);
            format!("{}, since {:.1} ms", stage.0, millis(stage.1.elapsed()))
        };
        let took_ms = self.took_ms.last().copied().unwrap_or_default();
        let request = format!("{method} {}", key.name);
        let failure = Failure { at: SystemTime::now(), during, request, took_ms, why };
        let mut failures = self.shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < KEPT {
            progress(&format!("FAILED {failure:#?}"));
            failures.push(failure);
        }
    }
}

/// For each stage but the last, the longest gap between two acknowledgements that ends in it.
fn silences(stages: &[Instant], acks: &[Instant]) -> Vec<Duration> {
    let gaps: Vec<_> = acks.windows(2).map(|pair| (pair[1], pair[1] - pair[0])).collect();
    let of = |pair: &[Instant]| {
        let first = gaps.partition_point(|(end, _)| *end < pair[0]);
        let last = gaps.partition_point(|(end, _)| *end < pair[1]);
        gaps[first..last].iter().map(|(_, gap)| *gap).max()
    };
    // A stage without an acknowledgement is part of a gap that ends in a later stage.
    stages.windows(2).filter_map(of).collect()
}

fn node(answer: &Answer) -> String {
    let value = answer.headers.get(types::api::NODE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gap_counts_for_the_stage_in_which_it_ends() {
        let zero = Instant::now();
        let at = |ms: &[u64]| ms.iter().map(|ms| zero + Duration::from_millis(*ms)).collect::<Vec<_>>();
        let found = silences(&at(&[10, 100, 200, 300]), &at(&[0, 5, 15, 90, 95, 250, 260]));
        assert_eq!(found, [75, 155].map(Duration::from_millis));
    }
}

/// Serializes a time as the logs do.
mod log_time {
    use std::time::SystemTime;

    use serde::Serializer;

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_micros(*at))
    }
}
