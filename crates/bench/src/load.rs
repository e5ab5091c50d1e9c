//! Clients that send requests without a pause and check every answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::kept_log::KeptLog;
use crate::stats::Summary;

/// The longest body, in bytes.
const LONGEST: usize = 64 * 1024;
/// The number of failures kept with their details.
const KEPT: usize = 50;
/// The number of failures kept with the log lines around them.
const KEPT_WITH_LOG: usize = 5;
const LOG_AROUND: Duration = Duration::from_millis(150);
/// The time limit of a request; the gateway itself waits for 10 s at most.
const LIMIT: Duration = Duration::from_secs(30);
const EXCERPT: usize = 300;

/// A request that failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FailedRequest {
    /// The role change in progress, and for how long.
    during: String,
    request: String,
    took_ms: f64,
    why: String,
    log: Vec<String>,
}

/// The outcome of all requests.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<FailedRequest>,
    /// The latency in milliseconds.
    pub(crate) latency: Option<Summary>,
    /// The number of requests that each node answered.
    pub(crate) answered_by: BTreeMap<String, u64>,
    pub(crate) per_second: f64,
}

#[derive(Debug)]
struct Shared {
    url: String,
    payload: Bytes,
    stop: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<FailedRequest>>,
    stage: Mutex<(String, Instant)>,
    log: KeptLog,
}

/// Running clients. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    began: Instant,
    clients: JoinSet<(Vec<f64>, BTreeMap<String, u64>)>,
}

impl Load {
    /// Starts clients, each with its own connection, that send requests below this URL.
    pub(crate) fn start(clients: usize, url: String, log: KeptLog) -> anyhow::Result<Self> {
        let mut payload = vec![0; LONGEST * 2];
        rand::rng().fill(payload.as_mut_slice());
        let shared = Arc::new(Shared {
            url,
            payload: payload.into(),
            stop: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failures: Mutex::default(),
            stage: Mutex::new(("before the first change".to_owned(), Instant::now())),
            log,
        });
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let http = client::plain_http().pool_max_idle_per_host(1).timeout(LIMIT).build()?;
            tasks.spawn(client(number, http, shared.clone()));
        }
        Ok(Self { shared, began: Instant::now(), clients: tasks })
    }

    /// Sets the change in progress, which is reported with failures.
    pub(crate) fn stage(&self, stage: String) {
        *self.shared.stage.lock().unwrap_or_else(PoisonError::into_inner) = (stage, Instant::now());
    }

    /// The number of requests so far, and of failed ones.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.shared.sent.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }

    /// Stops the clients after their present requests.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Outcome> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        let mut answered_by: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(client) = self.clients.join_next().await {
            let (of_one, by) = client?;
            latencies.extend(of_one);
            for (node, count) in by {
                *answered_by.entry(node).or_default() += count;
            }
        }
        let shared = &self.shared;
        let failures = shared.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (sent, failed) = self.so_far();
        let sent_f = f64::from(u32::try_from(sent).unwrap_or(u32::MAX));
        Ok(Outcome {
            sent,
            failed,
            failures,
            latency: Summary::of(&latencies),
            answered_by,
            per_second: sent_f / self.began.elapsed().as_secs_f64(),
        })
    }
}

async fn client(
    number: usize,
    http: reqwest::Client,
    shared: Arc<Shared>,
) -> (Vec<f64>, BTreeMap<String, u64>) {
    let mut latencies = Vec::new();
    let mut answered_by = BTreeMap::new();
    let mut count = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        count += 1;
        let path = format!("/c{number}%2F{count}?q=%20{count}");
        let body = shared.body(count);
        let began = Instant::now();
        let outcome = shared.send(&http, &path, body.clone()).await;
        let took_ms = crate::stats::millis(began.elapsed());
        shared.sent.fetch_add(1, Ordering::Relaxed);
        latencies.push(took_ms);
        match outcome {
            Ok(by) => *answered_by.entry(by).or_default() += 1,
            Err(why) => {
                let method = if body.is_some() { "POST" } else { "GET" };
                let length = body.map_or(0, |body| body.len());
                shared.note(format!("{method} {path}, {length} B"), took_ms, why);
            }
        }
    }
    (latencies, answered_by)
}

impl Shared {
    /// The body of the next request: every other one is a GET; the others have 0 B to 64 KiB, mostly at most 2 KiB.
    fn body(&self, count: u64) -> Option<Bytes> {
        if count.is_multiple_of(2) {
            return None;
        }
        let mut random = rand::rng();
        let longest = if count.is_multiple_of(5) { LONGEST } else { 2_048 };
        let length = random.random_range(0..=longest);
        let start = random.random_range(0..=LONGEST);
        Some(self.payload.slice(start..start + length))
    }

    /// Sends one request and compares the whole answer. Returns the node that answered.
    async fn send(&self, http: &reqwest::Client, path: &str, body: Option<Bytes>) -> Result<String, String> {
        let url = format!("{}{path}", self.url);
        let request = match &body {
            Some(body) => http.post(url).body(body.clone()),
            None => http.get(url),
        };
        let describe = |error: &reqwest::Error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(deeper) = cause {
                text = format!("{text}: {deeper}");
                cause = deeper.source();
            }
            text
        };
        let answer = request.send().await.map_err(|error| describe(&error))?;
        let status = answer.status();
        let header = |name: &str| {
            let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (node, seen_path) = (header(types::api::NODE), header("echo-path"));
        let got = answer.bytes().await.map_err(|error| format!("{status}, then {}", describe(&error)))?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&got);
            let text: String = text.chars().take(EXCERPT).collect();
            return Err(format!("{status} from `{node}`: {text}"));
        }
        if seen_path != path {
            return Err(format!("{status}, but the path arrived as `{seen_path}`"));
        }
        let wanted = body.unwrap_or_default();
        if got != wanted {
            return Err(format!("{status}, but {} B came back instead of {} B", got.len(), wanted.len()));
        }
        Ok(node)
    }

    fn note(&self, request: String, took_ms: f64, why: String) {
        let now = Instant::now();
        let number = self.failed.fetch_add(1, Ordering::Relaxed);
        let during = {
            let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
            format!("{}, since {:.1} ms", stage.0, crate::stats::millis(stage.1.elapsed()))
        };
        let log = if number < u64::try_from(KEPT_WITH_LOG).unwrap_or_default() {
            self.log.around(now, LOG_AROUND)
        } else {
            Vec::new()
        };
        let failure = FailedRequest { during, request, took_ms, why, log };
        crate::progress::progress(&format!("FAILED {failure:#?}"));
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < KEPT {
            failures.push(failure);
        }
    }
}
