//! gRPC in HTTP mode, over HTTP/2 on both sides.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::testing::Upstream;

use super::requests::{at, http};
use super::*;

type Call = BoxBody<Bytes, Infallible>;

fn frames(frames: Vec<Frame<Bytes>>) -> Call {
    BodyExt::boxed(StreamBody::new(stream::iter(frames.into_iter().map(Ok))))
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// A server for HTTP/2 without TLS; its hits are connections.
async fn h2c<F, A>(handler: F) -> Upstream
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Call>> + Send + 'static,
{
    Upstream::raw(move |stream| {
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
        async move {
            let _ = connection.await;
        }
    })
    .await
}

/// A balancer in HTTP mode for these addresses.
async fn over(addresses: &[String], more: Value) -> Running {
    let backends: Vec<_> = addresses.iter().map(|address| json!({"address": address})).collect();
    Running::with(json!([http(json!({"backends": backends}), more)]), Vec::new()).await
}

fn to(upstream: &Upstream) -> String {
    format!("h2c://{}", upstream.addr)
}

async fn client(running: &Running, tasks: &mut JoinSet<()>) -> SendRequest<Call> {
    let stream = TcpStream::connect(at(running)).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async {
        let _ = connection.await;
    });
    sender
}

fn call(path: &str) -> http::request::Builder {
    Request::post(format!("http://rpc.example{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
}

#[tokio::test]
async fn behaviour_13_grpc_messages_and_trailers_arrive_whole_in_both_directions() {
    let upstream = h2c(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.uri().path(), "/shop.Cart/Add");
        let body = request.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-checksum"], "7");
        assert!(!body.trailers().unwrap().contains_key("x-forwarded-for"));
        let end = fields(&[("grpc-status", "0"), ("x-detail-bin", "AAEC")]);
        Response::new(frames(vec![Frame::data(body.to_bytes()), Frame::trailers(end)]))
    })
    .await;
    let running = over(&[to(&upstream)], json!({})).await;
    let mut tasks = JoinSet::new();
    let mut client = client(&running, &mut tasks).await;
    let end = fields(&[("x-checksum", "7"), ("x-forwarded-for", "9.9.9.9")]);
    let body = frames(vec![Frame::data(Bytes::from_static(b"\0\0\0\0\x01a")), Frame::trailers(end)]);
    let answer = client.send_request(call("/shop.Cart/Add").body(body).unwrap()).await.unwrap();
    let body = answer.into_body().collect().await.unwrap();
    let end = body.trailers().unwrap();
    assert_eq!(end["grpc-status"], "0");
    assert_eq!(end["x-detail-bin"], "AAEC");
    assert_eq!(body.to_bytes(), Bytes::from_static(b"\0\0\0\0\x01a"));
}

#[tokio::test]
async fn behaviour_13_a_trailers_only_answer_arrives_whole() {
    let upstream = h2c(|_| async {
        let mut answer = Response::new(frames(Vec::new()));
        *answer.headers_mut() = fields(&[("content-type", "application/grpc"), ("grpc-status", "5")]);
        answer
    })
    .await;
    let running = over(&[to(&upstream)], json!({})).await;
    let mut tasks = JoinSet::new();
    let mut client = client(&running, &mut tasks).await;
    let answer = client.send_request(call("/a.B/C").body(frames(Vec::new())).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn behaviour_13_streams_of_one_connection_are_spread_over_the_backends() {
    let named = async |name: &'static str| {
        h2c(move |_| async move { Response::new(frames(vec![Frame::data(Bytes::from_static(name.as_bytes()))])) })
            .await
    };
    let (a, b) = (named("a").await, named("b").await);
    let running = over(&[to(&a), to(&b)], json!({"balance": "round_robin"})).await;
    let mut tasks = JoinSet::new();
    let mut client = client(&running, &mut tasks).await;
    let mut names = String::new();
    for _ in 0..4 {
        let answer = client.send_request(call("/a.B/C").body(frames(Vec::new())).unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        names.push_str(std::str::from_utf8(&body).unwrap());
    }
    assert!(["abab", "baba"].contains(&names.as_str()), "{names}");
}

#[tokio::test]
async fn a_call_whose_time_is_up_waits_in_the_queue_no_longer() {
    let slow = h2c(|_| async { std::future::pending().await }).await;
    let running = over(&[to(&slow)], json!({"limits": {"connections": 1, "wait": "1h"}})).await;
    let mut tasks = JoinSet::new();
    let mut client = client(&running, &mut tasks).await;
    let first = client.send_request(call("/a.B/C").body(frames(Vec::new())).unwrap());
    tasks.spawn(async {
        let _ = first.await;
    });
    eventually("it is forwarded", async || running.metric("active", "") == 1).await;
    let request = call("/a.B/C").header("grpc-timeout", "50m").body(frames(Vec::new())).unwrap();
    let answer = timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
    assert_eq!(running.metric("queue", ""), 0);
}

#[tokio::test]
async fn behaviour_13_the_balancers_own_errors_are_grpc_statuses() {
    let dead = closed_addr();
    let slow = h2c(|_| async { std::future::pending().await }).await;
    let mut tasks = JoinSet::new();
    for (address, timeout, status) in [(format!("h2c://{dead}"), None, "14"), (to(&slow), Some("50m"), "4")] {
        let running = over(&[address], json!({"retry": {"attempts": 1}})).await;
        let mut client = client(&running, &mut tasks).await;
        let mut request = call("/a.B/C").body(frames(Vec::new())).unwrap();
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let head = answer.headers();
        assert_eq!(head["content-type"], "application/grpc");
        assert_eq!(head["grpc-status"], status, "{:?}", head.get("grpc-message"));
        assert!(head.contains_key("grpc-message") && head.contains_key("x-request-id"));
        assert_eq!(running.metric("requests_total", "5xx"), 1, "as what it is");
    }
}
