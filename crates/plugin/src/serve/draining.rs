//! A listener that a service opens itself, for any protocol. It finishes the requests in flight before it closes.
//!
//! Those that forward are served on the cores: each accepts and serves connections of its own, and one task on the shared
//! runtime for each of them waits for its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;
use tracing::{info, warn};
use types::ReasonCode;

use super::accept::{AcceptLimits, Acceptor, Log, Stop, accept_on, holding};
use super::drain_order::{DrainOrder, Draining, Step};
use super::in_flight::InFlight;
use super::slots::Slots;
use super::{ListenerMeters, Next, Protocols, ServeLimits, serve_on};
use crate::cores::Core;
use crate::{Context, CoreListener, Health, ServiceError, Tls};

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
///     let limits = AcceptLimits { connections: 100, grace: std::time::Duration::from_secs(1), setting: None };
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
    in_flight: InFlight,
    /// For HTTP.
    next: Option<Next>,
    /// Ends the task that reads the certificates again.
    certificates: Mutex<CancellationToken>,
    slots: Arc<Slots>,
    /// It has the name.
    log: Arc<Log>,
    order: DrainOrder,
    stop: Stop,
    /// Cancelled once one core has ended to serve the listener.
    ended: CancellationToken,
    /// Cancelled once the listener and every connection are closed.
    closed: CancellationToken,
}

impl DrainingListener {
    /// Serves HTTP/1.1 like [`serve`](super::serve()), in a task of this name. The service must count its requests in
    /// `in_flight`. Its drain refuses new connections at once, because the member is moved only after it.
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
        let next = Next::new(limits, Protocols::default());
        let acceptor = next.acceptor(name.to_owned(), 1);
        let this = Self::new(cx, in_flight, &acceptor, DrainOrder::AT_ONCE);
        let serving = serve_on(0, listener, service, this.stop.clone(), acceptor, next);
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
        let tls = protocols.tls.clone();
        let next = Next::new(limits, protocols);
        let sockets = listener.into_sockets();
        let acceptor = next.acceptor(name.to_owned(), sockets.len());
        let mut this = Self::new(cx, in_flight, &acceptor, DrainOrder::ANNOUNCED);
        this.next = Some(next.clone());
        this.watch(cx, tls);
        let stop = this.stop.clone();
        this.run_on_cores(cx, "listener", sockets, move |core, listener| {
            serve_on(core, listener, service, stop, acceptor, next)
        });
        this
    }

    /// Changes a [named](Self::named) listener: new connections get these limits and protocols; open ones keep what they have.
    /// The number of connections is one for all of them.
    pub fn change(&self, cx: &Context, name: &str, limits: ServeLimits, protocols: Protocols) {
        self.rename(name, limits.connections);
        let Some(next) = &self.next else { return };
        let tls = protocols.tls.clone();
        let is_same = match (&next.shared().protocols.tls, &tls) {
            (Some(old), Some(new)) => old.is_same(new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        next.replace(limits, protocols);
        if !is_same {
            self.watch(cx, tls);
        }
    }

    /// Changes the name of a listener for any protocol, and how many connections are open at most. Open ones stay.
    pub fn rename(&self, name: &str, connections: usize) {
        self.log.rename(name);
        self.slots.resize(connections);
    }

    /// Has a task read these certificates again when they change, and no others.
    fn watch(&self, cx: &Context, tls: Option<Tls>) {
        let ending = self.stop.accepting.child_token();
        std::mem::replace(&mut *locked(&self.certificates), ending.clone()).cancel();
        let Some(tls) = tls else { return };
        let shutdown = cx.shutdown.clone();
        cx.tasks.spawn("certificates", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = ending.cancelled() => {}
                () = tls.watch() => {}
            }
            Ok(())
        });
    }

    fn name(&self) -> String {
        self.log.listener()
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
        let sockets = listener.into_sockets();
        let acceptor = Acceptor::new(name.to_owned(), limits, sockets.len(), meters);
        let this = Self::new(cx, in_flight, &acceptor, DrainOrder::ANNOUNCED);
        let stop = this.stop.clone();
        this.run_on_cores(cx, name, sockets, move |core, listener| {
            accept_on(core, listener, stop, acceptor, Some, holding(connection))
        });
        this
    }

    fn new(cx: &Context, in_flight: InFlight, acceptor: &Acceptor, order: DrainOrder) -> Self {
        let (slots, log) = (Arc::clone(&acceptor.slots), Arc::clone(&acceptor.log));
        let stop = Stop { accepting: CancellationToken::new(), serving: cx.shutdown.child_token() };
        let (ended, closed) = (CancellationToken::new(), CancellationToken::new());
        let certificates = Mutex::default();
        Self { in_flight, next: None, certificates, slots, log, order, stop, ended, closed }
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
            let (name, stop, index, serve) = (self.name(), self.stop.clone(), core.index, serve.clone());
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

    /// `Failed` if the listener has ended without having been stopped, even if on one core only.
    pub fn health(&self) -> Health {
        if self.ended.is_cancelled() && !self.stop.accepting.is_cancelled() {
            return Health::failed(LISTENER_ENDED, format!("the listener `{}` has ended", self.name()));
        }
        Health::Ready
    }

    /// Begins the drain: readiness checks fail from now on. [`drain`](Self::drain) does so, too, and the rest.
    pub fn begin_drain(&self) {
        self.in_flight.drain();
    }

    /// Ends the listener in order: for a moment it goes on, so that others learn of it; then connections are asked to end; once
    /// nobody has connected for a moment, or half of the time is over, new ones are refused. Returns when the
    /// open ones have no requests in flight, or at the deadline.
    pub async fn drain(&self, deadline: Instant) {
        self.begin_drain();
        info!(listener = %self.name(), in_flight = self.in_flight.count(), "draining");
        let mut draining = Draining::new(self.order, Instant::now(), deadline, self.slots.opened());
        loop {
            let (step, next) = draining.step(Instant::now(), self.slots.opened());
            if step != Step::Announced {
                self.in_flight.close();
                self.slots.drain();
            }
            if step == Step::Refusing {
                break;
            }
            tokio::select! {
                biased;
                () = self.stop.begun() => break,
                () = sleep_until(next) => {}
            }
        }
        self.refuse();
        let quiet = timeout_at(deadline, self.in_flight.quiet(QUIET));
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            outcome = quiet => if outcome.is_err() {
                let in_flight = self.in_flight.count();
                warn!(listener = %self.name(), in_flight, "drain deadline reached before all requests ended");
            },
        }
    }

    /// Refuses new connections. The last answer of each open one says so.
    fn refuse(&self) {
        self.in_flight.close();
        self.stop.accepting.cancel();
    }

    /// Closes every connection, within the grace of the limits. Idempotent.
    pub async fn stop(&self) {
        self.in_flight.drain();
        self.refuse();
        self.stop.serving.cancel();
        self.closed.cancelled().await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
