//! A cluster of real nodes in this process: free ports, temporary folders, real sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api_gateway::ApiGateway;
use load_balancer::LoadBalancer;
use plugin::{ObjectStore, Registry};
use runtime::{Config, Node, StoreUrl};
use searcher::Searcher;
use serde_json::Value;
use storage::Storage;
use store::Store;
use types::api::Member;
use types::{Phase, Profile, Role, Spec};

use crate::{Echo, OwnedEcho};

/// How long a condition may take to hold: generous, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of every sandbox's cluster: sandboxes do not know of each other.
const CLUSTER: &str = "sandbox";

/// A cluster of real nodes in this process.
#[derive(Debug)]
pub struct Sandbox {
    folder: tempfile::TempDir,
    nodes: Vec<Node>,
    http: reqwest::Client,
}

/// The options of a node of a sandbox.
#[derive(Clone, Default)]
pub struct NodeOptions {
    /// Settings by service type, for a cluster without specs.
    pub settings: Vec<(&'static str, Value)>,
    /// A folder for the object store other than the sandbox's own.
    pub store: Option<PathBuf>,
    /// An existing object store.
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// Seeds besides the sandbox's first nodes.
    pub seeds: Vec<String>,
    /// Gossip an HTTP address at which nothing listens, so that no other node reaches this one over HTTP, as if the
    /// network were cut. Tests still reach it.
    pub is_unreachable: bool,
    /// Whether its services may listen on addresses that are open to the network.
    pub is_insecure: bool,
}

/// The address that nodes listen on.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A loopback address at which nothing listens.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

impl Sandbox {
    /// A sandbox without nodes.
    pub fn new() -> anyhow::Result<Self> {
        let http = client::plain_http().timeout(PATIENCE).build()?;
        Ok(Self { folder: tempfile::tempdir()?, nodes: Vec::new(), http })
    }

    /// A sandbox with these nodes and roles, all ready in every view.
    pub async fn of(roles: &[(&str, &str)], options: &NodeOptions) -> anyhow::Result<Self> {
        let mut sandbox = Self::new()?;
        for (name, role) in roles {
            sandbox.start(name, role, options).await?;
        }
        sandbox.all_ready().await?;
        Ok(sandbox)
    }

    /// Starts one more node.
    pub async fn start(&mut self, name: &str, role: &str, options: &NodeOptions) -> anyhow::Result<()> {
        let settings = options
            .settings
            .iter()
            .map(|(service, settings)| Ok((service.parse()?, settings.clone())))
            .collect::<anyhow::Result<_>>()?;
        let store = options.store.clone().unwrap_or_else(|| self.store_dir());
        let config = Config {
            cluster: CLUSTER.parse()?,
            node_id: Some(name.parse()?),
            listen: (HERE, 0).into(),
            advertise: options.is_unreachable.then_some(NOWHERE),
            insecure: options.is_insecure,
            seeds: self
                .nodes
                .iter()
                .take(3)
                .map(|node| node.gossip().to_owned())
                .chain(options.seeds.iter().cloned())
                .collect(),
            role: role.parse::<Role>()?,
            profile: Profile::Local,
            settings,
            store: Some(StoreUrl::folder(&store)?),
            ..Config::new(self.data_dir(name))
        };
        let registry = Registry::new()
            .with(ApiGateway)
            .with(Echo)
            .with(LoadBalancer)
            .with(OwnedEcho)
            .with(Searcher)
            .with(Storage);
        let node = match &options.objects {
            Some(objects) => Node::start_over(config, registry, objects.clone()).await,
            None => Node::start(config, registry).await,
        };
        let node = node.with_context(|| format!("{name} starts"))?;
        self.nodes.push(node);
        Ok(())
    }

    /// Writes the spec of a service type, before any node of it is started.
    pub async fn settle(&self, service: &str, spec: &Spec) -> anyhow::Result<()> {
        self.store().await?.specs().put(&service.parse()?, 0, spec).await?;
        Ok(())
    }

    fn store_dir(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The store that its nodes use.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&StoreUrl::folder(&self.store_dir())?, &CLUSTER.parse()?).await?)
    }

    /// The data folder of a node.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client for requests to the nodes.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.iter().find(|node| node.id().as_str() == name).with_context(|| format!("no node {name}"))
    }

    /// The URL of a node's API.
    pub fn url(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.node(name)?.url().replacen(&NOWHERE.to_string(), &HERE.to_string(), 1))
    }

    /// The URL of a gateway's own listener, once it has one.
    pub async fn gateway(&self, name: &str) -> anyhow::Result<String> {
        let member = self.seen(name, name, |member| endpoint(member).is_some()).await?;
        endpoint(&member).context("it has just been seen")
    }

    /// Makes a node leave.
    pub async fn leave(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.nodes.iter().position(|node| node.id().as_str() == name).context("no such node")?;
        self.nodes.remove(at).shutdown().await?;
        Ok(())
    }

    /// Ends a node without a leave, and waits until its data folder is free.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.nodes.iter().position(|node| node.id().as_str() == name).context("no such node")?;
        drop(self.nodes.remove(at));
        let lock = std::fs::File::open(self.data_dir(name).join("lock"))?;
        eventually("the node has released its folder", || async { lock.try_lock().ok() }).await
    }

    /// Waits until every node sees every node serving, and no other member.
    pub async fn all_ready(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let mut view = node.view();
            let ready = view.wait_for(|view| {
                let serving = view
                    .members()
                    .filter(|m| m.state.as_ref().is_some_and(|state| state.phase == Phase::Ready));
                serving.count() == self.nodes.len() && view.members().count() == self.nodes.len()
            });
            let Ok(seen) = tokio::time::timeout(PATIENCE, ready).await else {
                bail!("{} sees {:#?}", node.id(), node.view().borrow());
            };
            seen.with_context(|| format!("{} has ended", node.id()))?;
        }
        Ok(())
    }

    /// Waits until one node's view of another satisfies a condition.
    pub async fn seen(
        &self,
        by: &str,
        name: &str,
        wanted: impl Fn(&Member) -> bool,
    ) -> anyhow::Result<Member> {
        let id = name.parse()?;
        let mut view = self.node(by)?.view();
        let seen = view.wait_for(|view| view.member(&id).is_some_and(&wanted));
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(Ok(view)) => view.member(&id).cloned().context("it has just been seen"),
            Ok(Err(_)) => bail!("{by} has ended"),
            Err(_) => bail!("{by} sees {:#?}", self.node(by)?.view().borrow().member(&id)),
        }
    }
}

fn endpoint(member: &Member) -> Option<String> {
    member.state.as_ref()?.endpoints.get("gateway").cloned()
}

/// Waits until a condition holds, polling it.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.with_context(|| format!("waited {PATIENCE:?} until {what}"))
}
