//! Serves HTTP on a listener until it is stopped, then lets running requests finish: HTTP/1.1 unless its [`Protocols`]
//! say more.
//!
//! Every listener refuses requests whose head two servers could interpret differently, and protocols that it does not
//! offer. Both get problem details.

mod accept;
mod answer;
mod body;
mod drain_order;
mod draining;
mod first_bytes;
mod hangup;
mod http2;
mod in_flight;
mod link;
mod malformed;
mod meters;
mod progress;
mod refusal;
mod refused;
mod slots;
mod standstill;
mod switch;
mod waiting;

use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, HttpBody};
use futures_util::TryFutureExt;
use futures_util::future::Either;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use mesh::head::{HeadError, is_about_all, refuse, websocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::debug;
use types::NodeId;

use accept::{Acceptor, accept_on};
use answer::raw_problem;
use first_bytes::{Begins, Rewound};
use hangup::Hangup;
use link::{Link, Tcp};
use meters::Spoken;
use progress::{Phase, Progress};
use slots::{Activity, Order, Slot};
use waiting::Waiting;

use crate::tls::HandshakeFailure;
use crate::{Tls, TlsSession, proxy_protocol};

pub use accept::{AcceptLimits, Stop, accept};
pub use draining::DrainingListener;
pub use in_flight::{InFlight, InFlightGuard};
pub use meters::ListenerMeters;
pub use refusal::{OnRefused, RefusalReason, RefusedHead};

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// How long a client may take to send a request's head: the first one from the begin of its connection, others from their
    /// first byte.
    pub head_timeout: Duration,
    /// How long a connection with HTTP/1.1 may be idle between requests.
    pub keep_alive: Duration,
    /// How long a client may read nothing of an answer that is ready for it. Then its connection is closed and its memory
    /// is freed.
    pub send_timeout: Duration,
    /// How many connections are open at most. For one more, the connection that has been idle longest is closed; if none is
    /// idle, it waits.
    pub connections: usize,
    /// How long running requests may continue after the stop.
    pub grace: Duration,
    /// How many header fields a request may have.
    pub fields: usize,
    /// How many bytes a request's head may have, including its target.
    pub head_size: usize,
    /// The node that refusals name.
    pub node: Option<NodeId>,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(20),
            send_timeout: Duration::from_secs(60),
            connections: 10_000,
            grace: Duration::from_secs(10),
            fields: DEFAULT_FIELDS,
            head_size: 32 * 1024,
            node: None,
        }
    }
}

impl ServeLimits {
    /// Those of a listener that clients from everywhere use: less time for a head, more between requests.
    pub fn of_service_listener() -> Self {
        Self { head_timeout: Duration::from_secs(10), keep_alive: Duration::from_secs(60), ..Self::default() }
    }
}

/// The protocols that a listener offers, and its counts. By default HTTP/1.1 in plain text.
#[derive(Debug, Clone)]
pub struct Protocols {
    /// HTTP/1.1.
    pub http1: bool,
    /// HTTP/2: with TLS by ALPN, without by prior knowledge.
    pub http2: bool,
    /// TLS; without it, everything is in plain text.
    pub tls: Option<Tls>,
    /// The proxies that may connect, if each connection must begin with a header of the PROXY protocol. The client that it
    /// names is the [`Peer`] of the requests.
    pub proxies: Option<Vec<IpNet>>,
    /// What is counted.
    pub meters: ListenerMeters,
    /// What is done about requests that are refused for their heads alone.
    pub on_refused: OnRefused,
}

impl Default for Protocols {
    fn default() -> Self {
        Self {
            http1: true,
            http2: false,
            tls: None,
            proxies: None,
            meters: ListenerMeters::default(),
            on_refused: OnRefused::default(),
        }
    }
}

/// What connections of a listener share that were opened with the same settings.
#[derive(Debug)]
struct Shared {
    limits: ServeLimits,
    protocols: Protocols,
}

