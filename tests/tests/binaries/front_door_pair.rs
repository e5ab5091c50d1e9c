//! Two balancers before two gateways: clients that try both see no failure while each balancer, then each gateway restarts.
//!
//! A client tries the other balancer if one refuses its connection, since nothing was sent then. Each request has a
//! connection of its own, so that none is sent on one that a restart is about to close.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use e2e::{Machine, eventually, free_port};
use reqwest::{Client, StatusCode};
use tokio::task::JoinSet;

use crate::ask;
use crate::url;

/// Requests that must be answered between two changes.
const BETWEEN: u64 = 40;
const CLIENTS: usize = 4;

/// Two balancers on these ports, as services of their own: each has its own address.
fn manifest(machine: &Machine, ports: [u16; 2]) -> anyhow::Result<String> {
    let balancer = |name: &str, port: u16| {
        format!(
            "  {name}:\n    type: load_balancer\n    settings:\n      listeners:\n        - name: front\n          \
             address: 127.0.0.1:{port}\n          service: api_gateway\n          listener: web\n          \
             send_proxy_protocol: v2\n"
        )
    };
    machine.manifest(&format!(
        "services:\n{}{}  api_gateway:\n    settings:\n      listeners: [{{name: web, address: '127.0.0.1:0', \
         proxy_protocol: true, trust: [127.0.0.0/8]}}]\n  storage: {{shards: 1, replicas: 1}}\nnodes:\n  \
         - {{id: left, service: left}}\n  - {{id: right, service: right}}\n  \
         - {{id: gateway, service: api_gateway, count: 2}}\n  - {{id: storage, service: storage, count: 2}}\n",
        balancer("left", ports[0]),
        balancer("right", ports[1]),
    ))
}

/// What the clients have seen.
#[derive(Default)]
struct Counts {
    is_over: AtomicBool,
    answered: AtomicU64,
    /// How often one of the balancers refused a connection.
    refused: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Sends a request to one balancer, or to the other one if the first refuses the connection. Returns the answer and which
/// balancer has given it.
async fn ask_either(
    http: &Client,
    fronts: &[String; 2],
    first: usize,
    counts: &Counts,
    build: impl Fn(&Client, &str) -> reqwest::RequestBuilder,
) -> reqwest::Result<(StatusCode, Vec<u8>, usize)> {
    let send = async |at: usize| {
        let answer = build(http, &fronts[at]).send().await?;
        Ok((answer.status(), answer.bytes().await?.to_vec(), at))
    };
    match send(first).await {
        Err(error) if reqwest::Error::is_connect(&error) => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            send(1 - first).await
        }
        answered => answered,
    }
}

/// Writes a key and reads it back, over and over, through either balancer.
async fn client(http: Client, fronts: [String; 2], number: usize, counts: Arc<Counts>) {
    let mut at = number % 2;
    let mut round = 0_u64;
    while !counts.is_over.load(Ordering::Relaxed) {
        round += 1;
        let key = |front: &str| format!("{front}/storage/kv/client-{number}");
        let body = format!("{round} {}", "x".repeat(if round.is_multiple_of(5) { 200_000 } else { 10 }));
        let put =
            ask_either(&http, &fronts, at, &counts, |http, front| http.put(key(front)).body(body.clone()))
                .await;
        let got = ask_either(&http, &fronts, at, &counts, |http, front| http.get(key(front))).await;
        let is_right = matches!(&put, Ok((StatusCode::OK, ..)))
            && matches!(&got, Ok((StatusCode::OK, found, _)) if *found == body.as_bytes());
        if is_right {
            counts.answered.fetch_add(2, Ordering::Relaxed);
        } else {
            let shown = |answer: &reqwest::Result<(StatusCode, Vec<u8>, usize)>| match answer {
                Ok((status, body, at)) => {
                    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
                    format!("{status} by {at}: {text}")
                }
                Err(error) => format!("{error:?}"),
            };
            let failure =
                format!("round {round} of {number} at {at}: PUT {}, GET {}", shown(&put), shown(&got));
            counts.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
        }
        // The one that answered is tried first next time, and now and then the other one.
        at = match got {
            Ok((_, _, answered)) if !round.is_multiple_of(3) => answered,
            _ => 1 - at,
        };
    }
}

/// Waits until both balancers use both gateways.
async fn are_up(machine: &Machine) -> anyhow::Result<()> {
    for name in ["left", "right"] {
        eventually(&format!("both gateways are backends of {name}"), || async {
            let shown = ask(&format!("{}/svc/{name}/backends", url(machine, name).ok()?)).await.ok()?;
            let backends = shown["listeners"][0]["targets"][0]["backends"].as_array()?.clone();
            (backends.len() == 2 && backends.iter().all(|backend| backend["state"] == "up")).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_tries_both_balancers_sees_no_failure_while_each_of_them_restarts() -> anyhow::Result<()>
{
    let machine = Machine::new()?;
    let ports = [free_port()?, free_port()?];
    let file = manifest(&machine, ports)?;
    machine.ctl(&["validate", &file]).await?.exits(0)?;
    machine.ctl(&["up", &file, "--timeout", "60s"]).await?.exits(0)?;
    are_up(&machine).await?;
    let fronts = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let counts = Arc::<Counts>::default();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let http = client::plain_http().pool_max_idle_per_host(0).timeout(Duration::from_secs(60)).build()?;
        clients.spawn(client(http, fronts.clone(), number, Arc::clone(&counts)));
    }
    let goes_on = || async {
        let wanted = counts.answered.load(Ordering::Relaxed) + BETWEEN;
        eventually("requests are answered", || async {
            (counts.answered.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await
    };
    goes_on().await?;
    for node in ["left", "right", "gateway-1", "gateway-2"] {
        machine.ctl(&["restart", node, "--timeout", "60s"]).await?.exits(0)?;
        eventually("the cluster is well", || async { machine.ctl(&["status"]).await.ok()?.exits(0).ok() })
            .await?;
        are_up(&machine).await?;
        goes_on().await?;
    }
    counts.is_over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client?;
    }
    let failures = std::mem::take(&mut *counts.failures.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    let [answered, refused] = [&counts.answered, &counts.refused].map(|count| count.load(Ordering::Relaxed));
    println!("{answered} requests, {refused} connections were refused by one balancer");
    ensure!(refused > 0, "a balancer that restarts refuses connections for a while");
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}
