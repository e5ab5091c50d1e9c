//! Rebuilds a record from the nodes: from the files that they were started from, and from the command lines of those
//! that run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use types::supervision::{RestartPolicy, StartFile};
use types::{ClusterId, NodeId, Role};

use super::{ClusterRecord, NodeRecord};
use crate::agent_bin;
use crate::out::say;
use crate::process::Processes;
use crate::render;
use crate::state::State;

/// Whether there are files that nodes of a cluster were started from.
pub(super) fn has_files(state: &State, cluster: &ClusterId) -> bool {
    !start_files(&state.run_dir(cluster)).is_empty()
}

/// The record rebuilt from the nodes of a cluster; `None` if there are none.
pub(super) fn rebuild(state: &State, cluster: &ClusterId) -> anyhow::Result<Option<ClusterRecord>> {
    let run_dir = state.run_dir(cluster);
    let mut known: BTreeMap<NodeId, (NodeRecord, PathBuf)> = BTreeMap::new();
    let mut processes = Processes::new()?;
    for process in processes.below(&state.cluster_data_dir(cluster)) {
        let start = StartFile {
            manifest: PathBuf::new(),
            binary: PathBuf::new(),
            arguments: processes.arguments(process.pid).into_iter().skip(1).collect(),
            log: PathBuf::new(),
            data_dir: process.data_dir,
            restart: RestartPolicy::default(),
        };
        known.extend(node(&run_dir, &start).map(|node| (node.id.clone(), (node, PathBuf::new()))));
    }
    let mut binaries = Vec::new();
    for path in start_files(&run_dir) {
        let text = std::fs::read(&path).unwrap_or_default();
        let Ok(start) = serde_json::from_slice::<StartFile>(&text) else { continue };
        if let Some(node) = node(&run_dir, &start) {
            binaries.push(start.binary);
            known.insert(node.id.clone(), (node, start.manifest));
        }
    }
    let manifest = known.values().map(|(_, manifest)| manifest).find(|manifest| manifest.as_os_str() != "");
    let manifest = manifest.cloned().unwrap_or_default();
    let default = agent_bin::find(None).ok().and_then(|agent| std::path::absolute(agent).ok());
    let agent = binaries.into_iter().find(|binary| Some(binary) != default.as_ref());
    let nodes: Vec<_> = known.into_values().map(|(node, _)| node).collect();
    let started = nodes.iter().filter_map(|node| node.pid_file()?.parent.map(|parent| parent.start_time));
    let started_at_ms = started.min().map_or_else(render::now_ms, |seconds| seconds.saturating_mul(1000));
    let record = ClusterRecord { cluster: cluster.clone(), manifest, agent, started_at_ms, nodes };
    Ok((!record.nodes.is_empty()).then_some(record))
}

/// A node, rebuilt from its command line.
fn node(run_dir: &Path, start: &StartFile) -> Option<NodeRecord> {
    let id: NodeId = start.argument("--node-id")?.parse().ok()?;
    let shard = start.argument("--shard").map(str::parse).transpose().ok()?;
    let http = start.argument("--listen-addr")?.parse().ok()?;
    Some(NodeRecord {
        http,
        gossip: start.argument("--gossip-addr").map_or(Some(http), |text| text.parse().ok())?,
        role: Role::new(start.argument("--service")?, shard).ok()?,
        log: run_dir.join(format!("{id}.log")),
        data_dir: start.data_dir.clone(),
        id,
    })
}

fn start_files(run_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run_dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|found| found == StartFile::EXTENSION)).collect()
}

/// Moves a damaged record aside, and reports that it was rebuilt.
pub(super) fn set_aside(path: &Path, damage: Option<&serde_json::Error>, rebuilt: Option<&ClusterRecord>) {
    let nodes = rebuilt.map_or(0, |record| record.nodes.len());
    let made = format!("it is rebuilt from the files and processes of {}", render::count(nodes, "node"));
    let Some(damage) = damage else {
        say(&format!("warning: {} is gone; {made}", path.display()));
        return;
    };
    let aside = path.with_extension("json.damaged");
    let moved = match std::fs::rename(path, &aside) {
        Ok(()) => format!("moved to {}", aside.display()),
        Err(error) => format!("it can't be moved aside: {error}"),
    };
    say(&format!("warning: {} is damaged ({damage}); {moved}, and {made}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_file(state: &State, cluster: &ClusterId, id: &str, role: &[&str]) {
        let arguments =
            [&["--node-id", id, "--listen-addr", "127.0.0.1:1", "--gossip-addr", "127.0.0.1:2"], role];
        let start = StartFile {
            manifest: PathBuf::from("/m.yaml"),
            binary: PathBuf::from("/bin/agent"),
            arguments: arguments.concat().into_iter().map(str::to_owned).collect(),
            log: PathBuf::new(),
            data_dir: state.data_dir(cluster, &id.parse().unwrap()),
            restart: RestartPolicy::default(),
        };
        let run_dir = state.run_dir(cluster);
        std::fs::create_dir_all(&run_dir).unwrap();
        let path = run_dir.join(format!("{id}.start"));
        std::fs::write(path, serde_json::to_vec(&start).unwrap()).unwrap();
    }

    #[test]
    fn a_damaged_or_missing_record_is_rebuilt_from_the_files_of_the_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        let cluster: ClusterId = "demo".parse().unwrap();
        start_file(&state, &cluster, "a.1", &["--service", "storage", "--shard", "2"]);
        start_file(&state, &cluster, "b", &["--service", "standby"]);
        std::fs::write(state.run_dir(&cluster).join("c.start"), "damaged as well").unwrap();
        let path = state.run_dir(&cluster).join("cluster.json");
        for text in [Some(""), Some("{\"cluster\": \"demo\", \"mani"), None] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let record = ClusterRecord::load(&state, &cluster).unwrap().unwrap();
            let nodes: Vec<_> =
                record.nodes.iter().map(|node| (node.id.as_str(), node.role.to_string())).collect();
            assert_eq!(nodes, [("a.1", "storage/2".to_owned()), ("b", "standby".to_owned())]);
            assert_eq!(record.manifest, Path::new("/m.yaml"));
            assert_eq!(record.agent.as_deref(), Some(Path::new("/bin/agent")));
            assert_eq!(record.nodes[0].start_file(), state.run_dir(&cluster).join("a.1.start"));
            // The next load finds it intact.
            assert_eq!(
                serde_json::from_slice::<ClusterRecord>(&std::fs::read(&path).unwrap()).unwrap(),
                record
            );
        }
        assert_eq!(
            std::fs::read_to_string(path.with_extension("json.damaged")).unwrap(),
            "{\"cluster\": \"demo\", \"mani"
        );
    }

    #[test]
    fn without_nodes_no_record_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        let cluster: ClusterId = "demo".parse().unwrap();
        std::fs::create_dir_all(state.run_dir(&cluster)).unwrap();
        std::fs::write(state.run_dir(&cluster).join("cluster.json"), "").unwrap();
        assert_eq!(ClusterRecord::load(&state, &cluster).unwrap(), None);
        assert_eq!(ClusterRecord::load(&state, &cluster).unwrap(), None);
    }
}
