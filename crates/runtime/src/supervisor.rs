//! Owns the node's role: starts it, watches it, changes it on command, ends it.

mod assignment;
mod begin;
mod change;
pub(crate) mod control;
pub(crate) mod error;
mod hand_over;
mod orphaned_claims;
mod propagation;
pub(crate) mod reload;
pub(crate) mod stopwatch;
mod takeover;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use mesh::Mesh;
use plugin::{
    COMMON_PREFIX, Claim, Context, Counter, Duty, Endpoints, Exposure, Health, Metrics, Prepared, Registry,
    RegistryError, ServiceError,
};
use store::OpenError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use types::api::{Seen, Wait};
use types::{Generation, NodeId, Profile, Reason, Role, RoleState, ServiceType, ShardRef, Sharding};

use crate::node::cluster_store::{ClusterStore, Terms};
use crate::node::identity::{DataDir, Identity, KeptRole};
use crate::node::services::{Catalog, TypeError};
use crate::role::gate::{Mount, Mounted};
use crate::role::lifecycle::{Happening, State};
use crate::role::reasons;
use crate::role::running::Running;
use crate::supervisor::assignment::{Assignment, ShardDuty};
use crate::supervisor::control::{Command, Order};
use crate::supervisor::error::PrepareError;
use crate::supervisor::propagation::{Shown, ask_all, not_asked};
use crate::supervisor::reload::{Reload, Reloads};
use crate::supervisor::stopwatch::Stopwatch;
use crate::supervisor::takeover::Takeover;
use crate::takeover::claim_watch::ClaimWatch;
use crate::takeover::isolation::Isolation;

/// How long the store may take to be opened before the role is started without it.
const STORE_LIMIT: Duration = Duration::from_secs(3);
/// How often a service's health is checked.
const PROBE: Duration = Duration::from_secs(1);
/// A primary resigns its shard once the store has not answered for this long.
const RESIGN: Duration = Duration::from_secs(3);
/// After this many failures in a row, the shard is released to other nodes.
const FAILURES: u32 = 3;
/// The longest reason that is gossiped, in characters.
const REASON_LIMIT: usize = 600;

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

/// A role that is ready to be started.
pub(crate) struct Plan {
    /// The role as it is run: with a shard if the service's type is sharded.
    role: Role,
    /// None for standby.
    prepared: Option<Box<dyn Prepared>>,
    terms: Option<Terms>,
    is_owned: bool,
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

    async fn probe(&mut self) {
        let twin = self
            .takeover
            .twin
            .borrow()
            .as_ref()
            .map(|twin| Reason::new(reasons::ANOTHER_CLUSTER, twin.to_string()));
        let Some(running) = &self.running else {
            if self.assigned.role == Role::Standby {
                let health = twin.map_or(Health::Ready, Health::Degraded);
                self.state = self.state.after(Happening::Probed(health));
            }
            return;
        };
        let mut health = running.health();
        if let Health::Failed(reason) = health {
            self.fail(reason).await;
            return;
        }
        if self.assigned.duty.is_replica()
            && let Some(twin) = twin
        {
            health = Health::Degraded(twin);
        }
        if let ShardDuty::Primary(claim_watch) = &mut self.assigned.duty {
            let age = claim_watch.claim().age();
            let other_store = self.tools.cluster_store.other_store();
            claim_watch.is_resigned = other_store.is_none() && age > RESIGN;
            if let Some(error) = other_store {
                health = Health::degraded(reasons::ANOTHER_STORE, error.to_string());
            } else if claim_watch.is_resigned {
                let epoch = claim_watch.claim().epoch();
                let text = format!(
                    "resigned epoch {epoch}: the store has not answered for {} s, so others may take the shard",
                    age.as_secs()
                );
                health = Health::degraded(reasons::OWNER_RESIGNED, text);
            }
        }
        self.state = self.state.after(Happening::Probed(health));
        if self.state.is_sound(Instant::now()) {
            self.end_trial();
        }
    }

