//! Real agents by name, each with a role, on one object store in a temporary folder.

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

use crate::ours::{self, Binaries};
use crate::ports;
use crate::process::Process;
use crate::seat::Seat;

/// How long anything may take before the measurement is given up.
const LIMIT: Duration = Duration::from_secs(60);

/// Agents of one cluster. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Nodes {
    binaries: Binaries,
    nodes: BTreeMap<&'static str, Node>,
    // Removed after the nodes have been killed.
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
    /// None yet, with all they will keep in this folder.
    pub(crate) fn new(binaries: Binaries) -> anyhow::Result<Self> {
        Ok(Self { binaries, nodes: BTreeMap::new(), folder: tempfile::tempdir()? })
    }

    /// Settles on the store what service types run with.
    pub(crate) async fn apply(&self, services: &Value) -> anyhow::Result<()> {
        ours::apply(&self.binaries, self.store().as_os_str(), &[], services).await
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a node. It need not be ready at the end.
    pub(crate) fn start(&mut self, name: &'static str, role: &Role) -> anyhow::Result<()> {
        let service = match role.service_name() {
            "api_gateway" => "api_gateway",
            "storage" => "storage",
            "standby" => "standby",
            other => bail!("{other} is not started here"),
        };
        let seat = Seat { name: name.to_owned(), role: service, gossip: ports::free()?, api: ports::free()? };
        let seeds: Vec<_> = self.nodes.values().map(|node| node.gossip).collect();
        let mut command = ours::command(&self.binaries, &seat, &seeds, self.folder.path());
        command.arg("--store").arg(self.store());
        if let Some(shard) = role.shard() {
            command.args(["--shard", &shard.to_string()]);
        }
        let process = Process::spawn(command, self.log(name))?;
        let client = Client::new(&format!("http://{}", seat.api))?;
        self.nodes.insert(name, Node { api: seat.api, gossip: seat.gossip, process, client });
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
                bail!("{name} is not ready; its log ends with\n{}", node.process.last_words());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.get(name).with_context(|| format!("there is no {name}"))
    }

    /// Calls a node.
    pub(crate) fn client(&self, name: &str) -> anyhow::Result<&Client> {
        Ok(&self.node(name)?.client)
    }

    /// Where a node's API listens.
    pub(crate) fn api(&self, name: &str) -> anyhow::Result<SocketAddr> {
        Ok(self.node(name)?.api)
    }

    pub(crate) fn pid(&self, name: &str) -> anyhow::Result<u32> {
        self.node(name)?.process.id()
    }

    /// Where a gateway's own listener is, once it has one.
    pub(crate) async fn gateway(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.ready(name).await?;
        let member = self.client(name)?.agent_self().await?.member;
        let state = member.state.context("a node knows its own state")?;
        let url = state.endpoints.get("gateway").context("a gateway has an endpoint")?;
        let addr = url.strip_prefix("http://").unwrap_or(url);
        addr.parse().with_context(|| format!("{url} is an address"))
    }

    /// Waits until a node sees so many members that serve what they were told to.
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

    /// What the nodes logged between two moments, written as the log writes them.
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

    /// How many files there are on the store in each folder that has many.
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
                    // What is being deleted meanwhile is of no interest.
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

    /// Sends a node a signal that ends it, and waits until its process is no more.
    pub(crate) async fn signal(&mut self, name: &str, signal: Signal) -> anyhow::Result<()> {
        let mut node = self.nodes.remove(name).with_context(|| format!("there is no {name}"))?;
        node.process.signal(signal)?;
        node.process.ended().await
    }

    /// Pauses a node's process, or lets it go on.
    pub(crate) fn pause(&self, name: &str, is_paused: bool) -> anyhow::Result<()> {
        self.node(name)?.process.signal(if is_paused { Signal::STOP } else { Signal::CONT })
    }

    /// Ends all without a word.
    pub(crate) async fn end(mut self) {
        for node in self.nodes.values() {
            // It may have ended by itself.
            let _ = node.process.signal(Signal::KILL);
        }
        join_all(self.nodes.values_mut().map(|node| node.process.ended())).await;
    }
}
