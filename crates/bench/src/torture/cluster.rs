//! The nodes of a run: real agents that are killed, paused and restarted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use client::Client;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use types::{NodeId, ShardId, ShardRef};

use crate::node_config::NodeConfig;
use crate::ours::{self, Binaries};
use crate::ports;
use crate::process::Process;
use crate::torture::network::{self, Network};
use crate::torture::object_store::Backend;
use crate::torture::service::Service;
use crate::torture::skew::{Clocks, Range};

/// The cluster's name, as in `crate::ours`.
pub(crate) const CLUSTER: &str = "bench";
pub(crate) const SHARDS: u32 = 2;
/// Replicas of each shard.
const REPLICAS: u32 = 1;
/// Names and first roles, gateways first.
const NODES: [(&str, Kind); 6] = [
    ("g1", Kind::Gateway),
    ("g2", Kind::Gateway),
    ("s1", Kind::Owner(0)),
    ("s2", Kind::Owner(1)),
    ("p1", Kind::Standby),
    ("p2", Kind::Standby),
];
pub(crate) const COUNT: usize = NODES.len();
pub(crate) const GATEWAYS: usize = 2;
/// How long the cluster may take until all of it serves.
const READY: Duration = Duration::from_secs(120);
/// How long a gateway may take to report its address.
const ANSWER: Duration = Duration::from_secs(1);
/// The API port of every node that runs in its own network namespace.
const PORT: u16 = 10_000;

/// The first role of a node.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Gateway,
    /// The owner of this shard.
    Owner(u32),
    Standby,
}

impl Kind {
    fn role(self, service: Service) -> &'static str {
        match self {
            Self::Gateway => "api_gateway",
            Self::Owner(_) => service.as_str(),
            Self::Standby => "standby",
        }
    }

    fn shard(self) -> Option<u32> {
        match self {
            Self::Owner(shard) => Some(shard),
            Self::Gateway | Self::Standby => None,
        }
    }
}

/// The addresses that clients use at present. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints {
    gateways: Arc<std::sync::Mutex<BTreeMap<usize, SocketAddr>>>,
    /// The APIs of the nodes that may own a shard.
    members: Vec<SocketAddr>,
}

/// The server that a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A gateway, which forwards to the owner.
    Gateway(SocketAddr),
    /// A member, which may not be the owner any more.
    Member(SocketAddr),
}

impl Endpoint {
    pub(crate) fn addr(self) -> SocketAddr {
        match self {
            Self::Gateway(addr) | Self::Member(addr) => addr,
        }
    }
}

impl Endpoints {
    /// One server that is all gateways and members.
    #[cfg(test)]
    pub(crate) fn fixed(addr: SocketAddr) -> Self {
        let gateways = Arc::new(std::sync::Mutex::new(BTreeMap::from([(0, addr)])));
        Self { gateways, members: vec![addr] }
    }

    /// The gateway selected by this number; `None` if none was found yet.
    pub(crate) fn gateway(&self, choice: usize) -> Option<SocketAddr> {
        let known = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().nth(choice % known.len().max(1)).copied()
    }

    /// The member selected by this number.
    pub(crate) fn member(&self, choice: usize) -> SocketAddr {
        self.members[choice % self.members.len()]
    }
}

/// The name of a node.
pub(crate) fn name(number: usize) -> &'static str {
    NODES[number].0
}

/// Agents of one cluster. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Cluster {
    service: Service,
    binaries: Binaries,
    nodes: Vec<Node>,
    pub(crate) object_store: Backend,
    /// An error with the reason if all nodes run on loopback.
    pub(crate) network: Result<Network, String>,
    /// An error with the reason if no clock can be skewed.
    pub(crate) clocks: Result<Clocks, String>,
    /// The possible clock skews.
    pub(crate) skews: Range,
    /// The nodes that exited although no fault ended them, with their logs.
    pub(crate) crashes: std::sync::Mutex<Vec<String>>,
    starts: AtomicU32,
    pub(crate) endpoints: Endpoints,
    // Declared last: removed after the nodes have been killed.
    folder: TempDir,
}

#[derive(Debug)]
struct Node {
    config: NodeConfig,
    shard: Option<u32>,
    client: Client,
    process: Mutex<Option<Process>>,
}

