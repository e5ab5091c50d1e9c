//! Connections to real servers: when they are used again, and when not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use types::Phase;

use crate::testing::{Pieces, Upstream, echo, member, mesh, read_head, until, view, whole};
use crate::{BaseUrl, ConnectResult, Limits, Mesh, MeshError};

mod http2;
mod tls;
mod websocket;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn get() -> Request<Empty<Bytes>> {
    Request::get("/").body(Empty::new()).unwrap()
}

fn post() -> Request<Full<Bytes>> {
    Request::post("/").body(Full::new(Bytes::from_static(b"body"))).unwrap()
}

/// Answers every request without a body in the same way until the client closes the connection.
async fn answering(answer: &'static [u8]) -> Upstream {
    Upstream::raw(move |mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn ok(mesh: &Mesh, url: &BaseUrl) {
    let answer = mesh.send_to_any(std::slice::from_ref(url), get()).await.unwrap();
    assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
}

/// Waits until this many connections are idle and none is in use.
async fn idle(mesh: &Mesh, number: usize) {
    until(|| {
        let counts = mesh.upstream_counts();
        (counts.active, counts.idle) == (0, number)
    })
    .await;
}

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let upstream = answering(OK).await;
    let (_view, mesh) = mesh([], Limits::default());
    for _ in 0..10 {
        ok(&mesh, &upstream.url()).await;
        idle(&mesh, 1).await;
    }
    assert_eq!(upstream.hits(), 1);
    let connects = mesh.upstream_counts().connects;
    assert_eq!(connects[0], (ConnectResult::Connected, 1));
}

/// Behaviour 1. The seconds pass when the test says so, without a wait: before each third request, which then meets connections
/// that are being closed.
#[tokio::test]
async fn behaviour_1_10_000_requests_to_an_upstream_with_a_keep_alive_of_a_second_have_no_502() {
    const REQUESTS: usize = 10_000;
    let (second, seconds) = watch::channel(());
    let upstream = keeping_alive_for_a_second(seconds).await;
    let limits = Limits { retry_percent: 0, retry_floor: 0, attempts: 1, ..Limits::default() };
    let (_view, mesh) = mesh([], limits);
    let url = upstream.url();
    for number in 0..REQUESTS {
        if number % 3 == 0 {
            second.send_replace(());
        }
        ok(&mesh, &url).await;
    }
    let resent: u64 = mesh.upstream_counts().retries.iter().map(|(_, count)| count).sum();
    assert!(resent > 0, "some requests met a connection that was being closed");
    assert_eq!(mesh.stats().retries, 0, "the retry budget pays for none");
    assert!(upstream.hits() < REQUESTS, "connections were used again");
}

/// Closes each connection that is idle when a second is over: at once, after a moment, or when the next request has been read.
async fn keeping_alive_for_a_second(seconds: watch::Receiver<()>) -> Upstream {
    let connections = Arc::new(AtomicUsize::new(0));
    Upstream::raw(move |mut stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        let mut seconds = seconds.clone();
        async move {
            let mut head = read_head(&mut stream).await;
            loop {
                if head.is_empty() || stream.write_all(OK).await.is_err() {
                    return;
                }
                // It is idle from now on.
                seconds.mark_unchanged();
                tokio::select! {
                    next = read_head(&mut stream) => head = next,
                    _ = seconds.changed() => break,
                }
            }
            match number % 3 {
                0 => {}
                1 => tokio::task::yield_now().await,
                _ => drop(read_head(&mut stream).await),
            }
        }
    })
    .await
}

