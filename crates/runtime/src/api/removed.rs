//! Removes a service: its spec and its data, once no member runs it.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use serde::Deserialize;
use store::Store;
use tracing::info;
use types::api::{self, Member, Removed};
use types::{ErrorKind, Problem, ServiceName, limits};

use super::App;
use super::error::ApiError;
use super::queries::path;
use super::settled::{opened, replaced};

/// How a service is removed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct HowToRemove {
    /// Whether members that run the service are made standbys; without it, the removal is refused while one does.
    #[serde(default)]
    stop: bool,
}

/// Removes a service permanently: its spec and all of its data. Refused while a member runs it, unless `stop` is set, or while
/// a shard of it has an owner.
#[utoipa::path(delete, path = "/v1/spec/{service}", params(
        ("service" = String, Path, description = "name of the service"), HowToRemove,
        ("If-Match" = Option<String>, Header, description = "`\"{number}\"` of its spec")),
    responses((status = 200, body = Removed), (status = 400, body = Problem), (status = 409, body = Problem),
        (status = 412, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn remove(
    State(app): State<App>,
    service: Result<Path<String>, PathRejection>,
    how: Result<Query<HowToRemove>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Removed>, ApiError> {
    let Query(HowToRemove { stop }) =
        how.map_err(|error| ApiError::invalid("bad-query", error.body_text()))?;
    let service: ServiceName = path(service)?
        .parse()
        .map_err(|error: types::IdError| ApiError::invalid("bad-service-name", error.to_string()))?;
    let service = app.registry.normalized(service);
    let last = replaced(&headers)?;
    let store = opened(&app).await?;
    let specs = store.specs();
    let spec = specs.latest(&service).await?;
    if spec.is_some() && !stop {
        unused(&app, store, &service).await?;
    }
    // First the spec: without it, no node takes over a shard of a member that ends.
    let removed = specs.remove(&service, last).await?;
    let ended = async {
        if stop {
            end(&app, &service).await?;
        }
        unused(&app, store, &service).await
    };
    if let Err(problem) = ended.await {
        if let Some(spec) = spec {
            specs.put(&service, 0, &spec.spec).await?;
        }
        return Err(problem);
    }
    let objects = store.delete_data(&service).await?;
    info!(%service, number = removed, objects, "removed a service");
    Ok(Json(Removed { service, objects: u64::try_from(objects).unwrap_or(u64::MAX) }))
}

/// Makes the members that run a service standbys, all at once.
async fn end(app: &App, service: &ServiceName) -> Result<(), ApiError> {
    let view = app.cluster.view();
    try_join_all(view.of_service(service).map(|member| end_at(app, service, member))).await?;
    Ok(())
}

async fn end_at(app: &App, service: &ServiceName, member: &Member) -> Result<(), ApiError> {
    let failed = |why: String| {
        let detail = format!("{} runs {service} and could not be stopped: {why}", member.id);
        ApiError::from(Problem::new(ErrorKind::Conflict, "in-use", detail))
    };
    let request = Request::put(format!("{}/v1/members/{}/service?wait=all", member.http, member.id))
        .header(CONTENT_TYPE, "application/json")
        .header(api::HOPS, "1")
        .body(Bytes::from_static(br#"{"service": "standby"}"#))
        .map_err(|error| failed(error.to_string()))?;
    let answer = app.mesh.call(request, limits::PASS_ON).await.map_err(|error| failed(error.to_string()))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let refusal: Option<Problem> = serde_json::from_slice(answer.body()).ok();
    Err(failed(refusal.map_or_else(|| answer.status().to_string(), |refusal| refusal.detail)))
}

/// Fails while a member runs the service, or a shard of it has an owner on the store.
async fn unused(app: &App, store: &Store, service: &ServiceName) -> Result<(), ApiError> {
    let view = app.cluster.view();
    let members: Vec<_> = view.of_service(service).map(|member| member.id.to_string()).collect();
    if let Some(first) = members.first() {
        let detail = format!("{} runs {service}", members.join(", "));
        let problem = Problem::new(ErrorKind::Conflict, "in-use", detail);
        return Err(problem.hint(format!("`ctl set-service {first} standby` ends it there")).into());
    }
    let claims = store.claims().all().await?;
    let owned =
        claims.iter().filter(|(claimed, _)| claimed.service == *service).find_map(|(claimed, state)| {
            let holder = match state {
                Ok(state) => state.holder.as_ref()?.node.to_string(),
                Err(error) => format!("a node whose claim can't be read: {error}"),
            };
            Some((claimed.shard, holder))
        });
    let Some((shard, holder)) = owned else { return Ok(()) };
    let detail = format!("{service}/{shard} is owned by {holder}, as the store says");
    let problem = Problem::new(ErrorKind::Conflict, "in-use", detail);
    let spare = view.type_of(service).and_then(|service_type| view.spare(service, &service_type));
    let hint = match spare {
        Some(spare) => format!(
            "end that node, or take the shard from it: `ctl set-service {spare} {service} --shard {shard} --take`, then \
             `ctl set-service {spare} standby`"
        ),
        None => "end that node, or start one that stands by and can take the shard".to_owned(),
    };
    Err(problem.hint(hint).into())
}
