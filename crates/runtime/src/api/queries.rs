//! Requests that only read.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use types::api::{AgentSelf, Member, MemberView, Members, ServiceMember, ServiceView, Services};
use types::range::{NumberIn, from_text};
use types::{ErrorKind, Generation, NodeId, Phase, Problem, RoleState};

use super::App;
use super::error::ApiError;
use crate::node::clock_skew;

/// How long a long poll waits by default.
const USUAL_POLL: Duration = Duration::from_secs(1);
/// The longest that a long poll waits, in milliseconds.
const LONGEST_POLL: u64 = 30_000;

/// `GET /`: the cluster in one answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ClusterState {
    /// The node that answers.
    agent: AgentSelf,
    /// Every member in its view.
    members: Vec<Member>,
}

/// The cluster in one answer: the node that answers, and every member in its view.
#[utoipa::path(get, path = "/", responses((status = 200, body = ClusterState)))]
pub(crate) async fn cluster_state(State(app): State<App>) -> Json<ClusterState> {
    let members = app.cluster.view().members().cloned().collect();
    Json(ClusterState { agent: describe(&app), members })
}

/// The node that answers.
#[utoipa::path(get, path = "/v1/agent/self", responses((status = 200, body = AgentSelf)))]
pub(crate) async fn agent_self(State(app): State<App>) -> Json<AgentSelf> {
    Json(describe(&app))
}

/// Rounded up, so that a bound stays one.
fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn describe(app: &App) -> AgentSelf {
    let facts = &app.facts;
    let member = app.cluster.view().member(&facts.node).cloned().unwrap_or_else(|| Member {
        id: facts.node.clone(),
        generation: facts.generation,
        version: 0,
        http: facts.http.clone(),
        gossip: facts.gossip.clone(),
        state: None,
        about: types::api::About::default(),
        store: None,
    });
    AgentSelf {
        cluster: facts.cluster.clone(),
        member,
        profile: facts.profile.to_string(),
        pid: std::process::id(),
        started_at_ms: facts.started_at_ms,
        data_dir: facts.data_dir.clone(),
        in_flight: app.mount.in_flight(),
        busy_with: app.control.busy_with(),
        insecure: facts.insecure.clone(),
        restarts: app.restarts.get(),
        staleness_ms: app.mount.load().and_then(|mounted| mounted.probe.staleness()).map(whole_millis),
        now_us: Some(clock_skew::now_us()),
        clock_ahead_ms: app.clocks.own_ahead_us().map(|ahead| ahead / 1_000),
    }
}

/// Every member in the view of the node that answers.
#[utoipa::path(get, path = "/v1/members", responses((status = 200, body = Members)))]
pub(crate) async fn members(State(app): State<App>) -> Json<Members> {
    let view = app.cluster.view();
    Json(Members {
        cluster: view.cluster().clone(),
        viewed_by: view.me().clone(),
        members: view.members().cloned().collect(),
    })
}

/// The first spelling of `/v1/members`.
#[utoipa::path(get, path = "/members", responses((status = 200, body = Members)))]
pub(crate) async fn members_first_spelling(app: State<App>) -> Json<Members> {
    members(app).await
}

/// What to wait for before a member is shown.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Poll {
    /// The generation to wait for; any by default.
    #[serde(default, deserialize_with = "from_text")]
    #[param(value_type = Option<u64>)]
    generation: Option<NumberIn<0, { u64::MAX }>>,
    /// The version to wait for.
    #[serde(default, deserialize_with = "from_text")]
    #[param(value_type = Option<u64>)]
    min_version: Option<NumberIn<0, { u64::MAX }>>,
    /// How long to wait for it, in milliseconds; 1,000 by default, at most 30,000.
    #[serde(default, deserialize_with = "from_text")]
    #[param(value_type = Option<u64>, minimum = 0, maximum = 30_000)]
    wait_ms: Option<NumberIn<0, LONGEST_POLL>>,
}

/// One member in the view of the node that answers; with `min_version` a long poll.
#[utoipa::path(get, path = "/v1/members/{id}", params(("id" = String, Path), Poll),
    responses((status = 200, body = MemberView), (status = 404, body = Problem)))]