/// Behaviours 1 and 3.
#[tokio::test]
async fn a_post_that_was_written_to_a_closing_connection_is_sent_once() {
    let posts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&posts);
    let upstream = Upstream::raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.starts_with("POST") {
                    count.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if head.is_empty() || stream.write_all(OK).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    ok(&mesh, &upstream.url()).await;
    idle(&mesh, 1).await;
    let error = mesh.send_to_any(&[upstream.url()], post()).await.unwrap_err();
    assert!(matches!(error, MeshError::Broken { .. }), "{error:?}");
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_is_not_used_again_after_an_early_answer() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(OK).await;
        while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    for number in 1..=3 {
        let (pieces, body) = Pieces::new();
        pieces.send(Ok(Bytes::from_static(b"part"))).await.unwrap();
        let request = Request::post("/").body(body).unwrap();
        let answer = mesh.send_to_any(&[upstream.url()], request).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
        drop(pieces);
        idle(&mesh, 0).await;
        assert_eq!(upstream.hits(), number);
    }
}

#[tokio::test]
async fn a_connection_is_not_used_again_if_its_answer_was_not_read_to_the_end() {
    let (closed, mut closings) = mpsc::channel(9);
    let upstream = Upstream::raw(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            until_closed(&mut stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let mut answer = mesh.send_to_any(&[upstream.url()], get()).await.unwrap().into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    drop(answer);
    closings.recv().await.unwrap();
    idle(&mesh, 0).await;
}

#[tokio::test]
async fn a_connection_with_a_login_of_its_own_carries_no_other_request() {
    let asking = answering(
        b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Negotiate\r\nwww-authenticate: NTLM\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    for number in 1..=2 {
        let answer = mesh.send_to_any(&[asking.url()], get()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        drop(answer);
        idle(&mesh, 0).await;
        assert_eq!(asking.hits(), number);
    }
    // The third message of the handshake is answered like any other request.
    let upstream = answering(OK).await;
    for number in 1..=2 {
        let request = Request::get("/").header("authorization", "NTLM TlRMTVNTUAAD");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = mesh.send_to_any(&[upstream.url()], request).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
        idle(&mesh, 0).await;
        assert_eq!(upstream.hits(), number);
    }
}

#[tokio::test]
async fn the_servers_keep_alive_limit_is_obeyed() {
    let upstream =
        answering(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n\r\nok").await;
    let (_view, mesh) = mesh([], Limits::default());
    ok(&mesh, &upstream.url()).await;
    idle(&mesh, 0).await;
    ok(&mesh, &upstream.url()).await;
    assert_eq!(upstream.hits(), 2);
}

#[tokio::test]
async fn no_more_than_the_limit_of_connections_is_idle() {
    let upstream = answering(OK).await;
    let (_view, mesh) = mesh([], Limits { keep_alive_connections: 2, ..Limits::default() });
    let urls = [upstream.url()];
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(mesh.send_to_any(&urls, get()).await.unwrap());
    }
    assert_eq!(mesh.upstream_counts().active, 4);
    for answer in answers {
        whole(answer.into_body()).await.unwrap();
    }
    idle(&mesh, 2).await;
}

#[tokio::test]
async fn behaviour_8_the_name_of_an_upstream_is_looked_up_again_and_one_that_fails_ends_nothing() {
    let upstream = answering(OK).await;
    let port = upstream.url().authority().rsplit_once(':').unwrap().1.to_owned();
    let named: BaseUrl = format!("http://localhost:{port}").parse().unwrap();
    let (_view, mesh) = mesh([], Limits { lookup: Duration::ZERO, ..Limits::default() });
    for hits in 1..=3 {
        ok(&mesh, &named).await;
        idle(&mesh, 0).await;
        assert_eq!(upstream.hits(), hits, "its connection led where the name led");
    }
    for _ in 0..3 {
        ok(&mesh, &upstream.url()).await;
        idle(&mesh, 1).await;
    }
    assert_eq!(upstream.hits(), 4, "an address needs no lookup");
    let unknown: BaseUrl = "http://no-such-host.invalid".parse().unwrap();
    let error = mesh.send_to_any(std::slice::from_ref(&unknown), get()).await.unwrap_err();
    assert!(matches!(error, MeshError::Unreachable { .. }), "{error:?}");
    let answer = mesh.send_to_any(&[unknown, named], get()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "the other address of the route answers");
}

#[tokio::test]
async fn a_connection_to_a_name_is_used_again_until_the_name_is_looked_up() {
    let upstream = answering(OK).await;
    let named = format!("http://localhost:{}", upstream.url().authority().rsplit_once(':').unwrap().1);
    let (_view, mesh) = mesh([], Limits { lookup: Duration::from_secs(3600), ..Limits::default() });
    for _ in 0..3 {
        ok(&mesh, &named.parse().unwrap()).await;
        idle(&mesh, 1).await;
    }
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_after_the_limit() {
    let (closed, mut closings) = mpsc::channel(9);
    let upstream = Upstream::raw(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            until_closed(&mut stream).await;
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits { keep_alive: Duration::from_millis(50), ..Limits::default() });
    ok(&mesh, &upstream.url()).await;
    closings.recv().await.unwrap();
    idle(&mesh, 0).await;
}

#[tokio::test]
async fn idle_connections_to_a_member_that_drains_or_left_are_closed_at_once() {
    let (closed, mut closings) = mpsc::channel(9);
    let upstream = Upstream::raw(move |mut stream| {
        let closed = closed.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                stream.write_all(OK).await.unwrap();
            }
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let ready = || member("a", upstream.addr, Phase::Ready);
    let (views, mesh) = mesh([ready()], Limits::default());
    let ask = async || {
        let answer = mesh.send(&echo(), get()).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), "ok");
    };
    ask().await;
    idle(&mesh, 1).await;
    views.send_replace(view([member("a", upstream.addr, Phase::Draining)]));
    closings.recv().await.unwrap();
    // What is sent to it nevertheless leaves no idle connection behind.
    ok(&mesh, &upstream.url()).await;
    closings.recv().await.unwrap();

    views.send_replace(view([ready()]));
    until(|| mesh.backends(&echo()).backends.len() == 1).await;
    ask().await;
    idle(&mesh, 1).await;
    views.send_replace(view([]));
    closings.recv().await.unwrap();
}

#[test]
fn each_core_has_its_own_connections() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shared = runtime();
    let (upstream, mesh) = shared.block_on(async { (answering(OK).await, mesh([], Limits::default()).1) });
    let url = upstream.url();
    let cores = std::thread::available_parallelism().unwrap().get().min(3);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Not until all connections are idle: they are, for a moment, between two requests.
        let server = scope.spawn(|| shared.block_on(until(|| done.load(Ordering::Relaxed) == cores)));
        for core in 0..cores {
            let (mesh, url, done) = (&mesh, &url, &done);
            scope.spawn(move || {
                crate::core::enter(core);
                let own = runtime();
                own.block_on(async {
                    for _ in 0..5 {
                        ok(mesh, url).await;
                    }
                    until(|| mesh.upstream_counts().idle == cores).await;
                });
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        server.join().unwrap();
    });
    assert_eq!(upstream.hits(), cores);
}

#[tokio::test]
async fn connections_that_could_not_be_opened_are_counted() {
    let (_view, mesh) = mesh([], Limits { attempts: 1, ..Limits::default() });
    let closed = crate::testing::closed_port().await;
    mesh.send_to_any(&[closed], get()).await.unwrap_err();
    let unknown: BaseUrl = "http://no-such-host.invalid".parse().unwrap();
    mesh.send_to_any(&[unknown], get()).await.unwrap_err();
    let counts = mesh.upstream_counts();
    assert_eq!(counts.connects[1], (ConnectResult::Refused, 1));
    assert_eq!(counts.connects[4], (ConnectResult::Failed, 1));
    assert_eq!((counts.active, counts.idle), (0, 0));
}

/// Waits until the client has closed the connection.
async fn until_closed(stream: &mut TcpStream) {
    while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
}
