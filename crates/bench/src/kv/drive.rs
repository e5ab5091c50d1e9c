//! Clients that send requests to one store as fast as it answers, all on one thread.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::Request;
use http::header::HOST;
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::kv::keys::Keys;
use crate::kv::protocol::{ClientApi, Reads, Value};
use crate::stats::millis;
use crate::wire::{Answer, Connection, Protocol};

/// The time at the beginning that is not counted.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);
/// How much longer than planned a run may take.
const LAST: Duration = Duration::from_secs(20);
/// The number of connections that write the first values.
const FILLERS: usize = 64;

/// The operation to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Task {
    /// Write a key durably
    Put,
    /// Read a key linearizably
    Get,
    /// Read a key from its owner, without a check that it still is the owner
    Primary,
    /// `GET /health/livez`: little more than the cost of a request itself.
    #[value(skip)]
    Livez,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Put => "PUT",
            Self::Get => "GET strong",
            Self::Primary => "GET primary",
            Self::Livez => "GET /health/livez",
        })
    }
}

/// The settings of one run of clients.
#[derive(Debug, Clone)]
pub(crate) struct Drive {
    pub(crate) api: ClientApi,
    pub(crate) addr: SocketAddr,
    pub(crate) task: Task,
    pub(crate) clients: usize,
    pub(crate) keys: Keys,
    pub(crate) value: Arc<Value>,
    pub(crate) time: Duration,
}

/// The result of one run of clients.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) took_ms: Vec<f64>,
    pub(crate) per_second: f64,
    /// The number of requests, including those that were not counted.
    pub(crate) all: f64,
}

/// The CPU time per request, in microseconds. It includes the warm-up, both its CPU time and its requests.
pub(crate) fn cpu_us(used: Duration, driven: &Driven) -> f64 {
    millis(used) * 1e3 / driven.all.max(1.0)
}

impl Drive {
    /// Sends requests for the whole time. Fails at the first unexpected answer.
    pub(crate) async fn run(self) -> anyhow::Result<Driven> {
        let time = self.time;
        let each = on_one_thread(async move {
            let began = Instant::now() + WARM_UP;
            let mut clients = JoinSet::new();
            for _ in 0..self.clients {
                clients.spawn(self.clone().client(began));
            }
            joined(clients, self.time + WARM_UP + LAST).await
        })
        .await?;
        let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let all = float(each.iter().map(|(_, all)| all).sum());
        let took_ms: Vec<_> = each.into_iter().flat_map(|(took, _)| took).collect();
        Ok(Driven { per_second: float(took_ms.len()) / time.as_secs_f64(), took_ms, all })
    }

    /// Writes every key once.
    pub(crate) async fn fill(self) -> anyhow::Result<()> {
        const LIMIT: Duration = Duration::from_secs(300);
        on_one_thread(async move {
            let next = Arc::new(AtomicUsize::new(0));
            let mut clients = JoinSet::new();
            for _ in 0..FILLERS {
                let (drive, next) = (self.clone(), Arc::clone(&next));
                clients.spawn(async move {
                    let mut connection = Connection::open(drive.addr, drive.api.protocol()).await?;
                    let host = drive.addr.to_string();
                    loop {
                        let key = next.fetch_add(1, Ordering::Relaxed);
                        if key >= drive.keys.count {
                            return Ok(());
                        }
                        let request = drive.api.put(&host, key, &drive.value)?;
                        drive.check(&connection.send(request).await?)?;
                    }
                });
            }
            joined(clients, LIMIT).await
        })
        .await?;
        Ok(())
    }

    async fn client(self, began: Instant) -> anyhow::Result<(Vec<f64>, usize)> {
        let protocol = if self.task == Task::Livez { Protocol::Http1 } else { self.api.protocol() };
        let mut connection = Connection::open(self.addr, protocol).await?;
        let host = self.addr.to_string();
        let (mut took, mut all) = (Vec::new(), 0);
        loop {
            let key = self.keys.choose(&mut rand::rng());
            let request = match self.task {
                Task::Put => self.api.put(&host, key, &self.value)?,
                Task::Get => self.api.get(&host, key, Reads::Strong)?,
                Task::Primary => self.api.get(&host, key, Reads::Primary)?,
                Task::Livez => livez(&host)?,
            };
            let sent = Instant::now();
            let answer = connection.send(request).await?;
            let now = Instant::now();
            self.check(&answer)?;
            all += 1;
            if now > began + self.time {
                return Ok((took, all));
            }
            if now > began {
                took.push(millis(now - sent));
            }
        }
    }

    fn check(&self, answer: &Answer) -> anyhow::Result<()> {
        let is_right = match self.task {
            Task::Put => self.api.is_put(answer),
            Task::Get | Task::Primary => self.api.is_got(answer, &self.value),
            Task::Livez => answer.status.is_success(),
        };
        if !is_right {
            bail!("{}, {:?}: {} {}", self.api, self.task, answer.status, answer.excerpt());
        }
        Ok(())
    }
}

fn livez(host: &str) -> http::Result<Request<Full<Bytes>>> {
    Request::builder().uri("/health/livez").header(HOST, host).body(Full::default())
}

pub(crate) async fn joined<T: 'static>(
    mut clients: JoinSet<anyhow::Result<T>>,
    limit: Duration,
) -> anyhow::Result<Vec<T>> {
    let all = async {
        let mut each = Vec::new();
        while let Some(client) = clients.join_next().await {
            each.push(client??);
        }
        Ok(each)
    };
    timeout(limit, all).await.with_context(|| format!("not every request was answered within {limit:?}"))?
}

/// Runs the clients on their own single-threaded runtime, so that they cost as little as possible.
pub(crate) async fn on_one_thread<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let thread = tokio::task::spawn_blocking(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
    });
    thread.await?
}
