//! Real processes of one software: ours or Serf. Both are started, polled, ended and timed in the same way.
//!
//! Each node is polled every few milliseconds over a connection that stays open: ours with `GET /v1/members`, Serf with
//! `members` of its RPC. So the resolution is the pause plus one answer, the same for both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::{join_all, try_join_all};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::node_config::NodeConfig;
use crate::ours::{self, Binaries};
use crate::ports;
use crate::process::Process;
use crate::serf;

/// The pause between two polls of a node where milliseconds count.
pub(crate) const QUICK: Duration = Duration::from_millis(3);
/// The pause between two polls of a node where about a second is expected.
pub(crate) const STEADY: Duration = Duration::from_millis(10);
/// The time limit of each step of a measurement.
const LIMIT: Duration = Duration::from_secs(60);
/// The time limit of one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const SEEDS: usize = 3;

/// The software to measure.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Ours(Binaries),
    Serf(serf::Profile),
}

/// Polls one node.
#[derive(Debug)]
pub(crate) enum Probe {
    Ours(Box<client::Client>),
    Serf(serf::Rpc),
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) process: Process,
    probe: Probe,
}

/// Nodes of one cluster. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Fleet {
    kind: Kind,
    folder: TempDir,
    configs: Vec<NodeConfig>,
    nodes: BTreeMap<String, Node>,
}

impl Kind {
    fn command(&self, config: &NodeConfig, seeds: &[SocketAddr], folder: &Path) -> tokio::process::Command {
        match self {
            Self::Ours(binaries) => ours::command(binaries, config, seeds, folder),
            Self::Serf(profile) => serf::command(*profile, config, seeds),
        }
    }

    fn probe(&self, config: &NodeConfig) -> anyhow::Result<Probe> {
        Ok(match self {
            Self::Ours(_) => Probe::Ours(Box::new(
                client::Client::new(&format!("http://{}", config.api))?.within(ANSWER_LIMIT),
            )),
            Self::Serf(_) => Probe::Serf(serf::Rpc::new(config.api)),
        })
    }
}

impl Probe {
    /// The nodes that this node lists as alive; `None` if it does not answer.
    async fn alive(&mut self) -> Option<BTreeSet<String>> {
        match self {
            Self::Ours(client) => {
                let members = client.members().await.ok()?.members;
                Some(members.into_iter().map(|member| member.id.to_string()).collect())
            }
            Self::Serf(rpc) => {
                let members = timeout(ANSWER_LIMIT, rpc.members()).await.ok()?.ok()?;
                let alive = members.into_iter().filter(serf::Member::is_alive);
                Some(alive.map(|member| member.name).collect())
            }
        }
    }

    /// Whether the node answers.
    async fn serves(&mut self) -> bool {
        match self {
            Self::Ours(client) => client.is_live().await,
            Self::Serf(rpc) => matches!(timeout(ANSWER_LIMIT, rpc.connect()).await, Ok(Ok(()))),
        }
    }
}

impl Node {
    /// Polls until the view is as wanted. Returns the time of that.
    async fn sees(
        &mut self,
        pause: Duration,
        wanted: &impl Fn(&BTreeSet<String>) -> bool,
    ) -> anyhow::Result<Instant> {
        let mut last = None;
        let began = Instant::now();
        while began.elapsed() < LIMIT {
            let alive = self.probe.alive().await;
            if alive.as_ref().is_some_and(wanted) {
                return Ok(Instant::now());
            }
            last = alive;
            sleep(pause).await;
        }
        let log = self.process.log_tail();
        bail!("{} sees {last:?} after {LIMIT:?}; its log ends with\n{log}", self.config.name)
    }
}

impl Fleet {
    pub(crate) fn new(kind: Kind) -> anyhow::Result<Self> {
        Ok(Self { kind, folder: tempfile::tempdir()?, configs: Vec::new(), nodes: BTreeMap::new() })
    }

    /// Starts `n1` to `n{count}` and waits until each sees all.
    pub(crate) async fn of(kind: Kind, count: usize) -> anyhow::Result<Self> {
        let mut fleet = Self::new(kind)?;
        fleet.start_all(count, QUICK).await?;
        Ok(fleet)
    }

    /// Starts `n1` to `n{count}` at once. Returns the time until all saw all.
    pub(crate) async fn start_all(&mut self, count: usize, pause: Duration) -> anyhow::Result<Duration> {
        for _ in 0..count {
            self.add_config()?;
        }
        let began = Instant::now();
        for config in self.configs.clone() {
            self.spawn(&config)?;
        }
        self.all_see_all(began, pause).await
    }

