//! Requests that change a node: carried out here, or forwarded once to the node that they name.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use cluster::ClusterView;
use http::header::{CONTENT_TYPE, IF_MATCH};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use plugin::RegistryError;
use serde::{Deserialize, Serialize};
use types::api::{self, Member, Receipt, Release, Wait};
use types::{ErrorKind, Generation, NodeId, Post, Problem, Role, RoleBody, ShardId, limits};

use super::App;
use super::error::{ApiError, wrong_method};
use super::queries::{member_id, path, unknown_member};
use crate::node::cluster_store::RoleError;
use crate::node::services::without_shard;
use crate::role::owner::NotTheOwner;
use crate::supervisor::control::Order;

/// How long a node that has left the view may still take to answer.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long the answer to a change waits.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct HowToWait {
    /// `local`: until the node is done; `all`: until every live member shows it, or a second has passed.
    #[serde(default)]
    wait: Wait,
}

/// How a role is changed, and how long the answer waits.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct HowToChange {
    /// `local`: until the node is done; `all`: until every live member shows it, or a second has passed.
    #[serde(default)]
    wait: Wait,
    /// Whether a shard that another node owns is moved here.
    #[serde(default)]
    take: bool,
}

/// The role in the first spelling of a change.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstSpelling {
    /// The name of a service, or `standby`.
    service: Option<String>,
    /// The same.
    service_type: Option<String>,
    /// The shard, for sharded types: 0 to 65,535.
    #[param(value_type = Option<u32>, maximum = 65_535)]
    shard: Option<String>,
}

/// A node that begins to leave.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Leaving {
    /// The node.
    node: NodeId,
    /// The generation that ends.
    generation: Generation,
}

/// Gives a node another role; with `take` a shard is moved there from its owner. `If-Match: "{generation}.{revision}"` guards against acting on an old view.
#[utoipa::path(put, path = "/v1/members/{id}/service", params(("id" = String, Path), HowToChange,
        ("If-Match" = Option<String>, Header, description = "`\"{generation}.{revision}\"` of the node")),
    request_body = RoleBody,
    responses((status = 200, body = Receipt), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 502, body = Problem)))]
pub(crate) async fn change_service(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    how: Result<Query<HowToChange>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response<Body>, ApiError> {
    let Query(HowToChange { wait, take }) = how.map_err(|error| bad_query(&error))?;
    let id = member_id(&path(id)?)?;
    let body = whole(body)?;
    let role = wanted_role(&body).map_err(|error| bad_role(&error))?;
    if id != app.facts.node {
        let rest = format!("/service?wait={}&take={take}", name(wait));
        return pass_on(&app, &id, Method::PUT, &rest, &headers, body).await;
    }
    // Refused before anything is disturbed, and without blocking other commands.
    let role = app.cluster_store.checked(role).await?;
    check_match(&app, &headers)?;
    let receipt = app.control.order(Order::Change { role, take }, wait).await?;
    Ok(Json(receipt).into_response())
}

/// `POST /v1/members/{id}:drain` finishes running requests, then keeps the role without running it;
/// `POST /v1/members/{id}:leave` ends the node gracefully; `POST /v1/members/{id}:release` has the owner of a shard
/// hand it over to the node that asks, and `POST /v1/members/{id}:offer` has a node take a shard that its owner has just
/// released.
#[utoipa::path(post, path = "/v1/members/{id}:{verb}",
    params(("id" = String, Path), ("verb" = String, Path, description = "`drain`, `leave`, `release` or `offer`"), HowToWait),
    request_body(content = Option<Release>, description = "for `release` and `offer` only"),
    responses((status = 200, body = Receipt), (status = 202, body = Leaving), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 502, body = Problem)))]
