//! gRPC through a gateway, and answers that are passed on as they come.

use std::convert::Infallible;

use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;

type Call = BoxBody<Bytes, Infallible>;

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

fn frames(frames: Vec<Frame<Bytes>>) -> Call {
    BodyExt::boxed(StreamBody::new(stream::iter(frames.into_iter().map(Ok))))
}

fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value.parse().unwrap());
    Frame::trailers(trailers)
}

fn to(upstream: &Upstream) -> String {
    format!("h2c://{}", upstream.addr)
}

async fn client(addr: SocketAddr, tasks: &mut JoinSet<()>) -> SendRequest<Call> {
    let stream = TcpStream::connect(addr).await.unwrap();
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

/// Behaviour 13.
#[tokio::test]
async fn behaviour_13_grpc_messages_and_trailers_arrive_whole_in_both_directions() {
    let upstream = h2c(|request: Request<Incoming>| async move {
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.uri().path(), "/shop.Cart/Add");
        let body = request.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-checksum"], "7");
        assert!(!body.trailers().unwrap().contains_key("x-forwarded-for"));
        let message = body.to_bytes();
        let mut end = HeaderMap::new();
        end.insert("grpc-status", "0".parse().unwrap());
        end.insert("x-detail-bin", "AAEC".parse().unwrap());
        let mut answer = Response::new(frames(vec![Frame::data(message), Frame::trailers(end)]));
        answer.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        answer
    })
    .await;
    let gateway =
        Running::with(json!({"routes": [{"prefix": "/", "to": [to(&upstream)]}]}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut client = client(gateway.addr, &mut tasks).await;
    let mut end = HeaderMap::new();
    end.insert("x-checksum", "7".parse().unwrap());
    end.insert("x-forwarded-for", "9.9.9.9".parse().unwrap());
    let body = frames(vec![Frame::data(Bytes::from_static(b"\0\0\0\0\x01a")), Frame::trailers(end)]);
    let answer = client.send_request(call("/shop.Cart/Add").body(body).unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc+proto");
    let body = answer.into_body().collect().await.unwrap();
    let end = body.trailers().unwrap();
    assert_eq!(
        (&end["grpc-status"], &end["x-detail-bin"]),
        (&"0".parse().unwrap(), &"AAEC".parse().unwrap())
    );
    assert_eq!(body.to_bytes(), Bytes::from_static(b"\0\0\0\0\x01a"));
}

/// Behaviour 13.
#[tokio::test]
async fn behaviour_13_a_trailers_only_answer_arrives_whole() {
    let upstream = h2c(|_| async {
        let mut answer = Response::new(frames(Vec::new()));
        answer.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        answer.headers_mut().insert("grpc-status", "5".parse().unwrap());
        answer.headers_mut().insert("grpc-message", "no such cart".parse().unwrap());
        answer
    })
    .await;
    let gateway =
        Running::with(json!({"routes": [{"prefix": "/", "to": [to(&upstream)]}]}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut client = client(gateway.addr, &mut tasks).await;
    let answer = client.send_request(call("/a.B/C").body(frames(Vec::new())).unwrap()).await.unwrap();
    assert_eq!((&answer.headers()["grpc-status"], answer.status()), (&"5".parse().unwrap(), StatusCode::OK));
    assert_eq!(answer.headers()["grpc-message"], "no such cart");
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
}

/// Behaviour 13.
#[tokio::test]
async fn the_streams_of_one_connection_are_spread_over_the_backends() {
    let answering = async |upstream: &'static str| {
        h2c(move |_| async move {
            Response::new(frames(vec![
                Frame::data(Bytes::from_static(upstream.as_bytes())),
                trailers("grpc-status", "0"),
            ]))
        })
        .await
    };
    let (one, two) = (answering("one").await, answering("two").await);
    let routes = json!([{"prefix": "/", "to": [to(&one), to(&two)]}]);
    let gateway = Running::with(json!({"routes": routes}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut client = client(gateway.addr, &mut tasks).await;
    let mut seen = std::collections::BTreeMap::<Bytes, usize>::new();
    for _ in 0..60 {
        let answer = client.send_request(call("/a.B/C").body(frames(Vec::new())).unwrap()).await.unwrap();
        *seen.entry(answer.into_body().collect().await.unwrap().to_bytes()).or_default() += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!((one.hits(), two.hits()), (1, 1), "each backend has one connection");
}

/// Behaviour 13.
#[tokio::test]
async fn errors_of_the_gateway_have_the_form_of_grpc() {
    let silent = h2c(|_| std::future::pending()).await;
    let closed = closed_port().await.authority().to_owned();
    let routes = json!([
        {"prefix": "/down", "to": [format!("h2c://{closed}")], "retry": {"attempts": 1}},
        {"prefix": "/silent", "to": [to(&silent)]},
        {"prefix": "/rate", "to": [to(&silent)], "limits": {"rate": {"requests": 1, "per": "1h"}}, "timeouts": {"total": "1ms"}},
        {"prefix": "/keys", "to": [to(&silent)], "keys": "k"},
        {"prefix": "/small", "to": [to(&silent)], "limits": {"body": "1B"}},
    ]);
    let keys = json!({"k": {"sha256": ["0".repeat(64)]}});
    let gateway = Running::with(json!({"routes": routes, "keys": keys}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut client = client(gateway.addr, &mut tasks).await;
    for (path, timeout, status) in [
        ("/down/a.B/C", None, "14"),
        ("/silent/a.B/C", Some("20m"), "4"),
        ("/rate/a.B/C", None, "4"),
        ("/rate/a.B/C", None, "8"),
        ("/keys/a.B/C", None, "16"),
        ("/small/a.B/C", None, "8"),
        ("/..b/a.B/C", None, "12"),
    ] {
        let mut request = call(path);
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let body = frames(vec![Frame::data(Bytes::from_static(b"\0\0\0\0\0"))]);
        let answer = client.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/grpc", "{path}");
        assert_eq!(answer.headers()["grpc-status"], status, "{path} {:?}", answer.headers());
        assert!(!answer.headers()["grpc-message"].is_empty());
        assert!(answer.headers().contains_key("x-request-id"));
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn an_answer_over_http_2_that_breaks_off_never_ends_cleanly() {
    let upstream = h2c(|_| async {
        let broken = stream::unfold(0, |step| async move {
            match step {
                0 => Some((Ok(Frame::data(Bytes::from_static(b"half"))), 1)),
                _ => std::future::pending().await,
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(broken)))
    })
    .await;
    let routes = json!([{"prefix": "/", "to": [to(&upstream)], "timeouts": {"idle": "50ms"}}]);
    let gateway = Running::with(json!({"routes": routes}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut client = client(gateway.addr, &mut tasks).await;
    let answer = client.send_request(call("/a.B/C").body(frames(Vec::new())).unwrap()).await.unwrap();
    answer.into_body().collect().await.unwrap_err();
    let plain = gateway.raw("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(plain.contains("\r\nhalf") && !plain.ends_with("0\r\n\r\n"), "{plain}");
}

/// Two requests whose answers begin and never end: each ends when its time is over.
#[tokio::test]
async fn a_deadline_cuts_the_body_of_an_answer_over_both_versions() {
    let upstream = h2c(|_| async {
        let endless = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok(Frame::data(Bytes::from_static(b"more"))), ()))
        });
        Response::new(BodyExt::boxed(StreamBody::new(endless)))
    })
    .await;
    let listeners = json!([{"name": "web", "address": "127.0.0.1:0", "trust": ["127.0.0.1"]}]);
    let routes = json!([
        {"prefix": "/total", "to": [to(&upstream)], "timeouts": {"total": "2s"}},
        {"prefix": "/", "to": [to(&upstream)]},
    ]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    let addr = gateway.listener("web");
    let mut tasks = JoinSet::new();
    let mut client = client(addr, &mut tasks).await;
    for path in ["/a.B/C", "/total/a.B/C"] {
        let request = call(path).header("grpc-timeout", if path == "/a.B/C" { "2S" } else { "1H" });
        let answer = client.send_request(request.body(frames(Vec::new())).unwrap()).await.unwrap();
        // On a busy machine, the head may come too late.
        if let Some(status) = answer.headers().get("grpc-status") {
            assert_eq!(status, "4", "{path}");
            continue;
        }
        let error = answer.into_body().collect().await.unwrap_err();
        assert!(format!("{error:?}").contains("Reset"), "{path}: {error:?}");
    }
    for lines in ["coterie-deadline-ms: 2000\r\n", "x: 1\r\n"] {
        let path = if lines.starts_with('x') { "/total" } else { "/" };
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{lines}\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the connection ends");
        let answer = String::from_utf8_lossy(&answer);
        let is_cut = answer.starts_with("HTTP/1.1 200 ") && !answer.ends_with("0\r\n\r\n");
        assert!(is_cut || answer.starts_with("HTTP/1.1 504 "), "{path}: {answer}");
    }
    until(|| !gateway.in_flight()).await;
}

/// Behaviour 6: the second event is sent only once the first one is at the client.
#[tokio::test]
async fn each_event_is_passed_on_as_it_comes() {
    let next = Arc::new(Notify::new());
    let go_on = Arc::clone(&next);
    let upstream = Upstream::raw(move |mut stream| {
        let next = Arc::clone(&go_on);
        async move {
            read_head(&mut stream).await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            for number in 0..3 {
                next.notified().await;
                let event = format!("9\r\ndata: {number}\n\n\r\n");
                stream.write_all(event.as_bytes()).await.unwrap();
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    let mut tasks = JoinSet::new();
    let mut two = client(gateway.addr, &mut tasks).await;
    let request = Request::get("http://a.example/").body(frames(Vec::new())).unwrap();
    let over_two = two.send_request(request).await.unwrap();
    let mut body = over_two.into_body();
    for number in 0..3 {
        next.notify_one();
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("data: {number}\n\n"));
    }
    assert!(
        body.frame().await.is_none_or(|frame| frame.unwrap().into_data().is_ok_and(|data| data.is_empty()))
    );
    let answer = gateway.get("/").await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    for number in 0..3 {
        next.notify_one();
        let event = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(event, format!("data: {number}\n\n"));
    }
}
