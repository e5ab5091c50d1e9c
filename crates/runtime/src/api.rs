//! The HTTP API of a node: its identity, its view, its commands, and the service mounted under `/svc`.

mod arrival;
mod commands;
mod error;
mod events;
mod guard;
mod layers;
pub(crate) mod metrics;
pub mod openapi;
mod queries;
mod removed;
mod settled;
mod svc;
pub(crate) mod upstreams;

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, put};
use cluster::Cluster;
use mesh::Mesh;
use plugin::http::Guard;
use plugin::{Counter, Metrics, Registry};
use tokio_util::sync::CancellationToken;
use types::{ClusterId, Generation, NodeId, Profile, Role};

use crate::node::clock_skew::Clocks;
use crate::node::cluster_store::ClusterStore;
use crate::node::events::Events;
use crate::role::gate::Mount;
use crate::supervisor::control::Control;

/// The largest body of a control request, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The facts of a node that never change while it runs.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) generation: Generation,
    pub(crate) started_at_ms: u64,
    pub(crate) data_dir: String,
    pub(crate) profile: Profile,
    pub(crate) insecure: Vec<String>,
    /// Guards this node against web pages of other sites.
    pub(crate) guard: Guard,
    pub(crate) http: String,
    pub(crate) gossip: String,
    /// Whether the node has a seed other than itself.
    pub(crate) has_seeds: bool,
    /// The role of an operator's earlier command.
    pub(crate) kept_role: Option<Role>,
}

/// What the handlers work with. Cheap to clone, since every request clones it.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The parts of an [`App`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) facts: Arc<Facts>,
    pub(crate) registry: Registry,
    pub(crate) cluster: Cluster,
    pub(crate) mesh: Mesh,
    pub(crate) mount: Arc<Mount>,
    pub(crate) cluster_store: ClusterStore,
    pub(crate) control: Control,
    pub(crate) events: Events,
    pub(crate) clocks: Clocks,
    /// The node's own metrics.
    pub(crate) metrics: Metrics,
    /// Those of the service that it runs.
    pub(crate) service_metrics: Arc<ArcSwapOption<Metrics>>,
    /// Restarts of the service after a failure.
    pub(crate) restarts: Counter,
    /// Cancelled when the listener closes: streams end.
    pub(crate) stopping: CancellationToken,
}

/// All routes of a node.
pub(crate) fn router(app: App) -> Router {
    let control = Router::new()
        .route("/", get(queries::cluster_state))
        .route("/members", get(queries::members_first_spelling))
        .route("/update_service", get(commands::update_service))
        .route("/v1/agent/self", get(queries::agent_self))
        .route("/v1/members", get(queries::members))
        .route("/v1/members/{id}", get(queries::member).post(commands::drain_leave_or_release))
        .route("/v1/members/{id}/service", put(commands::change_service))
        .route("/v1/services", get(queries::services))
        .route("/v1/spec", get(settled::specs))
        .route("/v1/spec/{service}", put(settled::put_spec).delete(removed::remove))
        .route("/v1/claims", get(settled::claims))
        .route("/v1/events", get(events::events))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/health/livez", get(queries::livez))
        .route("/health/readyz", get(queries::readyz))
        .route("/metrics", get(metrics::metrics))
        .layer(axum::middleware::from_fn(layers::limit_time))
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
    let service = Router::new()
        .route("/svc/{service}", any(svc::call))
        .route("/svc/{service}/", any(svc::call))
        .route("/svc/{service}/{*rest}", any(svc::call))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::services));
    control
        .merge(service)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(axum::middleware::from_fn_with_state(app.clone(), layers::dress))
        .with_state(app)
}
