//! `/svc/{service_type}/…`: what the mounted service answers.

use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Response, Uri};
use tower::ServiceExt;
use types::{ErrorKind, Problem};

use super::App;
use super::error::ApiError;
use crate::gate::hold;

/// What the service on this node answers; any method, any path below. The raw path arrives as it came. A node that does
/// not run the service, or is ending it, refuses with `Coterie-Not-Processed`.
#[utoipa::path(get, path = "/svc/{service}/", params(("service" = String, Path, description = "service type")),
    responses((status = 200, description = "what the service answers"), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn call(State(app): State<App>, mut request: Request) -> Response<Body> {
    let Some((wanted, rest)) = split(request.uri()) else {
        return ApiError::invalid("bad-path", "the path names no service").into_response();
    };
    // Kebab case is accepted, as everywhere.
    let wanted = wanted.replace('-', "_");
    let mounted = app.mount.load().filter(|mounted| mounted.service.as_str() == wanted);
    let Some(mounted) = mounted else {
        return refuse(&app, &wanted, "does not run it");
    };
    let Some(pass) = mounted.gate.enter() else {
        return refuse(&app, &wanted, &format!("is ending its role {}", mounted.role));
    };
    *request.uri_mut() = rest;
    // What the agent's own router noted about the path would mix with what the service's router finds in it.
    let peer = request.extensions_mut().remove::<plugin::Peer>();
    request.extensions_mut().clear();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    let answer = AssertUnwindSafe(mounted.router.clone().oneshot(request)).catch_unwind();
    let answer = tokio::select! {
        biased;
        answer = answer => answer,
        () = mounted.gate.is_cut() => {
            let detail = format!("{wanted} was stopped before it had answered");
            return ApiError(Problem::new(ErrorKind::Unavailable, "cut-short", detail)).into_response();
        }
    };
    match answer {
        Ok(Ok(response)) => hold(response, pass),
        Err(_panic) => {
            let detail = format!("a handler of {wanted} panicked");
            let problem = Problem::new(ErrorKind::Internal, "handler-panicked", detail);
            ApiError(problem.hint("this is a bug; the agent's log says where")).into_response()
        }
    }
}

/// The service type in a path, and the URI below it.
fn split(uri: &Uri) -> Option<(String, Uri)> {
    let below = uri.path_and_query()?.as_str().strip_prefix("/svc/")?;
    let end = below.find(['/', '?']).unwrap_or(below.len());
    let (service, rest) = below.split_at(end);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let rest = PathAndQuery::try_from(rest).ok()?;
    Some((service.to_owned(), Uri::from(rest)))
}

fn refuse(app: &App, wanted: &str, why: &str) -> Response<Body> {
    let members: Vec<_> = app
        .cluster
        .view()
        .members()
        .filter(|member| {
            member.state.as_ref().is_some_and(|state| {
                state.phase.is_serving() && state.role.service_name() == wanted && member.id != app.facts.node
            })
        })
        .map(|member| member.id.to_string())
        .collect();
    let is_known = app
        .cluster
        .view()
        .members()
        .any(|member| member.about.runnable.iter().any(|known| known.as_str() == wanted));
    if !is_known {
        let detail = format!("no node of this cluster has or can run the service type `{wanted}`");
        let problem = Problem::new(ErrorKind::NotFound, "unknown-service", detail);
        return ApiError(problem.hint("GET /v1/services lists what there is")).into_response();
    }
    let problem =
        Problem::new(ErrorKind::Unavailable, "not-here", format!("{} {why}: {wanted}", app.facts.node));
    let problem = if members.is_empty() {
        problem.hint("no other member serves it now; GET /v1/services lists who does what")
    } else {
        problem.hint(format!("{} can answer", members.join(", ")))
    };
    let mut response = ApiError(problem).into_response();
    let header = HeaderName::from_static(types::api::NOT_PROCESSED);
    response.headers_mut().insert(header, HeaderValue::from_static("1"));
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
