//! `/svc/{service}/…`: requests to the mounted service.

use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use cluster::Timing;
use futures_util::FutureExt;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Response, Uri};
use hyper::upgrade::OnUpgrade;
use mesh::Kind;
use plugin::{Claim, Detach};
use tower::ServiceExt;
use types::{ErrorKind, Post, Problem, Profile, RoleState, ServiceName, ShardRef, Sharding, Target, api};

use super::App;
use super::error::ApiError;
use crate::api::arrival::Arrival;
use crate::role::gate::{Gate, hold};

/// The last confirmation of a claim is not older than this, unless a poll was late.
const SHORTEST_TRUST: Duration = Duration::from_millis(1_500);
/// How long a request waits for the next confirmation.
const TRUST_LIMIT: Duration = Duration::from_secs(3);

/// A request to the service on this node; any method, any path below. The raw path is passed on unchanged. A node that does
/// not run the service, or is ending it, refuses with `Coterie-Not-Processed`.
#[utoipa::path(get, path = "/svc/{service}/", params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, description = "what the service answers"), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn call(State(app): State<App>, mut request: Request) -> Response<Body> {
    let Some((wanted, rest)) = split(request.uri()) else {
        return ApiError::invalid("bad-path", "the path names no service").into_response();
    };
    let Ok(wanted) = wanted.parse::<ServiceName>().map(|wanted| app.registry.normalized(wanted)) else {
        return unknown(&wanted);
    };
    *request.uri_mut() = rest;
    let (head, body) = request.into_parts();
    let shard = owned_shard(&app, &wanted, &head);
    let mut request = Request::from_parts(head, body);
    let mounted = app.mount.load().filter(|mounted| mounted.service == wanted);
    if let Some(wanted) = shard {
        let has_it = mounted.as_ref().is_some_and(|mounted| {
            mounted.role.is_of(&wanted.shard) && (wanted.is_replica_enough || mounted.claim.is_some())
        });
        if !has_it {
            return misdirected(&app, &wanted.shard);
        }
    }
    let Some(mounted) = mounted else {
        return refuse(&app, &wanted, "does not run it");
    };
    let Some(pass) = mounted.gate.enter() else {
        return refuse(&app, &wanted, &format!("is ending its role {}", mounted.role));
    };
    if let Some(claim) = &mounted.claim
        && let Err(problem) = still_owns(claim, trust(app.facts.profile)).await
    {
        return not_processed(problem);
    }
    // Path parameters that the agent's own router has noted would mix with those of the service's router.
    let peer = request.extensions_mut().remove::<plugin::Peer>();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    request.extensions_mut().clear();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(upgrade);
    }
    let tie = Detach::new(pass);
    request.extensions_mut().insert(tie.clone());
    let (head, body) = request.into_parts();
    let (arrival, body) = Arrival::of(body);
    let request = Request::from_parts(head, body);
    let answer = AssertUnwindSafe(mounted.router.clone().oneshot(request)).catch_unwind();
    let answer = tokio::select! {
        biased;
        answer = answer => answer,
        () = arrival.is_late(&mounted.gate), if mounted.is_owned => {
            let detail = format!("{} is ending its role {}, and the body still arrives", app.facts.node, mounted.role);
            let problem = Problem::new(ErrorKind::Unavailable, "not-here", detail);
            return not_processed(problem.hint("send it again: nothing of it was acted upon"));
        }
        () = is_cut(&mounted.gate, &tie) => {
            let detail = format!("{wanted} was stopped before it had answered");
            let problem = Problem::new(ErrorKind::Unavailable, "cut-short", detail);
            return ApiError(problem.hint("it may have been acted upon; look before you send it again")).into_response();
        }
    };
    match answer {
        Ok(Ok(response)) => hold(response, &mounted.gate, tie),
        Err(_panic) => {
            let detail = format!("a handler of {wanted} panicked");
            let problem = Problem::new(ErrorKind::Internal, "handler-panicked", detail);
            ApiError(problem.hint("this is a bug; the agent's log says where")).into_response()
        }
    }
}

/// Waits until the requests inside must end. Never returns if the request is detached.
async fn is_cut(gate: &Gate, tie: &Detach) {
    gate.is_cut().await;
    if tie.is_detached() {
        std::future::pending::<()>().await;
    }
}

/// The service in a path, and the URI below it.
fn split(uri: &Uri) -> Option<(String, Uri)> {
    let below = uri.path_and_query()?.as_str().strip_prefix("/svc/")?;
    let end = below.find(['/', '?']).unwrap_or(below.len());
    let (service, rest) = below.split_at(end);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let rest = PathAndQuery::try_from(rest).ok()?;
    Some((service.to_owned(), Uri::from(rest)))
}

fn unknown(wanted: &str) -> Response<Body> {
    let detail = format!("no node of this cluster has or can run the service `{wanted}`");
    let problem = Problem::new(ErrorKind::NotFound, "unknown-service", detail);
    ApiError(problem.hint("GET /v1/services lists what there is")).into_response()
}

fn refuse(app: &App, wanted: &ServiceName, why: &str) -> Response<Body> {
    let members: Vec<_> = app
        .cluster
        .view()
        .members()
        .filter(|member| {
            member.state.as_ref().is_some_and(|state| {
                state.phase.is_serving()
                    && state.role.service() == Some(wanted)
                    && member.id != app.facts.node
            })
        })
        .map(|member| member.id.to_string())
        .collect();
    // A node that has just started may not even be in its own view yet.
    let is_known = match app.cluster_store.services().kind(wanted) {
        Kind::Settled(_) | Kind::NotYetKnown => true,
        Kind::Assumed(service_type) => {
            app.registry.plugin(&service_type).is_some()
                || app.cluster.view().members().any(|member| member.about.runnable.contains(&service_type))
        }
        Kind::Unknown => false,
    };
    if !is_known {
        return unknown(wanted.as_str());
    }
    let problem =
        Problem::new(ErrorKind::Unavailable, "not-here", format!("{} {why}: {wanted}", app.facts.node));
    let problem = if members.is_empty() {
        problem.hint("no other member serves it now; GET /v1/services lists who does what")
    } else {
        problem.hint(format!("{} can answer", members.join(", ")))
    };
    not_processed(problem)
}

