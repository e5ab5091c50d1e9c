//! HTTP mode: each request gets a backend of its own, and is sent again if that fails before it answers.
//!
//! The mesh chooses, waits and retries; this is the way of a request before and after. The head is stripped first and the
//! balancer's own fields are added last, as a gateway does, so a client can neither forge nor remove them.

mod exchange;
pub(crate) mod front;
pub(crate) mod urls;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Body as _;
use mesh::head::websocket::HandshakeError;
use mesh::head::{self, Added, REQUEST_ID, Source, asked_host_field, request_id};
use mesh::{AffinityKey, Deadline, MeshBody, MeshError, Options, Repeated};
use plugin::access_log::LoggedRequest;
use plugin::access_log::reason::{Reason, of_code};
use plugin::client_addr::{self, client_addr};
use plugin::http::{grpc, trace};
use plugin::proxy_protocol::is_trusted;
use plugin::tunnel::{self, Handshake};
use plugin::{
    AcceptLimits, ClientKey, Context, CoreListener, CountedBody, DrainingListener, OnRefused, Peer,
    Protocols, RefusalReason, ServeLimits, TlsSession,
};
use tokio::time::{Instant, timeout_at};
use tower::service_fn;
use tracing::debug;
use types::{ErrorKind, Problem, api};

use self::exchange::Exchange;
use self::front::Front;
use crate::listener::{Lasting, Listener, Live};
use crate::refusal::Refusal;
use crate::settings::Balance;

const NODE: HeaderName = HeaderName::from_static(api::NODE);

/// Why the balancer answers a request itself.
enum Refused {
    /// By its own limits, or for lack of a backend.
    Own(Refusal),
    Problem(Box<Problem>),
    /// It is a malformed WebSocket handshake.
    Handshake(HandshakeError),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Own(refusal)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// Serves a listener that speaks HTTP/1.1, and HTTP/2, as `spoken` says.
pub(crate) fn serve(
    cx: &Context,
    live: &Live,
    socket: CoreListener,
    accepting: AcceptLimits,
    spoken: (bool, bool),
) -> DrainingListener {
    let now = live.load();
    let (limits, protocols) = served_with(cx, live, accepting, spoken);
    let in_flight = now.lasting.in_flight.clone();
    DrainingListener::named(cx, &now.name, socket, in_flight, limits, protocols, service(Arc::clone(live)))
}

/// The limits and protocols of new connections, as the present settings say.
pub(crate) fn served_with(
    cx: &Context,
    live: &Live,
    accepting: AcceptLimits,
    (http1, http2): (bool, bool),
) -> (ServeLimits, Protocols) {
    let AcceptLimits { connections, grace, setting: connections_setting } = accepting;
    let node = Some(cx.node.clone());
    let now = live.load();
    let usual = ServeLimits::of_service_listener();
    let usual = match &now.front {
        Some(Front { keep_alive, send_timeout, .. }) => {
            ServeLimits { keep_alive: *keep_alive, send_timeout: *send_timeout, ..usual }
        }
        None => usual,
    };
    let limits = ServeLimits { connections, connections_setting, grace, node, ..usual };
    let Lasting { meters, tls, .. } = now.lasting.clone();
    let (meters, proxies) = (meters.accepting.clone(), now.trust.clone());
    let on_refused = on_refused(Arc::clone(live));
    let name = now.name.as_str().into();
    (limits, Protocols { name, http1, http2, tls, proxies, meters, on_refused })
}

/// Counts and logs the requests that a listener refuses for their heads alone.
fn on_refused(live: Live) -> OnRefused {
    OnRefused::new(move |refused| {
        let listener = live.load();
        listener.lasting.meters.answered(StatusCode::from_u16(refused.problem.status).ok());
        let trust = listener.front.as_ref().map_or(&[][..], |front| front.trust.as_slice());
        LoggedRequest::refused(&listener.lasting.log, &listener.name, trust, refused);
    })
}

/// A listener as a service.
fn service(
    live: Live,
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
        let listener = live.load_full();
        async move {
            let front = listener.front.as_ref().expect("the mode of an open listener never changes");
            Ok(answer(&listener, front, request).await)
        }
    })
}

