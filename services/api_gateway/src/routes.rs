//! The gateway as an HTTP service, for the agent's listener and for its own.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use http::{Method, Request, Response};
use tower::service_fn;

use crate::backends;
use crate::gateway::Gateway;

/// The router for `/svc/api_gateway` on the agent's listener.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let of = Arc::clone(&gateway);
    let show = move |method: Method| async move { backends::answer(&of, &method) };
    Router::new().route("/backends", any(show)).fallback_service(service::<Body>(gateway))
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
