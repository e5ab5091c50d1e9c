//! Serves HTTP/1.1 on a listener until told to stop, then lets running requests finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// How long a client may take to send a request's head, and a kept connection may be idle.
    pub head_timeout: Duration,
    /// Connections at once; the next one waits in the kernel's queue.
    pub connections: usize,
    /// How long running requests may go on after the stop.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self { head_timeout: Duration::from_secs(20), connections: 10_000, grace: Duration::from_secs(10) }
    }
}

/// Who sent a request: the other end of its connection. Every request that [`serve`] receives has it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How long to wait after the system refused a connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Ends a listener in two steps. One token alone is both at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// When cancelled, the listener is closed; connections go on.
    pub accepting: CancellationToken,
    /// When cancelled, idle connections are closed, and the others after the request that runs.
    pub serving: CancellationToken,
}

impl From<CancellationToken> for Stop {
    fn from(both: CancellationToken) -> Self {
        Self { accepting: both.clone(), serving: both }
    }
}

/// Serves until it is stopped and every connection has ended, or `limits.grace` has passed since.
pub async fn serve<S>(listener: TcpListener, service: S, stop: Stop, limits: ServeLimits)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = stop.accepting.cancelled() => break,
            () = stop.serving.cancelled() => break,
            Some(_) = connections.join_next(), if connections.len() >= limits.connections => {}
            accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                Ok((stream, peer)) => {
                    let service = service.clone().map_request(move |mut request: Request<Incoming>| {
                        request.extensions_mut().insert(Peer(peer));
                        request
                    });
                    connections.spawn(connection(stream, service, graceful.watcher(), limits.head_timeout));
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    loop {
        tokio::select! {
            biased;
            () = stop.serving.cancelled() => break,
            ended = connections.join_next() => if ended.is_none() { return },
        }
    }
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        warn!(left = connections.len(), "cut connections that did not finish in time");
    }
    connections.shutdown().await;
}

async fn connection<S>(
    stream: TcpStream,
    service: S,
    watcher: hyper_util::server::graceful::Watcher,
    head_timeout: Duration,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // A small answer must not wait for an acknowledgement of the one before; that it can't be set costs only time.
    let _ = stream.set_nodelay(true);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
}
