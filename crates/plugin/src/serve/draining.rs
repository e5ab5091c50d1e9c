//! A listener that a service opens itself, for any protocol. It finishes the requests in flight before it closes.
//!
//! Those that forward are served on the cores: each accepts and serves connections of its own, and one task on the shared
//! runtime for each of them waits for its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;
use tracing::{info, warn};
use types::ReasonCode;

use super::accept::{AcceptLimits, Acceptor, Stop, accept_on, holding};
use super::in_flight::InFlight;
use super::{ListenerMeters, Protocols, ServeLimits, Shared, serve, serve_on};
use crate::cores::Core;
use crate::{Context, CoreListener, Health, ServiceError};

/// The task of a listener has ended though it was not stopped.
const LISTENER_ENDED: ReasonCode = ReasonCode::new("listener-ended");

/// How long no request must be in flight before idle connections are closed: a client whose last answer had
/// `Connection: close` may have sent its next request already.
const QUIET: Duration = Duration::from_millis(30);

/// A running listener. A service drains it in [`Service::drain`](crate::Service::drain) and stops it in
/// [`Service::stop`](crate::Service::stop).
///
/// ```
/// use std::sync::Arc;
///
/// use plugin::{AcceptLimits, Context, DrainingListener, Health, InFlight, ListenerMeters};
/// use plugin::{Service, ServiceError, async_trait, axum};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// Answers each byte with the same byte.
/// struct Echo(DrainingListener);
///
/// async fn start(cx: &Context) -> Result<Arc<dyn Service>, ServiceError> {
///     let address = "127.0.0.1:0".parse().expect("an address");
///     let listener = cx.listen_on_cores("echo", "tcp", address)?;
///     let in_flight = InFlight::default();
///     let limits = AcceptLimits { connections: 100, grace: std::time::Duration::from_secs(1) };
///     let counted = in_flight.clone();
///     let connection = move |mut stream: tokio::net::TcpStream, _peer, stopping: tokio_util::sync::CancellationToken| {
///         let in_flight = counted.clone();
///         async move {
///             while let Some(Ok(byte)) = stopping.run_until_cancelled(stream.read_u8()).await {
///                 let _one = in_flight.enter();
///                 if stream.write_u8(byte).await.is_err() {
///                     return;
///                 }
///             }
///         }
///     };
///     let meters = ListenerMeters::default();
///     let running =
///         DrainingListener::connections(cx, "echo listener", listener, in_flight, limits, meters, connection);
///     Ok(Arc::new(Echo(running)))
/// }
///
/// #[async_trait]
/// impl Service for Echo {
///     fn routes(self: Arc<Self>) -> axum::Router {
///         axum::Router::new()
///     }
///     fn health(&self) -> Health {
///         self.0.health()
///     }
///     async fn drain(&self, deadline: tokio::time::Instant) {
///         self.0.drain(deadline).await;
///     }
///     async fn stop(&self) -> Result<(), ServiceError> {
///         self.0.stop().await;
///         Ok(())
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let (cx, _failures) = Context::for_test("echo".parse().unwrap());
/// # let service = start(&cx).await.unwrap();
/// # assert!(cx.endpoints.urls()["echo"].starts_with("tcp://127.0.0.1:"));
/// # service.drain(tokio::time::Instant::now() + std::time::Duration::from_secs(1)).await;
/// # service.stop().await.unwrap();
/// # }
/// ```
#[derive(Debug)]
pub struct DrainingListener {
    name: String,
    in_flight: InFlight,
    stop: Stop,
    /// Cancelled once one core has ended to serve the listener.
    ended: CancellationToken,
    /// Cancelled once the listener and every connection are closed.
    closed: CancellationToken,
}

impl DrainingListener {
    /// Serves HTTP/1.1 like [`serve`], in a task of this name. The service must count its requests in `in_flight`.
    pub fn http<S>(
        cx: &Context,
        name: &'static str,
        listener: TcpListener,
        in_flight: InFlight,
        limits: ServeLimits,
        service: S,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let this = Self::new(cx, name.to_owned(), in_flight);
        let serving = serve(listener, service, this.stop.clone(), limits);
        let guards = (this.ended.clone().drop_guard(), this.closed.clone().drop_guard());
        cx.tasks.spawn(name, async move {
            let _guards = guards;
            serving.await;
            Ok(())
        });
        this
    }

