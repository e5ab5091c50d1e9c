//! WebSocket handshakes to real servers: connections of their own, and answers that prove something.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::testing::{Answer, accepting, closed_port, handshake, not_processed, text};
use crate::{MeshBody, Options};

/// A handshake as a proxy sends it on: the fields of the client's connection are gone.
fn shaking() -> Request<Empty<Bytes>> {
    let mut request = Request::get("/chat?a");
    for (name, value) in [
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "a, b"),
    ] {
        request = request.header(name, value);
    }
    request.body(Empty::new()).unwrap()
}

const WEBSOCKET: Options<'static> = Options {
    host: None,
    weights: &[],
    balance: crate::Balance::TwoChoices,
    head: None,
    idle: None,
    min_rate: None,
    attempts: None,
    repeated: crate::Repeated { connect: true, reset: true, codes: &[] },
    websocket: true,
    pool: None,
    trail: None,
};

async fn shake(mesh: &Mesh, urls: &[BaseUrl]) -> Result<Response<MeshBody>, MeshError> {
    mesh.send_to_any_with(urls, &WEBSOCKET, shaking()).await
}

/// The connection behind an answer 101.
async fn open(answer: &mut Response<MeshBody>) -> TokioIo<Upgraded> {
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    TokioIo::new(hyper::upgrade::on(answer).await.unwrap())
}

async fn read(io: &mut TokioIo<Upgraded>, expected: &str) {
    let mut arrived = vec![0; expected.len()];
    io.read_exact(&mut arrived).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&arrived), expected);
}

#[tokio::test]
async fn an_accepted_handshake_is_a_connection_that_nobody_else_gets() {
    let upstream = Upstream::websocket().await;
    let (_view, mesh) = mesh([], Limits::default());
    let mut answer = shake(&mesh, &[upstream.url()]).await.unwrap();
    let names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["sec-websocket-accept"], "the fields of one connection are removed");
    let mut io = open(&mut answer).await;
    read(&mut io, "hello").await;
    io.write_all(b"there").await.unwrap();
    read(&mut io, "there").await;
    let counts = mesh.upstream_counts();
    assert_eq!((counts.active, counts.idle, mesh.stats().in_flight), (1, 0, 1));
    // Another one, and an ordinary request, get connections of their own.
    let mut other = shake(&mesh, &[upstream.url()]).await.unwrap();
    read(&mut open(&mut other).await, "hello").await;
    assert_eq!(upstream.hits(), 2);
    io.shutdown().await.unwrap();
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0, "a half-close arrives");
    drop((io, answer, other));
    idle(&mesh, 0).await;
    assert_eq!(mesh.stats().in_flight, 0);
    assert_eq!(mesh.upstream_counts().connects[0], (ConnectResult::Connected, 2));
}

#[tokio::test]
async fn the_server_gets_a_whole_handshake_with_the_key_of_the_client_or_ours() {
    let upstream = Upstream::writing("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").await;
    let (_view, mesh) = mesh([], Limits::default());
    let mut without_key = shaking();
    without_key.headers_mut().remove("sec-websocket-key");
    for request in [shaking(), without_key] {
        let urls = [upstream.url()];
        let answer = mesh.send_to_any_with(&urls, &WEBSOCKET, request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(whole(answer.into_body()).await.unwrap(), "no");
    }
    let heads = upstream.heads();
    for head in &heads {
        assert!(head.starts_with("GET /chat?a HTTP/1.1\r\n"), "{head}");
        for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"] {
            assert!(head.lines().any(|found| found == line), "{line} in {head}");
        }
    }
    assert!(heads[0].contains("dGhlIHNhbXBsZSBub25jZQ==") && !heads[1].contains("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(heads[1].contains("sec-websocket-key: "), "{}", heads[1]);
}

#[tokio::test]
async fn an_answer_that_does_not_switch_is_an_ordinary_one_and_its_connection_is_closed() {
    let upstream = answering(OK).await;
    let (_view, mesh) = mesh([], Limits::default());
    for expected in 1..=2 {
        let answer = shake(&mesh, &[upstream.url()]).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
        idle(&mesh, 0).await;
        assert_eq!(upstream.hits(), expected);
    }
}

#[tokio::test]
async fn a_server_that_did_not_read_the_handshake_opens_nothing() {
    let (_view, mesh) = mesh([], Limits::default());
    let good = accepting(&handshake("/"));
    for (answer, expected) in [
        (good.replace("Accept: s3", "Accept: S3"), "does not belong to the key"),
        (good.replace("Sec-WebSocket-Accept", "X-Accept"), "has no Sec-WebSocket-Accept"),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), "switched to `h2c`"),
    ] {
        let upstream = Upstream::writing(answer).await;
        let error = shake(&mesh, &[upstream.url()]).await.unwrap_err();
        let MeshError::BadHandshake { why, .. } = &error else { panic!("{error:?}") };
        assert!(why.contains(expected), "{why}");
        assert_eq!((error.to_problem().status, upstream.hits()), (502, 1));
    }
    let unasked = Upstream::writing(good).await;
    let error = mesh.send_to_any(&[unasked.url()], shaking()).await.unwrap_err();
    assert!(matches!(error, MeshError::Garbage { .. }), "{error:?}");
    let closing = Upstream::raw(|mut stream| async move { drop(read_head(&mut stream).await) }).await;
    let error = shake(&mesh, &[closing.url()]).await.unwrap_err();
    assert!(matches!(error, MeshError::Broken { .. }), "{error:?}");
    idle(&mesh, 0).await;
    assert_eq!(mesh.stats().in_flight, 0);
}