/// A refusal of a request that may be sent again.
fn not_processed(problem: Problem) -> Response<Body> {
    let mut response = ApiError(problem).into_response();
    let header = HeaderName::from_static(api::NOT_PROCESSED);
    response.headers_mut().insert(header, HeaderValue::from_static("1"));
    response
}

/// The shard that a request is meant for.
struct Wanted {
    shard: ShardRef,
    /// Whether a replica may answer.
    is_replica_enough: bool,
}

/// The shard that a request is meant for, if the service has shards with owners.
fn owned_shard(app: &App, service: &ServiceName, head: &Parts) -> Option<Wanted> {
    let plugin = app.cluster_store.services().plugin(service)?;
    if plugin.sharding() != Sharding::Owned {
        return None;
    }
    let target = plugin.target(head);
    if target == Target::Any {
        return None;
    }
    let view = app.cluster.view();
    let shards = view.of_service(service).find_map(|member| NonZeroU32::new(member.state.as_ref()?.shards?));
    let shard = match (target, shards) {
        (Target::Key(key) | Target::KeyReplica(key), Some(shards)) => key.shard(shards),
        // The service refuses a shard that does not exist.
        (Target::Shard(shard) | Target::ShardReplica(shard), Some(shards))
            if shard.as_u32() < shards.get() =>
        {
            shard
        }
        (Target::Shard(shard) | Target::ShardReplica(shard), None) => shard,
        _ => return None,
    };
    let is_replica_enough = matches!(target, Target::KeyReplica(_) | Target::ShardReplica(_));
    Some(Wanted { shard: ShardRef::new(service.clone(), shard), is_replica_enough })
}

/// How old the last confirmation may be: a node that was paused for longer than the failure detector takes needs a new one.
fn trust(profile: Profile) -> Duration {
    Timing::of(profile).silence().max(SHORTEST_TRUST)
}

/// Whether the shard is still this node's: its claim was confirmed recently. After a stall, waits for the next confirmation.
async fn still_owns(claim: &Claim, trust: Duration) -> Result<(), Problem> {
    let passed = || {
        let detail = format!("{} is not this node's any more", claim.shard_ref());
        Problem::new(ErrorKind::Unavailable, "not-the-owner", detail).hint("try again in a moment")
    };
    if claim.new_owner().is_some() {
        return Err(passed());
    }
    if claim.age() <= trust {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = claim.passed() => Err(passed()),
        () = claim.younger_than(trust) => Ok(()),
        () = tokio::time::sleep(TRUST_LIMIT) => {
            let detail = format!(
                "whether {} is still this node's is not known: the store has not answered for {:.1?}",
                claim.shard_ref(), claim.age()
            );
            Err(Problem::new(ErrorKind::Unavailable, "store-unavailable", detail)
                .hint("try again when the store answers; the agent's log says why it does not"))
        }
    }
}

/// The refusal of a request for a shard that this node does not own. Names the owner in the view.
fn misdirected(app: &App, shard: &ShardRef) -> Response<Body> {
    let view = app.cluster.view();
    let me = &app.facts.node;
    let owner = view.owner(shard).filter(|owner| owner.id != *me);
    let owner = owner.and_then(|owner| Some((owner, owner.state.as_ref()?.epoch?)));
    let own = view.member(me).and_then(|member| member.state.as_ref());
    let is_ours = |own: &&RoleState| own.role.is_of(shard) && own.duty != Some(Post::Replica);
    if let Some(own) = own.filter(is_ours) {
        let detail = format!("{shard} on {me} is {}", own.phase_and_reason());
        let problem = Problem::new(ErrorKind::Unavailable, "not-ready", detail);
        return not_processed(problem.hint("try again in a moment"));
    }
    let Some((owner, epoch)) = owner else {
        let detail = format!("{me} does not own {shard}, and sees no node that does");
        let problem = Problem::new(ErrorKind::Unavailable, "no-owner", detail);
        return not_processed(problem.hint(crate::role::owner::new_owner(&view, shard)));
    };
    let detail = format!("{shard} is owned by {} (epoch {epoch}), not by {me}", owner.id);
    let problem = Problem::new(ErrorKind::Misdirected, "not-the-owner", detail);
    let hint = format!("ask {}/svc/{}, or any gateway", owner.http, shard.service);
    let mut response = not_processed(problem.hint(hint));
    for (name, value) in [(api::OWNER, owner.id.to_string()), (api::EPOCH, epoch.to_string())] {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_below_the_service_arrives_byte_for_byte() {
        for (uri, service, rest) in [
            ("/svc/storage/kv/a%2Fb/../x?q=%20", "storage", "/kv/a%2Fb/../x?q=%20"),
            ("/svc/storage", "storage", "/"),
            ("/svc/storage?x=1", "storage", "/?x=1"),
            ("/svc/storage//double", "storage", "//double"),
        ] {
            let (found, below) = split(&uri.parse().unwrap()).unwrap();
            assert_eq!((found.as_str(), below.to_string().as_str()), (service, rest), "{uri}");
        }
    }
}
