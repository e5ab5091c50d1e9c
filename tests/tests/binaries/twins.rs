//! One store and two clusters of the same name: neither takes the other's shards, and each names their owners.

use std::path::Path;

use e2e::{Machine, Running, eventually, free_port};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{ask, members_become, url};

/// A manifest with a store that does not depend on the state folder.
fn manifest(machine: &Machine) -> anyhow::Result<String> {
    let store = machine.folder().join("shared");
    machine.manifest(&format!(
        "store: {}\nservices:\n  storage: {{shards: 2}}\nnodes:\n  - {{id: s, service: storage, count: 2}}\n  - {{id: \
         spare, service: standby}}\n",
        store.display()
    ))
}

const NAMES: [&str; 3] = ["s-1", "s-2", "spare"];

/// The owner of each shard, with its epoch: `0=s-1@1`.
async fn claims(url: &str) -> anyhow::Result<Vec<String>> {
    let claims = ask(&format!("{url}/v1/claims")).await?;
    let claims = claims["claims"].as_array().into_iter().flatten();
    let shown = claims.map(|claim| {
        let (holder, honoured) = (&claim["holder"], claim["honoured"] == true);
        let there = if honoured { "" } else { " elsewhere" };
        format!("{}={}@{}{there}", claim["shard"], holder["node"].as_str().unwrap_or("-"), holder["epoch"])
    });
    Ok(shown.collect())
}

#[tokio::test]
async fn a_second_cluster_on_a_store_is_stopped_before_anything_starts() -> anyhow::Result<()> {
    let machine = Machine::new()?;
    let manifest = manifest(&machine)?;
    machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
    let owners = claims(&url(&machine, "s-1")?).await?;
    let agents = machine.agents()?.len();
    let second = machine.folder().join("second state");
    let second_state = second.display().to_string();
    let elsewhere = [("COTERIE_STATE_DIR", second_state.as_str())];
    // Other settings, which must not be written to the store of the running cluster.
    let text = std::fs::read_to_string(&manifest)?.replace("{shards: 2}", "{shards: 2, replicas: 1}");
    let other = machine.write("other.yaml", &text)?;
    let refused = machine.start_with("ctl", &["up", &other], &elsewhere)?.ends().await?.exits(5)?;
    let refused = refused
        .tells(&format!("another cluster named `{}` runs on the store file://", machine.cluster()))?
        .tells(&format!("s-1 at {}", url(&machine, "s-1")?))?
        .tells(&format!("s-2 at {}", url(&machine, "s-2")?))?
        .tells(&machine.state().join("data").join(machine.cluster()).join("s-1").display().to_string())?;
    assert_eq!(machine.agents()?.len(), agents, "nothing was started");
    let spec = ask(&format!("{}/v1/spec", url(&machine, "s-1")?)).await?;
    assert_eq!(spec["specs"]["storage"]["number"], 1, "{spec}");
    assert_eq!(claims(&url(&machine, "s-1")?).await?, owners);
    // The cluster does not take itself for another one, while it runs and when a node is gone.
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    machine.ctl(&["stop", "spare"]).await?.exits(0)?;
    machine.ctl(&["up", &manifest]).await?.exits(0)?;
    members_become(&machine, &NAMES).await?;
    // The hint works as typed, and then the second one starts.
    let (_, advice) = refused.err.rsplit_once("hint: end it with `").unwrap_or_default();
    let advice = advice.split('`').next().unwrap_or_default();
    machine.start("sh", &["-c", advice])?.ends().await?.exits(0)?;
    machine.start_with("ctl", &["up", &manifest], &elsewhere)?.ends().await?.exits(0)?;
    machine.start_with("ctl", &["status"], &elsewhere)?.ends().await?.exits(0)?;
    // The other way round, and with claims of nodes that are gone.
    machine.ctl(&["up", &manifest]).await?.exits(5)?.tells(&second_state)?;
    for node in NAMES {
        machine.start_with("ctl", &["kill", node, "--for-good"], &elsewhere)?.ends().await?.exits(0)?;
    }
    eventually("all have ended", || async { machine.agents().ok()?.is_empty().then_some(()) }).await?;
    machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.start_with("ctl", &["down"], &elsewhere)?.ends().await?;
    machine.nothing_is_left()
}

