//! Forwards one request and its answer: along the route that takes it, else to the service that its path names.

mod own;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as AnyBody;
use bytes::Bytes;
use cluster::ClusterView;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri};
use http_body::Body;
use ipnet::IpNet;
use mesh::head::websocket::HandshakeError;
use mesh::head::{self, Added, REQUEST_ID, Source, asked_host_field, request_id};
use mesh::{Deadline, Mesh, MeshBody, MeshError, Options};
use plugin::access_log::LoggedRequest;
use plugin::access_log::reason::of_code;
use plugin::client_addr;
use plugin::http::{Guard, ProblemCode, grpc, trace};
use plugin::proxy_protocol::is_trusted;
use plugin::tunnel::{self, Handshake};
use plugin::{ClientCertificate, CountedBody, InFlight, Peer, Tls, TlsSession};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use types::{NodeId, Problem, ServiceName, api};

use crate::checks::Checks;
use crate::host::{MAX_NAME, name_of};
use crate::listeners::{Arrival, ListenerId};
use crate::measured::Sent;
use crate::misdirected;
use crate::path::{behind, first_segment};
use crate::probes::Probes;
use crate::reason::refusal_of;
use crate::route_body::RouteBody;
use crate::rule::{Asked, Scheme};
use crate::table::{Destination, RouteTable};
use crate::ticket::Ticket;
use crate::traffic::TrafficTable;

const NODE: HeaderName = HeaderName::from_static(api::NODE);
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Forwards requests.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) table: RouteTable,
    pub(crate) mesh: Mesh,
    pub(crate) view: watch::Receiver<ClusterView>,
    /// The requests that came on no listener of its own.
    pub(crate) in_flight: InFlight,
    /// What is counted of requests.
    pub(crate) traffic: TrafficTable,
    /// Blocks requests to services from web pages of other sites.
    pub(crate) guard: Guard,
    /// The state of its routes.
    pub(crate) probes: Arc<Probes>,
    pub(crate) checks: Arc<Checks>,
    /// What requests need of their listeners.
    pub(crate) arrivals: Vec<Arc<Arrival>>,
    /// The certificates of its listeners.
    pub(crate) tls: Vec<Tls>,
    /// Ends its probes and checks.
    pub(crate) probing: CancellationToken,
}