/// Answers a request with the answer of a backend, or with a problem.
async fn answer(listener: &Arc<Listener>, front: &Front, request: Request<Body>) -> Response<Body> {
    let in_flight = listener.lasting.in_flight.enter();
    let (mut parts, body) = request.into_parts();
    let handshake = Handshake::of(&mut parts);
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let source = match peer {
        Some(peer) if is_trusted(peer, &front.trust) => Source::Trusted,
        _ => Source::Untrusted,
    };
    head::strip(&mut parts.headers, source);
    client_addr::settle(&mut parts.headers, peer, &front.trust);
    let id = request_id(&parts.headers);
    let client = client_addr(peer, &parts.headers, &front.trust);
    let mut exchange = Exchange::begin(listener, in_flight, &parts, client);
    let trace = trace::continue_or_begin(&mut parts.headers, rand::random);
    exchange.ids(&id, trace);
    // A handshake has no calls of gRPC, whatever its client says.
    let is_grpc = matches!(handshake, Ok(None)) && grpc::is_grpc(&parts.headers);
    if let Some(timeout) = grpc::timeout(&parts.headers).filter(|_| is_grpc) {
        parts.extensions.insert(Deadline(Instant::now() + timeout));
    }
    let body = exchange.counted(body);
    let passed = match handshake {
        Ok(handshake) => {
            exchange.is_handshake = handshake.is_some();
            let sent = pass_on(listener, front, parts, body, (peer, client), &id, &mut exchange).await;
            sent.and_then(|answer| Ok((tunnel::established(handshake, &answer)?, answer)))
        }
        Err(error) => Err(Refused::Handshake(error)),
    };
    let mut answer = match passed {
        Ok((Some(handshake), mut answer)) => {
            answer.headers_mut().entry(REQUEST_ID).or_insert(id);
            return exchange.tunnel(answer, handshake);
        }
        Ok((None, answer)) => {
            let status = answer.status();
            let mut answer = answer.map(|body| Body::new(exchange.forwarded(status, body)));
            answer.headers_mut().entry(REQUEST_ID).or_insert(id);
            answer
        }
        Err(refused) => {
            let fields = match &refused {
                Refused::Handshake(error) => error.fields(),
                Refused::Own(_) | Refused::Problem(_) => Vec::new(),
            };
            let (mut answer, status, reason) = refusal(refused, listener, front, &id, is_grpc);
            exchange.refused(status, reason, answer.size_hint().exact().unwrap_or_default());
            answer.headers_mut().insert(REQUEST_ID, id);
            answer.headers_mut().extend(fields);
            if let Ok(node) = HeaderValue::from_str(front.node.as_str()) {
                answer.headers_mut().insert(NODE, node);
            }
            answer
        }
    };
    if listener.lasting.in_flight.is_closing() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// The answer to a request that is refused, in the form that its client reads; the status of the problem; and why, in a word
/// of the log.
fn refusal(
    refused: Refused,
    listener: &Listener,
    front: &Front,
    id: &HeaderValue,
    is_grpc: bool,
) -> (Response<Body>, StatusCode, Reason) {
    let meters = &listener.lasting.meters;
    let problem = match refused {
        Refused::Problem(problem) => {
            if let Some(reason) = refusal_of(problem.code()) {
                meters.accepting.refused(reason);
            }
            *problem
        }
        Refused::Handshake(error) => {
            meters.accepting.refused(RefusalReason::Malformed);
            error.to_problem()
        }
        Refused::Own(refusal) => {
            meters.refused(refusal);
            problem(refusal, listener)
        }
    };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = of_code(problem.code());
    let problem = front.signed(problem, id);
    let answer = if is_grpc { grpc::refusal(&problem) } else { plugin::http::problem(&problem) };
    (answer, status, reason)
}

/// Whether a problem with this code is a refusal that is counted as such, besides those by the listener's limits.
fn refusal_of(code: &str) -> Option<RefusalReason> {
    Some(match code {
        "bad-path" | "bad-target" | "target-too-long" => RefusalReason::Path,
        "foreign-host" | "foreign-page" => RefusalReason::Host,
        "too-slow" | "body-stalled" | "slow-body" => RefusalReason::Timeout,
        _ => return None,
    })
}

/// Sends a request to the target, within the limits of the listener.
async fn pass_on(
    listener: &Listener,
    front: &Front,
    mut parts: Parts,
    body: CountedBody<Body>,
    (peer, client): (Option<IpAddr>, Option<IpAddr>),
    id: &HeaderValue,
    exchange: &mut Exchange,
) -> Result<Response<MeshBody>, Refused> {
    let host = asked_host_field(&parts);
    if let Some((_, guard)) = &front.service {
        guard.check(&parts)?;
        head::no_literal_dots(parts.uri.path())?;
        head::strip_browser(&mut parts.headers);
    }
    let key = client.map(ClientKey::from);
    if let Some(key) = key {
        exchange.client = listener.lasting.admission.client(key)?;
    }
    let mut wait = listener.lasting.admission.wait();
    let found = async {
        let permit = listener.lasting.admission.permit(&mut wait).await?;
        let Some(pool) = listener.pools.first() else { return Ok((permit, None)) };
        let known = match pool.urls.now() {
            Some(known) => known,
            None => wait.during(pool.urls.some()).await?,
        };
        Ok((permit, Some(known.ok_or(Refusal::NoBackend)?)))
    };
    let deadline = parts.extensions.get::<Deadline>().copied();
    let found: Option<Result<_, Refusal>> = match deadline {
        Some(Deadline(at)) => timeout_at(at, found).await.ok(),
        None => Some(found.await),
    };
    listener.lasting.meters.waited(wait.began());
    exchange.waited(wait.began());
    let found = found.ok_or_else(|| MeshError::DeadlinePassed { address: None }.to_problem())?;
    let (permit, addresses) = found?;
    wait.end();
    exchange.permit = Some((permit, listener.lasting.meters.forwarded()));

    let session = parts.extensions.get::<TlsSession>();
    let scheme = if session.is_some() { "https" } else { "http" };
    let client = session.and_then(|session| session.client.as_ref());
    let client_certificate = client.map(|client| client.header());
    let added =
        Added { peer, scheme, host: host.as_ref(), prefix: "", id, client_certificate, forwarded: false };
    head::add(&mut parts.headers, &added);
    let trail = exchange.trail();
    let mut options = Options {
        balance: balance(listener.forward.balance, front, key),
        trail: trail.as_ref(),
        repeated: Repeated {
            connect: front.retries.connect,
            reset: front.retries.reset,
            codes: &front.retries.codes,
        },
        websocket: exchange.is_handshake,
        ..Options::default()
    };
    let sent = match (&front.service, addresses) {
        (None, Some(addresses)) => {
            // The backend sees the host that the client asked for.
            options.host = host.as_ref();
            options.weights = &addresses.weights;
            options.pool = addresses.pool.as_ref();
            let request = Request::from_parts(parts, body);
            front.mesh.send_to_any_with(&addresses.urls, &options, request).await
        }
        (Some((service, _)), _) => {
            let service = front.view.borrow().normalized(service.clone());
            exchange.service(&service);
            front.mesh.send_with(&service, &options, Request::from_parts(parts, body)).await
        }
        (None, None) => return Err(Refusal::NoBackend.into()),
    };
    sent.map_err(|error| {
        debug!(listener = listener.name, %error, "a request got no answer");
        error.without_address().to_problem().into()
    })
}

/// How the mesh chooses.
fn balance(balance: Balance, front: &Front, client: Option<ClientKey>) -> mesh::Balance<'_> {
    match (balance, client) {
        (Balance::RoundRobin, _) => mesh::Balance::RoundRobin(&front.turns),
        (Balance::LeastConnections, _) => mesh::Balance::LeastConnections,
        (Balance::Source, Some(client)) => mesh::Balance::Affinity(AffinityKey::of(client.as_bytes())),
        (Balance::TwoChoices, _) | (Balance::Source, None) => mesh::Balance::TwoChoices,
    }
}

