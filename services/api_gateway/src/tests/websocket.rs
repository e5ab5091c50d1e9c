//! WebSockets through the gateway, over HTTP/1.1 and HTTP/2.

use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mesh::testing::{accepting, handshake, read_head};
use tokio::time::timeout;

use super::http2::client;
use super::reload::applied;
use super::seen::{lines, log};
use super::*;

const LONG: Duration = Duration::from_secs(30);

fn route(upstream: &Upstream, more: &Value) -> Value {
    let mut route = json!({"prefix": "/", "to": [upstream.url().to_string()]});
    route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "routes": [route] })
}

/// Sends a handshake with these lines in its head, and returns the head of the answer.
async fn shake(addr: SocketAddr, path: &str, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = handshake(path).replacen("\r\n\r\n", &format!("\r\n{more}\r\n"), 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = timeout(LONG, read_head(&mut stream)).await.unwrap();
    (stream, head)
}

/// A WebSocket to a server that greets and sends everything back.
async fn open(gateway: &Running, path: &str) -> TcpStream {
    let (mut stream, head) = shake(gateway.addr, path, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    echoes(&mut stream, "", "hello").await;
    stream
}

/// Sends something and reads what comes back.
async fn echoes<T: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut T, sent: &str, expected: &str) {
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut arrived = vec![0; expected.len()];
    timeout(LONG, stream.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&arrived), expected);
}