pub(crate) async fn drain_leave_or_release(
    State(app): State<App>,
    id_and_verb: Result<Path<String>, PathRejection>,
    wait: Result<Query<HowToWait>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response<Body>, ApiError> {
    let Query(HowToWait { wait }) = wait.map_err(|error| bad_query(&error))?;
    let body = whole(body)?;
    let id_and_verb = path(id_and_verb)?;
    let (id, verb) = match id_and_verb.split_once(':') {
        Some((id, verb @ ("drain" | "leave" | "release" | "offer"))) => (member_id(id)?, verb),
        _ => {
            let detail =
                format!("`{id_and_verb}` does not end in `:drain`, `:leave`, `:release` or `:offer`");
            return Err(ApiError::invalid("unknown-command", detail));
        }
    };
    if id != app.facts.node {
        let rest = format!(":{verb}?wait={}", name(wait));
        return pass_on(&app, &id, Method::POST, &rest, &headers, body).await;
    }
    check_match(&app, &headers)?;
    if verb == "drain" {
        return Ok(Json(app.control.order(Order::Drain, wait).await?).into_response());
    }
    if matches!(verb, "release" | "offer") {
        let release: Release = serde_json::from_slice(&body)
            .map_err(|error| ApiError::invalid("bad-release", format!("the body names no claim: {error}")))?;
        if release.dry_run {
            willing(&app, &release, verb == "offer")?;
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        if verb == "offer" {
            // The node that has released the shard does not wait for the next owner to be ready.
            app.control.post(Order::Offer(release))?;
            return Ok(StatusCode::ACCEPTED.into_response());
        }
        // The node that takes the shard waits for the release, but not until all members show it.
        return Ok(Json(app.control.order(Order::Release(release), Wait::Local).await?).into_response());
    }
    app.control.leave();
    let leaving = Leaving { node: app.facts.node.clone(), generation: app.facts.generation };
    Ok((StatusCode::ACCEPTED, Json(leaving)).into_response())
}

/// Fails if this node would refuse to release a shard, or to take one. Disturbs nothing.
fn willing(app: &App, release: &Release, is_offer: bool) -> Result<(), ApiError> {
    app.control.is_idle()?;
    let view = app.cluster.view();
    let state = view.member(&app.facts.node).and_then(|member| member.state.as_ref());
    if is_offer {
        let is_free = state.is_some_and(|state| {
            state.phase.is_serving() && (state.role == Role::Standby || state.duty == Some(Post::Replica))
        });
        let detail = format!("{} has a role of its own", app.facts.node);
        return if is_free {
            Ok(())
        } else {
            Err(Problem::new(ErrorKind::Conflict, "not-free", detail).into())
        };
    }
    let is_ours = state.is_some_and(|state| {
        state.role.service() == Some(&release.service)
            && state.role.shard() == Some(release.shard)
            && state.epoch == Some(release.epoch)
    });
    if is_ours { Ok(()) } else { Err(NotTheOwner::new(&app.facts.node, release).into()) }
}

/// The first spelling of a role change, for the node that answers. Either of `service` and `service_type` names the service.
/// Only here, a shard is ignored if the service has none.
#[utoipa::path(get, path = "/update_service", params(FirstSpelling),
    responses((status = 200, body = Receipt), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn update_service(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    query: Result<Query<FirstSpelling>, QueryRejection>,
) -> Result<Json<Receipt>, ApiError> {
    if method == Method::HEAD {
        return Err(wrong_method(method, uri).await);
    }
    let Query(FirstSpelling { service, service_type, shard }) = query.map_err(|error| bad_query(&error))?;
    let service = one_service(service, service_type)?;
    let shard = shard.map(|shard| shard.parse::<ShardId>()).transpose();
    let role = shard
        .map_err(|error| error.to_string())
        .and_then(|shard| Role::new(&service, shard).map_err(|error| error.to_string()))
        .map_err(|error| ApiError::invalid("bad-role", error))?;
    let role = match app.cluster_store.checked(role.clone()).await {
        Err(RoleError::Registry(RegistryError::NoShards { .. })) => {
            app.cluster_store.checked(without_shard(role)).await?
        }
        checked => checked?,
    };
    Ok(Json(app.control.order(Order::Change { role, take: false }, Wait::All).await?))
}

/// The service that the first spelling names, once or twice.
fn one_service(service: Option<String>, service_type: Option<String>) -> Result<String, ApiError> {
    match (service, service_type) {
        (Some(service), Some(service_type)) if service != service_type => Err(ApiError::invalid(
            "bad-role",
            format!("`service` is `{service}` and `service_type` is `{service_type}`; give one of them"),
        )),
        (Some(service), _) | (None, Some(service)) => Ok(service),
        (None, None) => Err(ApiError::invalid("bad-query", "missing field `service`")),
    }
}

fn bad_query(error: &QueryRejection) -> ApiError {
    ApiError::invalid("bad-query", error.body_text())
}

fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|error| {
        let is_too_large = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
        let kind = if is_too_large { ErrorKind::TooLarge } else { ErrorKind::Invalid };
        ApiError(Problem::new(kind, "bad-body", error.body_text()))
    })
}

/// The role in a body. Unlike in answers, an unknown field is an error.
fn wanted_role(body: &[u8]) -> Result<Role, serde_json::Error> {
    use serde::de::Error;
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)?;
    if let Some(unknown) = fields.keys().find(|key| !matches!(key.as_str(), "service" | "shard")) {
        return Err(serde_json::Error::custom(format!("unknown field `{unknown}`")));
    }
    serde_json::from_value(fields.into())
}

