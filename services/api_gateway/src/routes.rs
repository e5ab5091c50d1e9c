//! The gateway as an HTTP service on its own listeners, and what the agent's listener shows of it.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use http::{Method, Request, Response, StatusCode, Uri};
use plugin::access_log::{AccessLog, LoggedRequest};
use plugin::client_addr::client_addr;
use plugin::http::problem;
use plugin::{InFlight, OnRefused, Peer};
use tower::service_fn;
use types::{ErrorKind, Problem};

use crate::backends;
use crate::gateway::{Gateway, closing};
use crate::listeners::Arrival;
use crate::live::Live;

/// The router for `/svc/{service}` on the agent's listener: what the gateway shows of itself. It forwards nothing there.
pub(crate) fn router(live: &Live) -> Router {
    let (backends_of, table) = (live.clone(), live.clone());
    let backends = any(move |method: Method| async move { backends::answer(&backends_of.now(), &method) });
    let routes = get(move |uri: Uri| async move { table.now().routes(uri.query().unwrap_or_default()) });
    Router::new().route("/backends", backends).route("/routes", routes).fallback(no_such_path)
}

async fn no_such_path(uri: Uri) -> Response<Body> {
    let detail = format!("a gateway has nothing at `{}` on an agent's listener", uri.path());
    let hint = "`routes` and `backends` show where it sends requests; it takes requests on its own listeners, whose \
                addresses `ctl members` shows";
    problem(&Problem::new(ErrorKind::NotFound, "no-such-path", detail).hint(hint))
}

/// Counts and logs the requests that a listener refuses for their heads alone. `last` is for a listener that was removed.
pub(crate) fn on_refused(live: &Live, last: &Arc<ArcSwap<Arrival>>, log: &AccessLog) -> OnRefused {
    let (live, last, log) = (live.clone(), Arc::clone(last), log.clone());
    OnRefused::new(move |refused| {
        let gateway = live.now();
        let arrival = arrival(&gateway, &last);
        if let Some(traffic) = gateway.traffic.of(&arrival.listener) {
            let method = refused.asked.method.as_deref();
            let method = method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
            traffic.refused(method.as_ref(), refused.problem.status);
        }
        LoggedRequest::refused(&log, &arrival.listener, &arrival.trust, refused);
    })
}

/// What requests need of their listener. One that was removed finishes with what it had last.
fn arrival(gateway: &Gateway, last: &ArcSwap<Arrival>) -> Arc<Arrival> {
    let last = last.load();
    Arc::clone(gateway.arrival(last.id).unwrap_or(&last))
}

/// The gateway as a service on one of its own listeners: readiness checks, then the access log around everything else.
pub(crate) fn on_listener(
    live: Live,
    last: Arc<ArcSwap<Arrival>>,
    log: AccessLog,
) -> impl tower::Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request: Request<Body>| {
        let (live, last, log) = (live.clone(), Arc::clone(&last), log.clone());
        // Boxed here: the layers around it would each move all of it. Built in its place: `Box::pin` would copy all of its room,
        // most of which is empty.
        let place = Box::new_uninit();
        Box::into_pin(Box::write(place, async move {
            let gateway = live.now();
            let arrival = arrival(&gateway, &last);
            if is_readiness_check(&arrival, &request) {
                return Ok(readiness(&arrival.in_flight));
            }
            let logged = logged(&log, &arrival, &request);
            Ok(gateway.handle(request, Some(arrival), logged).await)
        }))
    })
}

/// The request as the log shows it, if lines are wanted.
fn logged<B>(log: &AccessLog, arrival: &Arrival, request: &Request<B>) -> Option<Box<LoggedRequest>> {
    if !log.is_on() {
        return None;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let client = client_addr(peer, request.headers(), &arrival.trust);
    LoggedRequest::begin(log, &arrival.listener, request, client)
}

fn is_readiness_check<B>(arrival: &Arrival, request: &Request<B>) -> bool {
    arrival.ready.as_deref() == Some(request.uri().path())
        && matches!(*request.method(), Method::GET | Method::HEAD)
}

/// 200, and 503 once the listener drains: a load balancer then sends its requests elsewhere.
fn readiness(in_flight: &InFlight) -> Response<Body> {
    let is_draining = in_flight.is_draining();
    let mut answer = Response::new(Body::from(if is_draining { "draining\n" } else { "ready\n" }));
    if is_draining {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    closing(answer, in_flight)
}