impl Cluster {
    /// Starts all nodes, with owners of this service, on this store, and waits until they serve. With `is_plain` no privileges are used. The initial
    /// clock skews are chosen at random.
    pub(crate) async fn start(
        service: Service,
        binaries: Binaries,
        store: Option<&str>,
        is_plain: bool,
        rng: &mut StdRng,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("coterie-torture-").tempdir()?;
        let count = u8::try_from(COUNT)?;
        let network = if is_plain {
            Err("--plain was given".to_owned())
        } else {
            Network::new(count).map_err(|error| format!("{error:#}"))
        };
        let outside = network.as_ref().map_or(Ipv4Addr::LOCALHOST.into(), Network::outside);
        let object_store = Backend::prepare(store, folder.path(), !is_plain, outside, COUNT).await?;
        let skews = Range { is_signed: object_store.is_signed() };
        let clocks = Clocks::new(folder.path(), &skews.at_first(COUNT, rng));
        let clocks = clocks.map_err(|error| format!("{error:#}"));
        let nodes = (0_u8..).zip(NODES);
        let nodes = nodes.map(|(number, (name, kind))| {
            new_node(number, name, kind.role(service), kind.shard(), network.as_ref().ok())
        });
        let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
        let crashes = std::sync::Mutex::default();
        let starts = AtomicU32::new(0);
        let listen = if network.is_ok() { "0.0.0.0:0" } else { "127.0.0.1:0" };
        let members = nodes[GATEWAYS..].iter().map(|node| node.config.api).collect();
        let endpoints = Endpoints { members, ..Endpoints::default() };
        let cluster = Self {
            service,
            binaries,
            nodes,
            object_store,
            network,
            clocks,
            skews,
            crashes,
            starts,
            endpoints,
            folder,
        };
        let services = json!({
            service.as_str(): { "shards": SHARDS, "replicas": REPLICAS },
            "api_gateway": { "settings": { "listen": listen } },
        });
        let environment = cluster.object_store.environment(None);
        ours::apply(&cluster.binaries, cluster.object_store.url().as_ref(), &environment, &services).await?;
        for number in 0..COUNT {
            cluster.start_node(number).await?;
        }
        cluster.ready().await?;
        cluster.find_gateways().await;
        Ok(cluster)
    }

    pub(crate) fn id(&self, number: usize) -> NodeId {
        name(number).parse().expect("every name is a valid node id")
    }

    /// A shard of the service.
    pub(crate) fn shard(&self, number: u32) -> anyhow::Result<ShardRef> {
        Ok(ShardRef::new(self.service.as_str().parse()?, ShardId::try_from(number)?))
    }

    /// The client of a node.
    pub(crate) fn client(&self, number: usize) -> &Client {
        &self.nodes[number].client
    }

