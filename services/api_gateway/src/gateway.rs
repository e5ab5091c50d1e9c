//! Forwards one request and its answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body as AnyBody;
use bytes::Bytes;
use cluster::ClusterView;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Request, Response, Uri};
use http_body::Body;
use ipnet::IpNet;
use mesh::head::{self, Added, DotSegments, REQUEST_ID, Source, asked_host, no_dot_segments, request_id};
use mesh::{Mesh, MeshBody, MeshError};
use plugin::http::Guard;
use plugin::{InFlight, Peer, TlsSession, on_end};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::debug;
use types::{ErrorKind, NodeId, Problem, ServiceName, api};

use crate::access_log::Notes;
use crate::listeners::{Arrival, is_trusted};
use crate::meters::Meters;
use crate::table::{Destination, RouteTable, Way, behind, first_segment};
use crate::ticket::Ticket;

const NODE: HeaderName = HeaderName::from_static(api::NODE);

/// The number of characters of a path that an error shows.
const SHOWN_PATH: usize = 200;

/// Forwards requests.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) table: RouteTable,
    pub(crate) mesh: Mesh,
    pub(crate) view: watch::Receiver<ClusterView>,
    /// The requests through it; once it drains, every answer closes its connection.
    pub(crate) in_flight: InFlight,
    pub(crate) meters: Arc<Meters>,
    /// Blocks requests to services from web pages of other sites.
    pub(crate) guard: Guard,
    /// The proxies whose forwarding headers are trusted on the agent's listener.
    pub(crate) trust: Vec<IpNet>,
}

impl Gateway {
    /// Answers a request with the answer of a member or an address, or with a problem.
    ///
    /// The listener has already refused heads that servers could read differently. The gateway strips the head first
    /// and adds its own fields last, so a client can neither forge nor remove them.
    pub(crate) async fn handle<B>(&self, request: Request<B>) -> Response<AnyBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let mut ticket = Ticket::new(self.in_flight.enter(), &self.meters);
        let (mut parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
        let source = self.source(&parts, peer);
        head::strip(&mut parts.headers, source);
        let id = request_id(&parts.headers);
        let mut answer = match self.pass_on(parts, body, peer, &id, &mut ticket).await {
            Ok(answer) => {
                ticket.answered(answer.status());
                let mut answer = answer.map(|body| AnyBody::new(on_end(body, move |_| drop(ticket))));
                answer.headers_mut().entry(REQUEST_ID).or_insert(id);
                return self.closing(answer);
            }
            Err(Refused::Index) => self.index(),
            Err(Refused::Problem(problem)) => plugin::http::problem(&self.signed(*problem, &id)),
        };
        ticket.answered(answer.status());
        answer.headers_mut().insert(REQUEST_ID, id);
        if let Ok(node) = HeaderValue::from_str(self.node.as_str()) {
            answer.headers_mut().insert(NODE, node);
        }
        self.closing(answer)
    }

    /// Closes the connection after this answer if the gateway is draining.
    pub(crate) fn closing(&self, mut answer: Response<AnyBody>) -> Response<AnyBody> {
        if self.in_flight.is_draining() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn pass_on<B>(
        &self,
        mut parts: Parts,
        body: B,
        peer: Option<IpAddr>,
        id: &HeaderValue,
        ticket: &mut Ticket,
    ) -> Result<Response<MeshBody>, Refused>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let host = asked_host(&parts).map(ToOwned::to_owned);
        let scheme = if parts.extensions.get::<TlsSession>().is_some() { "https" } else { "http" };
        let added = Added { peer, scheme, host: host.as_deref(), prefix: "", id };
        let path = parts.uri.path();
        let sent = match self.table.destination(path) {
            Destination::Route(way) => {
                Notes::route(&parts, way.prefix.as_str());
                let has_base_path = way.to.iter().any(|url| !url.path().is_empty());
                no_dot_segments(path, has_base_path).map_err(DotSegments::to_problem)?;
                let prefix = if way.strip_prefix { way.prefix.as_str() } else { "" };
                cut(&mut parts.uri, prefix.len());
                head::add(&mut parts.headers, &Added { prefix, ..added });
                if let Some(places) = &way.places {
                    ticket.hold(self.place(way, places).await?);
                }
                self.mesh.send_to_any(&way.to, Request::from_parts(parts, body)).await
            }
            Destination::Service(service) => {
                let service = self.view.borrow().normalized(service);
                Notes::service(&parts, service.as_str());
                if self.is_known(&service) {
                    self.guard.check(&parts)?;
                }
                let len = 1 + first_segment(path).len();
                head::strip_browser(&mut parts.headers);
                cut(&mut parts.uri, len);
                head::add(&mut parts.headers, &added);
                self.mesh.send(&service, Request::from_parts(parts, body)).await
            }
            Destination::Nowhere if path == "/" => return Err(Refused::Index),
            Destination::Nowhere => return Err(self.nowhere(path).into()),
        };
        sent.map_err(|error| {
            debug!(%error, "a request got no answer");
            let problem = error.to_problem();
            match error {
                MeshError::UnknownService { .. } => problem.hint(self.what_there_is()).into(),
                _ => problem.into(),
            }
        })
    }

