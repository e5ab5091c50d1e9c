//! Runs gossip on a thread with its own runtime, so that a busy process still sends heartbeats on time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use chitchat::{ChitchatConfig, ChitchatId, FailureDetectorConfig, ProtocolVersion};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info;
use types::api::StoreInfo;
use types::{Generation, NodeId, RoleState, ServiceName};

use crate::announced::Announced;
use crate::changes::Changes;
use crate::config::{ClusterConfig, Timing};
use crate::driver::{Driver, Outlets};
use crate::keys::{self, ValueTooLong};
use crate::network::Network;
use crate::order::{Command, GossipError, Rival};
use crate::view::ClusterView;

/// A handle to a node's membership of its cluster. Cheap to clone; gossip ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<ClusterView>,
    specs: watch::Receiver<Announced>,
    rival: watch::Receiver<Option<Rival>>,
    namesakes: watch::Receiver<Option<Vec<Rival>>>,
    ended: watch::Receiver<Option<String>>,
}

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Another process may have the port: choose another port, or end that process.
    #[error("gossip address {addr} (UDP) can't be opened")]
    Bind {
        /// The address that could not be opened.
        addr: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// A value is longer than [`crate::MAX_VALUE_BYTES`]; make it shorter.
    #[error(transparent)]
    TooLong(Box<dyn std::error::Error + Send + Sync>),
    /// A bug or a broken machine; the text names the step that failed.
    #[error("gossip could not be started: {0}")]
    Start(String),
}

