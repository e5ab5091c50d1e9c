//! Opens one connection: PROXY protocol, TLS and the first bytes decide which protocol serves it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::debug;
use types::Problem;

use super::answer::{named, raw_problem, write_refusal};
use super::first_bytes::{self, Begins, Rewound};
use super::http1::http1;
use super::link::Tcp;
use super::per_client::Accepted;
use super::refusal::{RefusalReason, RefusedHead};
use super::slots::{Activity, Slot};
use super::{Peer, ServeLimits, Shared, http2, refused};
use crate::tls::HandshakeFailure;
use crate::{TlsSession, proxy_protocol};

/// How many unsent bytes of an answer the system may buffer. The rest stays in our memory, where it is counted.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    /// Shared, because the parts of a connection each have it.
    pub(super) session: Option<Arc<TlsSession>>,
}

impl Client {
    /// Counts and reports a request that is refused for its head alone.
    pub(super) fn refused(&self, refused: RefusedHead<'_>, shared: &Shared) {
        shared.protocols.meters.refused(refused.reason);
        shared.protocols.on_refused.call(&RefusedHead { session: self.session.as_deref(), ..refused });
    }

    /// Notes in the head of a request where it comes from.
    pub(super) fn sign(&self, head: &mut http::request::Parts) {
        head.extensions.insert(Peer(self.peer));
        if let Some(session) = &self.session {
            head.extensions.insert(TlsSession::clone(session));
        }
    }
}

/// Serves one connection until it ends, or until its client goes away before it has its answer.
pub(super) async fn connection<S>(
    stream: TcpStream,
    accepted: Accepted,
    service: S,
    stopping: CancellationToken,
    slot: Slot,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let activity = slot.activity();
    let Accepted { mut peer, shared, client: mut _entered } = accepted;
    let due = Instant::now() + shared.limits.head_timeout;
    let mut stream = stream;
    if let Some(proxies) = &shared.protocols.proxies {
        let receiving = Box::pin(proxy_protocol::receive(&mut stream, peer, proxies));
        match stopping.run_until_cancelled(receiving).await {
            None => return,
            Some(Ok(proxied)) => {
                peer = proxied.map_or(peer, |proxied| proxied.source);
                let Ok(entered) = shared.enter(peer) else { return };
                _entered = entered;
            }
            Some(Err(error)) => {
                shared.protocols.meters.refused(RefusalReason::ProxyProtocol);
                shared.protocols.meters.log_proxy_refusal(&shared.protocols.name, peer, &error);
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
    let beginning = Box::pin(first_bytes::read(&mut tcp, due));
    let Some(Ok((begins, bytes))) = stopping.run_until_cancelled(beginning).await else { return };
    let first = bytes.clone();
    let transport = Rewound::new(bytes, tcp);
    match begins {
        Begins::Http2 => Box::pin(http2::serve(transport, due, client, service, shared, activity)).await,
        Begins::Other if !shared.protocols.http1 => {
            debug!(%peer, "a client speaks HTTP/1 to a listener for HTTP/2");
            let head = [&first[..], &arrived(&stream)].concat();
            let refusal = unparsed(&head, &refused::http_1(), &client, &shared);
            write_refusal(transport, refusal).await;
        }
        Begins::Other => {
            Box::pin(http1(transport, Some(stream), due, client, service, shared, activity)).await;
        }
    }
}

/// Serves one connection of a listener with TLS.
pub(super) async fn encrypted<S>(
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
    let shaking = Box::pin(handshake(stream, peer, due, &shared));
    let Some(Some((transport, session))) = stopping.run_until_cancelled(shaking).await else { return };
    let is_http2 = transport.get_ref().1.alpn_protocol() == Some(b"h2") || !shared.protocols.http1;
    let client = Client { peer, session: Some(Arc::new(session)) };
    if is_http2 {
        Box::pin(http2::serve(transport, due, client, service, shared, activity)).await;
    } else {
        Box::pin(http1(transport, None, due, client, service, shared, activity)).await;
    }
}

/// The encrypted connection; none if there is no handshake. That is counted, unless the client sent nothing: TCP health checks
/// and connections that browsers open in advance are no failures.
async fn handshake(
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    due: Instant,
    shared: &Shared,
) -> Option<(Box<tokio_rustls::server::TlsStream<Tcp>>, TlsSession)> {
    let tls = shared.protocols.tls.as_ref()?;
    let meters = &shared.protocols.meters;
    let mut first = [0];
    match timeout_at(due, stream.peek(&mut first)).await {
        Ok(Ok(1..)) => {}
        Ok(Ok(0) | Err(_)) => return None,
        Err(_) => {
            debug!(%peer, "a client sent no byte of a TLS handshake in time");
            meters.refused(RefusalReason::Timeout);
            return None;
        }
    }
    if first[0].is_ascii_alphabetic() {
        debug!(%peer, "a client speaks plain HTTP to a listener with TLS");
        meters.handshake(Err(HandshakeFailure::Other));
        let client = Client { peer, session: None };
        let refusal = unparsed(&arrived(&stream), &refused::plain_http(), &client, shared);
        write_refusal(Tcp(stream), refusal).await;
        return None;
    }
    let Ok(shaken) = timeout_at(due, tls.accept(Tcp(stream))).await else {
        debug!(%peer, "a TLS handshake did not end in time");
        meters.handshake(Err(HandshakeFailure::Other));
        meters.refused(RefusalReason::Timeout);
        return None;
    };
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

/// What has arrived on a connection and was not read, as far as the log can show it.
fn arrived(stream: &TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4 * 1024];
    let len = stream.peek(&mut bytes).now_or_never().and_then(Result::ok).unwrap_or_default();
    bytes.truncate(len);
    bytes
}

/// Counts and reports a request whose head, of which these bytes have arrived, is not parsed. Returns the answer.
fn unparsed(head: &[u8], problem: &Problem, client: &Client, shared: &Shared) -> Bytes {
    let (problem, began) = (named(problem, &shared.limits), None);
    client.refused(RefusedHead::raw(head, client.peer, &problem, began), shared);
    raw_problem(&problem, head.starts_with(b"HEAD "))
}

/// A transport whose writes fail if the client reads nothing for too long.
pub(super) fn limited<T: AsyncWrite>(transport: T, limits: &ServeLimits) -> Pin<Box<TimeoutWriter<T>>> {
    let mut transport = TimeoutWriter::new(transport);
    transport.set_timeout(Some(limits.send_timeout));
    Box::pin(transport)
}