    /// The same on the cores, with the protocols of a named listener. Its certificates are read again when they change, until
    /// it drains.
    pub fn named<S>(
        cx: &Context,
        name: &str,
        listener: CoreListener,
        in_flight: InFlight,
        limits: ServeLimits,
        protocols: Protocols,
        service: S,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let this = Self::new(cx, name.to_owned(), in_flight);
        if let Some(tls) = protocols.tls.clone() {
            let (shutdown, draining) = (cx.shutdown.clone(), this.draining());
            cx.tasks.spawn("certificates", async move {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = draining.cancelled() => {}
                    () = tls.watch() => {}
                }
                Ok(())
            });
        }
        let shared = Shared::new(limits, protocols);
        let sockets = listener.into_sockets();
        let acceptor = shared.acceptor(sockets.len());
        let stop = this.stop.clone();
        this.run_on_cores(cx, "listener", sockets, move |core, listener| {
            serve_on(core, listener, service, stop, acceptor, shared)
        });
        this
    }

    /// Serves any other protocol like [`accept`](super::accept()) on the cores. The connections must count their requests in
    /// `in_flight`.
    pub fn connections<C>(
        cx: &Context,
        name: &'static str,
        listener: CoreListener,
        in_flight: InFlight,
        limits: AcceptLimits,
        meters: ListenerMeters,
        connection: impl FnMut(TcpStream, SocketAddr, CancellationToken) -> C + Clone + Send + 'static,
    ) -> Self
    where
        C: Future<Output = ()> + Send + 'static,
    {
        let this = Self::new(cx, name.to_owned(), in_flight);
        let sockets = listener.into_sockets();
        let acceptor = Acceptor::new(limits, sockets.len(), meters);
        let stop = this.stop.clone();
        this.run_on_cores(cx, name, sockets, move |core, listener| {
            accept_on(core, listener, stop, acceptor, holding(connection))
        });
        this
    }

    fn new(cx: &Context, name: String, in_flight: InFlight) -> Self {
        let stop = Stop { accepting: CancellationToken::new(), serving: cx.shutdown.child_token() };
        let (ended, closed) = (CancellationToken::new(), CancellationToken::new());
        Self { name, in_flight, stop, ended, closed }
    }

    /// Serves each socket on its core, in tasks of this name. If they are aborted, so are the connections.
    fn run_on_cores<F>(
        &self,
        cx: &Context,
        task: &'static str,
        sockets: Vec<(Core, std::net::TcpListener)>,
        serve: impl FnOnce(usize, TcpListener) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let closed = Arc::new(self.closed.clone().drop_guard());
        for (core, socket) in sockets {
            let (closed, ended) = (Arc::clone(&closed), self.ended.clone().drop_guard());
            let (name, stop, index, serve) =
                (self.name.clone(), self.stop.clone(), core.index, serve.clone());
            let serving = core.handle.spawn(async move {
                // Here, because it belongs to the runtime of the core from now on.
                serve(index, TcpListener::from_std(socket)?).await;
                io::Result::Ok(())
            });
            let serving = AbortOnDropHandle::new(serving);
            cx.tasks.spawn(task, async move {
                let (_closed, _ended) = (closed, ended);
                let outcome = serving.await.map_err(io::Error::other).flatten();
                if stop.has_begun() {
                    return Ok(());
                }
                let message = format!("core {index} does not serve the listener `{name}` any more");
                Err(match outcome {
                    Ok(()) => ServiceError::internal(message),
                    Err(error) => ServiceError::internal(message).source(error),
                })
            });
        }
    }

    /// Cancelled when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.stop.accepting.clone()
    }

    /// `Failed` if the listener has ended without having been stopped, even if on one core only.
    pub fn health(&self) -> Health {
        if self.ended.is_cancelled() && !self.stop.accepting.is_cancelled() {
            return Health::failed(LISTENER_ENDED, format!("the listener `{}` has ended", self.name));
        }
        Health::Ready
    }

    /// Refuses new connections and waits until the open ones have no requests in flight, or until the deadline.
    pub async fn drain(&self, deadline: Instant) {
        self.in_flight.drain();
        self.stop.accepting.cancel();
        info!(listener = %self.name, in_flight = self.in_flight.count(), "draining");
        let quiet = timeout_at(deadline, self.in_flight.quiet(QUIET));
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            outcome = quiet => if outcome.is_err() {
                let in_flight = self.in_flight.count();
                warn!(listener = %self.name, in_flight, "drain deadline reached before all requests ended");
            },
        }
    }

    /// Closes every connection, within the grace of the limits. Idempotent.
    pub async fn stop(&self) {
        self.stop.accepting.cancel();
        self.stop.serving.cancel();
        self.closed.cancelled().await;
    }
}

#[cfg(test)]
mod tests;
