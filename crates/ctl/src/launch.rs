//! One agent process: its arguments, its settings file, its log.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use manifest::{Manifest, NodeSpec};
use serde::Serialize;
use tokio::process::Child;
use types::ServiceName;
use types::supervision::StartFile;

use crate::record::{ClusterRecord, NodeRecord};
use crate::state::State;
use crate::{agent_bin, drift};

/// The parent of an agent allocates little, and from one thread.
const ALLOCATOR: (&str, &str) = ("_RJEM_MALLOC_CONF", "background_thread:false,narenas:1,tcache:false");

/// What an agent reads from its file; the rest comes from flags, and settings from the store.
#[derive(Serialize)]
struct Settings<'a> {
    store: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<&'a [ServiceName]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
}

/// The store of a manifest: a folder on this machine unless it names another.
pub(crate) fn store(state: &State, manifest: &Manifest) -> OsString {
    manifest.store.as_ref().map_or_else(|| state.store().into(), OsString::from)
}

/// The settings file of a node.
pub(crate) fn settings_file(node: &NodeRecord) -> PathBuf {
    // The log is `{id}.log`, and only its last extension is replaced: ids may have dots.
    node.log.with_extension("yaml")
}

/// In words, how a running node differs from one that would be started now. If its settings file is gone, its settings
/// count as unchanged.
pub(crate) fn drift(
    state: &State,
    manifest: &Manifest,
    wanted: &NodeSpec,
    node: &NodeRecord,
) -> anyhow::Result<Vec<&'static str>> {
    let would_write = settings_text(state, manifest, node)?;
    let written = std::fs::read_to_string(settings_file(node)).unwrap_or_else(|_| would_write.clone());
    let policy = start_file(node).map_or(wanted.restart, |start| start.restart);
    let mut found = drift::differences(wanted, node, &written, &would_write);
    if policy != wanted.restart {
        found.push("another restart policy");
    }
    Ok(found)
}

/// Writes what a recorded node is started from: its settings, and the file of its parent.
pub(crate) fn write(
    binary: &Path,
    state: &State,
    manifest: &Manifest,
    record: &ClusterRecord,
    node: &NodeRecord,
    seeds: &[SocketAddr],
) -> anyhow::Result<()> {
    let file = settings_file(node);
    std::fs::write(&file, settings_text(state, manifest, node)?)
        .with_context(|| format!("writing {}", file.display()))?;
    let spec = manifest.nodes.iter().find(|spec| spec.id == node.id);
    let start = StartFile {
        manifest: record.manifest.clone(),
        binary: binary.to_owned(),
        arguments: arguments(manifest, node, seeds),
        log: node.log.clone(),
        data_dir: node.data_dir.clone(),
        restart: spec.map(|spec| spec.restart).unwrap_or_default(),
    };
    write_start_file(node, &start)?;
    // A node that was started has a log, even if it fails at once.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&node.log)
        .with_context(|| format!("opening {}", node.log.display()))?;
    Ok(())
}

/// Writes the file of a node's parent.
pub(crate) fn write_start_file(node: &NodeRecord, start: &StartFile) -> anyhow::Result<()> {
    let file = node.start_file();
    std::fs::write(&file, serde_json::to_vec_pretty(start)?)
        .with_context(|| format!("writing {}", file.display()))
}

/// What a node was last started from.
pub(crate) fn start_file(node: &NodeRecord) -> anyhow::Result<StartFile> {
    let file = node.start_file();
    let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
}

