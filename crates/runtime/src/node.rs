//! A node from its start to its end.

pub(crate) mod clock_skew;
pub(crate) mod cluster_store;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod events;
mod given;
pub(crate) mod identity;
mod incarnation;
pub(crate) mod listen;
pub(crate) mod names;
pub(crate) mod services;
pub(crate) mod shard_count;
mod shown;
pub(crate) mod signals;

use std::net::SocketAddr;
use std::sync::Arc;

use cluster::{Cluster, ClusterConfig, JoinError, Network, Timing};
use mesh::{Mesh, Targets};
use plugin::http::Guard;
use plugin::{BindError, Exposure, Metrics, Registry};
use store::{ObjectStore, StoreUrl};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};
use types::{Loopback, NodeId, Role, Target};

use crate::api::{self, App, Facts};
use crate::node::clock_skew::Clocks;
use crate::node::cluster_store::{ClusterStore, ClusterStoreConfig};
use crate::node::config::Config;
use crate::node::error::NodeError;
use crate::node::events::{Events, now_ms};
use crate::node::given::{check_settings, given_role, typed};
use crate::node::identity::{DataDir, DataDirError, Identity, KeptRole};
use crate::node::incarnation::Incarnation;
use crate::node::listen::ListenError;
use crate::node::names::generated_id;
use crate::node::services::{Catalog, Services};
use crate::node::shard_count::GivenShards;
use crate::node::shown::{about, host, insecure, url};
use crate::node::signals::Signals;
use crate::role::gate::Mount;
use crate::supervisor::control::Control;
use crate::supervisor::reload::Reloads;
use crate::supervisor::{Supervisor, Tools, Untyped};
use crate::takeover::isolation::Isolation;

/// A running node. Dropping it without [`Node::shutdown`] ends it like a crash.
#[derive(Debug)]
pub struct Node {
    facts: Arc<Facts>,
    http: SocketAddr,
    cluster: Cluster,
    cluster_store: ClusterStore,
    control: Control,
    failure: watch::Receiver<Option<String>>,
    /// None once a caller waits for it.
    finished: Option<oneshot::Receiver<Result<(), NodeError>>>,
    /// Dropping it aborts the main task, and with it everything that belongs to the node.
    _main: JoinSet<()>,
}

/// The parts of a node that has joined.
struct Parts {
    identity: Identity,
    registry: Registry,
    data: Arc<DataDir>,
    wanted: KeptRole,
    untyped: Option<Untyped>,
    facts: Arc<Facts>,
    opened: listen::Opened,
    cluster: Cluster,
    cluster_store: ClusterStore,
    services: Services,
    catalog: watch::Sender<Catalog>,
    identity_kept: JoinHandle<Result<(), DataDirError>>,
}

/// Starts a node, and runs it until it leaves on a signal or a command. A second signal aborts.
pub async fn run(config: Config, registry: Registry) -> Result<(), NodeError> {
    run_and_show(config, registry, async |_| {}).await
}

/// The same; `show` receives the node once it has started, for example to print its addresses.
pub async fn run_and_show(
    config: Config,
    registry: Registry,
    show: impl AsyncFnOnce(&Node),
) -> Result<(), NodeError> {
    // First of all, so that a signal during the start is no crash.
    let mut signals = Signals::listen().map_err(NodeError::Signals)?;
    let mut node = tokio::select! {
        biased;
        name = signals.next() => {
            info!(signal = name, "stopped before the start was complete");
            return Ok(());
        }
        node = Node::start(config, registry) => node?,
    };
    let leaver = node.leaver();
    let finished = node.finished.take();
    let wait = wait_for(finished);
    tokio::pin!(wait);
    let mut shown = std::pin::pin!(show(&node));
    let mut is_shown = false;
    loop {
        tokio::select! {
            biased;
            outcome = &mut wait => return outcome,
            name = signals.next() => {
                if leaver.is_leaving() {
                    return Err(NodeError::Aborted);
                }
                info!(signal = name, "leaving; a second signal aborts");
                leaver.leave();
            }
            () = &mut shown, if !is_shown => is_shown = true,
        }
    }
}

async fn wait_for(finished: Option<oneshot::Receiver<Result<(), NodeError>>>) -> Result<(), NodeError> {
    match finished {
        Some(finished) => finished.await.unwrap_or(Err(NodeError::Panicked("main task"))),
        None => Ok(()),
    }
}

/// Makes a node leave. Cheap to clone; outlives the node.
#[derive(Debug, Clone)]
pub struct Leaver(Control);

impl Leaver {
    /// Begins to leave.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Whether the node is leaving.
    pub fn is_leaving(&self) -> bool {
        self.0.is_leaving()
    }
}

impl Node {
    /// Starts a node. Returns once the node serves its API and gossips; the role may still be starting. If the data folder
    /// can't be written or the store can't hold a cluster, the node leaves later, and [`Node::wait`] returns the error.
    pub async fn start(config: Config, registry: Registry) -> Result<Self, NodeError> {
        Self::begin(config, registry, None).await
    }

