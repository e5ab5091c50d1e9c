//! The layers around every request: ids, names, limits, and the writing of problems.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use http::{HeaderName, HeaderValue, Response};
use types::limits::CONTROL_REQUEST;
use types::{ErrorKind, Problem, api};

use super::App;
use super::error::ApiError;

/// The longest request id that is accepted from a caller, in bytes.
const ID_LIMIT: usize = 128;

/// Gives every answer the request's id and the node's name, and writes problems.
pub(crate) async fn dress(State(app): State<App>, mut request: Request, next: Next) -> Response<Body> {
    let id = request
        .headers()
        .get(api::REQUEST_ID)
        .filter(|id| id.len() <= ID_LIMIT && id.to_str().is_ok())
        .cloned()
        .unwrap_or_else(new_id);
    request.headers_mut().insert(HeaderName::from_static(api::REQUEST_ID), id.clone());
    let mut response = next.run(request).await;
    if let Some(ApiError(mut problem)) = response.extensions_mut().remove::<ApiError>() {
        problem.node = Some(app.facts.node.to_string());
        problem.request_id = id.to_str().ok().map(str::to_owned);
        let mut written = plugin::http::problem(&problem);
        written.headers_mut().extend(std::mem::take(response.headers_mut()));
        written
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
        written.headers_mut().remove(http::header::CONTENT_LENGTH);
        response = written;
    }
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(api::REQUEST_ID), id);
    if !headers.contains_key(api::NODE)
        && let Ok(name) = HeaderValue::from_str(app.facts.node.as_str())
    {
        headers.insert(HeaderName::from_static(api::NODE), name);
    }
    response
}

fn new_id() -> HeaderValue {
    let id = uuid::Uuid::now_v7().to_string();
    HeaderValue::from_str(&id).expect("a UUID is plain ASCII")
}

/// Ends control requests that take too long. The work that they began continues.
pub(crate) async fn limit_time(request: Request, next: Next) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    tokio::time::timeout(CONTROL_REQUEST, next.run(request)).await.map_err(|_| {
        let detail = format!("{path} took longer than {CONTROL_REQUEST:?}");
        ApiError(
            Problem::new(ErrorKind::Timeout, "too-slow", detail)
                .hint("the work that it began continues; look again later"),
        )
    })
}
