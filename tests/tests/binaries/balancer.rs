//! A balancer in front of two gateways, as the manifest has it, and a gateway that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Machine, eventually, repository};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{ask, url};

/// The URL of the balancer's listener, once it is gossiped.
pub(crate) async fn front(machine: &Machine) -> anyhow::Result<String> {
    let members = format!("{}/v1/members/balancer", url(machine, "balancer")?);
    let endpoint = eventually("the balancer has a listener", || async {
        let shown = ask(&members).await.ok()?;
        shown["member"]["state"]["endpoints"]["front"].as_str().map(str::to_owned)
    });
    Ok(endpoint.await?.replace("tcp://", "http://"))
}

/// The states of the balancer's backends, by member.
pub(crate) async fn states(machine: &Machine) -> anyhow::Result<Vec<(String, String)>> {
    let shown = ask(&format!("{}/svc/load_balancer/backends", url(machine, "balancer")?)).await?;
    let backends = shown["listeners"][0]["targets"][0]["backends"].as_array().cloned().unwrap_or_default();
    let text = |backend: &Value, key: &str| backend[key].as_str().unwrap_or_default().to_owned();
    Ok(backends.iter().map(|backend| (text(backend, "member"), text(backend, "state"))).collect())
}

#[tokio::test]
async fn a_gateway_that_is_killed_behind_a_balancer_costs_only_what_was_in_flight_on_it() -> anyhow::Result<()>
{
    let machine = Machine::new()?;
    let manifest = std::fs::read_to_string(repository().join("manifests/front-door.yaml"))?;
    let manifest = machine.manifest(&manifest.replace("cluster: front-door\nprofile: local\n", ""))?;
    machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
    let front = front(&machine).await?;
    eventually("both gateways are backends", || async {
        states(&machine)
            .await
            .ok()
            .filter(|states| states.iter().filter(|(_, state)| state == "up").count() == 2)
    })
    .await?;

    // Each request has a connection of its own, so that the balancer chooses a gateway for each.
    let http = client::plain_http().pool_max_idle_per_host(0).timeout(Duration::from_secs(30)).build()?;
    let key = format!("{front}/storage/kv/greeting");
    http.put(&key).body("hello").send().await?.error_for_status()?;
    let (failed, done, stop) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut load = JoinSet::new();
    load.spawn({
        let (http, key, failed, done, stop) =
            (http.clone(), key.clone(), Arc::clone(&failed), Arc::clone(&done), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::SeqCst) {
                let answer = http.get(&key).send().await.and_then(reqwest::Response::error_for_status);
                let body = match answer {
                    Ok(answer) => answer.text().await,
                    Err(error) => Err(error),
                };
                let is_right = body.is_ok_and(|body| body == "hello");
                failed.fetch_add(usize::from(!is_right), Ordering::SeqCst);
                done.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let so_far = |more: usize| {
        let wanted = done.load(Ordering::SeqCst) + more;
        let done = &done;
        async move {
            eventually("requests are answered", || async {
                (done.load(Ordering::SeqCst) >= wanted).then_some(())
            })
            .await
        }
    };
    so_far(50).await?;
    ensure!(failed.load(Ordering::SeqCst) == 0, "nothing fails before the kill");
    machine.ctl(&["kill", "gateway-1", "--for-good"]).await?.exits(0)?;
    so_far(100).await?;
    stop.store(true, Ordering::SeqCst);
    load.join_next().await.context("there is a load")??;
    // One request at a time: at most one was in flight on the gateway when it was killed.
    let failed = failed.load(Ordering::SeqCst);
    ensure!(failed <= 1, "{failed} requests failed");
    let left = eventually("the killed gateway is no backend any more", || async {
        let states = states(&machine).await.ok()?;
        states.iter().all(|(member, _)| member == "gateway-2").then_some(states)
    })
    .await?;
    ensure!(left == [("gateway-2".to_owned(), "up".to_owned())], "{left:?}");
    for _ in 0..20 {
        let body = http.get(&key).send().await?.error_for_status()?.text().await?;
        ensure!(body == "hello", "{body}");
    }
    machine.ctl(&["down", "--purge", "--yes"]).await?.exits(0)?;
    machine.nothing_is_left()
}
