//! The records on the store: specs and claims.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use futures_util::future::join_all;
use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use store::{ClaimState, Latest, Store, StoreError};
use types::api::{ClaimView, Claims, NumberedSpec, ReplicaView, Specs};
use types::{ErrorKind, Post, Problem, ServiceName, ServiceType, ShardId, ShardRef, Sharding, Spec};

use super::App;
use super::error::ApiError;
use super::queries::path;
use crate::role::owner::is_honoured;
use crate::takeover::{layouts, twins};

/// How long a replica may take to report how far it is behind.
const REPLICA_LIMIT: Duration = Duration::from_millis(300);

/// What every service runs with, read from the store now.
#[utoipa::path(get, path = "/v1/spec", responses((status = 200, body = Specs), (status = 503, body = Problem)))]
pub(crate) async fn specs(State(app): State<App>) -> Result<Json<Specs>, ApiError> {
    let store = opened(&app).await?;
    let specs = store.specs().all().await?;
    let specs = specs.into_iter().map(|(service, spec)| Ok((service, spec?)));
    let specs = specs.collect::<Result<BTreeMap<_, _>, StoreError>>()?;
    // They may have been written to the store directly, as `ctl up` does.
    layouts::announce(&app.cluster, &unknown(&app, &specs)).await;
    Ok(Json(Specs { store: store.info().clone(), specs }))
}