    /// The same over an object store that is already open; other members see the URL of the config.
    pub async fn start_over(
        config: Config,
        registry: Registry,
        objects: Arc<dyn ObjectStore>,
    ) -> Result<Self, NodeError> {
        Self::begin(config, registry, Some(objects)).await
    }

    async fn begin(
        mut config: Config,
        registry: Registry,
        objects: Option<Arc<dyn ObjectStore>>,
    ) -> Result<Self, NodeError> {
        config.settings = std::mem::take(&mut config.settings)
            .into_iter()
            .map(|(service, settings)| (registry.normalized(service), settings))
            .collect();
        if let Some(runs) = &mut config.runs {
            *runs = std::mem::take(runs).into_iter().map(|service| registry.normalized(service)).collect();
        }
        let (role, given_type) = given_role(&config, &registry)?;
        check_settings(&config, &registry, (&role, given_type.as_ref()))?;
        let given = (role.clone(), given_type.clone());
        let shards = GivenShards::new(&registry, given, config.shards, config.command.take())?;
        let data = Arc::new(DataDir::open(&config.data_dir)?);
        let started_at_ms = now_ms();
        let wanted = config.node_id.clone();
        // First, since it checks that the folder belongs to this node and cluster.
        let identity = data.next_incarnation(&config.cluster, wanted, started_at_ms, generated_id)?;
        if config.reset_role {
            data.forget()?;
        }
        let kept = data.kept_role()?;
        let is_kept = kept.is_some();
        let origin = if is_kept { Untyped::Kept } else { Untyped::Given };
        let given_service = role.service().cloned();
        let wanted = kept.unwrap_or(KeptRole { role, drained: false });
        let given_type = given_type.as_ref().filter(|_| wanted.role.service() == given_service.as_ref());
        let typed = typed(&registry, &data, wanted.role, given_type).map_err(|error| match origin {
            Untyped::Kept => NodeError::KeptRole(error),
            Untyped::Given => NodeError::Role(error),
        })?;
        let (role, untyped) = match typed {
            Ok(role) => (role, None),
            Err(role) => (role, Some(origin)),
        };
        let wanted = KeptRole { role, drained: wanted.drained };
        // Writing to disk takes time; the node becomes a member only once it is done.
        let identity_kept = spawn_blocking({
            let (data, identity) = (Arc::clone(&data), identity.clone());
            move || data.keep_identity(&identity)
        });
        let opened = listen::open(&config).await?;
        let gossip = ClusterConfig {
            cluster: config.cluster.clone(),
            node: identity.id.clone(),
            generation: identity.generation,
            listen: opened.gossip,
            advertise: SocketAddr::new(opened.advertise_gossip, opened.gossip.port()),
            seeds: config.seeds.clone(),
            profile: config.profile,
            http: url(opened.advertise, opened.http.port()),
            about: about(&config, &registry),
            max_members: cluster::MAX_MEMBERS,
        };
        let facts = Arc::new(Facts {
            cluster: config.cluster.clone(),
            node: identity.id.clone(),
            generation: identity.generation,
            started_at_ms,
            data_dir: data.path().display().to_string(),
            profile: config.profile,
            insecure: insecure(&config),
            has_seeds: config.seeds.iter().any(|seed| *seed != gossip.advertise.to_string()),
            guard: Guard::new(config.hosts.clone(), "add it to --hosts of the agent"),
            http: gossip.http.clone(),
            gossip: gossip.advertise.to_string(),
            kept_role: is_kept.then(|| wanted.role.clone()),
        });
        let url = match &config.store {
            Some(url) => url.clone(),
            None => StoreUrl::folder(&data.path().join("store"))?,
        };
        let cluster = Cluster::join(gossip, Network::Udp).await.map_err(join_error)?;
        let (catalog, known) = watch::channel(Catalog::default());
        let services = Services::new(registry.clone(), cluster.watch(), known);
        let store_config = ClusterStoreConfig {
            url,
            objects,
            id: config.cluster.clone(),
            settings: std::mem::take(&mut config.settings),
            shards,
            services: services.clone(),
            http: facts.http.clone(),
            has_seeds: facts.has_seeds,
        };
        let cluster_store = ClusterStore::new(store_config, cluster.clone(), registry.clone(), data.clone());
        info!(node = %identity.id, generation = %identity.generation, http = %opened.http, "started");
        let parts = Parts {
            identity,
            registry,
            data,
            wanted,
            untyped,
            facts,
            opened,
            cluster,
            cluster_store,
            services,
            catalog,
            identity_kept,
        };
        Ok(Self::assemble(&config, parts))
    }

