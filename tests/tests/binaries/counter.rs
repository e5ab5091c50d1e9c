//! An agent with its own service type, `tests/examples/counter.rs`, as its author would use it.

use std::time::Duration;

use e2e::{Machine, eventually, example, free_port};
use serde_json::Value;

use crate::members_become;

const NODES: &str = "\
services:
  counter: {shards: 2, replicas: 1}
  api_gateway: {settings: {listen: '127.0.0.1:PORT'}}
nodes:
  - {id: gateway, service: api_gateway}
  - {id: zero, service: counter, shard: 0}
  - {id: one, service: counter, shard: 1}
  - {id: standby, service: standby, count: 3}
";
const NAMES: [&str; 5] = ["apples", "pears", "plums and figs", "ripe/unripe", "%41"];

/// The answer of `counter` for a name, through the gateway.
async fn counter(method: reqwest::Method, url: &str, name: &str) -> anyhow::Result<u64> {
    let mut target = reqwest::Url::parse(&format!("{url}/counter"))?;
    target.path_segments_mut().map_err(|()| anyhow::anyhow!("a URL with a path"))?.push(name);
    let http = client::plain_http().timeout(Duration::from_secs(20)).build()?;
    let answer = http.request(method, target).send().await?;
    anyhow::ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
    Ok(answer.text().await?.trim().parse()?)
}

/// A manifest of `ctl init` with all services and settings uncommented that have a value.
fn uncommented(manifest: &str) -> String {
    let is_line = |line: &str| {
        let text = line.trim_start_matches(['#', ' ']);
        let key = text.split(':').next().unwrap_or_default();
        let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_key && (text.ends_with(':') || text.contains(": "))
    };
    let mut in_services = false;
    let lines = manifest.lines().map(|line| {
        in_services = (in_services || line == "services:") && !line.starts_with("nodes:");
        match in_services && is_line(line) {
            true => line.replacen("# ", "", 1),
            false => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn add(url: &str, name: &str) -> anyhow::Result<u64> {
    counter(reqwest::Method::POST, url, name).await
}

async fn get(url: &str, name: &str) -> anyhow::Result<u64> {
    counter(reqwest::Method::GET, url, name).await
}

#[tokio::test]
async fn an_agent_with_a_plugin_of_its_own_is_used_as_any_and_keeps_its_counts_through_takeovers()
-> anyhow::Result<()> {
    let agent = example("counter")?.display().to_string();
    let machine = Machine::new()?;
    let port = free_port()?.to_string();
    let manifest = machine.manifest(&NODES.replace("PORT", &port))?;
    let gateway = format!("http://127.0.0.1:{port}");
    machine.ctl(&["validate", &manifest]).await?.exits(2)?.tells("unknown service type `counter`")?;
    machine.ctl(&["up", &manifest, "--agent-bin", &agent, "--timeout", "60s"]).await?.exits(0)?;
    for (round, name) in (1..=3).flat_map(|round| NAMES.map(|name| (round, name))) {
        assert_eq!(add(&gateway, name).await?, round, "{name}");
    }
    // The manifest that `ctl init` writes shows the type of an agent that is named or remembered, and is valid.
    let named = ["--agent-bin", &agent];
    let remembered = ["--cluster", machine.cluster()];
    for (file, init, checked) in [("named.yaml", named, &named[..]), ("remembered.yaml", remembered, &[])] {
        machine.ctl(&[&["init", file][..], &init].concat()).await?.exits(0)?;
        machine.ctl(&[&["validate", file], checked].concat()).await?.exits(0)?;
        let text = std::fs::read_to_string(machine.folder().join(file))?;
        for shown in [
            "  # counter:\n  #   shards: 2\n  #   replicas: 1\n",
            "  # storage:\n",
            "  # max_connections: 10000\n",
        ] {
            anyhow::ensure!(text.contains(shown.trim_start()), "{file} does not show {shown}:\n{text}");
        }
        // It stays valid when all of it is uncommented.
        let uncommented = machine.write("all.yaml", &uncommented(&text))?;
        let all = machine
            .ctl(&["validate", &uncommented, "--agent-bin", &agent, "-o", "json"])
            .await?
            .exits(0)?
            .json()?;
        anyhow::ensure!(
            all["services"]["counter"]["shards"] == 2
                && all["services"]["storage"]["settings"] != Value::Null,
            "{all}"
        );
    }
    // The owners are killed, one after the other. The new owner has all acknowledged counts.
    for (killed, counted) in [("zero", 3), ("one", 4)] {
        machine.ctl(&["kill", killed, "--for-good"]).await?.exits(0)?;
        for name in NAMES {
            let found =
                eventually("the shard has an owner", || async { get(&gateway, name).await.ok() }).await?;
            assert_eq!(found, counted, "{name} after {killed} was killed");
            eventually("the owner writes", || async { add(&gateway, name).await.ok() }).await?;
        }
    }
    // ctl remembers the cluster's agent, while it runs and afterwards.
    machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    machine.ctl(&["validate", &manifest]).await?.exits(0)?;
    machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
    members_become(&machine, &["gateway", "one", "standby-1", "standby-2", "standby-3", "zero"]).await?;
    for name in NAMES {
        assert_eq!(get(&gateway, name).await?, 5, "{name} after a stop of the whole cluster");
    }
    machine.ctl(&["down"]).await?.exits(0)?;
    // The error for a missing agent names it, and what to do.
    let moved = machine.folder().join("moved").display().to_string();
    std::fs::copy(&agent, &moved)?;
    machine.ctl(&["up", &manifest, "--agent-bin", &moved, "--timeout", "60s"]).await?.exits(0)?;
    machine.ctl(&["down"]).await?.exits(0)?;
    std::fs::remove_file(&moved)?;
    machine.ctl(&["up", &manifest]).await?.exits(2)?.tells(&moved)?.tells("--agent-bin")?;
    machine.nothing_is_left()
}
