//! The record of what was started, so that it can be found and stopped: `run/<cluster>/cluster.json`.
//!
//! An entry is written before its process is started, so that a ctl that is killed halfway leaves nothing that `ctl
//! down` cannot find. The process of a node is recorded elsewhere: in the file of its parent, `NODE.pid`, and in the
//! lock of its data folder. After the cluster was stopped, `last.json` keeps a part of the record.

mod rebuild;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use types::supervision::{PidFile, StartFile};
use types::{ClusterId, NodeId, Role};

use crate::exit::{Exit, Failure};
use crate::out::say;
use crate::process::{ProcessId, Processes};
use crate::state::State;
use crate::suggest;

/// A cluster that was started here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) cluster: ClusterId,
    /// The manifest that it was last started from.
    pub(crate) manifest: PathBuf,
    /// The agent that the user named for it; else the one that `ctl` finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<PathBuf>,
    /// Unix milliseconds of the `ctl up` that started its first node.
    pub(crate) started_at_ms: u64,
    /// Nodes in the order of their start.
    pub(crate) nodes: Vec<NodeRecord>,
}

/// What is remembered of a cluster that was stopped: `run/<cluster>/last.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastRun {
    /// The manifest that it was last started from.
    pub(crate) manifest: PathBuf,
    /// The agent that the user named for it; else the one that `ctl` finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<PathBuf>,
    /// How many nodes it had.
    pub(crate) nodes: usize,
}

impl LastRun {
    fn path(state: &State, cluster: &ClusterId) -> PathBuf {
        state.run_dir(cluster).join("last.json")
    }

    /// What is remembered; `None` if there is nothing readable.
    pub(crate) fn load(state: &State, cluster: &ClusterId) -> anyhow::Result<Option<Self>> {
        let path = Self::path(state, cluster);
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if is_nothing_there(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
}

/// The agent that the user named for a cluster, if any, while it runs and after it was stopped.
pub(crate) fn agent_of(state: &State, cluster: &ClusterId) -> anyhow::Result<Option<PathBuf>> {
    Ok(match ClusterRecord::load(state, cluster)? {
        Some(record) => record.agent,
        None => LastRun::load(state, cluster)?.and_then(|last| last.agent),
    })
}

/// A node that was started here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) id: NodeId,
    pub(crate) http: SocketAddr,
    pub(crate) gossip: SocketAddr,
    /// The role in the manifest.
    pub(crate) role: Role,
    pub(crate) log: PathBuf,
    pub(crate) data_dir: PathBuf,
}

impl NodeRecord {
    /// The file that its parent is started with.
    pub(crate) fn start_file(&self) -> PathBuf {
        // The log is `{id}.log`, and only its last extension is replaced: ids may have dots.
        self.log.with_extension(StartFile::EXTENSION)
    }

    /// What its parent has written about it; `None` until it has.
    pub(crate) fn pid_file(&self) -> Option<PidFile> {
        let text = std::fs::read(PidFile::beside(&self.start_file())).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Its process according to its parent, else according to the lock of its data folder; the live one if they differ.
    pub(crate) fn process(&self) -> Option<ProcessId> {
        let of = |pid, start_time| ProcessId { pid, start_time, data_dir: self.data_dir.clone() };
        let recorded =
            self.pid_file().and_then(|file| file.agent).map(|agent| of(agent.pid, agent.start_time));
        let locked = || {
            let text = std::fs::read_to_string(self.data_dir.join("lock")).ok()?;
            text.trim().parse().ok().map(|pid| of(pid, 0))
        };
        let Ok(mut processes) = Processes::new() else { return recorded };
        match recorded {
            Some(recorded) if processes.is_alive(&recorded) => Some(recorded),
            recorded => match locked() {
                Some(locked) if recorded.is_none() || processes.is_alive(&locked) => Some(locked),
                _ => recorded,
            },
        }
    }

    /// The process that restarts it, if there is one.
    pub(crate) fn parent(&self, processes: &mut Processes) -> Option<ProcessId> {
        let parent = self.pid_file()?.parent?;
        let parent =
            ProcessId { pid: parent.pid, start_time: parent.start_time, data_dir: self.start_file() };
        processes.is_alive(&parent).then_some(parent)
    }

    /// Whether its process runs.
    pub(crate) fn is_running(&self, processes: &mut Processes) -> bool {
        self.process().is_some_and(|process| processes.is_alive(&process))
    }

    /// Removes its files in the run folder that it is started from. The log stays.
    pub(crate) fn remove_files(&self) {
        let start = self.start_file();
        for path in [self.log.with_extension("yaml"), PidFile::beside(&start), start] {
            // A file that can't be removed is overwritten at the next start.
            let _ = std::fs::remove_file(path);
        }
    }

    /// The URL of its HTTP API, reachable from this machine.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", reachable(self.http))
    }
}

/// The address to connect to, for one to listen on: "any address" is reached over loopback.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl ClusterRecord {
    fn path(state: &State, cluster: &ClusterId) -> PathBuf {
        state.run_dir(cluster).join("cluster.json")
    }