/// What the next connections of a listener share. Cheap to clone; clones are the same.
#[derive(Debug, Clone)]
struct Next(Arc<ArcSwap<Shared>>);

/// The other end of a connection.
#[derive(Debug, Clone)]
struct Client {
    peer: SocketAddr,
    /// Shared, because the parts of a connection each have it.
    session: Option<Arc<TlsSession>>,
}

impl Client {
    /// Counts and reports a request that is refused for its head alone.
    fn refused(&self, refused: RefusedHead<'_>, shared: &Shared) {
        shared.protocols.meters.refused(refused.reason);
        shared.protocols.on_refused.call(&RefusedHead { session: self.session.as_deref(), ..refused });
    }

    /// Notes in the head of a request where it comes from.
    fn sign(&self, head: &mut http::request::Parts) {
        head.extensions.insert(Peer(self.peer));
        if let Some(session) = &self.session {
            head.extensions.insert(TlsSession::clone(session));
        }
    }
}

/// The address that sent a request. Every request that [`serve`] receives has it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How many unsent bytes of an answer the system may buffer. The rest stays in our memory, where it is counted.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

/// How many header fields hyper parses by default. It takes longer if it is told a number, even this one.
const DEFAULT_FIELDS: usize = 100;

/// How long a client may take to receive the last refusal of its connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves HTTP/1.1 until it is stopped; returns once every connection has ended or `limits.grace` has passed.
pub async fn serve<S>(listener: TcpListener, service: S, stop: Stop, limits: ServeLimits)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    serve_with(listener, service, stop, limits, Protocols::default()).await;
}

/// The same with other protocols.
async fn serve_with<S>(
    listener: TcpListener,
    service: S,
    stop: Stop,
    limits: ServeLimits,
    protocols: Protocols,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let next = Next::new(limits, protocols);
    let acceptor = next.acceptor(1);
    serve_on(0, listener, service, stop, acceptor, next).await;
}

/// The same on one core of a listener.
async fn serve_on<S>(
    core: usize,
    listener: TcpListener,
    service: S,
    stop: Stop,
    acceptor: Acceptor,
    next: Next,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    accept_on(core, listener, stop, acceptor, move |stream, peer, stopping, slot| {
        connection(stream, peer, service.clone(), next.shared(), stopping, slot)
    })
    .await;
}

impl Shared {
    fn new(limits: ServeLimits, protocols: Protocols) -> Arc<Self> {
        Arc::new(Self { limits, protocols })
    }
}

impl Next {
    fn new(limits: ServeLimits, protocols: Protocols) -> Self {
        Self(Arc::new(ArcSwap::new(Shared::new(limits, protocols))))
    }

    fn shared(&self) -> Arc<Shared> {
        self.0.load_full()
    }

    /// Connections that are open keep what they have.
    fn replace(&self, limits: ServeLimits, protocols: Protocols) {
        self.0.store(Shared::new(limits, protocols));
    }

    /// What accepts connections on this number of cores.
    fn acceptor(&self, cores: usize) -> Acceptor {
        let shared = self.shared();
        let Shared { limits, protocols } = &*shared;
        let accepting = AcceptLimits { connections: limits.connections, grace: limits.grace };
        Acceptor::new(accepting, cores, protocols.meters.clone())
    }
}