fn bad_role(error: &serde_json::Error) -> ApiError {
    let problem = Problem::new(ErrorKind::Invalid, "bad-role", format!("the body is not a role: {error}"));
    ApiError(problem.hint(r#"a role is {"service": "storage", "shard": 0} or {"service": "standby"}"#))
}

fn name(wait: Wait) -> &'static str {
    match wait {
        Wait::Local => "local",
        Wait::All => "all",
    }
}

/// `"{generation}.{revision}"`, as in `If-Match`.
fn tag(member: &Member) -> String {
    let revision = member.state.as_ref().map_or(0, |state| state.revision);
    format!("\"{}.{revision}\"", member.generation)
}

/// Whether a header has the form of a tag: `"{generation}.{revision}"`, `"{generation}.*"` or `*`.
fn is_tag(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let inside = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    text == "*"
        || inside.and_then(|inside| inside.split_once('.')).is_some_and(|(generation, revision)| {
            generation.parse::<u64>().is_ok() && (revision == "*" || revision.parse::<u64>().is_ok())
        })
}

/// Any revision of this generation.
fn any_of(generation: Generation) -> String {
    format!("\"{generation}.*\"")
}

fn check_match(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(wanted) = headers.get(IF_MATCH) else {
        return Ok(());
    };
    if !is_tag(wanted) {
        let detail = format!("If-Match says `{}`", wanted.to_str().unwrap_or("?"));
        let problem = Problem::new(ErrorKind::Invalid, "bad-if-match", detail);
        return Err(problem
            .hint("it is written \"{generation}.{revision}\", with its quotation marks")
            .into());
    }
    let view = app.cluster.view();
    let present = view.member(&app.facts.node).map(tag).unwrap_or_default();
    if wanted == present.as_str() || wanted == any_of(app.facts.generation).as_str() || wanted == "*" {
        return Ok(());
    }
    let detail = format!("{} is at {present}, not at {}", app.facts.node, wanted.to_str().unwrap_or("?"));
    let problem = Problem::new(ErrorKind::Changed, "changed", detail);
    Err(problem.hint("the node was restarted or changed meanwhile; look at it, then try again").into())
}

/// Forwards a command to the node that it names, for the generation that this node sees. Never forwards it twice.
async fn pass_on(
    app: &App,
    id: &NodeId,
    method: Method,
    rest: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, ApiError> {
    if headers.contains_key(api::HOPS) {
        let detail = format!("a command for `{id}` was passed on to {}", app.facts.node);
        return Err(Problem::new(ErrorKind::NotFound, "unknown-member", detail).into());
    }
    let view = app.cluster.view();
    let member = view.member(id).ok_or_else(|| unknown_member(app, id))?;
    let mut request = Request::builder().method(method).uri(format!("{}/v1/members/{id}{rest}", member.http));
    if let Some(given) = headers.get(IF_MATCH) {
        request = request.header(IF_MATCH, given);
    } else {
        request = request.header(IF_MATCH, any_of(member.generation));
    }
    if let Some(request_id) = headers.get(api::REQUEST_ID) {
        request = request.header(api::REQUEST_ID, request_id);
    }
    let request = request
        .header(api::HOPS, "1")
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| Problem::new(ErrorKind::Internal, "bad-address", error.to_string()))?;
    let answer = tokio::select! {
        answer = app.mesh.call(request, limits::PASS_ON) => answer.map_err(|error| unanswered(member, &error))?,
        () = gone(app, member) => return Err(unanswered(member, &"it is gone").into()),
    };
    let (head, body) = answer.into_parts();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = head.status;
    for name in [CONTENT_TYPE.as_str(), api::NODE] {
        if let Some(value) = head.headers.get(name) {
            response.headers_mut().insert(
                http::HeaderName::from_bytes(name.as_bytes()).expect("it was a header's name before"),
                HeaderValue::clone(value),
            );
        }
    }
    Ok(response)
}

/// Waits until the view no longer shows this incarnation of a member, and [`LAST_WORD`] longer: it may answer as it leaves.
async fn gone(app: &App, member: &Member) {
    let mut view = app.cluster.watch();
    let is_gone =
        |view: &ClusterView| view.member(&member.id).is_none_or(|seen| seen.generation != member.generation);
    // An error means that this node itself ends, which ends the request as well.
    let _ = view.wait_for(is_gone).await;
    tokio::time::sleep(LAST_WORD).await;
}

fn unanswered(member: &Member, error: &impl std::fmt::Display) -> Problem {
    let kind = ErrorKind::BadGateway;
    let detail = format!("{} at {} did not answer: {error}", member.id, member.http);
    Problem::new(kind, "member-unreachable", detail).hint(
        "it may have died a moment ago; `ctl members` shows it until the failure detector is sure, \
             `ctl claims` whether its shard has an owner",
    )
}