#[tokio::test]
async fn a_handshake_that_nobody_processed_is_sent_to_another_member() {
    let (good, refusing) =
        (Upstream::websocket().await, Upstream::serving(|_| async { not_processed() }).await);
    let (_view, mesh) = mesh(
        [member("a", refusing.addr, Phase::Ready), member("b", good.addr, Phase::Ready)],
        Limits::default(),
    );
    for _ in 0..10 {
        let mut answer = mesh.send_with(&echo(), &WEBSOCKET, shaking()).await.unwrap();
        read(&mut open(&mut answer).await, "hello").await;
    }
    assert!(refusing.hits() > 0);
    for _ in 0..10 {
        let mut answer = shake(&mesh, &[closed_port().await, good.url()]).await.unwrap();
        read(&mut open(&mut answer).await, "hello").await;
    }
    assert_eq!(good.hits(), 20);
}

/// Serves HTTP/2 without TLS, with WebSockets if it allows them.
async fn over_http2(allows: bool, seen: Arc<std::sync::Mutex<HeaderMap>>) -> Upstream {
    Upstream::raw(move |stream| {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |mut request: Request<Incoming>| {
            assert_eq!((request.method(), request.version()), (&Method::CONNECT, Version::HTTP_2));
            assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
            *seen.lock().unwrap() = request.headers().clone();
            let is_wanted = request.uri().path() == "/chat";
            let upgrade = hyper::upgrade::on(&mut request);
            TokioExecutor::new().execute(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                to.write_all(b"hello").await.unwrap();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
            let mut answer: Answer = text("");
            if !is_wanted {
                *answer.status_mut() = StatusCode::NOT_FOUND;
            }
            async { Ok::<_, Infallible>(answer) }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        if allows {
            builder.enable_connect_protocol();
        }
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        async move {
            let _ = connection.await;
        }
    })
    .await
}

fn h2c(upstream: &Upstream) -> BaseUrl {
    format!("h2c://{}", upstream.addr).parse().unwrap()
}

#[tokio::test]
async fn over_http_2_the_handshake_is_an_extended_connect() {
    let seen = Arc::default();
    let upstream = over_http2(true, Arc::clone(&seen)).await;
    let (_view, mesh) = mesh([], Limits::default());
    let mut answer = shake(&mesh, &[h2c(&upstream)]).await.unwrap();
    assert!(answer.headers().contains_key("sec-websocket-accept"), "clients with HTTP/1.1 want it");
    let mut io = open(&mut answer).await;
    read(&mut io, "hello").await;
    io.write_all(b"there").await.unwrap();
    read(&mut io, "there").await;
    io.shutdown().await.unwrap();
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
    drop((io, answer));
    idle(&mesh, 0).await;
    let seen = seen.lock().unwrap();
    assert!(seen["sec-websocket-version"] == "13" && seen["sec-websocket-protocol"] == "a, b", "{seen:?}");
    assert!(["sec-websocket-key", "upgrade", "connection"].iter().all(|name| !seen.contains_key(*name)));
}

/// They say whether it allows WebSockets, and come after the connection is open.
#[tokio::test]
async fn the_settings_of_a_server_with_http_2_are_noticed_when_they_come() {
    let upstream = over_http2(true, Arc::default()).await;
    // Far more than the test takes.
    let limits = Limits { connect: Duration::from_secs(600), ..Limits::default() };
    let (_view, mesh) = mesh([], limits);
    for _ in 0..5 {
        let shaking = tokio::time::timeout(Duration::from_secs(60), async {
            let mut answer = shake(&mesh, &[h2c(&upstream)]).await.unwrap();
            read(&mut open(&mut answer).await, "hello").await;
        });
        shaking.await.expect("nothing else wakes it");
    }
}

#[tokio::test]
async fn a_server_with_http_2_that_allows_no_websockets_gets_none() {
    let upstream = over_http2(false, Arc::default()).await;
    let (_view, mesh) = mesh([], Limits::default());
    let error = shake(&mesh, &[h2c(&upstream)]).await.unwrap_err();
    assert!(matches!(error, MeshError::NoWebSockets { .. }), "{error:?}");
    assert_eq!((error.to_problem().status, error.to_problem().code()), (502, "websockets-not-allowed"));
    assert_eq!(upstream.hits(), 1, "it is not tried again");
    idle(&mesh, 0).await;
}

#[tokio::test]
async fn over_tls_http_1_is_spoken() {
    let upstream = tls::serving(&["h2", "http/1.1"]).await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = tls::url(&upstream, "localhost").trusting(&tls::testdata("ca.crt"));
    let answer = shake(&mesh, &[url]).await.unwrap();
    assert_eq!(whole(answer.into_body()).await.unwrap(), "HTTP/1.1 localhost None");
}