/// Starts the parent of a node, which starts its agent or adopts the one with this process id. The parent leaves this
/// session, so it outlives ctl and gets no ^C from the terminal.
pub(crate) fn supervise(binary: &Path, node: &NodeRecord, adopt: Option<u32>) -> anyhow::Result<Child> {
    let mut command = agent_bin::command(binary);
    command.arg("supervise").arg(node.start_file());
    if let Some(pid) = adopt {
        command.arg("--adopt").arg(pid.to_string());
    }
    command
        .current_dir("/")
        .env(ALLOCATOR.0, ALLOCATOR.1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().with_context(|| format!("starting {}", binary.display()))
}

fn settings_text(state: &State, manifest: &Manifest, node: &NodeRecord) -> anyhow::Result<String> {
    let none = BTreeMap::new();
    let spec = manifest.nodes.iter().find(|spec| spec.id == node.id);
    let settings = Settings {
        // In a settings file, a dollar sign begins a variable.
        store: store(state, manifest).to_string_lossy().replace('$', "$$"),
        labels: spec.map_or(&none, |spec| &spec.labels),
        runs: spec.and_then(|spec| spec.runs.as_deref()),
        insecure: manifest.insecure,
    };
    // The profile is passed by a flag; it is named here so that a change is noticed.
    Ok(format!(
        "# Written by ctl at each start, for profile {}; change the manifest instead.\n{}",
        manifest.profile,
        manifest::yaml::to_yaml(&settings)?
    ))
}

/// All paths are absolute: an agent's working folder is the root.
fn arguments(manifest: &Manifest, node: &NodeRecord, seeds: &[SocketAddr]) -> Vec<String> {
    let mut arguments: Vec<String> = Vec::new();
    let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    let path = |path: &Path| path.to_string_lossy().into_owned();
    flag("--config", path(&settings_file(node)));
    flag("--cluster", manifest.cluster.to_string());
    flag("--node-id", node.id.to_string());
    flag("--listen-addr", node.http.to_string());
    flag("--gossip-addr", node.gossip.to_string());
    if !seeds.is_empty() {
        let seeds: Vec<_> = seeds.iter().map(ToString::to_string).collect();
        flag("--seed", seeds.join(","));
    }
    flag("--profile", manifest.profile.to_string());
    flag("--service", node.role.service_name().to_owned());
    let service_type =
        node.role.service().and_then(|service| manifest.services.get(service)?.service_type.as_ref());
    if let Some(service_type) = service_type {
        flag("--type", service_type.to_string());
    }
    if let Some(shard) = node.role.shard() {
        flag("--shard", shard.to_string());
    }
    flag("--data-dir", path(&node.data_dir));
    flag("--log-file", path(&node.log));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Manifest, NodeRecord) {
        let source = "\
cluster: demo
services:
  api_gateway:
    settings:
      routes: []
nodes:
  - id: n1
    service: storage
    shard: 2
    labels: {zone: a}
";
        let checked = manifest::parse("demo.yaml", source, &|_| None, None).unwrap();
        let node = NodeRecord {
            id: "n1".parse().unwrap(),
            http: "127.0.0.1:1000".parse().unwrap(),
            gossip: "127.0.0.1:1001".parse().unwrap(),
            role: "storage/2".parse().unwrap(),
            log: PathBuf::from("/run/demo/n1.log"),
            data_dir: PathBuf::from("/data/demo/n1"),
        };
        (checked.manifest, node)
    }

    #[test]
    fn an_agent_gets_everything_else_by_flags() {
        let (manifest, node) = example();
        let seeds = ["127.0.0.1:7", "127.0.0.1:8"].map(|seed| seed.parse().unwrap());
        let arguments = arguments(&manifest, &node, &seeds);
        assert_eq!(
            arguments.join(" "),
            "--config /run/demo/n1.yaml --cluster demo --node-id n1 --listen-addr 127.0.0.1:1000 \
             --gossip-addr 127.0.0.1:1001 --seed 127.0.0.1:7,127.0.0.1:8 --profile local --service storage \
             --shard 2 --data-dir /data/demo/n1 --log-file /run/demo/n1.log"
        );
    }

    #[test]
    fn a_manifest_that_says_insecure_starts_its_agents_so() {
        let (mut manifest, node) = example();
        let state = State::at(PathBuf::from("/state"));
        manifest.insecure = true;
        assert!(
            settings_text(&state, &manifest, &node).unwrap().lines().any(|line| line == "insecure: true")
        );
    }

    #[test]
    fn store_and_labels_go_into_the_file() {
        let (manifest, node) = example();
        let state = State::at(PathBuf::from("/state"));
        let text = settings_text(&state, &manifest, &node).unwrap();
        let lines: Vec<_> = text.lines().skip(1).map(str::trim_start).collect();
        assert_eq!(lines, ["store: /state/store", "labels:", "zone: a"]);
    }
}
