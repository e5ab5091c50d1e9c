//! The mesh against real servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use types::{ErrorKind, Phase, Problem, Role, ShardId, Target};

use super::*;
use crate::testing::{
    Answer, Pieces, Upstream, closed_port, echo, member, mesh, not_processed, read_head, standby, text,
    until, view, whole,
};
use crate::{CallError, Limits, MalformedBody, MeshBodyError};

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

fn post(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post("/").body(Full::new(body.into())).unwrap()
}

/// Short limits for tests that wait for a timeout.
fn short_limits() -> Limits {
    Limits {
        wait: Duration::from_millis(100),
        head: Duration::from_millis(100),
        idle: Duration::from_millis(100),
        ..Limits::default()
    }
}

async fn echoing(request: Request<Incoming>) -> Answer {
    Answer::new(request.into_body().boxed())
}

/// Answers with the head of the request as it arrived.
async fn reflecting(request: Request<Incoming>) -> Answer {
    let mut reflected = format!("{} {}", request.method(), request.uri());
    for (name, value) in request.headers() {
        reflected += &format!("\n{name}: {}", value.to_str().unwrap());
    }
    text(reflected)
}

#[tokio::test]
async fn the_path_arrives_byte_for_byte() {
    let upstream = Upstream::serving(reflecting).await;
    let (_view, mesh) = mesh([member("a", upstream.addr, Phase::Ready)], Limits::default());
    let path = "/files/a%2Fb/..%2f/./x//?q=%20&r=/../";
    let answer = mesh.send(&echo(), get(path)).await.unwrap();
    let reflected = whole(answer.into_body()).await.unwrap();
    assert_eq!(reflected.lines().next().unwrap(), format!("GET /svc/echo{path}"));

    let base: BaseUrl = format!("{}/base", upstream.url()).parse().unwrap();
    let absolute = get(&format!("http://elsewhere{path}"));
    let answer = mesh.send_to_any(&[base], absolute).await.unwrap();
    let reflected = whole(answer.into_body()).await.unwrap();
    assert_eq!(reflected.lines().next().unwrap(), format!("GET /base{path}"));
}

