//! A listener of its own for Elasticsearch's API, for clients that take only a host and a port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONNECTION;
use plugin::http::{Guard, Hosts};
use plugin::{Context, DrainingListener, InFlight, ServeLimits, ServiceError, on_end};
use tokio::net::TcpListener;
use tower::service_fn;

use crate::service::SearcherService;

/// How long answers may still be written after the stop; the drain before it waits for requests to end.
const GRACE: Duration = Duration::from_secs(1);
/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `es_hosts` in the settings of the searcher";
/// The name under which its URL is published.
pub(crate) const NAME: &str = "elasticsearch";

/// An open socket, on which nothing is served yet.
pub(crate) async fn open(cx: &Context, address: SocketAddr) -> Result<TcpListener, ServiceError> {
    cx.listen(NAME, "http", address).await
}

/// Serves the API at the root of a listener.
pub(crate) fn serve(service: &Arc<SearcherService>, listener: TcpListener, hosts: Hosts) -> DrainingListener {
    let cx = &service.cx;
    let in_flight = InFlight::default();
    let limits =
        ServeLimits { grace: GRACE, node: Some(cx.node.clone()), ..ServeLimits::of_service_listener() };
    let guard = Arc::new(Guard::new(hosts, HOSTS));
    let (counted, weak) = (in_flight.clone(), Arc::downgrade(service));
    let answering = service_fn(move |request: Request| {
        let (entered, in_flight) = (counted.enter(), counted.clone());
        let (guard, service) = (Arc::clone(&guard), weak.upgrade());
        async move {
            let (head, body) = request.into_parts();
            let answer: Response = match (guard.check(&head), service) {
                (Err(problem), _) => plugin::http::problem(&problem),
                (Ok(()), Some(service)) => {
                    let path = head.uri.path().to_owned();
                    super::answer(&service, &path, &head, body).await
                }
                (Ok(()), None) => {
                    let mut answer = Response::new(Body::empty());
                    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                    answer
                }
            };
            let mut answer = answer.map(|body| Body::new(on_end(body, move |_| drop(entered))));
            if in_flight.is_closing() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    DrainingListener::http(cx, NAME, listener, in_flight, limits, answering)
}
