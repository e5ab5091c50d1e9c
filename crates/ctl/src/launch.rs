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

use crate::record::NodeRecord;
use crate::state::State;
use crate::{agent_bin, drift};

/// What an agent reads from its file; all else it gets by flags, and settings from the store.
#[derive(Serialize)]
struct Settings<'a> {
    store: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

/// The store of a manifest: a folder of this machine unless it names another.
pub(crate) fn store(state: &State, manifest: &Manifest) -> OsString {
    manifest.store.as_ref().map_or_else(|| state.store().into(), OsString::from)
}

/// Where a node's settings are written.
pub(crate) fn settings_file(node: &NodeRecord) -> PathBuf {
    // The log is `{id}.log`, and only its last extension is replaced: ids may have dots.
    node.log.with_extension("yaml")
}

/// In which ways a node that runs is not as it would be started now, in words. One whose settings file is gone is taken
/// as it is.
pub(crate) fn drift(
    state: &State,
    manifest: &Manifest,
    wanted: &NodeSpec,
    node: &NodeRecord,
) -> anyhow::Result<Vec<&'static str>> {
    let would_write = settings_text(state, manifest, node)?;
    let written = std::fs::read_to_string(settings_file(node)).unwrap_or_else(|_| would_write.clone());
    Ok(drift::differences(wanted, node, &written, &would_write))
}

/// Starts the agent of a node that is in the record, in a process group of its own: it survives ctl, and ^C at the
/// terminal is not meant for it.
pub(crate) fn spawn(
    binary: &Path,
    state: &State,
    manifest: &Manifest,
    node: &NodeRecord,
    seeds: &[SocketAddr],
) -> anyhow::Result<Child> {
    let file = settings_file(node);
    std::fs::write(&file, settings_text(state, manifest, node)?)
        .with_context(|| format!("writing {}", file.display()))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&node.log)
        .with_context(|| format!("opening {}", node.log.display()))?;
    let mut command = agent_bin::command(binary);
    command
        .args(arguments(manifest, node, seeds))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    command.spawn().with_context(|| format!("starting {}", binary.display()))
}

fn settings_text(state: &State, manifest: &Manifest, node: &NodeRecord) -> anyhow::Result<String> {
    let none = BTreeMap::new();
    let spec = manifest.nodes.iter().find(|spec| spec.id == node.id);
    let settings = Settings {
        // In a file a dollar sign stands for a variable.
        store: store(state, manifest).to_string_lossy().replace('$', "$$"),
        labels: spec.map_or(&none, |spec| &spec.labels),
    };
    // The profile goes by a flag; named here, a change of it is seen.
    Ok(format!(
        "# Written by ctl at each start, for profile {}; change the manifest instead.\n{}",
        manifest.profile,
        manifest::yaml::to_yaml(&settings)?
    ))
}

fn arguments(manifest: &Manifest, node: &NodeRecord, seeds: &[SocketAddr]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: OsString| arguments.extend([OsString::from(name), value]);
    flag("--config", settings_file(node).into());
    flag("--cluster", manifest.cluster.to_string().into());
    flag("--node-id", node.id.to_string().into());
    flag("--listen-addr", node.http.to_string().into());
    flag("--gossip-addr", node.gossip.to_string().into());
    if !seeds.is_empty() {
        let seeds: Vec<_> = seeds.iter().map(ToString::to_string).collect();
        flag("--seed", seeds.join(",").into());
    }
    flag("--profile", manifest.profile.to_string().into());
    flag("--service", node.role.service_name().into());
    if let Some(shard) = node.role.shard() {
        flag("--shard", shard.to_string().into());
    }
    flag("--data-dir", node.data_dir.clone().into());
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
            pid: None,
            start_time: None,
            http: "127.0.0.1:1000".parse().unwrap(),
            gossip: "127.0.0.1:1001".parse().unwrap(),
            role: "storage/2".parse().unwrap(),
            log: PathBuf::from("/run/demo/n1.log"),
            data_dir: PathBuf::from("/data/demo/n1"),
        };
        (checked.manifest, node)
    }

    #[test]
    fn an_agent_is_told_everything_by_flags() {
        let (manifest, node) = example();
        let seeds = ["127.0.0.1:7", "127.0.0.1:8"].map(|seed| seed.parse().unwrap());
        let arguments = arguments(&manifest, &node, &seeds);
        let arguments: Vec<_> = arguments.iter().map(|text| text.to_string_lossy()).collect();
        assert_eq!(
            arguments.join(" "),
            "--config /run/demo/n1.yaml --cluster demo --node-id n1 --listen-addr 127.0.0.1:1000 \
             --gossip-addr 127.0.0.1:1001 --seed 127.0.0.1:7,127.0.0.1:8 --profile local --service storage \
             --shard 2 --data-dir /data/demo/n1"
        );
    }

    #[test]
    fn store_and_labels_go_through_the_file() {
        let (manifest, node) = example();
        let state = State::at(PathBuf::from("/state"));
        let text = settings_text(&state, &manifest, &node).unwrap();
        let lines: Vec<_> = text.lines().skip(1).map(str::trim_start).collect();
        assert_eq!(lines, ["store: /state/store", "labels:", "zone: a"]);
    }
}
