//! The balancer below `/svc/load_balancer` of an agent.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::Uri;
use plugin::http::{json, method_not_allowed, problem};
use types::{ErrorKind, Problem};

use crate::balancer::Balancer;
use crate::shown;

pub(crate) fn router(balancer: Arc<Balancer>) -> Router {
    let shown = get(backends).fallback(async || method_not_allowed("GET, HEAD"));
    Router::new().route("/backends", shown).fallback(no_such_path).with_state(balancer)
}

async fn backends(State(balancer): State<Arc<Balancer>>) -> Response {
    json(serde_json::to_vec(&shown::of(&balancer)).unwrap_or_default())
}

async fn no_such_path(uri: Uri) -> Response {
    let detail = format!("a load balancer has nothing at {}", uri.path());
    let hint = "`backends` shows its backends; connections go to its listeners, which `ctl members` shows";
    problem(&Problem::new(ErrorKind::NotFound, "no-such-path", detail).hint(hint))
}