impl Cluster {
    /// Joins, with gossip on its own thread. Returns once the address is open; the seeds are contacted afterwards.
    ///
    /// No other node lists this one as a member before its first [`Cluster::set_role`]. Until then it only listens, so
    /// that it can see whether its id is taken.
    pub async fn join(config: ClusterConfig, network: Network) -> Result<Self, JoinError> {
        let (started, outcome) = oneshot::channel();
        let gossip = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(JoinError::Start(error.to_string())));
                    return;
                }
            };
            let ended = runtime.block_on(async move {
                match Self::begin(config, network).await {
                    Ok((cluster, ended, driver)) => {
                        // The caller may have gone away; then the last handle is dropped here and the driver ends.
                        let _ = started.send(Ok(cluster));
                        // Spawned as a task: every wake of the future in `block_on` costs a system call.
                        let mut tasks = JoinSet::new();
                        tasks.spawn(driver);
                        tasks.join_next().await?.ok().map(|reason| (ended, reason))
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                        None
                    }
                }
            });
            // The socket is closed before the end is published, so that the port is free by then.
            drop(runtime);
            if let Some((ended, reason)) = ended {
                ended.send_replace(Some(reason));
            }
        };
        std::thread::Builder::new()
            .name("gossip".to_owned())
            .spawn(gossip)
            .map_err(|error| JoinError::Start(error.to_string()))?;
        outcome.await.unwrap_or_else(|_| Err(JoinError::Start("its thread ended".to_owned())))
    }

    /// Joins on the caller's runtime; the caller must poll the returned future. For tests with paused time.
    pub async fn join_here(
        config: ClusterConfig,
        network: Network,
    ) -> Result<(Self, impl Future<Output = ()>), JoinError> {
        let (cluster, ended, driver) = Self::begin(config, network).await?;
        let run = async move {
            let reason = driver.await;
            ended.send_replace(Some(reason));
        };
        Ok((cluster, run))
    }

    /// Opens the address. Returns the handle, the channel on which to publish the end, and the loop, which returns why
    /// it ended.
    async fn begin(
        config: ClusterConfig,
        network: Network,
    ) -> Result<(Self, watch::Sender<Option<String>>, impl Future<Output = String>), JoinError> {
        let timing = Timing::of(config.profile);
        let too_long = |error: ValueTooLong| JoinError::TooLong(Box::new(error));
        let values = vec![
            (keys::HTTP.to_owned(), config.http.clone()),
            (keys::ABOUT.to_owned(), keys::encode(keys::ABOUT, &config.about).map_err(too_long)?),
        ];
        let transport = network.transport();
        let handle = chitchat::spawn_chitchat(chitchat_config(&config, &timing), values, &*transport)
            .await
            .map_err(|error| join_error(config.listen, &error))?;
        let (commands, commands_rx) = mpsc::channel(16);
        let empty = ClusterView::new(config.cluster.clone(), config.node.clone(), []);
        let (view_tx, view) = watch::channel(empty);
        let (specs_tx, specs) = watch::channel(Announced::new());
        let (rival_tx, rival) = watch::channel(None);
        let (namesakes_tx, namesakes) = watch::channel(None);
        let (ended_tx, ended) = watch::channel(None);
        let outlets = Outlets { view: view_tx, specs: specs_tx, rival: rival_tx, namesakes: namesakes_tx };
        let mut driver = Driver::new(config, timing, handle, outlets);
        driver.refresh().await;
        let cluster = Self { shared: Arc::new(Shared { commands, view, specs, rival, namesakes, ended }) };
        let run = async move {
            let reason = driver.run(commands_rx).await;
            info!(reason, "gossip ended");
            reason
        };
        Ok((cluster, ended_tx, run))
    }

    /// The present view.
    pub fn view(&self) -> ClusterView {
        self.shared.view.borrow().clone()
    }

    /// A channel that holds the latest view.
    pub fn watch(&self) -> watch::Receiver<ClusterView> {
        self.shared.view.clone()
    }

    /// The view as a stream of changes, beginning with every member that is present.
    pub fn changes(&self) -> Changes {
        Changes::new(self.watch())
    }

    /// A channel that holds another live node with this node's id, once one is seen.
    pub fn rival(&self) -> watch::Receiver<Option<Rival>> {
        self.shared.rival.clone()
    }

    /// Waits until another node has answered. Returns the other incarnations of this node's id that gossip remembers,
    /// dead ones included, except those that left.
    pub async fn namesakes(&self) -> Vec<Rival> {
        let mut namesakes = self.shared.namesakes.clone();
        match namesakes.wait_for(Option::is_some).await {
            Ok(met) => met.clone().unwrap_or_default(),
            // Gossip has ended; `ended` reports that.
            Err(_) => Vec::new(),
        }
    }

    /// Gossips the node's role and pushes it to every live member. Returns the version that shows it.
    pub async fn set_role(&self, state: RoleState) -> Result<u64, GossipError> {
        let (done, outcome) = oneshot::channel();
        let command = Command::SetRole { state: Box::new(state), done };
        self.shared.commands.send(command).await.map_err(|_| GossipError::Ended)?;
        outcome.await.unwrap_or(Err(GossipError::Ended))
    }

    /// Gossips which object store this node uses.
    pub async fn set_store(&self, store: StoreInfo) -> Result<(), GossipError> {
        let (done, outcome) = oneshot::channel();
        let command = Command::SetStore { store: Box::new(store), done };
        self.shared.commands.send(command).await.map_err(|_| GossipError::Ended)?;
        outcome.await.unwrap_or(Err(GossipError::Ended))
    }

    /// Announces that a service has a spec of this number, and pushes that to every live member.
    pub async fn announce_spec(&self, service: &ServiceName, number: u64) -> Result<(), GossipError> {
        let (done, outcome) = oneshot::channel();
        let command = Command::AnnounceSpec { service: service.clone(), number, done };
        self.shared.commands.send(command).await.map_err(|_| GossipError::Ended)?;
        outcome.await.unwrap_or(Err(GossipError::Ended))
    }

    /// A channel that holds the number of the latest spec of each service that a node has announced.
    pub fn specs(&self) -> watch::Receiver<Announced> {
        self.shared.specs.clone()
    }

    /// The highest heartbeat seen from one incarnation of a node; `None` if gossip knows of no such incarnation. It
    /// rises with every round while the node is alive.
    pub async fn heartbeat(&self, node: &NodeId, generation: Generation) -> Option<u64> {
        let (done, outcome) = oneshot::channel();
        let command = Command::Heartbeat { node: node.clone(), generation, done };
        self.shared.commands.send(command).await.ok()?;
        outcome.await.ok()?
    }

    /// Announces the leave to every live member and ends gossip.
    pub async fn leave(&self) {
        let (done, announced) = oneshot::channel();
        if self.shared.commands.send(Command::Leave { done }).await.is_ok() {
            // An error means that gossip has already ended, which was the aim.
            let _ = announced.await;
            self.ended().await;
        }
    }

    /// Waits until gossip has ended. Returns the reason.
    pub async fn ended(&self) -> String {
        let mut ended = self.shared.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the gossip thread panicked".to_owned(),
        }
    }
}

fn chitchat_config(config: &ClusterConfig, timing: &Timing) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(config.node.as_str(), config.generation.0, config.advertise),
        cluster_id: config.cluster.to_string(),
        gossip_interval: timing.interval,
        listen_addr: config.listen,
        seed_nodes: config.seeds.clone(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: timing.phi_threshold,
            sampling_window_size: timing.sampling_window,
            max_interval: timing.max_interval,
            initial_interval: timing.initial_interval,
            dead_node_grace_period: timing.grace,
        },
        marked_for_deletion_grace_period: timing.grace,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}

fn join_error(addr: SocketAddr, error: &anyhow::Error) -> JoinError {
    match error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) => JoinError::Bind { addr, source: io::Error::new(cause.kind(), cause.to_string()) },
        None => JoinError::Start(format!("{error:#}")),
    }
}