/// Serves one connection until it ends, or until its client goes away before it has its answer.
async fn connection<S>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    shared: Arc<Shared>,
    stopping: CancellationToken,
    slot: Slot,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let activity = slot.activity();
    let due = Instant::now() + shared.limits.head_timeout;
    let (mut stream, mut peer) = (stream, peer);
    if let Some(proxies) = &shared.protocols.proxies {
        let receiving = Box::pin(proxy_protocol::receive(&mut stream, peer, proxies));
        match stopping.run_until_cancelled(receiving).await {
            None => return,
            Some(Ok(proxied)) => peer = proxied.map_or(peer, |proxied| proxied.source),
            Some(Err(error)) => {
                shared.protocols.meters.refused(RefusalReason::ProxyProtocol);
                debug!(%peer, %error, "a connection was refused");
                return;
            }
        }
    }
    // A small answer must not wait for the acknowledgement of the previous one. If this fails, it only costs time.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let stream = Arc::new(stream);
    if shared.protocols.tls.is_some() {
        // Boxed, as its alternatives below: each connection then has room only for what it is.
        Box::pin(encrypted(stream, peer, due, service, shared, stopping, activity)).await;
        return;
    }
    let client = Client { peer, session: None };
    if !shared.protocols.http2 {
        let tcp = Tcp(Arc::clone(&stream));
        Box::pin(http1(tcp, Some(stream), due, client, service, shared, activity)).await;
        return;
    }
    let mut tcp = Tcp(Arc::clone(&stream));
    let beginning = Box::pin(timeout_at(due, first_bytes::read(&mut tcp)));
    let begun = stopping.run_until_cancelled(beginning).await;
    let Some(Ok(Ok((begins, bytes)))) = begun else { return };
    let transport = Rewound::new(bytes, tcp);
    match begins {
        Begins::Http2 => Box::pin(http2::serve(transport, due, client, service, shared, activity)).await,
        Begins::Other if !shared.protocols.http1 => {
            debug!(%peer, "a client speaks HTTP/1 to a listener for HTTP/2");
            let problem = refused::http_1();
            client.refused(RefusedHead::raw(b"", peer, &problem), &shared);
            write_refusal(transport, &raw_problem(&problem, &shared.limits, false)).await;
        }
        Begins::Other => {
            Box::pin(http1(transport, Some(stream), due, client, service, shared, activity)).await;
        }
    }
}

/// Serves one connection of a listener with TLS.
async fn encrypted<S>(
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    due: Instant,
    service: S,
    shared: Arc<Shared>,
    stopping: CancellationToken,
    activity: Activity,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let shaking = Box::pin(timeout_at(due, handshake(stream, peer, &shared)));
    let Some(Ok(Some((transport, session)))) = stopping.run_until_cancelled(shaking).await else { return };
    let is_http2 = transport.get_ref().1.alpn_protocol() == Some(b"h2") || !shared.protocols.http1;
    let client = Client { peer, session: Some(Arc::new(session)) };
    if is_http2 {
        Box::pin(http2::serve(transport, due, client, service, shared, activity)).await;
    } else {
        Box::pin(http1(transport, None, due, client, service, shared, activity)).await;
    }
}