    /// Adds the addresses of one more node; the first nodes are the seeds of all.
    pub(crate) fn add_config(&mut self) -> anyhow::Result<NodeConfig> {
        let number = self.configs.len() + 1;
        let config = NodeConfig {
            name: format!("n{number}"),
            role: if number <= 2 { "api_gateway" } else { "standby" },
            gossip: ports::free()?,
            api: ports::free()?,
        };
        self.configs.push(config.clone());
        Ok(config)
    }

    /// Starts or restarts the node with this configuration.
    pub(crate) fn spawn(&mut self, config: &NodeConfig) -> anyhow::Result<()> {
        let others = self.configs.iter().filter(|other| other.name != config.name);
        let seeds: Vec<_> = others.map(|other| other.gossip).take(SEEDS).collect();
        let command = self.kind.command(config, &seeds, self.folder.path());
        let process = Process::spawn(command, self.log(config))?;
        let probe = self.kind.probe(config)?;
        let node = Node { config: config.clone(), process, probe };
        self.nodes.insert(config.name.clone(), node);
        Ok(())
    }

    fn log(&self, config: &NodeConfig) -> PathBuf {
        self.folder.path().join(format!("{}.log", config.name))
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub(crate) fn configs(&self) -> &[NodeConfig] {
        &self.configs
    }

    /// The time from `began` until every node saw exactly the running nodes.
    pub(crate) async fn all_see_all(&mut self, began: Instant, pause: Duration) -> anyhow::Result<Duration> {
        let running: BTreeSet<String> = self.nodes.keys().cloned().collect();
        self.all_see(began, pause, |alive| *alive == running).await
    }

    /// The time from `began` until every node's view was as wanted.
    pub(crate) async fn all_see(
        &mut self,
        began: Instant,
        pause: Duration,
        wanted: impl Fn(&BTreeSet<String>) -> bool,
    ) -> anyhow::Result<Duration> {
        let asking = self.nodes.values_mut().map(|node| node.sees(pause, &wanted));
        let seen = try_join_all(asking).await?;
        let last = seen.into_iter().max().context("no node runs")?;
        Ok(last - began)
    }

    /// The time from `began` until a node answered.
    pub(crate) async fn serving(&mut self, name: &str, began: Instant) -> anyhow::Result<Duration> {
        const PAUSE: Duration = Duration::from_millis(1);
        let node = self.nodes.get_mut(name).context("the node does not run")?;
        while began.elapsed() < LIMIT {
            if node.probe.serves().await {
                return Ok(began.elapsed());
            }
            sleep(PAUSE).await;
        }
        bail!("{name} does not serve; its log ends with\n{}", node.process.log_tail())
    }

    /// Ends a node with a signal. Returns the time until no other node listed it as alive.
    pub(crate) async fn end_one(
        &mut self,
        name: &str,
        signal: Signal,
        pause: Duration,
    ) -> anyhow::Result<Duration> {
        let mut node = self.nodes.remove(name).context("the node does not run")?;
        let began = Instant::now();
        node.process.signal(signal)?;
        let (seen, ended) =
            tokio::join!(self.all_see(began, pause, |alive| !alive.contains(name)), node.process.ended());
        ended?;
        seen
    }

    /// Kills all nodes.
    pub(crate) async fn end(mut self) {
        for node in self.nodes.values() {
            // The process may have exited already.
            let _ = node.process.signal(Signal::KILL);
        }
        join_all(self.nodes.values_mut().map(|node| node.process.ended())).await;
    }

    /// Sets a tag of a Serf node. Returns the time until all saw it.
    pub(crate) async fn set_tag(&mut self, name: &str, value: &str) -> anyhow::Result<Duration> {
        let began = Instant::now();
        {
            let node = self.nodes.get_mut(name).context("the node does not run")?;
            let Probe::Serf(rpc) = &mut node.probe else { bail!("only Serf has tags") };
            timeout(LIMIT, rpc.set_tag(value)).await??;
        }
        let asking = self.nodes.values_mut().map(|node| async move {
            let Probe::Serf(rpc) = &mut node.probe else { bail!("only Serf has tags") };
            while began.elapsed() < LIMIT {
                let members = timeout(ANSWER_LIMIT, rpc.members()).await??;
                let is_shown = |member: &serf::Member| member.name == name && member.tag() == Some(value);
                if members.iter().any(is_shown) {
                    return Ok(());
                }
                sleep(QUICK).await;
            }
            bail!("{} does not see the tag", node.config.name)
        });
        try_join_all(asking).await?;
        Ok(began.elapsed())
    }
}