    /// Updates the gateways' addresses. A gateway that does not answer keeps its last one.
    pub(crate) async fn find_gateways(&self) {
        let requests = (0..GATEWAYS).map(|number| async move {
            let client = self.nodes[number].client.within(ANSWER);
            let state = client.agent_self().await.ok()?.member.state?;
            let addr = state.endpoints.get("gateway")?.strip_prefix("http://")?.parse().ok()?;
            Some((number, addr))
        });
        let found = join_all(requests).await;
        self.endpoints
            .gateways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(found.into_iter().flatten());
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder with the logs.
    pub(crate) fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// The number of starts of nodes.
    pub(crate) fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Starts a node, with its previous data folder, unless it runs.
    pub(crate) async fn start_node(&self, number: usize) -> anyhow::Result<()> {
        let node = &self.nodes[number];
        let mut process = node.process.lock().await;
        if process.as_ref().is_some_and(|process| process.id().is_ok()) {
            return Ok(());
        }
        let folder = self.folder.path();
        let seeds: Vec<_> = self.nodes.iter().filter(|other| other.config.name != node.config.name).collect();
        let seeds: Vec<_> = seeds.iter().map(|other| other.config.gossip).take(3).collect();
        let mut command = ours::command(&self.binaries, &node.config, &seeds, folder);
        command.arg("--store").arg(self.object_store.url()).args(["--log", "info,chitchat=error"]);
        command.envs(self.object_store.environment(Some(number)));
        if let Ok(clocks) = &self.clocks {
            command.envs(clocks.environment(number));
        }
        if let Some(shard) = node.shard {
            command.args(["--shard", &shard.to_string()]);
        }
        if let Ok(network) = &self.network {
            command.arg("--insecure");
            command = network::within(&network.space(u8::try_from(number)?), &command);
        }
        let log = folder.join(format!("{}.log", node.config.name));
        self.starts.fetch_add(1, Ordering::Relaxed);
        *process = Some(Process::spawn(command, log)?);
        Ok(())
    }

    /// Sends a node a signal.
    pub(crate) async fn signal(&self, number: usize, signal: Signal) -> anyhow::Result<()> {
        let process = self.nodes[number].process.lock().await;
        process.as_ref().context("the node does not run")?.signal(signal)
    }

    /// Kills a node.
    pub(crate) async fn kill(&self, number: usize) -> anyhow::Result<()> {
        let mut process = self.nodes[number].process.lock().await;
        let Some(mut ended) = process.take() else { return Ok(()) };
        // The process may have exited already.
        let _ = ended.signal(Signal::KILL);
        ended.ended().await
    }

    /// Records the nodes that have crashed, and returns them. Does not restart them.
    pub(crate) async fn collect_crashed(&self) -> Vec<usize> {
        let mut ended = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            // The lock is held by a fault that is changing this process.
            let Ok(mut process) = node.process.try_lock() else { continue };
            let Some(status) = process.as_mut().and_then(Process::has_ended) else { continue };
            let log = process.as_ref().map(Process::log_tail).unwrap_or_default();
            *process = None;
            let mut crashes = self.crashes.lock().unwrap_or_else(PoisonError::into_inner);
            crashes.push(format!(
                "{} exited unexpectedly ({status}); its log ends with\n{log}",
                node.config.name
            ));
            ended.push(number);
        }
        ended
    }

    /// Waits until every node sees all nodes serving and an owner of each shard.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        const PAUSE: Duration = Duration::from_millis(100);
        let began = Instant::now();
        loop {
            let seen = join_all(self.nodes.iter().map(|node| sees_all(&node.client))).await;
            let missing: Vec<_> =
                self.nodes.iter().zip(seen).filter_map(|(node, seen)| Some((node, seen.err()?))).collect();
            let Some((node, why)) = missing.first() else { return Ok(()) };
            if began.elapsed() > READY {
                bail!("the cluster is not ready after {READY:?}: {}: {why}", node.config.name);
            }
            sleep(PAUSE).await;
        }
    }

    /// Kills all nodes.
    pub(crate) async fn end(&self) {
        for number in 0..COUNT {
            // There is nothing more to do if it fails.
            let _ = self.kill(number).await;
        }
    }
}

/// Checks that a node sees all nodes serving, with an owner of each shard. The error is what it sees.
async fn sees_all(client: &Client) -> Result<(), String> {
    let members = client.members().await.map_err(|error| error.to_string())?.members;
    let serving: Vec<_> = members
        .iter()
        .filter_map(|member| member.state.as_ref())
        .filter(|state| state.phase.is_serving())
        .collect();
    let mut owned = BTreeMap::new();
    for state in &serving {
        if let (Some(shard), Some(epoch)) = (state.role.shard(), state.epoch) {
            owned.insert(shard.as_u32(), epoch);
        }
    }
    if serving.len() == COUNT && owned.len() == usize::try_from(SHARDS).unwrap_or(usize::MAX) {
        return Ok(());
    }
    let seen: Vec<_> = members
        .iter()
        .map(|member| match &member.state {
            Some(state) => format!("{} {} {:?}", member.id, state.role, state.phase),
            None => member.id.to_string(),
        })
        .collect();
    Err(format!("sees {}", seen.join(", ")))
}

fn new_node(
    number: u8,
    name: &str,
    role: &'static str,
    shard: Option<u32>,
    network: Option<&Network>,
) -> anyhow::Result<Node> {
    let own = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let (api, gossip) = match network.map(|network| network.address(number)) {
        Some(ip) => (own(ip, PORT), own(ip, PORT + 1)),
        None => (ports::free()?, ports::free()?),
    };
    let config = NodeConfig { name: name.to_owned(), role, gossip, api };
    let client = Client::new(&format!("http://{api}"))?;
    Ok(Node { config, shard, client, process: Mutex::new(None) })
}
