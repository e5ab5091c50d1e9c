//! Owns the node's role: starts it, watches it, changes it on command, ends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::Cluster;
use mesh::Mesh;
use plugin::{Context, Endpoints, Exposure, Health, Metrics, Registry, ServiceError};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use types::api::{Receipt, Seen, Wait};
use types::{ErrorKind, Generation, NodeId, Problem, Role, RoleState, ServiceType};

use crate::control::{Command, Order};
use crate::gate::{Mount, Mounted};
use crate::identity::{Asked, DataDir};
use crate::lifecycle::{Happening, State};
use crate::running::Running;
use crate::seen::{Shown, ask_all, not_asked};
use crate::stopwatch::{Stopwatch, millis};

/// How often a service is asked how it is.
const PROBE: Duration = Duration::from_secs(1);
/// How long requests in flight may go on once new ones are refused.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a draining node waits until everybody knows.
const ANNOUNCE_LIMIT: Duration = Duration::from_millis(300);
/// How long members may take to see a change before the receipt says that they have not.
const RECEIPT_LIMIT: Duration = Duration::from_secs(1);
/// The longest reason that is gossiped, in characters.
const REASON_LIMIT: usize = 600;

/// What the supervisor works with.
pub(crate) struct Tools {
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) registry: Registry,
    pub(crate) settings: BTreeMap<ServiceType, Value>,
    pub(crate) exposure: Exposure,
    pub(crate) cluster: Cluster,
    pub(crate) mesh: Mesh,
    pub(crate) mount: Arc<Mount>,
    pub(crate) data: Arc<DataDir>,
    pub(crate) service_metrics: Arc<arc_swap::ArcSwapOption<Metrics>>,
    pub(crate) restarts: Arc<AtomicU64>,
    pub(crate) leaving: CancellationToken,
}

/// Owns the node's role.
pub(crate) struct Supervisor {
    tools: Tools,
    role: Role,
    state: State,
    running: Option<Running>,
    revision: u64,
    published: Option<(RoleState, u64)>,
}

impl Supervisor {
    /// A supervisor for what a person last asked, or the flags say.
    pub(crate) fn new(tools: Tools, asked: Asked) -> Self {
        let mut state = State::Starting { failures: 0 };
        if asked.drained {
            state = state.after(drained(&tools.node, &asked.role));
        }
        Self {
            tools,
            role: asked.role,
            state,
            running: None,
            revision: 0,
            published: None,
        }
    }