    fn assemble(config: &Config, parts: Parts) -> Self {
        let Parts { identity, registry, data, wanted, untyped, facts, opened, .. } = parts;
        let Parts { cluster, cluster_store, services, catalog, identity_kept, .. } = parts;
        let limits =
            mesh::Limits { detector: Timing::of(config.profile).silence(), ..mesh::Limits::default() };
        let mesh = Mesh::new(cluster.watch(), targets(services), limits);
        let (leaving, stop_http) = (CancellationToken::new(), CancellationToken::new());
        let (control, commands) = Control::new(leaving.clone());
        let metrics = Metrics::new("coterie");
        api::upstreams::declare(&metrics, &mesh);
        let events = Events::new(facts.generation, &metrics);
        let mount = Mount::new(&metrics);
        let clocks = Clocks::new(&metrics);
        let restarts = metrics.counter("service_restarts", "Restarts after a failure");
        let reloads = Reloads::new(&metrics);
        let service_metrics = Arc::default();
        api::metrics::declare(&metrics, config, facts.started_at_ms, cluster.watch());
        let app = App::new(api::Parts {
            facts: facts.clone(),
            registry: registry.clone(),
            cluster: cluster.clone(),
            mesh: mesh.clone(),
            mount: mount.clone(),
            cluster_store: cluster_store.clone(),
            control: control.clone(),
            events: events.clone(),
            clocks: clocks.clone(),
            metrics,
            service_metrics: Arc::clone(&service_metrics),
            restarts: restarts.clone(),
            stopping: stop_http.clone(),
        });
        let tools = Tools {
            node: facts.node.clone(),
            generation: facts.generation,
            identity,
            registry,
            cluster_store: cluster_store.clone(),
            catalog,
            untyped,
            resumes: !config.reset_role,
            profile: config.profile,
            exposure: Exposure {
                loopback: Loopback::unless_insecure(config.insecure),
                host: host(opened.advertise),
            },
            cluster: cluster.clone(),
            mesh: mesh.clone(),
            isolation: Isolation::new(facts.has_seeds),
            mount,
            data: data.clone(),
            service_metrics,
            restarts,
            reloads,
            leaving,
        };
        let supervisor = Supervisor::new(tools, wanted);
        let (failure_tx, failure) = watch::channel(None);
        let (finished_tx, finished) = oneshot::channel();
        let incarnation = Incarnation {
            facts: facts.clone(),
            cluster: cluster.clone(),
            mesh,
            control: control.clone(),
            clocks,
            stop_http,
        };
        let http = opened.http;
        let router = api::router(app);
        let mut tasks = JoinSet::new();
        let main = async move {
            let outcome =
                incarnation.run(identity_kept, supervisor, commands, events, router, opened.listener).await;
            if let Err(error) = &outcome {
                error!(%error, "the node ended");
            }
            failure_tx.send_replace(outcome.as_ref().err().map(ToString::to_string));
            // Unlocks the folder first: a caller that waits for the end may restart the node at once.
            drop(data);
            // There may be no caller that waits.
            let _ = finished_tx.send(outcome);
        };
        tasks.spawn(main.instrument(info_span!("node", id = %facts.node)));
        Self { facts, http, cluster, cluster_store, control, failure, finished: Some(finished), _main: tasks }
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        &self.facts.node
    }

    /// The address of its HTTP listener.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The URL of its API, as it is advertised.
    pub fn url(&self) -> &str {
        &self.facts.http
    }

    /// Its gossip address, as it is advertised.
    pub fn gossip(&self) -> &str {
        &self.facts.gossip
    }

    /// Defaults that would not be safe on a network, in words.
    pub fn insecure(&self) -> &[String] {
        &self.facts.insecure
    }

    /// The role of an operator's earlier command, which takes precedence over the flags, if there is one.
    pub fn kept_role(&self) -> Option<&Role> {
        self.facts.kept_role.as_ref()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &str {
        &self.facts.data_dir
    }

    /// Its object store, in words.
    pub fn store(&self) -> String {
        self.cluster_store.in_words()
    }

    /// Its view of the cluster, as it changes.
    pub fn view(&self) -> watch::Receiver<cluster::ClusterView> {
        self.cluster.watch()
    }

    /// A handle that makes it leave, as on a signal; [`Node::wait`] returns when it has left.
    pub fn leaver(&self) -> Leaver {
        Leaver(self.control.clone())
    }

    /// Whether the node has failed, and why.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Waits until the node has left, or failed.
    pub async fn wait(mut self) -> Result<(), NodeError> {
        wait_for(self.finished.take()).await
    }

    /// Leaves, and waits until it has.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.control.leave();
        self.wait().await
    }
}

fn targets(services: Services) -> Targets {
    let (target, repeat) = (services.clone(), services.clone());
    Targets::new(move |service, head| {
        target.plugin(service).map_or(Target::Any, |plugin| plugin.target(head))
    })
    .repeating(move |service, head| {
        let plugin = repeat.plugin(service);
        plugin.map_or_else(|| head.method.is_idempotent(), |plugin| plugin.may_repeat(head))
    })
    .of_kinds(move |service| services.kind(service))
}

fn join_error(error: JoinError) -> NodeError {
    match error {
        JoinError::Bind { addr, source } => NodeError::Listen(ListenError::Bind {
            flag: "--gossip-addr",
            source: BindError::udp(addr, source),
        }),
        other => NodeError::Join(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_id_is_a_valid_one() {
        for _ in 0..2_000 {
            generated_id();
        }
    }
}