/// The answer to a request that the balancer refuses.
fn problem(refusal: Refusal, listener: &Listener) -> Problem {
    let name = &listener.name;
    match refusal {
        Refusal::PerClient => {
            let detail = format!("the client has as many requests in flight as the listener `{name}` allows");
            Problem::new(ErrorKind::TooManyRequests, "client-limit", detail)
                .hint("send fewer at once; `limits.per_client` is the limit")
        }
        Refusal::QueueFull => {
            let detail =
                format!("the listener `{name}` has its maximum number of requests, and its queue is full");
            Problem::new(ErrorKind::Unavailable, "queue-full", detail)
                .hint("send the request again later; `limits.queue` is the limit")
        }
        Refusal::QueueTimeout => {
            let detail = format!("the request was queued longer than the listener `{name}` allows");
            Problem::new(ErrorKind::Unavailable, "queue-timeout", detail)
                .hint("send the request again later; `limits.wait` is the limit")
        }
        Refusal::NoBackend
        | Refusal::ConnectFailed
        | Refusal::ProxyProtocol
        | Refusal::Hello
        | Refusal::UnknownName
        | Refusal::ClientGone
        | Refusal::Stopped => {
            let why = listener.pools.first().and_then(|pool| pool.trouble());
            debug!(listener = name, why, "a request got no backend");
            // Not why: that names addresses, which clients need not know.
            let detail = format!("the listener `{name}` has no backend for the request");
            Problem::new(ErrorKind::Unavailable, "no-backend", detail)
                .hint("`ctl backends` shows the state of each one")
        }
    }
}
