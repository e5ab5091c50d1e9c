//! A listener that a service opens itself, for any protocol. It finishes the requests in flight before it closes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{info, warn};
use types::ReasonCode;

use super::accept::{AcceptLimits, Stop, accept};
use super::in_flight::InFlight;
use super::{Protocols, ServeLimits, serve, serve_with};
use crate::{Context, Health};

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
/// use plugin::{AcceptLimits, Context, DrainingListener, Health, InFlight, Service, ServiceError, async_trait, axum};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// Answers each byte with the same byte.
/// struct Echo(DrainingListener);
///
/// async fn start(cx: &Context) -> Result<Arc<dyn Service>, ServiceError> {
///     let address = "127.0.0.1:0".parse().expect("an address");
///     let listener = cx.listen("echo", "tcp", address).await?;
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
///     Ok(Arc::new(Echo(DrainingListener::connections(cx, "echo listener", listener, in_flight, limits, connection))))
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
        let stop = Stop { accepting: CancellationToken::new(), serving: cx.shutdown.child_token() };
        let serving = serve(listener, service, stop.clone(), limits);
        Self::run(cx, name, name.to_owned(), in_flight, stop, serving)
    }

    /// The same with the protocols of a named listener.
    pub fn named<S>(
        cx: &Context,
        name: &str,
        listener: TcpListener,
        in_flight: InFlight,
        limits: ServeLimits,
        protocols: Protocols,
        service: S,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let stop = Stop { accepting: CancellationToken::new(), serving: cx.shutdown.child_token() };
        let serving = serve_with(listener, service, stop.clone(), limits, protocols);
        Self::run(cx, "listener", name.to_owned(), in_flight, stop, serving)
    }

    /// Serves any other protocol like [`accept`]. The connections must count their requests in `in_flight`.
    pub fn connections<C>(
        cx: &Context,
        name: &'static str,
        listener: TcpListener,
        in_flight: InFlight,
        limits: AcceptLimits,
        connection: impl FnMut(TcpStream, SocketAddr, CancellationToken) -> C + Send + 'static,
    ) -> Self
    where
        C: Future<Output = ()> + Send + 'static,
    {
        let stop = Stop { accepting: CancellationToken::new(), serving: cx.shutdown.child_token() };
        let serving = accept(listener, stop.clone(), limits, connection);
        Self::run(cx, name, name.to_owned(), in_flight, stop, serving)
    }

    fn run(
        cx: &Context,
        task: &'static str,
        name: String,
        in_flight: InFlight,
        stop: Stop,
        serving: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let closed = CancellationToken::new();
        let on_close = closed.clone().drop_guard();
        cx.tasks.spawn(task, async move {
            let _on_close = on_close;
            serving.await;
            Ok(())
        });
        Self { name, in_flight, stop, closed }
    }

    /// Cancelled when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.stop.accepting.clone()
    }

    /// `Failed` if the listener has ended without having been stopped.
    pub fn health(&self) -> Health {
        if self.closed.is_cancelled() && !self.stop.accepting.is_cancelled() {
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
mod tests {
    use std::io::ErrorKind;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// A protocol of single bytes: each is answered, but a zero only after `release` is cancelled.
    async fn listen(cx: &Context, release: &CancellationToken) -> (DrainingListener, SocketAddr) {
        let listener = cx.listen("bytes", "tcp", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let in_flight = InFlight::default();
        let (counted, release) = (in_flight.clone(), release.clone());
        let connection = move |mut stream: TcpStream, _, stopping: CancellationToken| {
            let (in_flight, release) = (counted.clone(), release.clone());
            async move {
                while let Some(Ok(byte)) = stopping.run_until_cancelled(stream.read_u8()).await {
                    let _one = in_flight.enter();
                    if byte == 0 {
                        release.cancelled().await;
                    }
                    stream.write_u8(byte).await.unwrap();
                }
            }
        };
        let limits = AcceptLimits { connections: 2, grace: Duration::from_millis(100) };
        (DrainingListener::connections(cx, "bytes", listener, in_flight, limits, connection), address)
    }

    #[tokio::test]
    async fn requests_in_flight_finish_and_no_new_connections_are_accepted() {
        let (cx, mut failures) = Context::for_test("gateway".parse().unwrap());
        let release = CancellationToken::new();
        let (listener, address) = listen(&cx, &release).await;
        assert_eq!(cx.endpoints.urls()["bytes"], format!("tcp://{address}"));
        let mut busy = TcpStream::connect(address).await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        for stream in [&mut busy, &mut idle] {
            stream.write_u8(7).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 7);
        }
        busy.write_u8(0).await.unwrap();
        while listener.in_flight.count() == 0 {
            tokio::task::yield_now().await;
        }
        let finish = async {
            listener.draining().cancelled().await;
            assert_eq!(listener.health(), Health::Ready);
            while let Ok(stream) = TcpStream::connect(address).await {
                drop(stream);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            release.cancel();
            busy.read_u8().await.unwrap()
        };
        let (drained, last) = tokio::join!(timeout(LONG, listener.drain(Instant::now() + LONG)), finish);
        drained.expect("the last request has ended");
        assert_eq!(last, 0);
        for _ in 0..2 {
            timeout(LONG, listener.stop()).await.expect("every connection is closed");
        }
        assert_eq!(idle.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(failures.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_aborted_after_the_deadline_and_the_grace() {
        let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
        let (listener, address) = listen(&cx, &CancellationToken::new()).await;
        let mut stuck = TcpStream::connect(address).await.unwrap();
        stuck.write_u8(0).await.unwrap();
        while listener.in_flight.count() == 0 {
            tokio::task::yield_now().await;
        }
        let soon = Instant::now() + Duration::from_millis(50);
        timeout(LONG, listener.drain(soon)).await.expect("its deadline has passed");
        timeout(LONG, listener.stop()).await.expect("its grace has passed");
        assert!(stuck.read_u8().await.is_err());
    }
}