/// The encrypted connection; none if there is no handshake.
async fn handshake(
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<(Box<tokio_rustls::server::TlsStream<Tcp>>, TlsSession)> {
    let tls = shared.protocols.tls.as_ref()?;
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    let meters = &shared.protocols.meters;
    if first[0].is_ascii_alphabetic() {
        debug!(%peer, "a client speaks plain HTTP to a listener with TLS");
        meters.handshake(Err(HandshakeFailure::Other));
        let problem = refused::plain_http();
        let client = Client { peer, session: None };
        client.refused(RefusedHead::raw(b"", peer, &problem), shared);
        write_refusal(Tcp(stream), &raw_problem(&problem, &shared.limits, false)).await;
        return None;
    }
    let shaken = tls.accept(Tcp(stream)).await;
    meters.handshake(shaken.as_ref().map(|(_, session)| session.version).map_err(HandshakeFailure::of));
    match shaken {
        // Boxed, because each step would have room of its own for it.
        Ok((stream, session)) => Some((Box::new(stream), session)),
        Err(error) => {
            tls.failed(peer, &error);
            None
        }
    }
}

/// How a connection with HTTP/1.1 ended.
enum Ended {
    /// The client left before it was answered.
    Left,
    /// No request arrived in time.
    NoHead,
    Served(hyper::Result<()>),
}

/// Serves HTTP/1.1 on a connection. `hangup` tells whether the client has gone away; without it, a client that closes its
/// side is taken to be gone, which is what closing means in TLS. The first head must arrive before `due`.
async fn http1<T, S>(
    transport: T,
    hangup: Option<Arc<TcpStream>>,
    due: Instant,
    client: Client,
    service: S,
    shared: Arc<Shared>,
    activity: Activity,
) where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let open = shared.protocols.meters.opened(Spoken::Http1);
    let (limits, peer) = (&shared.limits, client.peer);
    let progress = Progress::new(activity.clone());
    let of = (client.clone(), Arc::clone(&shared));
    let link = Link::new(limited(transport, limits), progress.clone(), of);
    let answering = with_refusals(service, client.clone(), progress.clone(), Arc::clone(&shared));
    // Not kept in a variable, for which the future would have room.
    let mut connection = http1_builder(limits, activity.has(Order::Last), hangup.is_some())
        .serve_connection(TokioIo::new(link), answering)
        .with_upgrades();
    let mut hangup = hangup.map(|stream| Hangup::new(stream, progress.clone()));
    let mut waiting = Waiting::new(due);
    let mut is_closing = false;
    let ended = poll_fn(|cx| {
        activity.watch(cx);
        let mut connection = Pin::new(&mut connection);
        if !is_closing && activity.has(Order::Stop) {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ended::Served(ended));
        }
        // Only now: a request may have arrived since the connection was chosen to make room.
        if !is_closing && activity.makes_room() {
            is_closing = true;
            connection.as_mut().graceful_shutdown();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ended::Served(ended));
            }
        }
        if waiting.poll(cx, &progress, limits).is_ready() {
            return Poll::Ready(Ended::NoHead);
        }
        match &mut hangup {
            Some(hangup) => hangup.poll(cx).map(|()| Ended::Left),
            None => Poll::Pending,
        }
    })
    .await;
    // The parser answers nothing in these cases.
    let problem = match ended {
        Ended::Left => {
            debug!(%peer, status = 499, "the client left before it was answered");
            return;
        }
        Ended::Served(Ok(())) => {
            drop((connection, hangup, open));
            // Boxed: few connections switch, and the others need no room for it.
            Box::pin(switched(progress, shared, activity)).await;
            return;
        }
        Ended::Served(Err(error)) if error.is_parse_version_h2() => refused::http_2(),
        Ended::Served(Err(error)) => {
            debug!(%peer, %error, "a connection ended early");
            return;
        }
        Ended::NoHead if progress.phase() == Phase::Head => refused::slow_head(limits),
        Ended::NoHead => return,
    };
    client.refused(RefusedHead::raw(&progress.head(), peer, &problem), &shared);
    let Some(parts) = connection.into_parts() else { return };
    let transport = parts.io.into_inner().into_inner();
    write_refusal(transport, &raw_problem(&problem, limits, false)).await;
}

/// Sees to a connection with which HTTP is done: it is closed, or has switched to another protocol.
async fn switched(progress: Progress, shared: Arc<Shared>, activity: Activity) {
    if let Some(switch) = progress.switch() {
        let _open = shared.protocols.meters.opened(Spoken::WebSocket);
        switch::hold_open(Arc::clone(switch), &activity).await;
    } else if let Some(offered) = progress.take_offered() {
        // hyper hands the connection over even if the offer was not accepted, and does not close it in order.
        if let Ok(transport) = offered.await {
            let _ = TokioIo::new(transport).shutdown().await;
        }
    }
}

fn http1_builder(
    limits: &ServeLimits,
    is_last: bool,
    may_be_half_closed: bool,
) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .keep_alive(!is_last)
        .half_close(may_be_half_closed)
        .max_header_size(limits.head_size)
        // `Waiting` sees to that, with one timer for all requests of a connection.
        .header_read_timeout(None);
    if limits.fields != DEFAULT_FIELDS {
        builder.max_headers(limits.fields);
    }
    builder
}

/// A transport whose writes fail if the client reads nothing for too long.
fn limited<T: AsyncWrite>(transport: T, limits: &ServeLimits) -> Pin<Box<TimeoutWriter<T>>> {
    let mut transport = TimeoutWriter::new(transport);
    transport.set_timeout(Some(limits.send_timeout));
    Box::pin(transport)
}

