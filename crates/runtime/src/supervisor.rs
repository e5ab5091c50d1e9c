//! Owns the node's role: starts it, watches it, changes it on command, ends it.

mod assignment;
mod begin;
mod change;
pub(crate) mod control;
pub(crate) mod error;
mod hand_over;
mod health;
mod orphaned_claims;
mod propagation;
mod publish;
pub(crate) mod reload;
mod start;
pub(crate) mod stopwatch;
mod takeover;
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use mesh::Mesh;
use plugin::{Counter, Exposure, Metrics, Registry, RegistryError};
use store::OpenError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::{Generation, NodeId, Profile, Reason, Role, RoleState, ShardRef};

use crate::node::cluster_store::ClusterStore;
use crate::node::identity::{DataDir, Identity, KeptRole};
use crate::node::services::{Catalog, TypeError};
use crate::role::gate::Mount;
use crate::role::lifecycle::{Happening, State};
use crate::role::reasons;
use crate::role::running::Running;
use crate::supervisor::assignment::Assignment;
use crate::supervisor::control::{Command, Order};
use crate::supervisor::reload::{Reload, Reloads};
use crate::supervisor::stopwatch::Stopwatch;
use crate::supervisor::takeover::Takeover;
use crate::supervisor::waits::{next_failure, passed, silent, until, yielding};
use crate::takeover::isolation::Isolation;

/// How long the store may take to be opened before the role is started without it.
const STORE_LIMIT: Duration = Duration::from_secs(3);
/// How often a service's health is checked.
const PROBE: Duration = Duration::from_secs(1);
/// A primary resigns its shard once the store has not answered for this long.
const RESIGN: Duration = Duration::from_secs(3);

/// What the supervisor works with.
pub(crate) struct Tools {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    /// Decides which claims are this node's.
    pub(crate) identity: Identity,
    pub(crate) registry: Registry,
    pub(crate) cluster_store: ClusterStore,
    /// The cache of the specs.
    pub(crate) catalog: watch::Sender<Catalog>,
    /// Where the role comes from, if only the store knows the type of its service.
    pub(crate) untyped: Option<Untyped>,
    /// Whether the node resumes shards that it owned in an earlier incarnation.
    pub(crate) resumes: bool,
    pub(crate) profile: Profile,
    pub(crate) exposure: Exposure,
    pub(crate) cluster: Cluster,
    pub(crate) mesh: Mesh,
    pub(crate) isolation: Isolation,
    pub(crate) mount: Arc<Mount>,
    pub(crate) data: Arc<DataDir>,
    pub(crate) service_metrics: Arc<arc_swap::ArcSwapOption<Metrics>>,
    /// Restarts of the service after a failure.
    pub(crate) restarts: Counter,
    /// New settings of the running service, by what came of them.
    pub(crate) reloads: Reloads,
    pub(crate) leaving: CancellationToken,
}

/// The origin of a role whose service's type only the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untyped {
    /// From the flags.
    Given,
    /// From an operator's earlier command.
    Kept,
}

/// Why a node can't run as it was started.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// The store can't hold a cluster.
    Store(OpenError),
    /// This agent lacks the type of its role's service.
    Role(Untyped, RegistryError),
}

/// Owns the node's role.
pub(crate) struct Supervisor {
    tools: Tools,
    assigned: Assignment,
    state: State,
    /// Whether the file of failed incarnations counts this one, which has begun to run a shard, until it proves sound.
    is_on_trial: bool,
    takeover: Takeover,
    /// New settings of the running service.
    reload: Reload,
    running: Option<Running>,
    /// Shards that this node may own on the store without running them, and why it released them.
    orphans: BTreeMap<ShardRef, String>,
    /// When the node next tries to release them.
    tidy_at: Instant,
    /// Whether the node has read from the store what it owned in earlier incarnations.
    is_swept: bool,
    /// Why the last command failed, if the node returned to its old role: shown until its role changes again.
    failed_change: Option<Reason>,
    revision: u64,
    published: Option<(RoleState, u64)>,
}

impl Supervisor {
    /// A supervisor for the role of the operator's last command, or else of the flags.
    pub(crate) fn new(tools: Tools, wanted: KeptRole) -> Self {
        let mut state = State::Starting { failures: 0 };
        if wanted.drained {
            state = state.after(drained(&tools.node, &wanted.role));
        }
        let takeover = Takeover::new(&tools);
        let reload = Reload::new(tools.catalog.subscribe());
        Self {
            tools,
            assigned: Assignment::new(wanted.role),
            state,
            is_on_trial: false,
            takeover,
            reload,
            running: None,
            orphans: BTreeMap::new(),
            tidy_at: Instant::now(),
            is_swept: false,
            failed_change: None,
            revision: 0,
            published: None,
        }
    }

