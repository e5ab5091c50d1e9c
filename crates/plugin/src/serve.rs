//! Serves HTTP/1.1 on a listener until it is stopped, then lets running requests finish.
//!
//! Every listener refuses requests whose head two servers could interpret differently, and everything that is not
//! HTTP/1.1. Both get problem details.

mod accept;
mod answer;
mod body;
mod draining;
mod hangup;
mod in_flight;
mod link;
mod progress;
mod refused;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh::head::{HeadError, is_about_all, refuse};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::debug;
use types::NodeId;

use answer::raw_problem;
use hangup::Hangup;
use link::{Link, Tcp};
use progress::Progress;

pub use accept::{AcceptLimits, Stop, accept};
pub use draining::DrainingListener;
pub use in_flight::{InFlight, InFlightGuard};

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// How long a client may take to send a request's head, and how long a kept-alive connection may be idle.
    pub head_timeout: Duration,
    /// How long a client may read nothing of an answer that is ready for it. Then its connection is closed and its memory
    /// is freed.
    pub send_timeout: Duration,
    /// How many connections are open at most; further ones wait in the kernel's queue.
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
            send_timeout: Duration::from_secs(60),
            connections: 10_000,
            grace: Duration::from_secs(10),
            fields: 100,
            head_size: 32 * 1024,
            node: None,
        }
    }
}

/// The address that sent a request. Every request that [`serve`] receives has it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How many unsent bytes of an answer the system may buffer. The rest stays in our memory, where it is counted.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 64 * 1024;

/// How long a client may take to receive the last refusal of its connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until it is stopped; returns once every connection has ended or `limits.grace` has passed.
pub async fn serve<S>(listener: TcpListener, service: S, stop: Stop, limits: ServeLimits)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let accepting = AcceptLimits { connections: limits.connections, grace: limits.grace };
    accept(listener, stop, accepting, move |stream, peer, stopping| {
        connection(stream, peer, service.clone(), limits.clone(), stopping)
    })
    .await;
}

/// Serves one connection until it ends, or until its client goes away before it has its answer.
async fn connection<S>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    limits: ServeLimits,
    stopping: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // A small answer must not wait for the acknowledgement of the previous one. If this fails, it only costs time.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let stream = Arc::new(stream);
    let progress = Progress::default();
    let mut transport = TimeoutWriter::new(Tcp(Arc::clone(&stream)));
    transport.set_timeout(Some(limits.send_timeout));
    let link = Link::new(Box::pin(transport), progress.clone(), limits.clone(), stopping.clone());
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .max_headers(limits.fields)
        .max_header_size(limits.head_size)
        .header_read_timeout(limits.head_timeout)
        .serve_connection(TokioIo::new(link), with_refusals(service, peer, progress.clone(), limits.clone()));
    let ended = {
        tokio::pin!(connection);
        let mut stopped = pin!(stopping.cancelled_owned().fuse());
        let mut hangup = Hangup::new(Arc::clone(&stream), progress.clone());
        poll_fn(|cx| {
            if !stopped.is_terminated() && stopped.as_mut().poll(cx).is_ready() {
                connection.as_mut().graceful_shutdown();
            }
            match connection.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => hangup.poll(cx).map(|()| None),
            }
        })
        .await
    };
    match ended {
        None => debug!(%peer, status = 499, "the client left before it was answered"),
        Some(Ok(())) => {}
        Some(Err(error)) => {
            debug!(%peer, %error, "a connection ended early");
            // The parser answers nothing in these cases.
            let problem = if error.is_parse_version_h2() {
                refused::http_2()
            } else if error.is_timeout() && !progress.is_busy() && !progress.head().is_empty() {
                refused::slow_head(&limits)
            } else {
                return;
            };
            write_refusal(Tcp(stream), &raw_problem(&problem, &limits, false)).await;
        }
    }
}

/// Writes the last answer of a connection, a refusal, and closes it.
async fn write_refusal(mut stream: Tcp, refusal: &[u8]) {
    let writing = async {
        stream.write_all(refusal).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = tokio::time::timeout(REFUSAL_TIMEOUT, writing).await {
        debug!(%error, "a refusal could not be sent to the client");
    }
}

/// The service as a connection calls it: requests with a refused head do not reach it.
fn with_refusals<S>(
    service: S,
    peer: SocketAddr,
    progress: Progress,
    limits: ServeLimits,
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
            (Some(error), _) | (None, Err(error)) => Some(answer::refuse(&error, &limits)),
            (None, Ok(())) => is_about_all(&head).then(answer::options),
        };
        head.extensions.insert(Peer(peer));
        let body = body::request(body, progress.clone());
        let (service, progress) = (service.clone(), progress.clone());
        async move {
            let answer = match own {
                Some(own) => own,
                None => match service.oneshot(Request::from_parts(head, body)).await {
                    Ok(answer) => answer,
                    Err(never) => match never {},
                },
            };
            progress.answered();
            Ok(answer.map(|body| body::answer(body, progress)))
        }
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
