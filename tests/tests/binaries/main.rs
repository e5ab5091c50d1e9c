//! Tests of the real binaries: `ctl` and `agent` as a user runs them, and that nothing is left behind.

mod agent;
mod backends;
mod balancer;
mod counter;
mod daemon;
mod elastic;
mod exit_codes;
mod front_door;
mod front_door_pair;
mod full;
mod killed;
mod named;
mod restarts;
mod search;
mod settings;
mod storage;
mod stores;
mod tables;
mod traffic;
mod twins;
mod up_and_down;

use std::time::Duration;

use e2e::{Machine, eventually};
use rustix::process::Pid;
use serde_json::Value;
use types::supervision::PidFile;

/// Five nodes: two gateways and three standbys.
const FIVE: &str = "\
nodes:
  - {id: gateway, service: api_gateway, count: 2}
  - {id: standby, service: standby, count: 3}
";
const FIVE_NAMES: [&str; 5] = ["gateway-1", "gateway-2", "standby-1", "standby-2", "standby-3"];

/// A machine on which these nodes run.
async fn up(nodes: &str) -> anyhow::Result<Machine> {
    let machine = Machine::new()?;
    let manifest = machine.manifest(nodes)?;
    machine.ctl(&["up", &manifest, "--timeout", "60s"]).await?.exits(0)?;
    Ok(machine)
}

/// The JSON answer of an agent.
async fn ask(url: &str) -> anyhow::Result<Value> {
    let http = client::plain_http().timeout(Duration::from_secs(20)).build()?;
    Ok(http.get(url).send().await?.error_for_status()?.json().await?)
}

/// The names in one agent's own view.
async fn seen_by(url: &str) -> anyhow::Result<Vec<String>> {
    let view = ask(&format!("{url}/v1/members")).await?;
    let members = view["members"].as_array().into_iter().flatten();
    Ok(members.filter_map(|member| member["id"].as_str().map(str::to_owned)).collect())
}

/// Waits until ctl shows exactly these members.
async fn members_become(machine: &Machine, names: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("the members are {names:?}"), || async {
        machine.members().await.ok().filter(|members| members == names)
    })
    .await?;
    Ok(())
}

/// A value of a node's record.
fn recorded(machine: &Machine, node: &str, key: &str) -> anyhow::Result<Value> {
    let record = machine.record()?;
    let nodes = record["nodes"].as_array().into_iter().flatten();
    let found = nodes.clone().find(|known| known["id"] == node).map(|known| known[key].clone());
    found.ok_or_else(|| anyhow::anyhow!("no record of {node} in {record}"))
}

/// The URL of a node's API.
fn url(machine: &Machine, node: &str) -> anyhow::Result<String> {
    Ok(format!("http://{}", recorded(machine, node, "http")?.as_str().unwrap_or_default()))
}

/// The process id of a node's agent, as recorded by its parent.
fn agent_pid(machine: &Machine, node: &str) -> anyhow::Result<Pid> {
    let text = std::fs::read(machine.run_dir().join(format!("{node}.pid")))?;
    let file: PidFile = serde_json::from_slice(&text)?;
    let agent = file.agent.and_then(|agent| Pid::from_raw(i32::try_from(agent.pid).ok()?));
    agent.ok_or_else(|| anyhow::anyhow!("{node} has no process"))
}