    /// Runs until the node leaves; the role has ended then.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let leaving = self.tools.leaving.clone();
        self.publish().await;
        if matches!(self.state, State::Starting { .. }) {
            self.begin().await;
        }
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let retry_at = self.state.retry_at();
            tokio::select! {
                biased;
                () = leaving.cancelled() => break,
                Some(command) = commands.recv() => {
                    let Command { order, wait, done, busy } = command;
                    let receipt = self.carry_out(order, wait).await;
                    drop(busy);
                    // Whoever asked may have stopped waiting; the order is carried out all the same.
                    let _ = done.send(receipt);
                }
                failure = next_failure(self.running.as_mut()) => {
                    self.fail(format!("task `{}` failed: {}", failure.task, failure.reason)).await;
                }
                () = until(retry_at) => {
                    self.state = self.state.after(Happening::Retry);
                    self.tools.restarts.fetch_add(1, Ordering::Relaxed);
                    self.publish().await;
                    self.begin().await;
                }
                _ = probe.tick() => self.probe().await,
            }
        }
        self.wind_down().await;
    }

    /// Starts the role as it is.
    async fn begin(&mut self) {
        match self.start_role(&self.role.clone()).await {
            Ok(running) => self.mount(running),
            Err(error) => {
                warn!(role = %self.role, %error, "the role could not be started");
                self.state = self.failed(error.to_string());
            }
        }
        self.publish().await;
    }

    async fn probe(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        let health = running.health();
        if let Health::Failed(reason) = health {
            self.fail(reason).await;
            return;
        }
        self.state = self.state.after(Happening::Probed(health));
        self.publish().await;
    }

    /// The running service failed: it is taken down and started again after a pause.
    async fn fail(&mut self, reason: String) {
        error!(role = %self.role, reason, "the service failed");
        if let Some(running) = self.running.take() {
            running.gate.shut();
            self.unmount();
            self.state = self.failed(reason);
            self.publish().await;
            running.stop().await;
        }
    }

    fn failed(&self, mut reason: String) -> State {
        if let Some((end, _)) = reason.char_indices().nth(REASON_LIMIT) {
            reason.truncate(end);
            reason.push('…');
        }
        self.state.after(Happening::Failed {
            at: Instant::now(),
            reason,
            jitter: rand::random(),
        })
    }

    async fn carry_out(&mut self, order: Order, wait: Wait) -> Result<Receipt, Problem> {
        let from = self.role.clone();
        let to = match &order {
            Order::Change(role) => self
                .tools
                .registry
                .check(role.clone())
                .map_err(|error| unknown_role(&error))?,
            Order::Drain => from.clone(),
        };
        let mut watch = Stopwatch::start();
        let is_done = match order {
            Order::Change(_) => to == from && matches!(self.state, State::Running { .. }),
            Order::Drain => matches!(self.state, State::Stopped { .. }),
        };
        let mut in_flight = 0;
        if !is_done {
            let drained_now = order == Order::Drain;
            self.remember(&to, drained_now)?;
            self.revision += 1;
            watch.step("prepare");
            match self.switch(&to, drained_now, &mut watch).await {
                Ok(count) => in_flight = count,
                Err(problem) => {
                    if let Err(error) = self.remember(&from, matches!(self.state, State::Stopped { .. })) {
                        warn!(%error, "the role that was kept could not be written back");
                    }
                    return Err(problem);
                }
            }
        }
        let version = self.publish().await;
        let seen = self.confirm(version, wait, RECEIPT_LIMIT).await;
        watch.step("receipt");
        let state = self.role_state();
        info!(%from, to = %to, in_flight, took = ?watch.began.elapsed(), "carried out a command");
        Ok(Receipt {
            node: self.tools.node.clone(),
            generation: self.tools.generation,
            version,
            from,
            to,
            state,
            changed: !is_done,
            steps: watch.steps,
            took_ms: millis(watch.began.elapsed()),
            in_flight,
            seen,
        })
    }

    /// From one role to another, or to none at all. Returns how many requests were in flight.
    async fn switch(&mut self, to: &Role, drain_only: bool, watch: &mut Stopwatch) -> Result<u64, Problem> {
        let leaving = self.tools.leaving.clone();
        let (from, before) = (self.role.clone(), self.state.clone());
        let in_flight = self.finish(None, watch).await;
        if leaving.is_cancelled() {
            return Err(crate::control::leaving());
        }
        if drain_only {
            self.state = self.state.after(drained(&self.tools.node, to));
            return Ok(in_flight);
        }
        self.role = to.clone();
        self.state = self.state.after(Happening::Start);
        self.publish().await;
        let started = tokio::select! {
            biased;
            () = leaving.cancelled() => return Err(crate::control::leaving()),
            started = self.start_role(to) => started,
        };
        watch.step("start");
        match started {
            Ok(running) => {
                self.mount(running);
                watch.step("mount");
                Ok(in_flight)
            }
            Err(error) => {
                warn!(role = %to, %error, "the new role could not be started; going back");
                self.role = from;
                if matches!(before, State::Running { .. }) {
                    self.state = self.state.after(Happening::Start);
                    self.begin().await;
                } else {
                    self.state = before;
                    self.publish().await;
                }
                let code = "role-not-started";
                let problem = error.to_problem(code);
                let detail = format!(
                    "{to} could not be started: {error}; the node is {} again",
                    self.role
                );
                Err(Problem { detail, ..problem })
            }
        }
    }

    /// Announces the end of what runs, refuses new requests, lets running ones finish, and stops it.
    async fn finish(&mut self, reason: Option<String>, watch: &mut Stopwatch) -> u64 {
        if self.running.is_none() {
            return 0;
        }
        self.state = self.state.after(Happening::Drain { reason });
        let version = self.publish().await;
        self.confirm(version, Wait::All, ANNOUNCE_LIMIT).await;
        watch.step("announce");
        let Some(running) = self.running.take() else {
            return 0;
        };
        let in_flight = running.gate.shut();
        running.drain(Instant::now() + DRAIN_LIMIT).await;
        watch.step("drain");
        self.unmount();
        running.stop().await;
        watch.step("stop");
        in_flight
    }

    async fn wind_down(&mut self) {
        let mut watch = Stopwatch::start();
        self.finish(Some("leaving".to_owned()), &mut watch).await;
        self.unmount();
    }

    /// Starts a role's service; standby has none.
    async fn start_role(&self, role: &Role) -> Result<Option<Running>, ServiceError> {
        let Role::Service { service, .. } = role else {
            return Ok(None);
        };
        let plugin = self.tools.registry.plugin(service).ok_or_else(|| {
            ServiceError::new(ErrorKind::Invalid, format!("`{service}` does not exist here"))
        })?;
        let settings = self.tools.settings.get(service).unwrap_or(&Value::Null);
        let prepared = plugin.prepare(settings).map_err(|error| {
            ServiceError::new(ErrorKind::Invalid, format!("the settings of {service}")).source(error)
        })?;
        let context = |tasks, shutdown| Context {
            node: self.tools.node.clone(),
            role: role.clone(),
            view: self.tools.cluster.watch(),
            mesh: self.tools.mesh.clone(),
            tasks,
            shutdown,
            metrics: Metrics::new(&format!("coterie_{service}")),
            seed: rand::random(),
            endpoints: Endpoints::new(self.tools.exposure.clone()),
        };
        Running::start(prepared, context).await.map(Some)
    }

    fn mount(&mut self, running: Option<Running>) {
        if let Some(running) = running {
            if let Role::Service { service, .. } = &self.role {
                self.tools.mount.set(Mounted {
                    role: self.role.clone(),
                    service: service.clone(),
                    router: running.service.clone().routes(),
                    gate: running.gate.clone(),
                });
            }
            self.tools
                .service_metrics
                .store(Some(Arc::new(running.metrics.clone())));
            self.running = Some(running);
        }
        self.state = self.state.after(Happening::Started { at: Instant::now() });
    }

    fn unmount(&self) {
        self.tools.mount.clear();
        self.tools.service_metrics.store(None);
    }

    fn remember(&self, role: &Role, drained: bool) -> Result<(), Problem> {
        self.tools
            .data
            .keep(&Asked {
                role: role.clone(),
                drained,
            })
            .map_err(|error| {
                let source = std::error::Error::source(&error)
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                Problem::new(ErrorKind::Unavailable, "not-kept", format!("{error}{source}"))
                    .hint("nothing was changed; make room or the folder writable, then try again")
            })
    }

    fn role_state(&self) -> RoleState {
        let (phase, reason) = self.state.phase();
        let endpoints = self
            .running
            .as_ref()
            .map(|running| running.endpoints.urls())
            .unwrap_or_default();
        RoleState {
            role: self.role.clone(),
            phase,
            reason,
            revision: self.revision,
            endpoints,
        }
    }

    /// Gossips the present state if it is news. Returns the version that shows it.
    async fn publish(&mut self) -> u64 {
        let state = self.role_state();
        if let Some((published, version)) = &self.published
            && *published == state
        {
            return *version;
        }
        match self.tools.cluster.set_role(state.clone()).await {
            Ok(version) => {
                info!(role = %state.role, phase = %state.phase, reason = state.reason, "phase");
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
        let shown = Shown {
            node: self.tools.node.clone(),
            generation: self.tools.generation,
            version,
        };
        match wait {
            Wait::Local => not_asked(&view),
            Wait::All => ask_all(&self.tools.mesh, &view, &shown, limit).await,
        }
    }
}

fn drained(node: &NodeId, role: &Role) -> Happening {
    let command = match role.shard() {
        Some(shard) => format!("ctl set-service {node} {} --shard {shard}", role.service_name()),
        None => format!("ctl set-service {node} {}", role.service_name()),
    };
    Happening::Stopped {
        reason: format!("drained; `{command}` starts it again"),
    }
}

/// A role that can't be run here.
pub(crate) fn unknown_role(error: &plugin::RegistryError) -> Problem {
    match error {
        plugin::RegistryError::UnknownType { .. } => {
            Problem::new(ErrorKind::Invalid, "unknown-service-type", error.to_string())
                .hint("GET /v1/services lists what this cluster can run")
        }
        plugin::RegistryError::NoShards { .. } => {
            Problem::new(ErrorKind::Invalid, "bad-shard", error.to_string()).hint("leave the shard out")
        }
    }
}

async fn next_failure(running: Option<&mut Running>) -> plugin::TaskFailure {
    match running {
        Some(running) => running.failure().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
