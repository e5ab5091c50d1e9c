use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use mesh::testing::handshake;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::{Protocols, ServeLimits, serve_with};
use super::*;
use crate::{ListenerMeters, Metrics};

const LONG: Duration = Duration::from_secs(30);

/// How a router's own handler takes over its connection: it sends back what comes.
async fn echo(mut request: Request) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::runtime::Handle::current().spawn(async move {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    mesh::head::websocket::switch(answer.headers_mut());
    answer
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    meters: ListenerMeters,
    hits: Arc<AtomicUsize>,
    serving: JoinSet<()>,
}

impl Server {
    async fn start(limits: ServeLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop, meters) =
            (listener.local_addr().unwrap(), CancellationToken::new(), ListenerMeters::default());
        let hits = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&hits);
        let plain = move |body: String| async move {
            count.fetch_add(1, Ordering::SeqCst);
            format!("plain {body}")
        };
        // As a plugin writes it.
        let router = Router::new().route("/echo", any(echo)).fallback(plain);
        let protocols = Protocols { meters: meters.clone(), ..Protocols::default() };
        let mut serving = JoinSet::new();
        serving.spawn(serve_with(listener, router, stop.clone().into(), limits, protocols));
        Self { address, stop, meters, hits, serving }
    }

    async fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // Bytes that come before the answer wait for it.
        stream.write_all((handshake("/echo") + "early ").as_bytes()).await.unwrap();
        let head = mesh::testing::read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        let lines: Vec<_> = head.lines().filter(|line| line.starts_with("connection")).collect();
        assert_eq!(lines, ["connection: upgrade"], "{head}");
        stream.write_all(b"late").await.unwrap();
        let mut arrived = [0; 10];
        stream.read_exact(&mut arrived).await.unwrap();
        assert_eq!(&arrived, b"early late");
        stream
    }

    /// The number of open connections of a protocol.
    fn count(&self, protocol: &str) -> u64 {
        let metrics = Metrics::new("coterie_test");
        let meters = self.meters.clone();
        ListenerMeters::register(&metrics, move || vec![("x".to_owned(), meters.clone(), None)]);
        let text = Metrics::encode_all([&metrics]).unwrap();
        let begin = format!("coterie_test_open_connections{{listener=\"x\",protocol=\"{protocol}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&begin)).unwrap().parse().unwrap()
    }

    async fn until(&self, protocol: &str, count: u64) {
        timeout(LONG, async {
            while self.count(protocol) != count {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the count is reached");
    }
}

#[tokio::test]
async fn a_handler_may_take_over_its_connection_and_that_counts_until_it_is_closed() {
    let mut server = Server::start(ServeLimits { connections: 1, ..ServeLimits::default() }).await;
    let mut stream = server.open().await;
    assert_eq!((server.count("h1"), server.count("websocket")), (0, 1));
    // It keeps its place: another connection waits.
    let mut other = TcpStream::connect(server.address).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    stream.write_all(&[7; 300_000]).await.unwrap();
    let mut arrived = vec![0; 300_000];
    stream.read_exact(&mut arrived).await.unwrap();
    assert!(timeout(Duration::from_millis(50), other.read_u8()).await.is_err());
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    server.until("websocket", 0).await;
    let mut answer = String::new();
    timeout(LONG, other.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("plain "), "{answer}");
    server.stop.cancel();
    timeout(LONG, server.serving.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_closes_a_connection_that_was_taken_over() {
    let mut server = Server::start(ServeLimits { grace: LONG, ..ServeLimits::default() }).await;
    let mut stream = server.open().await;
    server.stop.cancel();
    let ended =
        timeout(LONG / 2, stream.read(&mut [0])).await.expect("it is closed long before the grace is over");
    assert!(!matches!(ended, Ok(1..)));
    timeout(LONG / 2, server.serving.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(server.count("websocket"), 0);
}

#[tokio::test]
async fn nothing_behind_a_handshake_is_parsed_as_a_request() {
    let server = Server::start(ServeLimits::default()).await;
    let next = "GET /next HTTP/1.1\r\nhost: x\r\n\r\n";
    let broken = handshake("/").replace("Key: d", "Key: ");
    for (at, request) in [handshake("/") + next, broken + next].into_iter().enumerate() {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
        assert_eq!((answer.matches("HTTP/1.1").count(), server.hits.load(Ordering::SeqCst)), (1, at + 1));
    }
}

#[tokio::test]
async fn an_offer_that_is_not_accepted_changes_nothing() {
    let server = Server::start(ServeLimits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let offer = "connection: upgrade\r\nupgrade: foo\r\n";
    let last = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nb b";
    let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{offer}content-length: 1\r\n\r\na{last}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.contains("plain a") && answer.ends_with("plain b b"), "{answer}");
}

#[tokio::test]
async fn a_body_that_fails_cuts_the_connection() {
    let switch = failing();
    assert!(hold_open(Arc::clone(&switch), &Activity::default()).await, "its client should see that");
    let cx = Context::from_waker(Waker::noop());
    for half in [Half::Read, Half::Write] {
        assert_eq!(switch.check(half, &cx).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

fn failing() -> Arc<Switch> {
    Arc::new(Switch::new(Body::from_stream(futures_util::stream::once(async {
        Err::<bytes::Bytes, _>(io::Error::other("the service was stopped"))
    }))))
}

#[tokio::test]
async fn a_connection_that_was_closed_in_order_is_not_reset_though_its_body_fails_afterwards() {
    let closed = failing();
    closed.closed();
    assert!(!hold_open(closed, &Activity::default()).await);
    // The end was sent, and the connection is not closed yet.
    let ended = failing();
    ended.ended();
    assert!(!hold_open(Arc::clone(&ended), &Activity::default()).await);
    assert!(ended.check(Half::Read, &Context::from_waker(Waker::noop())).is_err(), "it is cut all the same");
}