/// Changes what a service runs with, by compare-and-set: `If-Match: "{number}"`, or `If-None-Match: *` for a service
/// that has no spec yet. The service's members apply it while they run; `pending` in a member's state says why one has not.
#[utoipa::path(put, path = "/v1/spec/{service}", params(("service" = String, Path, description = "name of the service"),
        ("If-Match" = Option<String>, Header, description = "`\"{number}\"` of the spec that is replaced"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there is none yet")),
    request_body = Spec,
    responses((status = 200, body = NumberedSpec), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 412, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn put_spec(
    State(app): State<App>,
    service: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<NumberedSpec>, ApiError> {
    let service: ServiceName = path(service)?
        .parse()
        .map_err(|error: types::IdError| ApiError::invalid("bad-service-name", error.to_string()))?;
    let service = app.registry.normalized(service);
    let body = body.map_err(|error| ApiError::invalid("bad-body", error.body_text()))?;
    let spec = wanted_spec(&body)?.written_for(&service);
    let last = replaced(&headers)?;
    check(&app, &service, &spec)?;
    let store = opened(&app).await?;
    let number = store.specs().put(&service, last, &spec).await?;
    layouts::announce(&app.cluster, &[(service, number)].into()).await;
    Ok(Json(NumberedSpec { number, spec }))
}

/// The owner of each shard, read from the store now.
#[utoipa::path(get, path = "/v1/claims",
    responses((status = 200, body = Claims), (status = 503, body = Problem)))]
pub(crate) async fn claims(State(app): State<App>) -> Result<Json<Claims>, ApiError> {
    let store = opened(&app).await?;
    let specs = store.specs();
    let claims = store.claims();
    let (specs, mut known) = tokio::try_join!(specs.all(), claims.all())?;
    // A service that was removed leaves its claims behind, so that the epochs continue if it is created again.
    known.retain(|shard, state| {
        specs.contains_key(&shard.service) || state.as_ref().map_or(true, |state| state.holder.is_some())
    });
    let specs: BTreeMap<_, _> =
        specs.into_iter().filter_map(|(service, spec)| Some((service, spec.ok()?))).collect();
    for (service, numbered) in &specs {
        for number in 0..numbered.spec.shards.unwrap_or(0) {
            if let Ok(shard) = ShardId::try_from(number) {
                known
                    .entry(ShardRef::new(service.clone(), shard))
                    .or_insert_with(|| Ok(ClaimState::default()));
            }
        }
    }
    let view = app.cluster.view();
    let (mut replicas, elsewhere) = tokio::join!(replicas(&app), elsewhere(&app, store, &known));
    let listed = known.into_iter().map(|(of, state)| {
        let (state, note) = match state {
            Ok(state) => {
                let note = state.note();
                (state, note)
            }
            // No node takes a shard whose claim can't be read.
            Err(error) => (ClaimState::default(), Some(error.to_string())),
        };
        let defended = state.latest == Latest::Defended;
        let ClaimState { number, holder, since_ms, http, .. } = state;
        let honoured = holder.as_ref().is_some_and(|holder| is_honoured(holder, &view));
        let wanted_replicas = specs.get(&of.service).map_or(0, |numbered| numbered.spec.replicas);
        let elsewhere = elsewhere.contains(&of);
        let replicas = replicas.remove(&of).unwrap_or_default();
        let ShardRef { service, shard } = of;
        ClaimView {
            service,
            shard,
            number,
            holder,
            since_ms,
            http,
            elsewhere,
            honoured,
            defended,
            wanted_replicas,
            replicas,
            note,
        }
    });
    Ok(Json(Claims { store: store.info().clone(), claims: listed.collect() }))
}

/// The shards whose owners answer but are not in this node's view.
async fn elsewhere(
    app: &App,
    store: &Store,
    known: &BTreeMap<ShardRef, Result<ClaimState, StoreError>>,
) -> BTreeSet<ShardRef> {
    let view = app.cluster.view();
    let asked = known.iter().map(async |(shard, state)| {
        let state = state.as_ref().ok()?;
        twins::find(&app.mesh, &view, store, (shard, state)).await.map(|_| shard.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The replicas of shards in this node's view, each with how far it reports that it may be behind.
async fn replicas(app: &App) -> BTreeMap<ShardRef, Vec<ReplicaView>> {
    let view = app.cluster.view();
    let replicas = view.members().filter_map(|member| {
        let state = member.state.as_ref().filter(|state| state.duty == Some(Post::Replica))?;
        let shard = state.role.shard_ref()?;
        Some((shard, member, state.phase))
    });
    let asked = replicas.map(async |(shard, member, phase)| {
        let reported = app.mesh.agent(&member.http).itself(REPLICA_LIMIT).await.ok();
        let staleness_ms = reported.and_then(|reported| reported.staleness_ms);
        (shard, ReplicaView { node: member.id.clone(), phase, staleness_ms })
    });
    let mut replicas: BTreeMap<ShardRef, Vec<ReplicaView>> = BTreeMap::new();
    for (shard, replica) in join_all(asked).await {
        replicas.entry(shard).or_default().push(replica);
    }
    replicas
}

/// The specs that are later than those that members run with or have announced.
fn unknown(app: &App, specs: &BTreeMap<ServiceName, NumberedSpec>) -> cluster::Announced {
    let (view, announced) = (app.cluster.view(), app.cluster.specs());
    let announced = announced.borrow();
    let is_known = |service: &ServiceName, number: u64| {
        let mut running = view.of_service(service).filter_map(|member| member.state.as_ref()?.spec);
        announced.get(service).is_some_and(|known| *known >= number) || running.any(|known| known >= number)
    };
    let unknown = specs.iter().filter(|(service, spec)| !is_known(service, spec.number));
    // Without a member, nobody has to apply it.
    let unknown = unknown.filter(|(service, _)| view.of_service(service).next().is_some());
    unknown.map(|(service, spec)| (service.clone(), spec.number)).collect()
}

pub(super) async fn opened(app: &App) -> Result<&Store, ApiError> {
    Ok(app.cluster_store.store().await?)
}

/// The spec in a body. Unlike in answers, an unknown field is an error.
fn wanted_spec(body: &[u8]) -> Result<Spec, ApiError> {
    let bad = |detail: String| -> ApiError {
        let problem = Problem::new(ErrorKind::Invalid, "bad-spec", detail);
        problem.hint(r#"a spec is {"type": "storage", "settings": {}, "shards": 2, "replicas": 1}; `type` may be left out where it is the service's name"#).into()
    };
    let fields: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is not a spec: {error}")))?;
    if let Some(unknown) =
        fields.keys().find(|key| !matches!(key.as_str(), "type" | "settings" | "shards" | "replicas"))
    {
        return Err(bad(format!("the body is not a spec: unknown field `{unknown}`")));
    }
    serde_json::from_slice(body).map_err(|error| bad(format!("the body is not a spec: {error}")))
}

/// The number of the spec that is replaced; 0 for none.
pub(super) fn replaced(headers: &HeaderMap) -> Result<u64, ApiError> {
    if headers.contains_key(IF_MATCH) && headers.contains_key(IF_NONE_MATCH) {
        let detail = "If-Match and If-None-Match contradict one another";
        return Err(ApiError::invalid("bad-if-match", detail));
    }
    if headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*") {
        return Ok(0);
    }
    let number = headers
        .get(IF_MATCH)
        .and_then(|value| value.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?.parse::<u64>().ok());
    number.ok_or_else(|| {
        let detail = "the request does not say which spec it replaces";
        Problem::new(ErrorKind::Invalid, "no-if-match", detail)
            .hint("send If-Match: \"{number}\" of what GET /v1/spec says, or If-None-Match: * for the first one")
            .into()
    })
}

fn check(app: &App, service: &ServiceName, spec: &Spec) -> Result<(), ApiError> {
    let service_type =
        spec.type_of(service).filter(|service_type| app.registry.plugin(service_type).is_some());
    let Some(service_type) = service_type else {
        let wanted = spec.service_type.as_ref().map_or(service.as_str(), ServiceType::as_str);
        let detail =
            format!("this node can't check settings of `{service}`: it has no service type `{wanted}`");
        let problem = Problem::new(ErrorKind::NotFound, "unknown-service-type", detail);
        return Err(problem
            .hint("give one of the types that GET /v1/services lists as `type`, or name the service after it")
            .into());
    };
    let plugin = app.registry.check_type(service, &service_type)?;
    let service = service.with_type(&service_type);
    plugin
        .prepare(&spec.settings)
        .map_err(|error| ApiError::invalid("bad-settings", format!("the settings of {service}: {error}")))?;
    let most = if plugin.replicates() { Spec::MAX_REPLICAS } else { 0 };
    if spec.replicas > most {
        let detail = format!("{service} can have at most {most} replicas, not {}", spec.replicas);
        return Err(ApiError::invalid("bad-replicas", detail));
    }
    let highest = ShardId::MAX + 1;
    match (plugin.sharding(), spec.shards) {
        (Sharding::Owned, None) => {
            Err(ApiError::invalid("no-shards", format!("{service} needs a number of `shards`")))
        }
        (Sharding::Owned, Some(shards)) if shards == 0 || shards > highest => Err(ApiError::invalid(
            "bad-shards",
            format!("{service} can have 1 to {highest} shards, not {shards}"),
        )),
        (Sharding::None | Sharding::Unowned, Some(_)) => Err(ApiError::invalid(
            "bad-shards",
            format!("the shards of {service} are not fixed: leave them out"),
        )),
        _ => Ok(()),
    }
}