    /// The running service failed: stops it; it is restarted after a pause.
    async fn fail(&mut self, reason: Reason) {
        error!(role = %self.assigned.role, code = %reason.code, %reason, "the service failed");
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.unmount();
            self.state = self.failed(reason.clone());
            self.publish().await;
            running.stop().await;
            if matches!(self.state, State::Waiting { failures, .. } if failures >= FAILURES) {
                self.refuse(&reason.text).await;
                self.publish().await;
            }
        }
    }

    fn failed(&self, reason: Reason) -> State {
        self.state.after(Happening::Failed { at: Instant::now(), reason, jitter: rand::random() })
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

    /// Reads what a role runs with and checks its settings, so that it can be started. Disturbs nothing. `is_wanted`: an
    /// operator wants the role.
    async fn prepare(&self, role: &Role, is_wanted: bool) -> Result<Plan, PrepareError> {
        let Role::Service { service, shard } = role else {
            return Ok(Plan { role: Role::Standby, prepared: None, terms: None, is_owned: false });
        };
        let terms = self.tools.cluster_store.terms(service, *shard, is_wanted).await?;
        let registry = &self.tools.registry;
        let plugin = registry.check_type(service, &terms.service_type)?;
        let role = registry.check(role.clone(), &terms.service_type)?;
        let titled = service.with_type(&terms.service_type);
        let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| plugin.prepare(&terms.settings)))
            .map_err(|_panic| PrepareError::Panicked(titled.clone()))?;
        let prepared = prepared.map_err(|error| PrepareError::Settings { titled: titled.clone(), error })?;
        let is_owned = plugin.sharding() == Sharding::Owned;
        Ok(Plan { role, prepared: Some(prepared), terms: Some(terms), is_owned })
    }

    /// Starts what was prepared.
    async fn start(
        &self,
        prepared: Option<Box<dyn Prepared>>,
        role: &Role,
        duty: Duty,
    ) -> Result<Option<Running>, ServiceError> {
        let Some(prepared) = prepared else {
            return Ok(None);
        };
        let (mut objects, mut logs) = (None, None);
        let (mut objects_poll, mut objects_are_remote) = (Duration::ZERO, false);
        if let (Duty::Primary(_) | Duty::Replica, Some(shard)) = (&duty, role.shard_ref()) {
            let store = self.tools.cluster_store.store().await;
            let store = store.map_err(|error| ServiceError::unavailable(error.to_string()))?;
            objects = Some(store.data(&shard));
            logs = Some(store.logs(&shard));
            objects_poll = store.replica_poll();
            objects_are_remote = store.is_remote();
        }
        let shards = self.assigned.terms.as_ref().and_then(|terms| terms.shards);
        let plugin = self.assigned.terms.as_ref().and_then(|terms| {
            let plugin = self.tools.registry.plugin(&terms.service_type)?;
            Some((role.service()?, plugin.metrics_prefix()))
        });
        let metrics = match plugin {
            Some((service, prefix)) => Metrics::of_service(&prefix, service),
            None => Metrics::new(COMMON_PREFIX),
        };
        let context = |tasks, shutdown| Context {
            node: self.tools.node.clone(),
            role: role.clone(),
            duty,
            shards,
            objects,
            logs,
            objects_poll,
            objects_are_remote,
            cache_dir: self.tools.data.cache(),
            view: self.tools.cluster.watch(),
            mesh: self.tools.mesh.clone(),
            tasks,
            shutdown,
            metrics: metrics.clone(),
            seed: rand::random(),
            endpoints: Endpoints::new(self.tools.exposure.clone()),
        };
        Running::start(prepared, context).await.map(Some)
    }

    fn mount(&mut self, running: Option<Running>) {
        if let Some(running) = running {
            if let Role::Service { service, .. } = &self.assigned.role {
                self.tools.mount.set(Mounted {
                    role: self.assigned.role.clone(),
                    service: service.clone(),
                    router: running.router.clone(),
                    gate: running.gate.clone(),
                    claim: self.assigned.duty.claim_watch().map(|claim_watch| claim_watch.claim().clone()),
                    is_owned: self.assigned.duty.of_service().is_of_an_owned_shard(),
                    probe: running.probe(),
                });
            }
            self.tools.service_metrics.store(Some(Arc::new(running.metrics.clone())));
            self.running = Some(running);
        }
        self.state = self.state.after(Happening::Started { at: Instant::now() });
    }

    fn unmount(&self) {
        self.tools.mount.clear();
        self.tools.service_metrics.store(None);
    }

    fn role_state(&self) -> RoleState {
        let (phase, reason) = self.state.phase();
        let reason = reason.or_else(|| self.assigned.note.clone()).or_else(|| self.left_over());
        let reason = both(reason, self.failed_change.clone());
        let pending = self.pending();
        let reason = both(reason, pending.as_ref().map(reload::reason));
        let (reason_code, reason) = reason.map(|Reason { code, text }| (code, shortened(text))).unzip();
        let epoch = self.assigned.duty.claim().map(Claim::epoch);
        let is_resigned = self.assigned.duty.is_resigned();
        let endpoints = self.running.as_ref().map(|running| running.endpoints.urls()).unwrap_or_default();
        RoleState {
            role: self.assigned.role.clone(),
            service_type: self.gossiped_type(),
            phase,
            reason,
            reason_code,
            revision: self.revision,
            duty: self.assigned.duty.post(),
            epoch: epoch.filter(|_| !is_resigned),
            resigned: epoch.filter(|_| is_resigned),
            shards: self.assigned.terms.as_ref().and_then(|terms| terms.shards).map(NonZeroU32::get),
            spec: self.assigned.terms.as_ref().and_then(|terms| terms.number),
            pending,
            endpoints,
        }
    }

    /// The type of the role's service, if that is not the service's name.
    fn gossiped_type(&self) -> Option<ServiceType> {
        let service = self.assigned.role.service()?;
        let settled = self.assigned.terms.as_ref().map(|terms| terms.service_type.clone());
        let known = settled.or_else(|| self.tools.cluster_store.services().type_of(service));
        known.filter(|service_type| !service.is_named_after(service_type))
    }

    /// Gossips the present state if it has changed. Returns the version that shows it.
    async fn publish(&mut self) -> u64 {
        let state = self.role_state();
        if let Some((published, version)) = &self.published
            && *published == state
        {
            return *version;
        }
        match self.tools.cluster.set_role(state.clone()).await {
            Ok(version) => {
                info!(role = %state.role, phase = %state.phase, reason = state.reason, code = state.reason_code.as_ref().map(tracing::field::display), "phase");
                self.published = Some((state, version));
                version
            }
            Err(error) => {
                warn!(%error, "the role could not be gossiped");
                self.published.as_ref().map_or(0, |(_, version)| *version)
            }
        }
    }

    async fn confirm(&self, version: u64, wait: Wait, limit: Duration) -> Seen {
        let view = self.tools.cluster.view();
        let shown = Shown { node: self.tools.node.clone(), generation: self.tools.generation, version };
        match wait {
            Wait::Local => not_asked(&view),
            Wait::All => ask_all(&self.tools.mesh, &view, &shown, limit).await,
        }
    }
}

