//! Real agents by name, each with a role, on an object store in a temporary folder.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use client::Client;
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use types::Role;

use crate::node_config::NodeConfig;
use crate::ours::{self, Binaries};
use crate::ports;
use crate::process::Process;

/// The time limit of each step.
const LIMIT: Duration = Duration::from_secs(60);

/// Agents of one cluster. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Nodes {
    binaries: Binaries,
    nodes: BTreeMap<&'static str, Node>,
    // Declared last: removed after the nodes have been killed.
    folder: TempDir,
}

#[derive(Debug)]
struct Node {
    api: SocketAddr,
    gossip: SocketAddr,
    process: Process,
    client: Client,
}

impl Nodes {
    /// A cluster without nodes; they will keep their data in this folder.
    pub(crate) fn new(binaries: Binaries) -> anyhow::Result<Self> {
        Ok(Self { binaries, nodes: BTreeMap::new(), folder: tempfile::tempdir()? })
    }

    /// Writes the specs of service types to the store.
    pub(crate) async fn apply(&self, services: &Value) -> anyhow::Result<()> {
        ours::apply(&self.binaries, self.store().as_os_str(), &[], services).await
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a node. Does not wait until it is ready.
    pub(crate) fn start(&mut self, name: &'static str, role: &Role) -> anyhow::Result<()> {
        let service = match role.service_name() {
            "api_gateway" => "api_gateway",
            "load_balancer" => "load_balancer",
            "searcher" => "searcher",
            "storage" => "storage",
            "standby" => "standby",
            other => bail!("bench starts no {other}"),
        };
        let config =
            NodeConfig { name: name.to_owned(), role: service, gossip: ports::free()?, api: ports::free()? };
        let seeds: Vec<_> = self.nodes.values().map(|node| node.gossip).collect();
        let mut command = ours::command(&self.binaries, &config, &seeds, self.folder.path());
        command.arg("--store").arg(self.store());
        if let Some(shard) = role.shard() {
            command.args(["--shard", &shard.to_string()]);
        }
        let process = Process::spawn(command, self.log(name))?;
        let client = Client::new(&format!("http://{}", config.api))?;
        self.nodes.insert(name, Node { api: config.api, gossip: config.gossip, process, client });
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Waits until a node is ready for requests.
    pub(crate) async fn ready(&self, name: &str) -> anyhow::Result<()> {
        const PAUSE: Duration = Duration::from_millis(1);
        let node = self.node(name)?;
        let began = Instant::now();
        while !node.client.is_ready().await {
            if began.elapsed() > LIMIT {
                bail!("{name} is not ready; its log ends with\n{}", node.process.log_tail());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.get(name).with_context(|| format!("there is no node {name}"))
    }

    /// The client of a node.
    pub(crate) fn client(&self, name: &str) -> anyhow::Result<&Client> {
        Ok(&self.node(name)?.client)
    }

    /// The address of a node's API.
    pub(crate) fn api(&self, name: &str) -> anyhow::Result<SocketAddr> {
        Ok(self.node(name)?.api)
    }

    pub(crate) fn pid(&self, name: &str) -> anyhow::Result<u32> {
        self.node(name)?.process.id()
    }

    /// The address of a gateway's own listener, once it is ready.
    pub(crate) async fn gateway(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.endpoint(name, "gateway").await
    }

    /// The address of a named listener of a node's service, once it is ready.
    pub(crate) async fn endpoint(&self, name: &str, listener: &str) -> anyhow::Result<SocketAddr> {
        self.ready(name).await?;
        let member = self.client(name)?.agent_self().await?.member;
        let state = member.state.context("the node has no state")?;
        let url =
            state.endpoints.get(listener).with_context(|| format!("there is no listener {listener}"))?;
        let addr = url.split_once("://").map_or(url.as_str(), |(_, addr)| addr);
        addr.parse().with_context(|| format!("{url} is not an address"))
    }

    /// Waits until a node sees exactly `count` serving members.
    pub(crate) async fn sees(&self, name: &str, count: usize) -> anyhow::Result<()> {
        const PAUSE: Duration = Duration::from_millis(10);
        let client = self.client(name)?;
        let began = Instant::now();
        loop {
            let members = client.members().await?.members;
            let serving = members.iter().filter_map(|member| member.state.as_ref());
            if serving.filter(|state| state.phase.is_serving()).count() == count {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                bail!("{name} sees {members:#?}");
            }
            sleep(PAUSE).await;
        }
    }

    /// The nodes' log lines between two times in the format of the log.
    pub(crate) fn logged(&self, from: &str, to: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for name in self.nodes.keys() {
            let text = std::fs::read(self.log(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let within = text.lines().filter(|line| (from..=to).contains(line));
            lines.extend(within.map(|line| format!("{line} [{name}]")));
        }
        lines.sort();
        lines
    }

    /// The number of files in each folder of the store that has at least 100.
    pub(crate) fn files_on_store(&self) -> BTreeMap<String, usize> {
        const MANY: usize = 100;
        let store = self.store();
        let mut counts = BTreeMap::new();
        let mut folders = vec![store.clone()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut files = 0;
            for entry in entries.flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    // A file that is being deleted counts as well.
                    Ok(_) | Err(_) => files += 1,
                }
            }
            if files >= MANY {
                let below = folder.strip_prefix(&store).unwrap_or(&folder);
                counts.insert(below.display().to_string(), files);
            }
        }
        counts
    }

    /// Ends a node with a signal, and waits until its process has exited.
    pub(crate) async fn signal(&mut self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let mut node = self.nodes.remove(name).with_context(|| format!("there is no node {name}"))?;
        node.process.signal(signal)?;
        node.process.ended().await
    }

    /// Pauses or resumes a node's process.
    pub(crate) fn pause(&self, name: &str, is_paused: bool) -> anyhow::Result<()> {
        self.node(name)?.process.signal(if is_paused { Signal::STOP } else { Signal::CONT })
    }

    /// Kills all nodes.
    pub(crate) async fn end(mut self) {
        for node in self.nodes.values() {
            // The process may have exited already.
            let _ = node.process.signal(Signal::KILL);
        }
        join_all(self.nodes.values_mut().map(|node| node.process.ended())).await;
    }
}