pub(crate) async fn member(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    poll: Result<Query<Poll>, QueryRejection>,
) -> Result<Json<MemberView>, ApiError> {
    let Query(poll) = poll.map_err(|error| ApiError::invalid("bad-query", error.body_text()))?;
    let id = member_id(&path(id)?)?;
    if let Some(min_version) = poll.min_version.map(NumberIn::get) {
        let wait = poll.wait_ms.map_or(USUAL_POLL, |wait| Duration::from_millis(wait.get()));
        let mut view = app.cluster.watch();
        let shown = view.wait_for(|view| match poll.generation {
            Some(generation) => view.shows(&id, Generation(generation.get()), min_version),
            None => view.member(&id).is_some_and(|member| member.version >= min_version),
        });
        tokio::select! {
            _ = tokio::time::timeout(wait, shown) => {}
            () = app.stopping.cancelled() => {}
        }
    }
    let view = app.cluster.view();
    let member = view.member(&id).cloned().ok_or_else(|| unknown_member(&app, &id))?;
    Ok(Json(MemberView { viewed_by: view.me().clone(), member }))
}

/// The variable part of a path.
pub(crate) fn path(path: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    path.map(|Path(text)| text).map_err(|error| ApiError::invalid("bad-path", error.body_text()))
}

/// The id in a path.
pub(crate) fn member_id(text: &str) -> Result<NodeId, ApiError> {
    text.parse().map_err(|error: types::IdError| ApiError::invalid("bad-node-id", error.to_string()))
}

/// The refusal for a node that is not in the view.
pub(crate) fn unknown_member(app: &App, id: &NodeId) -> ApiError {
    let view = app.cluster.view();
    let names: Vec<_> = view.members().take(20).map(|member| member.id.to_string()).collect();
    let detail = format!("{} sees no member `{id}`", view.me());
    Problem::new(ErrorKind::NotFound, "unknown-member", detail)
        .hint(format!("it sees {}", names.join(", ")))
        .into()
}

/// Each service by its name: its type, the number of its spec, how many members are wanted and how many are ready, and the
/// URL of each member.
#[utoipa::path(get, path = "/v1/services", responses((status = 200, body = Services)))]
pub(crate) async fn services(State(app): State<App>) -> Json<Services> {
    let view = app.cluster.view();
    let known = app.cluster_store.services();
    let mut services: BTreeMap<String, ServiceView> = BTreeMap::new();
    for (service, entry) in known.catalog().services {
        let wanted = entry.shards.map(|shards| shards.get().saturating_mul(entry.replicas.saturating_add(1)));
        let (service_type, spec) = (Some(entry.service_type), Some(entry.spec));
        services.insert(
            service.to_string(),
            ServiceView { service_type, spec, wanted, ..ServiceView::default() },
        );
    }
    for member in view.members() {
        for service_type in &member.about.runnable {
            let of_type =
                || ServiceView { service_type: Some(service_type.clone()), ..ServiceView::default() };
            services.entry(service_type.to_string()).or_insert_with(of_type);
        }
        if let Some(state) = &member.state {
            let name = state.role.service_name();
            let url = format!("{}/svc/{name}", member.http);
            let entry = ServiceMember { id: member.id.clone(), state: state.clone(), url };
            let service = services.entry(name.to_owned()).or_default();
            service.ready += u32::from(state.phase == Phase::Ready);
            service.service_type = service.service_type.take().or_else(|| state.service_type());
            service.members.push(entry);
        }
    }
    Json(Services { viewed_by: view.me().clone(), services })
}

/// Whether the process is alive: always 200.
#[utoipa::path(get, path = "/health/livez", responses((status = 200, body = String)))]
pub(crate) async fn livez() -> &'static str {
    "alive\n"
}

/// Whether the node can be sent requests: 200, or 503 with the reason.
#[utoipa::path(get, path = "/health/readyz",
    responses((status = 200, body = String), (status = 503, body = Problem)))]
pub(crate) async fn readyz(State(app): State<App>) -> Result<(StatusCode, String), ApiError> {
    let state = app.cluster.view().member(&app.facts.node).and_then(|member| member.state.clone());
    match state {
        Some(state) if state.phase.is_serving() && !app.control.is_leaving() => {
            Ok((StatusCode::OK, format!("{}\n", state.phase)))
        }
        state => Err(not_ready(state).into()),
    }
}

fn not_ready(state: Option<RoleState>) -> Problem {
    let detail = match state {
        Some(state) if state.reason.is_some() => state.phase_and_reason(),
        Some(RoleState { phase, .. }) if phase.is_serving() => "the node is leaving".to_owned(),
        Some(RoleState { phase, .. }) => phase.to_string(),
        None => Phase::Starting.to_string(),
    };
    Problem::new(ErrorKind::Unavailable, "not-ready", detail)
}