/// Two reasons as one, with the code of the first.
fn both(first: Option<Reason>, second: Option<Reason>) -> Option<Reason> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Reason { text: format!("{first}; {second}"), ..first }),
        (first, second) => first.or(second),
    }
}

/// Cuts a reason to the longest that is gossiped.
fn shortened(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(REASON_LIMIT) {
        reason.truncate(end);
        reason.push('…');
    }
    reason
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

async fn next_failure(running: Option<&mut Running>) -> plugin::TaskFailure {
    match running {
        Some(running) => running.failure().await,
        None => std::future::pending().await,
    }
}

async fn passed(claim_watch: Option<&ClaimWatch>) {
    match claim_watch {
        Some(claim_watch) => claim_watch.claim().passed().await,
        None => std::future::pending().await,
    }
}

async fn yielding(claim_watch: Option<&ClaimWatch>) -> NodeId {
    match claim_watch {
        Some(claim_watch) => claim_watch.claim().yielding().await,
        None => std::future::pending().await,
    }
}

/// Waits until the last confirmation of the claim is older than [`RESIGN`].
async fn silent(claim_watch: Option<&ClaimWatch>) {
    let Some(claim_watch) = claim_watch else { return std::future::pending().await };
    loop {
        let age = claim_watch.claim().age();
        if age > RESIGN {
            return;
        }
        // A little longer, so that the age is surely above the limit then.
        tokio::time::sleep(RESIGN.saturating_sub(age) + Duration::from_millis(1)).await;
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
