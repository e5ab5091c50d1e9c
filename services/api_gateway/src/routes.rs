//! The gateway as an HTTP service, for the agent's listener and for its own.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use tower::service_fn;

use crate::access_log::{AccessLog, Exchange};
use crate::backends;
use crate::gateway::Gateway;
use crate::listeners::Arrival;

/// The router for `/svc/{service}` on the agent's listener: the table of routes, and everything that the gateway's own
/// listener has.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let (backends_of, table) = (Arc::clone(&gateway), Arc::clone(&gateway));
    let backends = any(move |method: Method| async move { backends::answer(&backends_of, &method) });
    let routes = get(move |uri: Uri| async move { table.routes(uri.query().unwrap_or_default()) });
    Router::new()
        .route("/backends", backends)
        .route("/routes", routes)
        .fallback_service(service::<Body>(gateway))
}

/// The gateway as a service.
pub(crate) fn service<B>(
    gateway: Arc<Gateway>,
) -> impl tower::Service<
    Request<B>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    service_fn(move |request: Request<B>| {
        let gateway = Arc::clone(&gateway);
        async move { Ok(gateway.handle(request).await) }
    })
}

/// The gateway as a service on one of its own listeners: readiness checks, then the access log around everything else.
pub(crate) fn on_listener(
    gateway: Arc<Gateway>,
    arrival: Arc<Arrival>,
    log: Option<AccessLog>,
) -> impl tower::Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |mut request: Request<Body>| {
        let (gateway, arrival, log) = (Arc::clone(&gateway), Arc::clone(&arrival), log.clone());
        async move {
            if is_readiness_check(&arrival, &request) {
                return Ok(readiness(&gateway));
            }
            let exchange = log.map(|log| Exchange::begin(log, &arrival, &mut request));
            request.extensions_mut().insert(arrival);
            let Some(exchange) = exchange else { return Ok(gateway.handle(request).await) };
            let answer = gateway.handle(request.map(|body| exchange.counted(body))).await;
            Ok(exchange.answered(answer))
        }
    })
}

fn is_readiness_check<B>(arrival: &Arrival, request: &Request<B>) -> bool {
    arrival.ready.as_deref() == Some(request.uri().path())
        && matches!(*request.method(), Method::GET | Method::HEAD)
}

/// 200, and 503 once the gateway drains: a load balancer then sends its requests elsewhere.
fn readiness(gateway: &Gateway) -> Response<Body> {
    let is_draining = gateway.in_flight.is_draining();
    let mut answer = Response::new(Body::from(if is_draining { "draining\n" } else { "ready\n" }));
    if is_draining {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    gateway.closing(answer)
}