/// Reads until the connection ends, in whatever way.
async fn ended<T: AsyncReadExt + Unpin>(stream: &mut T) {
    let mut rest = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

fn open_connections(gateway: &Running, protocol: &str) -> u64 {
    gateway.metric("open_connections", &format!("protocol=\"{protocol}\""))
}

/// A server that accepts every handshake, greets with the head that it got, and sends back what comes.
async fn showing() -> Upstream {
    Upstream::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer = accepting(&head).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b\r\n\r\n") + &head;
        if stream.write_all(answer.as_bytes()).await.is_ok() {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_handshake_becomes_a_connection_of_both_ends() {
    let upstream = showing().await;
    let gateway = Running::with(route(&upstream, &json!({"prefix": "/chat"})), Vec::new()).await;
    let more = "Sec-WebSocket-Protocol: a, b\r\nOrigin: http://shop.example\r\nCookie: c=1\r\n";
    let (mut stream, head) = shake(gateway.addr, "/chat/room?x=1", more).await;
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-protocol: b"] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    assert!(head.contains("x-request-id: ") && !head.contains("content-length"), "{head}");
    let arrived = timeout(LONG, read_head(&mut stream)).await.unwrap();
    assert!(arrived.starts_with("GET /room?x=1 HTTP/1.1\r\n"), "{arrived}");
    for line in [
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol: a, b",
        "origin: http://shop.example",
        "cookie: c=1",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-prefix: /chat",
    ] {
        assert!(arrived.lines().any(|found| found == line), "{line} in {arrived}");
    }
    let long = "x".repeat(300_000);
    let (mut reading, mut writing) = stream.split();
    let mut back = vec![0; long.len()];
    let (_, read) = tokio::join!(writing.write_all(long.as_bytes()), reading.read_exact(&mut back));
    assert!(read.is_ok() && back == long.as_bytes());
    assert_eq!((open_connections(&gateway, "websocket"), open_connections(&gateway, "h1")), (1, 0));
    assert!(gateway.in_flight());
    // A half-close is passed on, and the server ends then.
    stream.shutdown().await.unwrap();
    ended(&mut stream).await;
    until(|| open_connections(&gateway, "websocket") == 0 && !gateway.in_flight()).await;
    assert_eq!(gateway.answered("101"), 1);
}

#[tokio::test]
async fn bytes_that_come_before_the_answer_wait_for_it() {
    let go = Arc::new(Notify::new());
    let waiting = Arc::clone(&go);
    let upstream = Upstream::raw(move |mut stream| {
        let go = Arc::clone(&waiting);
        async move {
            let head = read_head(&mut stream).await;
            go.notified().await;
            let _ = stream.write_all((accepting(&head) + "hi").as_bytes()).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    })
    .await;
    let gateway = Running::with(route(&upstream, &json!({})), Vec::new()).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all((handshake("/") + "early").as_bytes()).await.unwrap();
    until(|| upstream.hits() == 1).await;
    stream.write_all(b" birds").await.unwrap();
    go.notify_one();
    let head = timeout(LONG, read_head(&mut stream)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut arrived = [0; 13];
    timeout(LONG, stream.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert_eq!(&arrived, b"hiearly birds");
}

#[tokio::test]
async fn an_answer_that_does_not_switch_ends_the_connection() {
    let upstream = Upstream::serving(|_| async { text("no WebSocket here") }).await;
    let gateway = Running::with(route(&upstream, &json!({})), Vec::new()).await;
    let next = "GET /next HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = gateway.raw(handshake("/") + next).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("no WebSocket here"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1").count(), upstream.hits()), (1, 1), "{answer}");
    for (request, status, code) in [
        (handshake("/").replace("13", "8"), 426, "websocket-version"),
        (handshake("/").replace("Key: d", "Key: "), 400, "bad-handshake"),
        (handshake("/").replace("GET", "POST"), 400, "bad-handshake"),
    ] {
        let answer = gateway.raw(request + next).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(code), "{answer}");
        assert_eq!(answer.contains("sec-websocket-version: 13\r\n"), status == 426, "{answer}");
        assert_eq!((answer.matches("HTTP/1.1").count(), upstream.hits()), (1, 1), "{answer}");
    }
    let unsound = Upstream::writing(accepting(&handshake("/")).replace("s3pP", "S3pP")).await;
    let gateway = Running::with(route(&unsound, &json!({})), Vec::new()).await;
    let answer = gateway.raw(handshake("/") + next).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("bad-handshake-answer"), "{answer}");
}

#[tokio::test]
async fn an_idle_websocket_is_closed_and_a_line_tells_what_it_moved() {
    let (_folder, path, access_log) = log();
    let upstream = Upstream::websocket().await;
    let mut settings = route(&upstream, &json!({"timeouts": {"websocket": "1s"}}));
    settings["access_log"] = access_log;
    let gateway = Running::with(settings, Vec::new()).await;
    let mut closed = open(&gateway, "/1").await;
    echoes(&mut closed, "four", "four").await;
    closed.shutdown().await.unwrap();
    ended(&mut closed).await;
    let began = Instant::now();
    let mut idle = open(&gateway, "/2").await;
    ended(&mut idle).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    let lines = lines(&path, 2).await;
    for (line, bytes_in, bytes_out, reason) in
        [(&lines[0], 4, 9, Value::Null), (&lines[1], 0, 5, json!("upstream_timeout"))]
    {
        assert_eq!((&line["status"], &line["protocol"]), (&json!(101), &json!("HTTP/1.1")), "{line}");
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(bytes_in), &json!(bytes_out)), "{line}");
        assert_eq!((&line["reason"], &line["upstream_status"]), (&reason, &json!(101)), "{line}");
        assert_eq!(line["member"], json!(upstream.addr.to_string()));
    }
    assert!(lines[1]["duration_ms"].as_f64().unwrap() >= 1_000.0, "{}", lines[1]);
    assert_eq!(gateway.metric("response_bytes_total", ""), 14);
}

/// The durations that were recorded: by the route, and by the mesh.
fn durations(gateway: &Running) -> (u64, u64) {
    let series = gateway.context.mesh.upstream_series();
    let of_mesh = series.iter().map(|series| series.read.durations.count()).sum();
    (gateway.metric("request_duration_seconds_count", "route=\"/\""), of_mesh)
}