#[tokio::test]
async fn fields_of_one_connection_are_not_forwarded() {
    let upstream = Upstream::serving(|request| async {
        let mut answer = reflecting(request).await;
        for (name, value) in [
            ("connection", "x-secret"),
            ("x-secret", "1"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        answer
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let request = Request::get("/")
        .header("host", "shop.example")
        .header("connection", "x-mine, upgrade")
        .header("x-mine", "1")
        .header("upgrade", "websocket")
        .header("accept", "*/*")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = mesh.send_to_any(&[upstream.url()], request).await.unwrap();
    for gone in ["connection", "x-secret", "proxy-authenticate", "upgrade"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(answer.headers()["x-kept"], "1");
    let reflected = whole(answer.into_body()).await.unwrap();
    let mut lines: Vec<_> = reflected.lines().skip(1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["accept: */*", "cdn-loop: coterie", &format!("host: {}", upstream.addr)]);
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    const PIECE: usize = 256 * 1024;
    const PIECES: usize = 64;
    let upstream = Upstream::serving(echoing).await;
    let (_view, mesh) = mesh([], Limits::default());
    let (pieces, body) = Pieces::new();
    pieces.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
    let request = Request::post("/").body(body).unwrap();
    let answer = mesh.send_to_any(&[upstream.url()], request).await.unwrap();
    let mut answer = answer.into_body();
    let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first", "the answer begins before the request has ended");

    let sending = async move {
        for _ in 0..PIECES {
            pieces.send(Ok(Bytes::from(vec![7; PIECE]))).await.unwrap();
        }
    };
    let ((), rest) = tokio::join!(sending, answer.collect());
    assert_eq!(rest.unwrap().to_bytes().len(), PIECES * PIECE);
    until(|| mesh.stats().in_flight == 0).await;
}

#[tokio::test]
async fn an_address_that_refuses_is_replaced_and_then_avoided() {
    let upstream = Upstream::serving(echoing).await;
    let (_view, mesh) = mesh([], Limits::default());
    let urls = [closed_port().await, upstream.url()];
    for _ in 0..50 {
        let answer = mesh.send_to_any(&urls, post("x")).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), "x");
    }
    assert_eq!(mesh.stats().retries, 1, "it is known after the first time");
}

#[tokio::test]
async fn if_all_addresses_refuse_the_error_says_so() {
    let (_view, mesh) = mesh([], short_limits());
    let url = closed_port().await;
    let error = mesh.send_to_any(std::slice::from_ref(&url), get("/")).await.unwrap_err();
    let MeshError::Unreachable { address, why } = error else {
        panic!("{error:?}");
    };
    assert_eq!(address, url.authority());
    assert!(why.contains("refused"), "{why}");
    assert_eq!(mesh.stats().in_flight, 0);
    assert_eq!(mesh.send_to_any(&[], get("/")).await.unwrap_err(), MeshError::NoAddress);
}

#[tokio::test]
async fn an_unprocessed_request_goes_to_another_member_with_its_body() {
    let draining = Upstream::serving(|_unread| async { not_processed() }).await;
    let serving = Upstream::serving(echoing).await;
    let members = [member("a", draining.addr, Phase::Ready), member("b", serving.addr, Phase::Ready)];
    let limits = Limits { retry_percent: 0, retry_floor: 0, ..Limits::default() };
    let (_view, mesh) = mesh(members, limits);
    for number in 0..40 {
        let body = format!("body {number}");
        let answer = mesh.send(&echo(), post(body.clone())).await.unwrap();
        assert_eq!(whole(answer.into_body()).await.unwrap(), body);
    }
    assert!(draining.hits() > 0);
    assert_eq!(mesh.stats().refusals, draining.hits() as u64);
    assert_eq!(mesh.stats().retries, 0, "refusals cost nothing");
}

#[tokio::test]
async fn a_body_still_in_transit_is_replayed_and_continues() {
    let draining = Upstream::serving(|mut request: Request<Incoming>| async move {
        request.body_mut().frame().await.unwrap().unwrap();
        not_processed()
    })
    .await;
    let serving = Upstream::serving(echoing).await;
    let first = member("a", draining.addr, Phase::Ready);
    let (views, mesh) = mesh([first], Limits::default());
    let (pieces, body) = Pieces::new();
    pieces.send(Ok(Bytes::from_static(b"one "))).await.unwrap();
    let request = Request::post("/").body(body).unwrap();
    let sending = async {
        until(|| draining.hits() > 1).await;
        views.send_replace(view([member("b", serving.addr, Phase::Ready)]));
        until(|| serving.hits() > 0).await;
        pieces.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
        drop(pieces);
    };
    let service = echo();
    let (answer, ()) = tokio::join!(mesh.send(&service, request), sending);
    assert_eq!(whole(answer.unwrap().into_body()).await.unwrap(), "one two");
}

#[tokio::test]
async fn a_body_larger_than_the_replay_limit_is_not_sent_again() {
    let draining = Upstream::serving(|request: Request<Incoming>| async move {
        request.into_body().collect().await.unwrap();
        not_processed()
    })
    .await;
    let limits = Limits { replay: 10, ..Limits::default() };
    let (_view, mesh) = mesh([member("a", draining.addr, Phase::Ready)], limits);
    let error = mesh.send(&echo(), post("eleven byte")).await.unwrap_err();
    assert!(matches!(error, MeshError::BodyTooLargeToResend { kept: 10, .. }), "{error:?}");
    assert_eq!(draining.hits(), 1);
}

#[tokio::test]
async fn a_503_of_the_service_itself_is_forwarded() {
    let upstream = Upstream::serving(|_| async {
        let mut answer = text("overloaded");
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let answer = mesh.send_to_any(&[upstream.url()], get("/")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(whole(answer.into_body()).await.unwrap(), "overloaded");
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn after_a_broken_connection_only_idempotent_requests_are_sent_again() {
    let dying = Upstream::writing("").await;
    let (_view, mesh) = mesh([], Limits::default());
    let error = mesh.send_to_any(&[dying.url()], post("once")).await.unwrap_err();
    assert!(matches!(error, MeshError::Broken { .. }), "{error:?}");
    assert_eq!(dying.hits(), 1, "a POST may have been acted on");

    let serving = Upstream::serving(echoing).await;
    let dying = Upstream::writing("").await;
    let urls = [dying.url(), serving.url()];
    for _ in 0..20 {
        assert!(mesh.send_to_any(&urls, get("/")).await.is_ok());
    }
    assert!(dying.hits() > 0);
    assert_eq!(mesh.stats().retries, dying.hits() as u64);
}

#[tokio::test]
async fn a_truncated_answer_is_an_error() {
    let dying = Upstream::writing("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let (_view, mesh) = mesh([], Limits::default());
    let answer = mesh.send_to_any(&[dying.url()], get("/")).await.unwrap();
    let error = whole(answer.into_body()).await.unwrap_err();
    assert!(matches!(error, MeshBodyError::Broken(_)), "{error:?}");
    assert_eq!(dying.hits(), 1);
    assert_eq!(mesh.stats().in_flight, 0);
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_reported_as_such() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.9\r\n\r\n"[..],
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n",
    ] {
        let strange = Upstream::writing(bytes).await;
        let (_view, mesh) = mesh([], Limits::default());
        let error = mesh.send_to_any(&[strange.url()], get("/")).await.unwrap_err();
        assert!(matches!(error, MeshError::Garbage { .. }), "{error:?}");
        assert_eq!(strange.hits(), 1);
    }
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let silent = Upstream::serving(|_| std::future::pending()).await;
    let (_view, mesh) = mesh([], short_limits());
    let error = mesh.send_to_any(&[silent.url()], get("/")).await.unwrap_err();
    assert!(matches!(error, MeshError::TimedOut { .. }), "{error:?}");
    assert_eq!(silent.hits(), 1);
    assert_eq!(mesh.stats().in_flight, 0);
}

#[tokio::test]
async fn a_stalled_answer_times_out() {
    let stalling = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    let (_view, mesh) = mesh([], short_limits());
    let answer = mesh.send_to_any(&[stalling.url()], get("/")).await.unwrap();
    let error = whole(answer.into_body()).await.unwrap_err();
    assert!(matches!(error, MeshBodyError::Idle(_)), "{error:?}");
    assert_eq!(mesh.stats().in_flight, 0);
}

#[tokio::test]
async fn behaviour_7_a_body_that_makes_progress_may_take_longer_than_the_limit() {
    let limits = Limits { head: Duration::from_millis(400), ..Limits::default() };
    let upstream = Upstream::serving(|request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(body.len().to_string())
    })
    .await;
    let (_view, mesh) = mesh([], limits.clone());
    let (pieces, body) = Pieces::new();
    let began = Instant::now();
    let sending = async move {
        let mut number = 0;
        while began.elapsed() < limits.head * 2 {
            pieces.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
            number += 1;
            tokio::time::sleep(limits.head / 20).await;
        }
        number
    };
    let request = Request::post("/").body(body).unwrap();
    let urls = [upstream.url()];
    let (answer, sent) = tokio::join!(mesh.send_to_any(&urls, request), sending);
    assert_eq!(whole(answer.unwrap().into_body()).await.unwrap(), sent.to_string());
}

#[tokio::test]
async fn a_stalled_client_and_a_silent_member_are_different_errors() {
    let upstream = Upstream::serving(|request: Request<Incoming>| async move {
        let _ = request.into_body().collect().await;
        text("never")
    })
    .await;
    // The client's limit is that of bodies, however long an answer may take.
    let limits = Limits { head: Duration::from_secs(3600), ..short_limits() };
    let (_view, mesh) = mesh([], limits.clone());
    let (pieces, body) = Pieces::new();
    pieces.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
    let request = Request::post("/").body(body).unwrap();
    let error = mesh.send_to_any(&[upstream.url()], request).await.unwrap_err();
    assert!(matches!(error, MeshError::BodyStalled { limit } if limit == limits.idle), "{error:?}");
    until(|| pieces.is_closed()).await;

    let (pieces, body) = Pieces::new();
    pieces.send(Err("the client is gone")).await.unwrap();
    let request = Request::put("/").body(body).unwrap();
    let error = mesh.send_to_any(&[upstream.url()], request).await.unwrap_err();
    let MeshError::BodyAborted { why } = error else {
        panic!("{error:?}");
    };
    assert_eq!(why, "the client is gone");

    let (pieces, body) = Pieces::new();
    pieces.send(Err("a chunk has no length")).await.unwrap();
    let body = body.map_err(|why| MalformedBody(why.to_string()));
    let request = Request::put("/").body(body).unwrap();
    let error = mesh.send_to_any(&[upstream.url()], request).await.unwrap_err();
    assert!(
        matches!(&error, MeshError::BodyMalformed { why } if why == "a chunk has no length"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_answer_that_goes_on_beyond_the_deadline_is_cut_whether_data_comes_or_not() {
    for is_silent in [true, false] {
        let upstream = Upstream::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\nfirst").await;
            while !is_silent && stream.write_all(b"more").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Until the mesh closes the connection.
            read_head(&mut stream).await;
        })
        .await;
        let (_view, mesh) = mesh([], Limits::default());
        let mut seconds = 1;
        // On a busy machine, the head may come too late.
        let answer = loop {
            let mut request = get("/");
            request.headers_mut().insert("coterie-deadline-ms", (seconds * 1000).into());
            match mesh.send_to_any(&[upstream.url()], request).await {
                Ok(answer) => break answer,
                Err(MeshError::DeadlinePassed { .. }) => seconds *= 2,
                Err(error) => panic!("{error:?}"),
            }
        };
        let error = answer.into_body().collect().await.unwrap_err();
        let MeshBodyError::DeadlinePassed(reset) = &error else { panic!("{error:?}") };
        assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
        until(|| mesh.stats().in_flight == 0).await;
        until(|| mesh.upstream_counts().active == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_disconnects_midway_frees_the_member() {
    let endless = Upstream::serving(|request: Request<Incoming>| async move {
        if request.uri().path() == "/silent" {
            std::future::pending::<()>().await;
        }
        echoing(request).await
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let url = endless.url();

    let (pieces, body) = Pieces::new();
    pieces.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
    let request = Request::post("/").body(body).unwrap();
    let urls = [url.clone()];
    let answer = mesh.send_to_any(&urls, request).await.unwrap();
    assert_eq!(url.in_flight(), 1);
    drop(answer);
    assert_eq!((url.in_flight(), mesh.stats().in_flight), (0, 0));
    // The connection releases the request's body as well.
    until(|| pieces.is_closed()).await;

    let waiting = mesh.send_to_any(&urls, get("/silent"));
    let seen = until(|| endless.hits() == 2);
    tokio::select! {
        _ = waiting => panic!("the server is silent"),
        () = seen => {}
    }
    assert_eq!((url.in_flight(), mesh.stats().in_flight), (0, 0));
}

#[tokio::test]
async fn an_answer_without_a_body_has_ended_at_once() {
    let upstream = Upstream::serving(|request: Request<Incoming>| async move {
        let mut answer = match request.uri().path() {
            "/head" => text("not shown"),
            _ => text(""),
        };
        *answer.status_mut() = match request.uri().path() {
            "/204" => StatusCode::NO_CONTENT,
            "/304" => StatusCode::NOT_MODIFIED,
            _ => StatusCode::OK,
        };
        answer
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    for (method, path) in [(Method::HEAD, "/head"), (Method::GET, "/204"), (Method::GET, "/304")] {
        let request = Request::builder().method(method).uri(path).body(Empty::<Bytes>::new()).unwrap();
        let answer = mesh.send_to_any(&[upstream.url()], request).await.unwrap();
        if path == "/head" {
            assert_eq!(answer.headers()["content-length"], "9");
        }
        assert!(answer.body().is_end_stream(), "{path}");
        assert_eq!(mesh.stats().in_flight, 0, "{path}: an empty body need not be read");
    }
}

#[tokio::test]
async fn the_refusal_of_a_member_reaches_the_client() {
    let full = Upstream::serving(|_| async {
        let problem = Problem::new(ErrorKind::Unavailable, "too-busy", "all room is taken").hint("wait");
        let mut answer = not_processed();
        *answer.body_mut() = text(serde_json::to_vec(&problem).unwrap()).into_body();
        answer
    })
    .await;
    let (_view, mesh) = mesh([member("a", full.addr, Phase::Ready)], short_limits());
    let problem = mesh.send(&echo(), get("/")).await.unwrap_err().to_problem();
    assert_eq!((problem.status, problem.code(), problem.hint.as_deref()), (503, "too-busy", Some("wait")));
    assert!(problem.detail.starts_with("all room is taken (waited 1"), "{problem:?}");
    assert!(full.hits() > 1);
}

#[tokio::test]
async fn a_body_held_back_for_100_continue_is_sent_after_a_second() {
    // This server sends nothing before it has the body.
    let upstream = Upstream::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(head.to_ascii_lowercase().contains("expect: 100-continue"), "{head}");
        let mut body = [0; 4];
        let began = Instant::now();
        AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(500));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let request = Request::post("/").header("expect", "100-continue").body(Full::from("body")).unwrap();
    let answer = mesh.send_to_any(&[upstream.url()], request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_in_a_forwarding_loop_ends() {
    let upstream = Upstream::serving(echoing).await;
    let (_view, mesh) = mesh([], Limits::default());
    let request = Request::get("/")
        .header("cdn-loop", "coterie, coterie, coterie, coterie")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let error = mesh.send_to_any(&[upstream.url()], request).await.unwrap_err();
    assert_eq!(error, MeshError::Loop);
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test]
async fn a_request_waits_for_a_member_that_is_about_to_serve() {
    let upstream = Upstream::serving(echoing).await;
    for phase in [Phase::Starting, Phase::Draining, Phase::Failed] {
        let (views, mesh) = mesh([member("a", upstream.addr, phase)], Limits::default());
        let changing = async {
            until(|| mesh.stats().waiting == 1).await;
            views.send_replace(view([member("a", upstream.addr, Phase::Ready)]));
        };
        let (service, request) = (echo(), post("at last"));
        let (answer, ()) = tokio::join!(mesh.send(&service, request), changing);
        assert_eq!(whole(answer.unwrap().into_body()).await.unwrap(), "at last");
        assert_eq!(mesh.stats().waiting, 0);
    }
}

#[tokio::test]
async fn a_request_waits_for_a_role_that_disappeared_recently() {
    let upstream = Upstream::serving(echoing).await;
    let (views, mesh) = mesh([member("a", upstream.addr, Phase::Ready)], Limits::default());
    views.send_replace(view([standby("a", upstream.addr, &[])]));
    let changing = async {
        until(|| mesh.stats().waiting == 1).await;
        views.send_replace(view([member("b", upstream.addr, Phase::Ready)]));
    };
    let (service, request) = (echo(), get("/"));
    let (answer, ()) = tokio::join!(mesh.send(&service, request), changing);
    assert!(answer.is_ok());
}

#[tokio::test]
async fn a_drain_that_gossip_has_not_shown_yet_fails_no_request() {
    let is_draining = Arc::new(AtomicBool::new(true));
    let gate = Arc::clone(&is_draining);
    let upstream = Upstream::serving(move |request| {
        let is_draining = gate.load(Ordering::SeqCst);
        async move { if is_draining { not_processed() } else { echoing(request).await } }
    })
    .await;
    let (_view, mesh) = mesh([member("a", upstream.addr, Phase::Ready)], Limits::default());
    let reopening = async {
        until(|| upstream.hits() >= 3).await;
        is_draining.store(false, Ordering::SeqCst);
    };
    let (service, request) = (echo(), post("kept"));
    let (answer, ()) = tokio::join!(mesh.send(&service, request), reopening);
    assert_eq!(whole(answer.unwrap().into_body()).await.unwrap(), "kept");
}

#[tokio::test]
async fn a_request_does_not_wait_for_a_type_that_no_node_can_run() {
    let addr = "127.0.0.1:1".parse().unwrap();
    let (_view, unknown) = mesh([standby("a", addr, &[])], Limits::default());
    let error = unknown.send(&echo(), get("/")).await.unwrap_err();
    assert_eq!(error, MeshError::UnknownService { service: echo() });

    let (_view, possible) = mesh([standby("a", addr, &[echo()])], Limits::default());
    let error = possible.send(&echo(), get("/")).await.unwrap_err();
    assert!(
        matches!(&error, MeshError::NoServingMember { waited, spare: Some(spare), .. }
            if *waited < Duration::from_secs(1) && spare.as_str() == "a"),
        "{error:?}"
    );
}

#[tokio::test]
async fn waiting_requests_are_limited_in_time_and_number() {
    let addr = "127.0.0.1:1".parse().unwrap();
    let limits = Limits { waiting: 1, ..short_limits() };
    let (_view, mesh) = mesh([member("a", addr, Phase::Starting)], limits.clone());
    let service = echo();
    let first = mesh.send(&service, get("/"));
    let second = async {
        until(|| mesh.stats().waiting == 1).await;
        mesh.send(&service, get("/")).await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!(second.unwrap_err(), MeshError::QueueFull { waiting: 1 });
    let error = first.unwrap_err();
    assert!(matches!(error, MeshError::NoServingMember { waited, .. } if waited >= limits.wait), "{error:?}");
    assert_eq!(mesh.stats().waiting, 0);
}

#[tokio::test]
async fn a_request_finds_its_shard_or_waits_for_it() {
    let (zero, one) = (Upstream::serving(reflecting).await, Upstream::serving(reflecting).await);
    let sharded = |id: &str, upstream: &Upstream, shard: u32| {
        let mut member = member(id, upstream.addr, Phase::Ready);
        if let Some(state) = &mut member.state {
            state.role = Role::Service { service: echo(), shard: Some(shard.try_into().unwrap()) };
        }
        member
    };
    let members = [sharded("a", &zero, 0), sharded("b", &one, 1)];
    let (_views, receiver) = watch::channel(view(members));
    let targets = Targets::new(|_, head| {
        let shard: ShardId = head.uri.path()[1..].parse().unwrap();
        Target::Shard(shard)
    });
    let mesh = Mesh::new(receiver, targets, short_limits());
    for _ in 0..10 {
        mesh.send(&echo(), get("/1")).await.unwrap();
    }
    assert_eq!((zero.hits(), one.hits()), (0, 10));
    let error = mesh.send(&echo(), get("/2")).await.unwrap_err();
    assert!(matches!(error, MeshError::NoOwner { .. }), "{error:?}");
}

#[tokio::test]
async fn a_request_for_a_resigned_shard_waits_less_and_names_the_cause() {
    let mut owner = member("a", "127.0.0.1:1".parse().unwrap(), Phase::Degraded);
    if let Some(state) = &mut owner.state {
        state.role = Role::Service { service: echo(), shard: Some(ShardId::default()) };
        state.resigned = Some(types::Epoch(3));
        state.reason = Some("resigned epoch 3: the store has not answered for 4 s".to_owned());
    }
    let (_views, receiver) = watch::channel(view([owner]));
    let targets = Targets::new(|_, _| Target::Shard(ShardId::default()));
    let new_owner = Duration::from_millis(200);
    let limits = Limits { wait: Duration::from_secs(60), wait_for_new_owner: new_owner, ..Limits::default() };
    let mesh = Mesh::new(receiver, targets, limits);
    let error = mesh.send(&echo(), get("/")).await.unwrap_err();
    assert!(
        matches!(&error, MeshError::NoOwner { waited, .. } if (new_owner..new_owner * 100).contains(waited)),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.ends_with("its owner a has resigned epoch 3: the store has not answered for 4 s"), "{text}");
    assert!(error.to_problem().hint.unwrap().contains("as soon as the object store answers"));
}

#[tokio::test]
async fn retries_are_limited_to_a_fifth_of_the_requests() {
    let dying = Upstream::writing("").await;
    let limits = Limits { retry_floor: 0, ..short_limits() };
    let (_view, mesh) = mesh([], limits);
    for _ in 0..100 {
        mesh.send_to_any(&[dying.url()], get("/")).await.unwrap_err();
    }
    assert_eq!(mesh.stats().retries, 20, "a fifth of the requests");
    assert_eq!(dying.hits(), 120);
}

#[tokio::test]
async fn a_thousand_requests_at_once_leave_nothing_behind() {
    let upstreams = [
        Upstream::serving(echoing).await,
        Upstream::serving(echoing).await,
        Upstream::serving(echoing).await,
    ];
    let members = upstreams
        .iter()
        .enumerate()
        .map(|(number, upstream)| member(&format!("n{number}"), upstream.addr, Phase::Ready));
    let (_view, mesh) = mesh(members, Limits::default());
    let mut requests = JoinSet::new();
    for number in 0..1000 {
        let mesh = mesh.clone();
        requests.spawn(async move {
            let body = format!("body {number}");
            let answer = mesh.send(&echo(), post(body.clone())).await.unwrap();
            assert_eq!(whole(answer.into_body()).await.unwrap(), body);
        });
    }
    requests.join_all().await;
    let stats = mesh.stats();
    assert_eq!((stats.requests, stats.in_flight, stats.waiting), (1000, 0, 0));
    for upstream in &upstreams {
        assert!(upstream.hits() > 200, "the load is spread: {}", upstream.hits());
    }
}

#[tokio::test]
async fn a_call_distinguishes_a_dead_process_from_a_slow_one() {
    let upstream = Upstream::serving(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/slow" => std::future::pending().await,
            "/large" => text(vec![0; 1024 * 1024 + 1]),
            _ => echoing(request).await,
        }
    })
    .await;
    let (_view, mesh) = mesh([], Limits::default());
    let call = |url: String, body: &'static str| {
        let request = Request::post(url).body(Bytes::from_static(body.as_bytes())).unwrap();
        let timeout = Duration::from_millis(if body == "hasty" { 50 } else { 5000 });
        mesh.call(request, timeout)
    };
    let url = upstream.url();
    let answer = call(format!("{url}/"), "hello").await.unwrap();
    assert_eq!(answer.into_body(), "hello");
    let error = |result: Result<Response<Bytes>, CallError>| result.unwrap_err();
    assert!(matches!(error(call(format!("{url}/slow"), "hasty").await), CallError::TimedOut(_)));
    assert!(matches!(error(call(format!("{url}/large"), "").await), CallError::TooLarge(_)));
    assert_eq!(error(call(closed_port().await.to_string(), "").await), CallError::Refused);
    assert!(matches!(error(call("/x".to_owned(), "").await), CallError::Malformed(_)));
    let dying = Upstream::writing("").await;
    assert!(matches!(error(call(dying.url().to_string(), "").await), CallError::Unreachable(_)));
}

mod min_rate;