    /// Whether the other end of the connection is a trusted proxy of the listener.
    fn source(&self, head: &Parts, peer: Option<IpAddr>) -> Source {
        let trust = head.extensions.get::<Arc<Arrival>>().map_or(&self.trust, |arrival| &arrival.trust);
        match peer {
            Some(peer) if is_trusted(trust, peer) => Source::Trusted,
            _ => Source::Untrusted,
        }
    }

    /// Whether a member has or can run the service, so that there may be data to protect.
    fn is_known(&self, service: &ServiceName) -> bool {
        self.mesh.may_exist(service)
            || self.view.borrow().members().any(|member| {
                service
                    .default_type()
                    .is_some_and(|service_type| member.about.runnable.contains(&service_type))
                    || member.state.as_ref().is_some_and(|state| state.role.service() == Some(service))
            })
    }

    /// Waits for a permit of a route that has a limit.
    async fn place(&self, way: &Way, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
        let wait = self.mesh.limits().wait;
        match tokio::time::timeout(wait, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => {
                let detail =
                    format!("{} had its maximum number of requests in flight for {wait:?}", way.prefix);
                Err(Problem::new(ErrorKind::Unavailable, "route-busy", detail)
                    .hint("send fewer requests at once, or raise max_in_flight of the route"))
            }
        }
    }

    fn nowhere(&self, path: &str) -> Problem {
        let shown: String = path.chars().take(SHOWN_PATH).collect();
        let detail = format!("neither a route nor a service begins `{shown}`");
        Problem::new(ErrorKind::NotFound, "no-route", detail).hint(self.what_there_is())
    }

    /// `routes: /files; services: storage, searcher`.
    fn what_there_is(&self) -> String {
        let or_none = |names: Vec<String>| match names.len() {
            0 => "none".to_owned(),
            _ => names.join(", "),
        };
        let routes = self.table.ways().iter().map(|way| way.prefix.to_string());
        let services = self.services().into_keys();
        format!("routes: {}; services: {}", or_none(routes.collect()), or_none(services.collect()))
    }

    /// The number of serving members of each service type that some member has.
    fn services(&self) -> BTreeMap<String, usize> {
        let view = self.view.borrow();
        let mut services = BTreeMap::new();
        for state in view.members().filter_map(|member| member.state.as_ref()) {
            if let Some(service) = state.role.service() {
                *services.entry(service.to_string()).or_default() += usize::from(state.phase.is_serving());
            }
        }
        services
    }

    /// `GET /`: the routes and services behind this gateway.
    fn index(&self) -> Response<AnyBody> {
        let routes: BTreeMap<_, Vec<_>> = self
            .table
            .ways()
            .iter()
            .map(|way| {
                let to = way.to.iter().map(ToString::to_string).collect();
                (way.prefix.to_string(), to)
            })
            .collect();
        let body = serde_json::json!({
            "node": self.node,
            "routes": routes,
            "services": self.services(),
        });
        let mut answer = Response::new(AnyBody::from(body.to_string()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    /// The problem, completed with the node and the request's id.
    fn signed(&self, problem: Problem, id: &HeaderValue) -> Problem {
        Problem {
            node: Some(self.node.to_string()),
            request_id: id.to_str().ok().map(ToOwned::to_owned),
            ..problem
        }
    }
}

/// Why the gateway answers a request itself.
enum Refused {
    /// It requests the list of routes and services.
    Index,
    Problem(Box<Problem>),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// Removes the first `len` bytes of the path.
fn cut(uri: &mut Uri, len: usize) {
    if len > 0
        && let Some(path) = uri.path_and_query()
    {
        *uri = Uri::from(behind(path, len));
    }
}