impl Gateway {
    /// Answers a request with the answer of a member or an address, or with a problem.
    ///
    /// The listener has already refused heads that servers could read differently. The gateway strips the head first
    /// and adds its own fields last, so a client can neither forge nor remove them.
    pub(crate) async fn handle<B>(
        &self,
        request: Request<B>,
        arrival: Option<Arc<Arrival>>,
        logged: Option<Box<LoggedRequest>>,
    ) -> Response<AnyBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // Boxed: the future of each step would have room for it twice.
        let (parts, body) = request.into_parts();
        let mut parts = Box::new(parts);
        let traffic = arrival.as_ref().and_then(|arrival| self.traffic.of(&arrival.listener).cloned());
        // Soon after the begin of a drain, every answer closes its connection.
        let in_flight = arrival.as_ref().map_or(&self.in_flight, |arrival| &arrival.in_flight);
        let mut ticket = Ticket::new(in_flight.enter(), &parts.method, traffic, logged);
        let (body, bytes) = CountedBody::new(body);
        ticket.receives(bytes);
        let is_head = parts.method == Method::HEAD;
        let handshake = Handshake::of(&mut parts);
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
        let trust = trust_of(arrival.as_deref());
        let source = source(trust, peer);
        head::strip(&mut parts.headers, source);
        client_addr::settle(&mut parts.headers, peer, trust);
        let id = request_id(&parts.headers);
        let trace = trace::continue_or_begin(&mut parts.headers, rand::random);
        if let Some(logged) = &mut ticket.logged {
            logged.ids(&id, trace);
        }
        // A handshake has no calls of gRPC, whatever its client says.
        let is_grpc = matches!(handshake, Ok(None)) && grpc::is_grpc(&parts.headers);
        if is_grpc && let Some(timeout) = grpc::timeout(&parts.headers) {
            parts.extensions.insert(Deadline(Instant::now() + timeout));
        }
        // A gRPC client reads the status of a refusal in another place.
        let mut refused = None;
        let passed = match handshake {
            Ok(handshake) => {
                let answer =
                    self.pass_on(parts, body, (peer, trust, handshake.is_some()), &id, &mut ticket).await;
                answer.and_then(|answer| Ok((tunnel::established(handshake, &answer)?, answer)))
            }
            Err(error) => Err(Refused::Handshake(error)),
        };
        let mut answer = match passed {
            Ok((Some(handshake), answer)) => {
                let mut answer = ticket.tunnel(answer, handshake);
                answer.headers_mut().entry(REQUEST_ID).or_insert(id);
                return answer;
            }
            Ok((None, answer)) => {
                ticket.answered(answer.status());
                let mut answer = answer.map(|body| AnyBody::new(Sent::new(body, ticket, is_head)));
                answer.headers_mut().entry(REQUEST_ID).or_insert(id);
                return closing(answer, in_flight);
            }
            Err(Refused::Index(routes)) => self.index(&routes),
            Err(Refused::Problem(problem)) => {
                refused = http::StatusCode::from_u16(problem.status).ok();
                self.refusal(*problem, &id, is_grpc)
            }
            Err(Refused::With(problem, name, value)) => {
                refused = http::StatusCode::from_u16(problem.status).ok();
                let mut answer = self.refusal(*problem, &id, is_grpc);
                answer.headers_mut().insert(name, value);
                answer
            }
            Err(Refused::Handshake(error)) => {
                let mut answer = self.refusal(error.to_problem(), &id, false);
                answer.headers_mut().extend(error.fields());
                answer
            }
        };
        ticket.answered(refused.unwrap_or(answer.status()));
        if !is_head {
            ticket.sent(answer.size_hint().exact().unwrap_or_default());
        }
        let code = answer.extensions().get::<ProblemCode>().map(|code| code.0.as_str());
        if let (Some(arrival), Some(reason)) = (&arrival, code.and_then(refusal_of)) {
            arrival.meters.refused(reason);
        }
        ticket.ended(code.map(of_code));
        answer.headers_mut().insert(REQUEST_ID, id);
        if let Ok(node) = HeaderValue::from_str(self.node.as_str()) {
            answer.headers_mut().insert(NODE, node);
        }
        closing(answer, in_flight)
    }

    /// What requests need of a listener.
    pub(crate) fn arrival(&self, id: ListenerId) -> Option<&Arc<Arrival>> {
        self.arrivals.iter().find(|arrival| arrival.id == id)
    }

    async fn pass_on<B>(
        &self,
        mut parts: Box<Parts>,
        body: B,
        (peer, trust, websocket): (Option<IpAddr>, &[IpNet], bool),
        id: &HeaderValue,
        ticket: &mut Ticket,
    ) -> Result<Response<RouteBody>, Refused>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let host = asked_host_field(&parts);
        let host_text = host.as_ref().and_then(|host| host.to_str().ok());
        let mut buffer = [0; MAX_NAME];
        let asked = Asked {
            scheme: scheme_of(&parts.headers, parts.extensions.get::<TlsSession>().is_some()),
            host: host_text.and_then(|host| name_of(host, &mut buffer)),
            path: parts.uri.path(),
            method: &parts.method,
            headers: &parts.headers,
        };
        self.check_connection(&parts, asked.host, source(trust, peer))?;
        let client = parts.extensions.get::<TlsSession>().and_then(|session| session.client.clone());
        let call = Call {
            peer,
            trust,
            host: host_text,
            host_field: host.as_ref(),
            scheme: asked.scheme,
            id,
            client,
            websocket,
        };
        match self.table.destination(&asked) {
            Destination::Route(way, matched) => {
                ticket.route(way);
                self.along(way, matched, parts, body, &call, ticket).await
            }
            Destination::Service(service) => {
                let service = self.view.borrow().normalized(service);
                ticket.by_path();
                ticket.service(&service);
                if self.is_known(&service) {
                    self.guard.check(&parts)?;
                }
                head::no_literal_dots(parts.uri.path())?;
                let len = 1 + first_segment(parts.uri.path()).len();
                head::strip_browser(&mut parts.headers);
                cut(&mut parts.uri, len);
                head::add(&mut parts.headers, &call.added("", false));
                let trail = ticket.trail();
                let options = Options { trail: trail.as_ref(), websocket, ..Options::default() };
                ticket.websocket_idle(self.table.websocket_idle(None));
                let sent = self.mesh.send_with(&service, &options, Request::from_parts(*parts, body)).await;
                self.forwarded(sent, None)
            }
            Destination::Nowhere if parts.uri.path() == "/" => {
                Err(Refused::Index(self.routes_of(asked.host)))
            }
            Destination::Nowhere => Err(self.nowhere(parts.uri.path()).into()),
        }
    }

    /// Refuses a request for a host that has another certificate than the connection. A trusted proxy opens its connections as
    /// it likes.
    fn check_connection(&self, head: &Parts, host: Option<&str>, source: Source) -> Result<(), Refused> {
        let (Some(session), Some(host)) = (head.extensions.get::<TlsSession>(), host) else { return Ok(()) };
        let has_certificate = |host: &str| self.tls.iter().any(|tls| tls.has_certificate_for(host));
        if source == Source::Untrusted && misdirected::is_misdirected(host, session, has_certificate) {
            return Err(misdirected::problem(host, session).into());
        }
        Ok(())
    }

    /// The answer to a forwarded request, or the problem instead of it.
    pub(crate) fn forwarded(
        &self,
        sent: Result<Response<MeshBody>, MeshError>,
        deadline: Option<(Instant, Duration)>,
    ) -> Result<Response<RouteBody>, Refused> {
        match sent {
            Ok(answer) => Ok(answer.map(|body| RouteBody::forwarded(body, deadline))),
            Err(error) => {
                debug!(%error, "a request got no answer");
                Err(error.without_address().to_problem().into())
            }
        }
    }

    /// Whether a member has or can run the service, so that there may be data to protect.
    pub(crate) fn is_known(&self, service: &ServiceName) -> bool {
        self.mesh.may_exist(service)
            || self.view.borrow().members().any(|member| {
                service
                    .default_type()
                    .is_some_and(|service_type| member.about.runnable.contains(&service_type))
                    || member.state.as_ref().is_some_and(|state| state.role.service() == Some(service))
            })
    }
}

