//! Owns the node's role: starts it, watches it, changes it on command, ends it.

mod change;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::Cluster;
use mesh::Mesh;
use plugin::{Context, Endpoints, Exposure, Health, Metrics, Prepared, Registry, ServiceError};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use types::api::{Seen, Wait};
use types::{ErrorKind, Generation, NodeId, Problem, Role, RoleState, ServiceType};

use crate::control::Command;
use crate::gate::{Mount, Mounted};
use crate::identity::{Asked, DataDir};
use crate::lifecycle::{Happening, State};
use crate::running::Running;
use crate::seen::{Shown, ask_all, not_asked};
use crate::stopwatch::Stopwatch;

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
        Self { tools, role: asked.role, state, running: None, revision: 0, published: None }
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

    /// Starts the role as it is, unless the node is told to leave meanwhile.
    async fn begin(&mut self) {
        let prepared = self.prepare(&self.role);
        let started = match prepared {
            Ok(prepared) => self.start(prepared, &self.role).await,
            Err(error) => Some(Err(error)),
        };
        match started {
            None => {}
            Some(Ok(running)) => self.mount(running),
            Some(Err(error)) => {
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

    fn failed(&self, reason: String) -> State {
        self.state.after(Happening::Failed { at: Instant::now(), reason, jitter: rand::random() })
    }

    async fn wind_down(&mut self) {
        let mut watch = Stopwatch::start();
        self.finish(Some("leaving".to_owned()), &mut watch).await;
        self.unmount();
    }

    /// Checks a role's settings, so that it can be started; standby has none. Disturbs nothing.
    fn prepare(&self, role: &Role) -> Result<Option<Box<dyn Prepared>>, ServiceError> {
        let Role::Service { service, .. } = role else {
            return Ok(None);
        };
        let plugin = self.tools.registry.plugin(service).ok_or_else(|| {
            ServiceError::new(ErrorKind::Invalid, format!("`{service}` does not exist here"))
        })?;
        let settings = self.tools.settings.get(service).unwrap_or(&Value::Null);
        let prepared =
            std::panic::catch_unwind(AssertUnwindSafe(|| plugin.prepare(settings))).map_err(|_panic| {
                ServiceError::internal(format!("checking the settings of {service} panicked"))
            })?;
        prepared.map(Some).map_err(|error| {
            ServiceError::new(ErrorKind::Invalid, format!("the settings of {service}")).source(error)
        })
    }

    /// Starts what was prepared; none if the node is told to leave meanwhile.
    async fn start(
        &self,
        prepared: Option<Box<dyn Prepared>>,
        role: &Role,
    ) -> Option<Result<Option<Running>, ServiceError>> {
        let Some(prepared) = prepared else {
            return Some(Ok(None));
        };
        let context = |tasks, shutdown| Context {
            node: self.tools.node.clone(),
            role: role.clone(),
            view: self.tools.cluster.watch(),
            mesh: self.tools.mesh.clone(),
            tasks,
            shutdown,
            metrics: Metrics::new(&format!("coterie_{}", role.service_name())),
            seed: rand::random(),
            endpoints: Endpoints::new(self.tools.exposure.clone()),
        };
        tokio::select! {
            biased;
            () = self.tools.leaving.cancelled() => None,
            started = Running::start(prepared, context) => Some(started.map(Some)),
        }
    }

    fn mount(&mut self, running: Option<Running>) {
        if let Some(running) = running {
            if let Role::Service { service, .. } = &self.role {
                self.tools.mount.set(Mounted {
                    role: self.role.clone(),
                    service: service.clone(),
                    router: running.router.clone(),
                    gate: running.gate.clone(),
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
        let reason = reason.map(shortened);
        let endpoints = self.running.as_ref().map(|running| running.endpoints.urls()).unwrap_or_default();
        RoleState { role: self.role.clone(), phase, reason, revision: self.revision, endpoints }
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
        let shown = Shown { node: self.tools.node.clone(), generation: self.tools.generation, version };
        match wait {
            Wait::Local => not_asked(&view),
            Wait::All => ask_all(&self.tools.mesh, &view, &shown, limit).await,
        }
    }
}

/// A reason that is not too long to be gossiped.
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
    Happening::Stopped { reason: format!("drained; `{command}` starts it again") }
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