    /// The record of a cluster, if there is one. If it is damaged, or missing although nodes were started, it is
    /// rebuilt from the files and the command lines of the nodes.
    pub(crate) fn load(state: &State, cluster: &ClusterId) -> anyhow::Result<Option<Self>> {
        let path = Self::path(state, cluster);
        let damage = match std::fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(record) => return Ok(Some(record)),
                Err(error) => Some(error),
            },
            Err(error) if is_nothing_there(&error) => None,
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        if damage.is_none() && !rebuild::has_files(state, cluster) {
            return Ok(None);
        }
        let rebuilt = rebuild::rebuild(state, cluster)?;
        rebuild::set_aside(&path, damage.as_ref(), rebuilt.as_ref());
        if let Some(rebuilt) = &rebuilt
            && let Err(error) = rebuilt.save(state)
        {
            say(&format!("warning: {error:#}; it is rebuilt each time"));
        }
        Ok(rebuilt)
    }

    /// Writes the record atomically: readers see the old one or the new one.
    pub(crate) fn save(&self, state: &State) -> anyhow::Result<()> {
        let path = Self::path(state, &self.cluster);
        write_atomically(&path, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Removes the record of a stopped cluster, and remembers its manifest and agent.
    pub(crate) fn retire(&self, state: &State) -> anyhow::Result<()> {
        let last =
            LastRun { manifest: self.manifest.clone(), agent: self.agent.clone(), nodes: self.nodes.len() };
        // It is only a convenience, so a full disk must not fail the command.
        let _ = write_atomically(&LastRun::path(state, &self.cluster), &serde_json::to_vec_pretty(&last)?);
        Self::remove(state, &self.cluster)
    }

    /// Removes the record.
    pub(crate) fn remove(state: &State, cluster: &ClusterId) -> anyhow::Result<()> {
        let path = Self::path(state, cluster);
        match std::fs::remove_file(&path) {
            Err(error) if !is_nothing_there(&error) => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn node(&self, id: &NodeId) -> Option<&NodeRecord> {
        self.nodes.iter().find(|node| node.id == *id)
    }

    /// The node with this id; the error suggests similar ids.
    pub(crate) fn known(&self, id: &NodeId) -> Result<&NodeRecord, Failure> {
        self.node(id).ok_or_else(|| {
            let ids: Vec<_> = self.nodes.iter().map(|node| node.id.as_str()).collect();
            Failure::new(Exit::Error, format!("cluster `{}` has no node `{id}` here", self.cluster))
                .hint(suggest::hint(id.as_str(), &ids))
        })
    }

    pub(crate) fn node_mut(&mut self, id: &NodeId) -> Option<&mut NodeRecord> {
        self.nodes.iter_mut().find(|node| node.id == *id)
    }

    /// Adds a node, or replaces its entry.
    pub(crate) fn put(&mut self, node: NodeRecord) {
        match self.node_mut(&node.id) {
            Some(known) => *known = node,
            None => self.nodes.push(node),
        }
    }

    pub(crate) fn drop_node(&mut self, id: &NodeId) {
        self.nodes.retain(|node| node.id != *id);
    }
}

fn is_nothing_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeRecord {
        NodeRecord {
            id: id.parse().unwrap(),
            http: "127.0.0.1:1".parse().unwrap(),
            gossip: "127.0.0.1:1".parse().unwrap(),
            role: Role::Standby,
            log: PathBuf::from("a.log"),
            data_dir: PathBuf::from("a"),
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().to_owned());
        let cluster: ClusterId = "demo".parse().unwrap();
        assert_eq!(ClusterRecord::load(&state, &cluster).unwrap(), None);
        std::fs::create_dir_all(state.run_dir(&cluster)).unwrap();
        let mut record = ClusterRecord {
            cluster: cluster.clone(),
            manifest: PathBuf::from("demo.yaml"),
            agent: Some(PathBuf::from("/my/agent")),
            started_at_ms: 5,
            nodes: vec![node("a")],
        };
        record.put(node("a"));
        record.put(node("b"));
        record.save(&state).unwrap();
        assert_eq!(ClusterRecord::load(&state, &cluster).unwrap(), Some(record));
        assert_eq!(std::fs::read_dir(state.run_dir(&cluster)).unwrap().count(), 1);
        assert_eq!(state.clusters().unwrap(), std::slice::from_ref(&cluster));
        ClusterRecord::load(&state, &cluster).unwrap().unwrap().retire(&state).unwrap();
        assert_eq!(ClusterRecord::load(&state, &cluster).unwrap(), None);
        let agent = Some(PathBuf::from("/my/agent"));
        let last = LastRun { manifest: PathBuf::from("demo.yaml"), agent, nodes: 2 };
        assert_eq!(LastRun::load(&state, &cluster).unwrap(), Some(last));
        assert_eq!(agent_of(&state, &cluster).unwrap(), Some(PathBuf::from("/my/agent")));
    }

    #[test]
    fn any_address_is_reached_over_loopback() {
        let any: SocketAddr = "0.0.0.0:80".parse().unwrap();
        assert_eq!(reachable(any).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