/// The trusted proxies of the listener on which a request arrived.
fn trust_of(arrival: Option<&Arrival>) -> &[IpNet] {
    arrival.map_or(&[], |arrival| &arrival.trust)
}

/// Whether the other end of the connection is a trusted proxy of the listener.
fn source(trust: &[IpNet], peer: Option<IpAddr>) -> Source {
    match peer {
        Some(peer) if is_trusted(peer, trust) => Source::Trusted,
        _ => Source::Untrusted,
    }
}

/// Closes the connection after this answer if those of its listener are to end.
pub(crate) fn closing(mut answer: Response<AnyBody>, in_flight: &InFlight) -> Response<AnyBody> {
    if in_flight.is_closing() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Why the gateway answers a request itself.
pub(crate) enum Refused {
    /// It requests the list of services and of these routes.
    Index(Vec<serde_json::Value>),
    Problem(Box<Problem>),
    /// A problem with a field in the head of the answer.
    With(Box<Problem>, HeaderName, HeaderValue),
    /// It is a malformed WebSocket handshake.
    Handshake(HandshakeError),
}

/// What the gateway knows about a request besides its head.
pub(crate) struct Call<'a> {
    /// The other end of the connection.
    pub(crate) peer: Option<IpAddr>,
    /// The trusted proxies of the listener on which it arrived.
    pub(crate) trust: &'a [IpNet],
    /// The host and port that the client asked for.
    pub(crate) host: Option<&'a str>,
    /// The same as the value of a field.
    host_field: Option<&'a HeaderValue>,
    pub(crate) scheme: Scheme,
    id: &'a HeaderValue,
    /// The certificate with which the client has identified itself.
    client: Option<Arc<ClientCertificate>>,
    /// Whether it is a WebSocket handshake.
    pub(crate) websocket: bool,
}

impl<'a> Call<'a> {
    /// The fields that are added last; `forwarded` says whether the route wants `Forwarded` too.
    pub(crate) fn added(&'a self, prefix: &'a str, forwarded: bool) -> Added<'a> {
        Added {
            peer: self.peer,
            scheme: self.scheme.as_str(),
            host: self.host_field,
            prefix,
            id: self.id,
            client_certificate: self.client.as_ref().map(|client| client.header()),
            forwarded,
        }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// Removes the first `len` bytes of the path.
pub(crate) fn cut(uri: &mut Uri, len: usize) {
    if len > 0
        && let Some(path) = uri.path_and_query()
    {
        *uri = Uri::from(behind(path, len));
    }
}

/// The scheme that the client uses: what a trusted proxy says, else that of the connection.
pub(crate) fn scheme_of(headers: &HeaderMap, is_tls: bool) -> Scheme {
    let is_https = match headers.get(&X_FORWARDED_PROTO) {
        Some(scheme) => scheme.as_bytes().trim_ascii().eq_ignore_ascii_case(b"https"),
        None => is_tls,
    };
    if is_https { Scheme::Https } else { Scheme::Http }
}