/// Starts an agent without ctl and without seeds.
fn agent(machine: &Machine, addr: &str, id: &str, role: &[&str], folder: &str) -> anyhow::Result<Running> {
    let (data, store) = (machine.folder().join(folder), machine.folder().join("shared"));
    let path = |path: &Path| path.display().to_string();
    let (data, store) = (path(&data), path(&store));
    let own = ["--listen-addr", addr, "--gossip-addr", addr, "--node-id", id, "--cluster", machine.cluster()];
    let rest = ["--profile", "local", "--data-dir", &data, "--store", &store];
    machine.start("agent", &[&own[..], &rest, role].concat())
}

async fn state(url: &str) -> anyhow::Result<Value> {
    Ok(ask(&format!("{url}/v1/agent/self")).await?["member"]["state"].clone())
}

#[tokio::test]
async fn an_agent_whose_shard_is_owned_in_another_cluster_stands_by_until_that_is_gone() -> anyhow::Result<()>
{
    let machine = Machine::new()?;
    let [one, two] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let [first_url, second_url] = [&one, &two].map(|addr| format!("http://{addr}"));
    let role = ["--service", "storage", "--shard", "0"];
    let first = agent(&machine, &one, "same", &role, "first")?;
    eventually("the first one owns the shard", || async {
        (state(&first_url).await.ok()?["phase"] == "ready").then_some(())
    })
    .await?;
    assert_eq!(claims(&first_url).await?, ["0=same@1"]);
    let mut second = agent(&machine, &two, "same", &role, "second")?;
    let reason = eventually("the second one names the owner", || async {
        let state = state(&second_url).await.ok()?;
        (state["phase"] == "degraded").then(|| state["reason"].as_str().unwrap_or_default().to_owned())
    })
    .await?;
    let store = machine.folder().join("shared").display().to_string();
    for word in ["storage/0 is owned by same (epoch 1)", &first_url, &store] {
        assert!(reason.contains(word), "{reason}");
    }
    assert_eq!(state(&second_url).await?["role"], json!({ "service": "standby" }));
    // A forced take through the second cluster is refused too.
    let http = client::plain_http().build()?;
    let taking = http.put(format!("{second_url}/v1/members/same/service?take=true"));
    let refused = taking.json(&json!({ "service": "storage", "shard": 0 })).send().await?;
    let problem: Value = refused.json().await?;
    assert_eq!(
        (&problem["status"], &problem["title"]),
        (&json!(409), &json!("another cluster")),
        "{problem}"
    );
    // Longer than it takes to take over the shard of an owner that is gone.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    assert_eq!(claims(&second_url).await?, ["0=same@1 elsewhere"]);
    assert!(!second.has_ended()?, "{}", second.err());
    first.signal(Signal::KILL);
    first.ends().await?;
    eventually("the second one runs it", || async {
        // Epoch 2 was its challenge.
        (claims(&second_url).await.ok()? == ["0=same@3"]).then_some(())
    })
    .await?;
    eventually("it is healthy again", || async {
        (state(&second_url).await.ok()?["phase"] == "ready").then_some(())
    })
    .await?;
    // The first one returns, with the data of its earlier incarnation.
    let first = agent(&machine, &one, "same", &role, "first")?;
    eventually("the first one names the owner", || async {
        let state = state(&first_url).await.ok()?;
        (state["phase"] == "degraded" && state["reason"].as_str()?.contains(&second_url)).then_some(())
    })
    .await?;
    assert_eq!(claims(&second_url).await?, ["0=same@3"]);
    for agent in [first, second] {
        agent.signal(Signal::TERM);
        agent.ends().await?.exits(0)?;
    }
    machine.nothing_is_left()
}