/// Writes the last answer of a connection, a refusal, and closes it. The client may still be sending: without reading
/// that, the connection would be reset, and the client could lose the answer (RFC 9112, section 9.6).
async fn write_refusal<T: AsyncRead + AsyncWrite + Unpin>(mut stream: T, refusal: &[u8]) {
    let writing = async {
        stream.write_all(refusal).await?;
        stream.shutdown().await?;
        // Not in the future itself, which every connection would have room for.
        let mut discarded = vec![0; 4 * 1024];
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(REFUSAL_TIMEOUT, writing).await {
        debug!(%error, "a refusal could not be sent to the client");
    }
}

/// The service as a connection with HTTP/1.1 calls it: requests with a refused head do not reach it.
fn with_refusals<S>(
    service: S,
    client: Client,
    progress: Progress,
    shared: Arc<Shared>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Body>, Infallible>> + Send,
>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let (mut head, body) = request.into_parts();
        let fragment = progress.began(&head, !body.is_end_stream());
        let own = match (fragment.map(HeadError::Fragment), refuse(&head)) {
            (Some(error), _) | (None, Err(error)) => {
                let problem = error.to_problem();
                client.refused(RefusedHead::parsed(&head, client.peer, &problem), &shared);
                Some(answer::refuse(&error, &shared.limits))
            }
            (None, Ok(())) => is_about_all(&head).then(answer::options),
        };
        client.sign(&mut head);
        // Bytes behind the handshake are not HTTP, so they must never be parsed as a request.
        let is_last = head.headers.contains_key(UPGRADE) && !matches!(websocket::handshake(&head), Ok(false));
        let body = body::request(body, progress.clone());
        let answering = match own {
            Some(own) => Either::Left(ready(Ok(own))),
            None => Either::Right(service.clone().oneshot(Request::from_parts(head, body))),
        };
        let progress = progress.clone();
        // Not an `async` block: it would have room for all of these twice, and an idle connection keeps that.
        answering.map_ok(move |mut answer: Response<Body>| {
            progress.answered();
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                progress.switched(std::mem::take(answer.body_mut()));
                return answer;
            }
            if is_last || progress.is_broken() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer.map(|body| body::answer(body, progress))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;
    use tokio::time::timeout;
    use tower::service_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_client_that_reads_nothing_of_its_answer_is_cut_off_and_a_slow_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies: Arc<Mutex<Vec<Weak<()>>>> = Arc::default();
        let made = Arc::clone(&bodies);
        let service = service_fn(move |_| {
            let token = Arc::new(());
            made.lock().unwrap().push(Arc::downgrade(&token));
            // An endless body.
            let body = stream::repeat_with(move || {
                let _ = &token;
                Ok::<_, Infallible>(Bytes::from_static(&[7; 64 * 1024]))
            });
            async { Ok::<_, Infallible>(Response::new(Body::from_stream(body))) }
        });
        let stop = CancellationToken::new();
        let limits = ServeLimits { send_timeout: Duration::from_secs(3), ..ServeLimits::default() };
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, service, stop.clone().into(), limits));
        let ask = async || {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'H');
            client
        };
        let (mut slow, stuck) = (ask().await, ask().await);
        timeout(LONG, async {
            let mut some = vec![0; 1024 * 1024];
            while bodies.lock().unwrap()[1].strong_count() > 0 {
                slow.read_exact(&mut some).await.expect("it is served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // It is served for much longer than the other.
            for _ in 0..50 {
                slow.read_exact(&mut some).await.expect("it is served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the connection of the client that reads nothing is closed");
        drop((slow, stuck));
        stop.cancel();
        timeout(LONG, serving.join_next()).await.unwrap().unwrap().unwrap();
    }
}

#[cfg(test)]
mod slow_tests;

#[cfg(test)]
mod size_tests;