    /// Runs until the node leaves and its role has ended. Fails, before any role runs, if the store can't hold a cluster, or
    /// if this agent can't run a service of the type in the spec.
    ///
    /// The node is a member before its store is opened: membership does not depend on the store, and testing the store takes
    /// longer than everything else at the start.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), Unfit> {
        let leaving = self.tools.leaving.clone();
        self.publish().await;
        tokio::select! {
            biased;
            () = leaving.cancelled() => {}
            opened = self.open_store() => opened.map_err(Unfit::Store)?,
        }
        tokio::select! {
            biased;
            () = leaving.cancelled() => {}
            fit = self.find_type() => fit?,
        }
        tokio::select! {
            biased;
            () = leaving.cancelled() => {}
            _ = self.sweep() => {}
        }
        if matches!(self.state, State::Starting { .. }) && !leaving.is_cancelled() {
            self.begin_first_role().await;
        }
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let retry_at = self.state.retry_at();
            let runs_with = self.runs_with();
            tokio::select! {
                biased;
                () = leaving.cancelled() => break,
                Some(command) = commands.recv() => {
                    let Command { order, wait, done, busy } = command;
                    if let Order::Offer(offer) = &order {
                        unless(&leaving, self.offered(offer)).await;
                        drop(busy);
                        continue;
                    }
                    let receipt = self.carry_out(order, wait).await;
                    drop(busy);
                    // The caller may have gone away; the order is carried out all the same.
                    let _ = done.send(receipt);
                }
                failure = next_failure(self.running.as_mut()) => {
                    let text = format!("task `{}` failed: {}", failure.task, failure.reason);
                    self.fail(Reason::new(reasons::TASK_FAILED, text)).await;
                }
                () = passed(self.assigned.duty.claim_watch()) => {
                    unless(&leaving, self.step_down()).await;
                }
                to = yielding(self.assigned.duty.claim_watch()) => {
                    unless(&leaving, self.yield_shard(to)).await;
                }
                () = silent(self.assigned.duty.claim_watch()), if !self.assigned.duty.is_resigned() => {
                    self.probe().await;
                    self.publish().await;
                }
                () = until(retry_at) => {
                    self.state = self.state.after(Happening::Retry);
                    self.tools.restarts.inc();
                    self.publish().await;
                    self.begin().await;
                }
                () = self.reload.due(runs_with.as_ref()) => {
                    unless(&leaving, Box::pin(self.apply_spec())).await;
                }
                trigger = self.takeover.next_trigger() => {
                    unless(&leaving, Box::pin(self.handle(trigger))).await;
                }
                _ = probe.tick() => {
                    self.probe().await;
                    if self.tidy_at <= Instant::now() {
                        unless(&leaving, self.tidy()).await;
                    }
                    self.publish().await;
                }
            }
        }
        self.wind_down().await;
        Ok(())
    }

    /// Opens and tests the store. If it does not answer, that is retried later; fails if it can never be used.
    async fn open_store(&self) -> Result<(), OpenError> {
        match timeout(STORE_LIMIT, self.tools.cluster_store.store()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if !error.may_pass() => return Err(error),
            Ok(Err(error)) => warn!(%error, "the store can't be opened yet; it will be tried again"),
            Err(_) => warn!(limit = ?STORE_LIMIT, "the store does not answer; it will be tried again"),
        }
        Ok(())
    }

    /// Checks whether this agent can run the role, if only the store knows the type of its service. If the store does not
    /// answer, the type is read when the role is started.
    async fn find_type(&mut self) -> Result<(), Unfit> {
        let (Some(origin), Some(service)) = (self.tools.untyped, self.assigned.role.service().cloned())
        else {
            return Ok(());
        };
        let registry = self.tools.registry.clone();
        let checked = match self.tools.cluster_store.service_type(&service).await {
            Ok(service_type) => registry.check(self.assigned.role.clone(), &service_type),
            Err(TypeError::Unknown(error)) => Err(error),
            Err(TypeError::Unread(_, error)) => {
                warn!(%service, %error, "the type of a service is not known yet");
                return Ok(());
            }
        };
        self.assigned.role = checked.map_err(|error| Unfit::Role(origin, error))?;
        self.publish().await;
        Ok(())
    }

    async fn wind_down(&mut self) {
        let mut watch = Stopwatch::start();
        let why = Reason::new(reasons::LEAVING, "the node is leaving the cluster");
        let (_, next_owner) = self.finish(Some(why), true, &mut watch).await;
        self.unmount();
        self.hand_over(next_owner, "leaving").await;
        self.settle_orphans().await;
        self.end_trial();
    }
}

fn drained(node: &NodeId, role: &Role) -> Happening {
    let command = match role.shard() {
        Some(shard) => format!("ctl set-service {node} {} --shard {shard}", role.service_name()),
        None => format!("ctl set-service {node} {}", role.service_name()),
    };
    let text = format!("`{command}` starts it again");
    Happening::Stopped { reason: Reason::new(reasons::DRAINED, text) }
}

/// Runs `work` unless the node leaves meanwhile. A shard that interrupted work may have taken is released as the node winds
/// down.
async fn unless(leaving: &CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = leaving.cancelled() => {}
        () = work => {}
    }
}
