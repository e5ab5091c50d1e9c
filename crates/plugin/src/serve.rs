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
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// How long a client may take to send a request's head, and a kept connection may be idle.
    pub head_timeout: Duration,
    /// How long a client may take nothing of an answer that is ready for it. Its connection is closed then, and what is
    /// held for it is free.
    pub send_timeout: Duration,
    /// Connections at once; the next one waits in the kernel's queue.
    pub connections: usize,
    /// How long running requests may go on after the stop.
    pub grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(20),
            send_timeout: Duration::from_secs(60),
            connections: 10_000,
            grace: Duration::from_secs(10),
        }
    }
}

/// Who sent a request: the other end of its connection. Every request that [`serve`] receives has it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What the system takes of an answer before the client does, in bytes. More than that is better kept where it is
/// counted.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

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
                    connections.spawn(connection(stream, service, graceful.watcher(), limits.clone()));
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
    limits: ServeLimits,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // A small answer must not wait for an acknowledgement of the one before; that it can't be set costs only time.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(limits.send_timeout));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use bytes::Bytes;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;
    use tower::service_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn whoever_reads_nothing_of_its_answer_is_given_up_and_who_reads_on_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bodies: Arc<Mutex<Vec<Weak<()>>>> = Arc::default();
        let made = Arc::clone(&bodies);
        let service = service_fn(move |_| {
            let token = Arc::new(());
            made.lock().unwrap().push(Arc::downgrade(&token));
            // Without an end.
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
            // It outlives the other by far.
            for _ in 0..50 {
                slow.read_exact(&mut some).await.expect("it is served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the one that reads nothing is given up");
        drop((slow, stuck));
        stop.cancel();
        timeout(LONG, serving.join_next()).await.unwrap().unwrap().unwrap();
    }
}