#[tokio::test]
async fn a_websocket_counts_with_the_duration_of_its_handshake() {
    let upstream = Upstream::websocket().await;
    let gateway =
        Running::with(ready(&route(&upstream, &json!({}))["routes"], &Value::Null), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut sender = over_http2(&gateway, &mut tasks).await;
    assert_eq!(durations(&gateway), (0, 0));
    let mut stream = open(&gateway, "/").await;
    assert_eq!(durations(&gateway), (1, 1), "it is open, and its handshake is over");
    let mut answer = sender.send_request(connect("/", "websocket")).await.unwrap();
    let mut io: TokioIo<Upgraded> = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    echoes(&mut io, "", "hello").await;
    assert_eq!(durations(&gateway), (2, 2));
    stream.shutdown().await.unwrap();
    ended(&mut stream).await;
    io.shutdown().await.unwrap();
    ended(&mut io).await;
    until(|| gateway.metric("requests_total", "route=\"/\"") == 2).await;
    assert_eq!(durations(&gateway), (2, 2), "how long they lasted is not recorded");
}

/// How reading ends, after these bytes.
async fn end_after(stream: &mut TcpStream, bytes: &str) -> std::io::Result<usize> {
    let mut arrived = Vec::new();
    let end = timeout(LONG, stream.read_to_end(&mut arrived)).await.expect("it ends");
    assert_eq!(String::from_utf8_lossy(&arrived), bytes);
    end
}

fn is_reset(end: &std::io::Result<usize>) -> bool {
    end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn what_breaks_on_one_side_is_reset_on_the_other_and_an_end_stays_an_end() {
    let (ends, mut seen) = tokio::sync::mpsc::unbounded_channel();
    // Says how its client has ended. With a path it ends first, by a reset or in order.
    let upstream = Upstream::raw(move |mut stream| {
        let ends = ends.clone();
        async move {
            let head = read_head(&mut stream).await;
            let _ = stream.write_all((accepting(&head) + "hello").as_bytes()).await;
            if head.starts_with("GET /reset ") {
                let _ = stream.read_u8().await;
                stream.set_zero_linger().unwrap();
            } else if head.starts_with("GET /end ") {
                let _ = stream.shutdown().await;
                let _ = ends.send(stream.read_to_end(&mut Vec::new()).await);
            } else {
                let _ = ends.send(stream.read_to_end(&mut Vec::new()).await);
            }
        }
    })
    .await;
    let gateway =
        Running::with(route(&upstream, &json!({"timeouts": {"websocket": "1s"}})), Vec::new()).await;
    // The server breaks off.
    let mut stream = open(&gateway, "/reset").await;
    stream.write_all(b"x").await.unwrap();
    let end = end_after(&mut stream, "").await;
    assert!(is_reset(&end), "{end:?}");
    // The server ends, and then the client does.
    let mut stream = open(&gateway, "/end").await;
    assert_eq!(end_after(&mut stream, "").await.unwrap(), 0);
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(LONG, seen.recv()).await.unwrap().unwrap().unwrap(), 3);
    // The client breaks off.
    let stream = open(&gateway, "/").await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    let end = timeout(LONG, seen.recv()).await.unwrap().unwrap();
    assert!(is_reset(&end), "{end:?}");
    // No byte moves.
    let mut stream = open(&gateway, "/").await;
    let (end, of_server) =
        (end_after(&mut stream, "").await, timeout(LONG, seen.recv()).await.unwrap().unwrap());
    assert!(is_reset(&end) && is_reset(&of_server), "{end:?} {of_server:?}");
    // The gateway stops.
    let mut stream = open(&gateway, "/").await;
    gateway.service.drain(Instant::now()).await;
    timeout(LONG, gateway.service.stop()).await.unwrap().unwrap();
    let (end, of_server) =
        (end_after(&mut stream, "").await, timeout(LONG, seen.recv()).await.unwrap().unwrap());
    assert!(is_reset(&end) && is_reset(&of_server), "{end:?} {of_server:?}");
}

#[tokio::test]
async fn the_limits_of_a_route_hold_for_the_life_of_a_websocket() {
    let upstream = Upstream::websocket().await;
    let limits = json!({"limits": {"in_flight": 1, "rate": {"requests": 3, "per": "1h"}}});
    let mut settings = route(&upstream, &limits);
    settings["wait"] = json!("50ms");
    let gateway = Running::with(settings, Vec::new()).await;
    let mut first = open(&gateway, "/").await;
    let (_stream, head) = shake(gateway.addr, "/", "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "it waits for the first one: {head}");
    first.shutdown().await.unwrap();
    ended(&mut first).await;
    let second = open(&gateway, "/").await;
    let (_stream, head) = shake(gateway.addr, "/", "").await;
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    drop(second);
}

#[tokio::test]
async fn behaviour_2_a_reload_leaves_a_websocket_open_and_a_drain_ends_it() {
    let (_folder, path, access_log) = log();
    let upstream = Upstream::websocket().await;
    let mut settings = route(&upstream, &json!({}));
    settings["access_log"] = access_log.clone();
    let gateway = Running::with(settings, Vec::new()).await;
    let mut stream = open(&gateway, "/").await;
    let new = json!({"routes": [{"prefix": "/", "answer": {"body": "new"}}], "access_log": access_log});
    applied(&gateway, new).await;
    assert_eq!(whole(gateway.get("/").await).await, "new");
    echoes(&mut stream, "still here", "still here").await;
    assert_eq!(open_connections(&gateway, "websocket"), 1);
    // It lasts as long as the drain may.
    gateway.service.drain(Instant::now() + Duration::from_millis(300)).await;
    echoes(&mut stream, "and here", "and here").await;
    timeout(LONG, gateway.service.stop()).await.unwrap().unwrap();
    ended(&mut stream).await;
    let lines = lines(&path, 2).await;
    let line = lines.iter().find(|line| line["status"] == 101).unwrap();
    assert_eq!((&line["reason"], &line["bytes_in"]), (&json!("drained"), &json!(18)), "{line}");
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn a_listener_that_is_removed_keeps_its_websockets_for_its_drain() {
    let upstream = Upstream::websocket().await;
    let listeners = |names: &[&str]| {
        let each = names.iter().map(|name| json!({"name": name, "address": "127.0.0.1:0"}));
        let mut settings = route(&upstream, &json!({}));
        settings["listeners"] = each.collect();
        settings
    };
    let gateway = Running::with(listeners(&["one", "two"]), Vec::new()).await;
    let (mut stream, head) = shake(gateway.listener("two"), "/", "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    applied(&gateway, listeners(&["one"])).await;
    echoes(&mut stream, "on", "helloon").await;
}

#[tokio::test]
async fn a_foreign_page_opens_no_websocket_to_a_service() {
    let upstream = Upstream::websocket().await;
    let members = vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let routes = json!({"routes": [{"prefix": "/kv", "service": "key_value"}]});
    let gateway = Running::with(routes, members).await;
    for path in ["/key_value/a", "/kv/a"] {
        for (more, is_allowed) in [
            ("", true),
            ("Origin: http://127.0.0.1\r\n", true),
            ("Origin: http://evil.example\r\n", false),
            ("Origin: null\r\n", false),
            ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: websocket\r\n", false),
        ] {
            let (mut stream, head) = shake(gateway.addr, path, more).await;
            let status = if is_allowed { "HTTP/1.1 101 " } else { "HTTP/1.1 403 " };
            assert!(head.starts_with(status), "{path} {more}: {head}");
            if is_allowed {
                echoes(&mut stream, "x", "hellox").await;
            }
        }
    }
    assert_eq!(upstream.hits(), 4);
}

#[tokio::test]
async fn a_server_that_dies_and_a_client_that_vanishes_end_it() {
    let (_folder, path, access_log) = log();
    let dying = Upstream::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let _ = stream.write_all((accepting(&head) + "hello").as_bytes()).await;
        let _ = stream.read_u8().await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let upstream = Upstream::websocket().await;
    let routes = json!([
        {"prefix": "/1", "to": [dying.url().to_string()]},
        {"prefix": "/2", "to": [upstream.url().to_string()]},
    ]);
    let gateway = Running::with(json!({"routes": routes, "access_log": access_log}), Vec::new()).await;
    let mut stream = open(&gateway, "/1").await;
    stream.write_all(b"x").await.unwrap();
    ended(&mut stream).await;
    let stream = open(&gateway, "/2").await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    let lines = lines(&path, 2).await;
    assert_eq!((&lines[0]["reason"], &lines[1]["reason"]), (&json!("upstream_reset"), &json!("client_gone")));
    assert_eq!(open_connections(&gateway, "websocket"), 0);
}

/// A connection with HTTP/2 on which the server's settings have arrived.
async fn over_http2(gateway: &Running, tasks: &mut JoinSet<()>) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let mut sender = client(stream, tasks).await;
    let request = Request::get("http://127.0.0.1/ready").body(Full::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    sender
}

fn connect(path: &str, protocol: &'static str) -> Request<Full<Bytes>> {
    let request = Request::connect(format!("http://127.0.0.1{path}"))
        .extension(Protocol::from_static(protocol))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "a, b");
    request.body(Full::default()).unwrap()
}

/// The settings of a gateway with readiness checks.
fn ready(routes: &Value, access_log: &Value) -> Value {
    let listeners = json!([{"name": "gateway", "address": "127.0.0.1:0", "ready": "/ready"}]);
    json!({"listeners": listeners, "routes": routes, "access_log": access_log})
}

#[tokio::test]
async fn over_http_2_a_websocket_is_an_extended_connect() {
    let (_folder, path, access_log) = log();
    let upstream = showing().await;
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(ready(&routes, &access_log), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut sender = over_http2(&gateway, &mut tasks).await;
    let mut answer = sender.send_request(connect("/chat?x", "websocket")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "b");
    assert!(!answer.headers().contains_key("sec-websocket-accept"), "{:?}", answer.headers());
    let mut io: TokioIo<Upgraded> = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    let mut arrived = String::new();
    while !arrived.ends_with("\r\n\r\n") {
        arrived.push(char::from(timeout(LONG, io.read_u8()).await.unwrap().unwrap()));
    }
    assert!(arrived.starts_with("GET /chat?x HTTP/1.1\r\n"), "{arrived}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"] {
        assert!(arrived.lines().any(|found| found == line), "{line} in {arrived}");
    }
    assert!(arrived.contains("sec-websocket-key: "), "{arrived}");
    echoes(&mut io, "over h2", "over h2").await;
    // It is one stream of several.
    let request = Request::get("http://127.0.0.1/ready").body(Full::default()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!((open_connections(&gateway, "websocket"), open_connections(&gateway, "h2")), (1, 1));
    let long = "y".repeat(1_000_000);
    let (mut reading, mut writing) = tokio::io::split(io);
    let mut back = vec![0; long.len()];
    let (_, read) = tokio::join!(writing.write_all(long.as_bytes()), reading.read_exact(&mut back));
    assert!(read.is_ok() && back == long.as_bytes());
    writing.shutdown().await.unwrap();
    ended(&mut reading).await;
    let line = lines(&path, 1).await.remove(0);
    assert_eq!((&line["status"], &line["protocol"]), (&json!(200), &json!("HTTP/2.0")), "{line}");
    assert_eq!((&line["bytes_in"], &line["upstream_status"]), (&json!(1_000_007), &json!(101)), "{line}");
    until(|| open_connections(&gateway, "websocket") == 0).await;
}

#[tokio::test]
async fn over_http_2_only_an_accepted_handshake_succeeds() {
    let plain = Upstream::serving(|_| async { text("no") }).await;
    let routes = json!([
        {"prefix": "/plain", "to": [plain.url().to_string()]},
        {"prefix": "/own", "answer": {"body": "ok"}},
        {"prefix": "/away", "redirect": {"to": "/elsewhere"}},
    ]);
    let gateway = Running::with(ready(&routes, &Value::Null), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut sender = over_http2(&gateway, &mut tasks).await;
    let mut old = connect("/plain", "websocket");
    old.headers_mut().insert("sec-websocket-version", "8".parse().unwrap());
    let bare = Request::connect("shop.example:443").body(Full::default()).unwrap();
    for (request, status, code) in [
        (connect("/plain", "websocket"), 502, "not-a-websocket"),
        (connect("/own", "websocket"), 502, "not-a-websocket"),
        (connect("/away", "websocket"), 302, ""),
        (connect("/none", "websocket"), 404, "unknown-service"),
        (old, 426, "websocket-version"),
        (connect("/plain", "connect-udp"), 405, "no-tunnels"),
        (bare, 405, "no-tunnels"),
    ] {
        let answer = timeout(LONG, sender.send_request(request)).await.unwrap().unwrap();
        let found = answer.status();
        let body = whole(answer).await;
        assert!(found == status && body.contains(code), "{found} {body}, expected {status} {code}");
    }
    assert_eq!(plain.hits(), 1);
    assert_eq!(gateway.answered("200"), 0);
}

#[tokio::test]
async fn a_drain_leaves_a_websocket_over_http_2_open_and_a_stop_ends_it() {
    let (_folder, path, access_log) = log();
    let upstream = Upstream::websocket().await;
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(ready(&routes, &access_log), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let mut sender = over_http2(&gateway, &mut tasks).await;
    let mut answer = sender.send_request(connect("/", "websocket")).await.unwrap();
    let mut io: TokioIo<Upgraded> = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    echoes(&mut io, "", "hello").await;
    gateway.service.drain(Instant::now() + Duration::from_millis(300)).await;
    echoes(&mut io, "on", "on").await;
    timeout(LONG, gateway.service.stop()).await.unwrap().unwrap();
    let _ = timeout(LONG, io.read_to_end(&mut Vec::new())).await.expect("it ends");
    let line = lines(&path, 1).await.remove(0);
    assert_eq!((&line["reason"], &line["status"]), (&json!("drained"), &json!(200)), "{line}");
}
