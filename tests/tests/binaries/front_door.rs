//! The front door under load: every node behind the balancer restarts, roles move, nodes are killed.
//!
//! Clients keep their connections, as browsers and pools do, and open another one only when an answer says that it is the
//! last one of its connection, or when the connection was closed while nothing was in flight on it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use e2e::{Machine, eventually, repository};
use reqwest::{Client, StatusCode};
use tokio::task::JoinSet;

use crate::balancer::{front, states};

/// The bodies of PUT requests, in bytes: up to what a gateway keeps so that it can send a request again.
const SIZES: [usize; 6] = [1, 1_000, 256 * 1024, 20_000, 64 * 1024, 256 * 1024];
/// Above that.
const LARGE: usize = 1024 * 1024;
/// Requests that must be answered between two changes.
const BETWEEN: u64 = 20;
/// Of which two send large bodies.
const CLIENTS: usize = 6;

/// What the clients have seen so far.
#[derive(Default)]
struct Counts {
    is_over: AtomicBool,
    answered: AtomicU64,
    /// Large requests that a move has cut, answered with 503 `not-processed`.
    cut: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Counts {
    fn note(&self, failure: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }
}

/// Clients that send requests without a pause. Dropping it ends them.
struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts clients that write and read keys of their own.
    fn start(front: &str) -> anyhow::Result<Self> {
        let counts = Arc::<Counts>::default();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let http =
                client::plain_http().pool_max_idle_per_host(1).timeout(Duration::from_secs(60)).build()?;
            let key = format!("{front}/storage/kv/client-{number}");
            clients.spawn(client(http, key, number >= CLIENTS - 2, Arc::clone(&counts)));
        }
        Ok(Self { counts, clients })
    }

    /// Waits until so many further requests are answered.
    async fn goes_on(&self) -> anyhow::Result<()> {
        let wanted = self.counts.answered.load(Ordering::Relaxed) + BETWEEN;
        eventually("requests are answered", || async {
            (self.counts.answered.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await
    }

    /// What has failed since the last call.
    fn failures(&self) -> Vec<String> {
        std::mem::take(&mut *self.counts.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops after the present requests. Nothing must have failed.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.counts.is_over.store(true, Ordering::Relaxed);
        while let Some(client) = self.clients.join_next().await {
            client?;
        }
        let (failures, cut) = (self.failures(), self.counts.cut.load(Ordering::Relaxed));
        ensure!(failures.is_empty(), "{cut} large ones were cut; failed:\n{}", failures.join("\n"));
        println!("{} requests, {cut} large ones were cut", self.counts.answered.load(Ordering::Relaxed));
        Ok(())
    }
}

/// Writes a key and reads it back, over and over.
async fn client(http: Client, key: String, is_large: bool, counts: Arc<Counts>) {
    let mut last: Option<Bytes> = None;
    for round in 0.. {
        if counts.is_over.load(Ordering::Relaxed) {
            break;
        }
        let size = if is_large { LARGE } else { SIZES[round % SIZES.len()] };
        let letter = b'a' + u8::try_from(round % 26).expect("it is below 26");
        let body = Bytes::from(vec![letter; size]);
        match send(http.put(&key).body(body.clone())).await {
            Ok((StatusCode::OK, _)) => last = Some(body),
            Ok((StatusCode::SERVICE_UNAVAILABLE, text)) if is_large && is_not_processed(&text) => {
                counts.cut.fetch_add(1, Ordering::Relaxed);
            }
            // It may have been written or not.
            other => {
                counts.note(format!("round {round}: PUT of {size} bytes to {key}: {}", shown(&other)));
                last = None;
            }
        }
        let answer = send(http.get(&key)).await;
        match (&answer, &last) {
            (Ok((StatusCode::OK, found)), Some(last)) if found == last => {}
            // Unless a write is known, any value will do.
            (Ok((StatusCode::OK | StatusCode::NOT_FOUND, _)), None) => {}
            _ => counts.note(format!("round {round}: GET of {key}: {}", shown(&answer))),
        }
        counts.answered.fetch_add(2, Ordering::Relaxed);
    }
}

async fn send(request: reqwest::RequestBuilder) -> reqwest::Result<(StatusCode, Bytes)> {
    let answer = request.send().await?;
    Ok((answer.status(), answer.bytes().await?))
}

fn is_not_processed(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("urn:coterie:problem:not-processed")
}

fn shown(answer: &reqwest::Result<(StatusCode, Bytes)>) -> String {
    match answer {
        Ok((status, body)) => {
            let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
            format!("{status}: {text} ({} bytes)", body.len())
        }
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(deeper) = cause {
                text = format!("{text}: {deeper}");
                cause = deeper.source();
            }
            text
        }
    }
}

/// The cluster of `manifests/front-door.yaml`, with both gateways behind the balancer.
async fn up() -> anyhow::Result<(Machine, String)> {
    let machine = Machine::new()?;
    let manifest = std::fs::read_to_string(repository().join("manifests/front-door.yaml"))?;
    let manifest = machine.manifest(&manifest.replace("cluster: front-door\nprofile: local\n", ""))?;
    machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
    let front = front(&machine).await?;
    are_up(&machine, 2).await?;
    Ok((machine, front))
}

/// Waits until the balancer uses this number of gateways.
async fn are_up(machine: &Machine, count: usize) -> anyhow::Result<()> {
    eventually(&format!("{count} gateways are backends"), || async {
        let states = states(machine).await.ok()?;
        (states.len() == count && states.iter().all(|(_, state)| state == "up")).then_some(())
    })
    .await
}

/// Waits until every node is ready again and every shard has its owner and replica.
async fn is_well(machine: &Machine) -> anyhow::Result<()> {
    eventually("the cluster is well", || async { machine.ctl(&["status"]).await.ok()?.exits(0).ok() })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behaviour_9_a_rolling_restart_of_every_node_behind_the_balancer_fails_no_request()
-> anyhow::Result<()> {
    let (machine, front) = up().await?;
    let load = Load::start(&front)?;
    load.goes_on().await?;
    for node in ["gateway-1", "gateway-2", "storage-1", "storage-2", "storage-3", "storage-4", "standby"] {
        machine.ctl(&["restart", node, "--timeout", "60s"]).await?.exits(0)?;
        is_well(&machine).await?;
        are_up(&machine, 2).await?;
        load.goes_on().await?;
    }
    load.finish().await?;
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test(flavor = "multi_thread")]
async fn role_changes_and_leaves_behind_the_balancer_fail_no_request() -> anyhow::Result<()> {
    let (machine, front) = up().await?;
    let load = Load::start(&front)?;
    load.goes_on().await?;
    for _ in 0..4 {
        for change in [
            &["standby", "api_gateway"][..],
            &["gateway-1", "standby"],
            &["gateway-1", "storage/0", "--take"],
            &["storage-1", "storage/0", "--take"],
            &["gateway-1", "api_gateway"],
            &["storage-2", "storage/1", "--take"],
            &["storage-3", "storage/1", "--take"],
            &["standby", "standby"],
        ] {
            let arguments = [&["set-service"], change].concat();
            machine.ctl(&arguments).await?.exits(0).with_context(|| format!("{change:?}"))?;
        }
        load.goes_on().await?;
    }
    for node in ["gateway-2", "storage-4"] {
        machine.ctl(&["leave", node, "--timeout", "60s"]).await?.exits(0)?;
        load.goes_on().await?;
    }
    load.finish().await?;
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_behind_the_balancer_costs_at_most_what_was_in_flight_on_the_node() -> anyhow::Result<()> {
    let (machine, front) = up().await?;
    let load = Load::start(&front)?;
    load.goes_on().await?;
    // What was in flight on a gateway is lost: one request of each client at most.
    machine.ctl(&["kill", "gateway-1"]).await?.exits(0)?;
    load.goes_on().await?;
    is_well(&machine).await?;
    are_up(&machine, 2).await?;
    let failures = load.failures();
    ensure!(failures.len() <= CLIENTS, "after a gateway:\n{}", failures.join("\n"));
    // Reads that were in flight on a member are sent again by the gateway. A write is not, since it may have been made, and
    // repeating it would undo what others wrote in between: the client of each is told so.
    for node in ["storage-1", "storage-2"] {
        machine.ctl(&["kill", node]).await?.exits(0)?;
        load.goes_on().await?;
        is_well(&machine).await?;
        let failures = load.failures();
        let is_told = |failure: &String| {
            failure.contains(": PUT of ") && failure.contains("urn:coterie:problem:broken-connection")
        };
        ensure!(
            failures.iter().all(is_told) && failures.len() <= CLIENTS,
            "after {node}:\n{}",
            failures.join("\n")
        );
    }
    load.goes_on().await?;
    load.finish().await?;
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}
