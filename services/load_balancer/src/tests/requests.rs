//! HTTP mode: requests through real connections on both sides.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::testing::{Answer, Upstream, text};
use tokio::net::TcpSocket;
use types::Problem;

use super::*;

/// Answers with the head of the request as it arrived.
pub(super) async fn reflecting(request: Request<Incoming>) -> Answer {
    let mut reflected = format!("{} {}", request.method(), request.uri());
    for (name, value) in request.headers() {
        reflected += &format!("\n{name}: {}", value.to_str().unwrap());
    }
    text(reflected)
}

pub(super) async fn named(name: &'static str) -> Upstream {
    Upstream::serving(move |_| async move { text(name) }).await
}

/// A balancer in HTTP mode for these servers, and further settings.
async fn over(servers: &[&Upstream], more: Value) -> Running {
    let backends: Vec<_> = servers.iter().map(|server| json!({"address": server.addr})).collect();
    Running::with(json!([http(json!({"backends": backends}), more)]), Vec::new()).await
}

/// A listener in HTTP mode.
pub(super) fn http(target: Value, more: Value) -> Value {
    let mut listener = listener(target, more);
    listener["mode"] = json!("http");
    listener
}

pub(super) fn at(running: &Running) -> SocketAddr {
    running.context.endpoints.urls()["main"].split_once("://").unwrap().1.parse().unwrap()
}

/// Sends bytes and reads until the balancer closes the connection.
pub(super) async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// The answer to a request with these lines in its head.
pub(super) async fn ask(running: &Running, line: &str, more: &str) -> String {
    raw(at(running), &format!("{line} HTTP/1.1\r\nhost: shop.example\r\n{more}connection: close\r\n\r\n"))
        .await
}

pub(super) async fn get(running: &Running) -> String {
    ask(running, "GET /x", "").await
}

pub(super) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// The status and the code of a problem.
fn problem(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let problem: Problem = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    assert!(problem.hint.is_some() && problem.request_id.is_some(), "{answer}");
    assert_eq!(problem.node.as_deref(), Some("test-node"), "{answer}");
    (problem.status, problem.code().to_owned())
}

#[tokio::test]
async fn each_request_of_a_connection_gets_a_backend_of_its_own() {
    let (a, b) = (named("a").await, named("b").await);
    let running = over(&[&a, &b], json!({"balance": "round_robin"})).await;
    let mut stream = TcpStream::connect(at(&running)).await.unwrap();
    let mut names = String::new();
    for _ in 0..4 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let head = mesh::testing::read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        names.push(char::from(stream.read_u8().await.unwrap()));
    }
    assert!(["abab", "baba"].contains(&names.as_str()), "{names}");
    assert_eq!(running.metric("requests_total", "2xx"), 4);
    let shown = running.backends().await;
    assert_eq!(shown["listeners"][0]["mode"], "http");
    assert_eq!(shown["listeners"][0]["targets"][0]["backends"][0]["connections_total"], 2);
}

#[tokio::test]
async fn the_backend_sees_the_client_the_host_and_the_path_as_they_were() {
    let upstream = Upstream::serving(reflecting).await;
    let forged = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\n";
    let running = over(&[&upstream], json!({})).await;
    let answer = ask(&running, "GET /a%2Fb/..%2f?q", forged).await;
    let arrived = body(&answer);
    assert!(arrived.starts_with("GET /a%2Fb/..%2f?q\n"), "{arrived}");
    for line in [
        "host: shop.example",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example",
    ] {
        assert!(arrived.lines().any(|found| found == line), "{line} in {arrived}");
    }
    assert!(!arrived.contains("9.9.9.9") && !arrived.contains("mine"), "{arrived}");
    let trusting = over(&[&upstream], json!({"trust": ["127.0.0.0/8"]})).await;
    let answer = ask(&trusting, "GET /", forged).await;
    for line in ["x-forwarded-for: 9.9.9.9, 127.0.0.1", "x-forwarded-proto: https", "x-request-id: mine"] {
        assert!(body(&answer).lines().any(|found| found == line), "{line} in {answer}");
    }
}

#[tokio::test]
async fn a_client_that_the_proxy_protocol_names_is_the_client() {
    let upstream = Upstream::serving(reflecting).await;
    let running = over(&[&upstream], json!({"proxy_protocol": true, "trust": ["127.0.0.1"]})).await;
    let request =
        "PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\nGET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(at(&running), request).await;
    assert!(answer.contains("x-forwarded-for: 192.0.2.7"), "{answer}");
    let mut stream = TcpStream::connect(at(&running)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _closed_or_reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty(), "without a header there is no answer");
}

#[tokio::test]
async fn behaviour_5_forwarded_is_extended_or_removed_as_by_a_gateway() {
    let server = Upstream::serving(reflecting).await;
    let trusting = over(&[&server], json!({"trust": ["127.0.0.1"]})).await;
    let strict = over(&[&server], json!({})).await;
    let by_proxy = "forwarded: for=9.9.9.9;proto=https\r\n";
    for (running, lines, forwarded, x_forwarded) in [
        (&trusting, by_proxy, "for=9.9.9.9;proto=https, for=127.0.0.1", "9.9.9.9, 127.0.0.1"),
        (&trusting, "forwarded: for=9.9.9.9\r\nx-forwarded-for: 8.8.8.8\r\n", "", "8.8.8.8, 127.0.0.1"),
        (&strict, by_proxy, "", "127.0.0.1"),
    ] {
        let answer = ask(running, "GET /x", lines).await;
        let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let found = (value("forwarded: "), value("x-forwarded-for: "));
        assert_eq!(found, (forwarded, x_forwarded), "{lines}: {answer}");
    }
}

#[tokio::test]
async fn a_request_that_may_be_repeated_is_sent_again_when_its_backend_breaks() {
    let (broken, fine) = (Upstream::writing("").await, named("fine").await);
    let running = over(&[&broken, &fine], json!({"balance": "round_robin"})).await;
    for _ in 0..4 {
        assert_eq!(body(&get(&running).await), "fine");
    }
    let once = over(&[&broken], json!({"retry": {"attempts": 1}})).await;
    let hits = broken.hits();
    assert_eq!(problem(&get(&once).await).0, 502);
    assert_eq!(broken.hits(), hits + 1);
    let answer = ask(&once, "POST /", "content-length: 1\r\n").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_answer_with_a_code_of_retry_is_replaced_by_another_backends() {
    let bad = Upstream::serving(async |_| {
        let mut answer = text("bad");
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        answer
    })
    .await;
    let good = named("good").await;
    let more = json!({"balance": "round_robin", "retry": {"codes": [502]}});
    let running = over(&[&bad, &good], more).await;
    for _ in 0..4 {
        assert_eq!(body(&get(&running).await), "good");
    }
    assert!(bad.hits() > 0, "it was asked first");
    let closed = closed_addr();
    let backends = json!([{"address": closed}, {"address": good.addr}]);
    let more = json!({"balance": "round_robin", "retry": {"on": ["reset"]}});
    let running = Running::with(json!([http(json!({"backends": backends}), more)]), Vec::new()).await;
    let codes = [get(&running).await, get(&running).await].map(|answer| answer[9..12].to_owned());
    assert!(codes.contains(&"502".to_owned()), "a connect that failed is not repeated: {codes:?}");
}

#[tokio::test]
async fn a_backup_gets_requests_only_while_all_others_fail() {
    let (main, spare) = (named("main").await, named("spare").await);
    let backends = json!([{"address": main.addr}, {"address": spare.addr, "backup": true}]);
    for balance in ["two_choices", "round_robin", "least_connections", "source"] {
        let target = json!({"backends": backends});
        let running = Running::with(json!([http(target, json!({"balance": balance}))]), Vec::new()).await;
        for _ in 0..6 {
            assert_eq!(body(&get(&running).await), "main", "{balance}");
        }
    }
    let target =
        json!({"backends": backends, "check": {"tcp": {}, "every": "20ms", "fall": 1, "timeout": "10s"}});
    let running = Running::with(json!([http(target, json!({}))]), Vec::new()).await;
    drop(main);
    for _ in 0..6 {
        assert_eq!(body(&get(&running).await), "spare", "at once, and after the check has noticed");
    }
    running.until_states_are(&["down", "up"]).await;
    assert_eq!(body(&get(&running).await), "spare");
}

#[tokio::test]
async fn without_a_backend_the_answer_is_503_and_names_no_address() {
    let dead = closed_addr();
    let target =
        json!({"backends": [{"address": dead}], "check": {"tcp": {}, "every": "20ms", "timeout": "10s"}});
    let running = Running::with(json!([http(target, json!({}))]), Vec::new()).await;
    running.until_states_are(&["down"]).await;
    let answer = get(&running).await;
    assert_eq!(problem(&answer), (503, "no-backend".to_owned()));
    assert!(!answer.contains(&dead.port().to_string()), "{answer}");
    assert_eq!(running.metric("refused_total", "no_backend"), 1);
    assert!(matches!(running.service.health(), Health::Degraded(_)));
    let web = json!({"service": "api_gateway", "listener": "web"});
    let running = Running::with(json!([http(web, json!({"limits": {"wait": "10ms"}}))]), Vec::new()).await;
    let (status, code) = problem(&get(&running).await);
    assert!(status == 503 && ["no-backend", "queue-timeout"].contains(&code.as_str()), "{code}");
}

#[tokio::test]
async fn a_backend_that_refuses_connections_is_unreachable_until_one_succeeds() {
    // Reserved, and not listened on yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let target = json!({"backends": [{"address": address}]});
    let running = Running::with(json!([http(target, json!({}))]), Vec::new()).await;
    let backend = address.to_string();
    assert_eq!(running.metric("backend_up", &backend), 1, "nobody has tried it");
    assert_eq!(problem(&get(&running).await).0, 502);
    running.until_states_are(&["unreachable"]).await;
    assert_eq!(running.metric("backend_up", &backend), 0);
    assert_eq!(running.metric("backends", "unreachable"), 1);
    let listener = socket.listen(8).unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        stream
    };
    let (answer, _stream) = tokio::join!(get(&running), serving);
    assert!(answer.ends_with("hi"), "{answer}");
    running.until_states_are(&["up"]).await;
    assert_eq!(running.metric("backend_up", &backend), 1);
    assert_eq!(running.metric("backend_connections", &backend), 0);
}

#[tokio::test]
async fn a_backend_that_answers_with_errors_is_ejected() {
    let bad = Upstream::serving(async |_| {
        let mut answer = text("bad");
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let good = named("good").await;
    let running = over(&[&bad, &good], json!({"balance": "round_robin"})).await;
    for _ in 0..12 {
        get(&running).await;
    }
    running.until_states_are(&["ejected", "up"]).await;
    let shown = running.backends().await;
    assert_eq!(shown["listeners"][0]["targets"][0]["backends"][0]["why"], "5 requests in a row failed");
    assert_eq!(body(&get(&running).await), "good");
}

#[tokio::test]
async fn only_the_api_of_the_service_is_reached() {
    let node = Upstream::serving(reflecting).await;
    let mut member = member("n1", "storage", Phase::Ready, &[]);
    member.http = format!("http://{}", node.addr);
    let running = Running::with(json!([http(json!({"service": "storage"}), json!({}))]), vec![member]).await;
    let ask = async |line: &str, host: &str| {
        raw(at(&running), &format!("{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await
    };
    for (path, arrived) in
        [("/b/k?q", "/svc/storage/b/k?q"), ("/", "/svc/storage/"), ("/%2e%2e/x", "/svc/storage/%2e%2e/x")]
    {
        let answer = ask(&format!("GET {path}"), "127.0.0.1").await;
        assert!(body(&answer).starts_with(&format!("GET {arrived}\n")), "{path}: {answer}");
    }
    let hits = node.hits();
    for path in ["/../v1/members", "/./x", "/b/.."] {
        let answer = ask(&format!("GET {path}"), "127.0.0.1").await;
        assert_eq!(problem(&answer), (400, "bad-path".to_owned()), "{path}");
    }
    assert_eq!(problem(&ask("GET /b", "evil.example").await).0, 403, "a page of another site");
    assert_eq!(node.hits(), hits);
    let shown = running.backends().await;
    let target = &shown["listeners"][0]["targets"][0];
    assert_eq!((&target["service"], &target["backends"][0]["member"]), (&json!("storage"), &json!("n1")));
    assert_eq!(target["backends"][0]["state"], "up");
}

#[tokio::test]
async fn members_with_a_listener_get_requests_there_and_none_while_they_drain() {
    let (a, b) = (Upstream::serving(reflecting).await, named("b").await);
    let of = |phase_of_a, url: Option<&str>| {
        let mut a = member("a", "api_gateway", phase_of_a, &[("web", a.addr)]);
        if let (Some(url), Some(state)) = (url, &mut a.state) {
            state.endpoints.insert("web".to_owned(), url.to_owned());
        }
        a
    };
    let web = json!({"service": "api_gateway", "listener": "web"});
    let running = Running::with(json!([http(web, json!({}))]), vec![of(Phase::Ready, None)]).await;
    running.until_states_are(&["up"]).await;
    let answer = get(&running).await;
    assert!(
        body(&answer).starts_with("GET /x\nhost: shop.example\n") || answer.contains("host: shop.example"),
        "{answer}"
    );
    let b = member("b", "api_gateway", Phase::Ready, &[("web", b.addr)]);
    running.views.send_replace(view(vec![of(Phase::Draining, None), b]));
    eventually("b gets the requests", async || body(&get(&running).await) == "b").await;
    for _ in 0..6 {
        assert_eq!(body(&get(&running).await), "b");
    }
    running.views.send_replace(view(vec![of(Phase::Ready, Some("https://127.0.0.1:1"))]));
    let is_no_target = || match running.service.health() {
        Health::Degraded(why) => why.text.contains("speaks TLS"),
        _ => false,
    };
    eventually("TLS is no target", async || is_no_target()).await;
    assert_eq!(problem(&get(&running).await), (503, "no-backend".to_owned()));
}

#[tokio::test]
async fn requests_beyond_the_limits_wait_or_are_refused() {
    let (release, released) = watch::channel(false);
    let held = Upstream::serving(move |_| {
        let mut released = released.clone();
        async move {
            let _ = released.wait_for(|released| *released).await;
            text("done")
        }
    })
    .await;
    let one = |more: Value| over_one(held.addr, more);
    let waiting = one(json!({"connections": 1, "queue": 1, "wait": "1h"})).await;
    let impatient = one(json!({"connections": 1, "queue": 1, "wait": "10ms"})).await;
    let personal = one(json!({"per_client": 1})).await;
    let mut running = JoinSet::new();
    for address in [at(&waiting), at(&impatient), at(&personal)] {
        running.spawn(
            async move { raw(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await },
        );
    }
    eventually("all are in flight", async || held.hits() == 3).await;
    let address = at(&waiting);
    running
        .spawn(async move { raw(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await });
    eventually("one waits", async || waiting.metric("queue", "main") == 1).await;
    assert_eq!(problem(&get(&waiting).await), (503, "queue-full".to_owned()));
    assert_eq!(problem(&get(&impatient).await), (503, "queue-timeout".to_owned()));
    assert_eq!(problem(&get(&personal).await), (429, "client-limit".to_owned()));
    assert_eq!(personal.metric("refused_total", "per_client"), 1);
    release.send_replace(true);
    while let Some(answer) = running.join_next().await {
        assert_eq!(body(&answer.unwrap()), "done", "the one that waited, too");
    }
    assert_eq!(body(&get(&personal).await), "done", "its place is free again");
}

async fn over_one(address: SocketAddr, limits: Value) -> Running {
    let target = json!({"backends": [{"address": address}]});
    Running::with(json!([http(target, json!({"limits": limits}))]), Vec::new()).await
}

#[tokio::test]
async fn one_client_stays_at_its_backend() {
    let (a, b, c) = (named("a").await, named("b").await, named("c").await);
    let running = over(&[&a, &b, &c], json!({"balance": "source", "trust": ["127.0.0.0/8"]})).await;
    let of = async |client: &str| {
        body(&ask(&running, "GET /", &format!("x-forwarded-for: {client}\r\n")).await).to_owned()
    };
    let first = of("192.0.2.1").await;
    let mut others = std::collections::BTreeSet::new();
    for number in 0..12 {
        assert_eq!(of("192.0.2.1").await, first);
        others.insert(of(&format!("198.51.100.{number}")).await);
    }
    assert!(others.len() > 1, "{others:?}");
}

#[tokio::test]
async fn a_draining_balancer_finishes_its_requests_and_closes_their_connections() {
    let (release, released) = watch::channel(false);
    let held = Upstream::serving(move |_| {
        let mut released = released.clone();
        async move {
            let _ = released.wait_for(|released| *released).await;
            text("done")
        }
    })
    .await;
    let running = over(&[&held], json!({})).await;
    let address = at(&running);
    let mut asking = JoinSet::new();
    asking.spawn(async move { raw(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await });
    eventually("it is in flight", async || held.hits() == 1).await;
    let service = running.service.clone();
    let mut draining = JoinSet::new();
    draining.spawn(async move { service.drain(Instant::now() + PATIENCE).await });
    // Connecting would keep it open.
    eventually("nobody listens", async || TcpListener::bind(address).await.is_ok()).await;
    release.send_replace(true);
    let answer = asking.join_next().await.unwrap().unwrap();
    assert!(answer.contains("connection: close") && body(&answer) == "done", "{answer}");
    draining.join_next().await.unwrap().unwrap();
    running.service.stop().await.unwrap();
}

#[tokio::test]
async fn http2_is_spoken_and_one_connection_reaches_many_backends() {
    let (a, b) = (named("a").await, named("b").await);
    let running = over(&[&a, &b], json!({"balance": "round_robin"})).await;
    let stream = TcpStream::connect(at(&running)).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let mut running_connection = JoinSet::new();
    running_connection.spawn(connection);
    let mut names = String::new();
    for _ in 0..4 {
        let request = Request::get("http://shop.example/x").body(Empty::<Bytes>::new()).unwrap();
        let answer: Response<Incoming> = sender.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        names.push_str(std::str::from_utf8(&body).unwrap());
    }
    assert!(["abab", "baba"].contains(&names.as_str()), "{names}");
}

#[tokio::test]
async fn each_request_is_a_line_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = named("hello").await;
    let more = json!({"access_log": {"to": path}});
    let listeners = json!([http(json!({"backends": [{"address": upstream.addr}]}), json!({}))]);
    let running = Running::with_settings(listeners, more, Vec::new()).await;
    ask(&running, "PUT /a?b", "content-length: 0\r\n").await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("there is a line", async || read().lines().count() == 1).await;
    let line: Value = serde_json::from_str(&read()).unwrap();
    for (key, value) in [
        ("listener", json!("main")),
        ("client_ip", json!("127.0.0.1")),
        ("protocol", json!("HTTP/1.1")),
        ("method", json!("PUT")),
        ("host", json!("shop.example")),
        ("path", json!("/a?b")),
        ("status", json!(200)),
        ("bytes_in", json!(0)),
        ("bytes_out", json!(5)),
        ("member", json!(upstream.addr)),
        ("attempts", json!(1)),
        ("upstream_status", json!(200)),
        ("reason", Value::Null),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    assert!(line["request_id"].is_string() && line["duration_ms"].is_number(), "{line}");
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_a_word_of_the_log_even_for_head() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let closed = closed_addr();
    let more = json!({"access_log": {"to": path}});
    let listeners = json!([http(json!({"backends": [{"address": closed}]}), json!({}))]);
    let running = Running::with_settings(listeners, more, Vec::new()).await;
    ask(&running, "HEAD /", "").await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("there is a line", async || read().lines().count() == 1).await;
    let line: Value = serde_json::from_str(&read()).unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&json!(502), &json!("connect_failed")), "{line}");
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let echo =
        Upstream::serving(async |request: Request<Incoming>| Response::new(request.into_body().boxed()))
            .await;
    let running = over(&[&echo], json!({})).await;
    let stream = TcpStream::connect(at(&running)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut running_connection = JoinSet::new();
    running_connection.spawn(connection);
    let whole = Bytes::from(vec![7; 3 * 1024 * 1024]);
    let request = Request::post("/").header("host", "a").body(Full::new(whole.clone())).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), whole);
    eventually("the bytes are counted", async || running.metric("bytes_total", "in") == 3 * 1024 * 1024)
        .await;
}

#[tokio::test]
async fn tls_is_terminated_and_a_missing_certificate_degrades_the_listener() {
    let upstream = Upstream::serving(reflecting).await;
    let data = plugin::testing::tls::testdata();
    let tls = |name: &str| {
        let file = |end: &str| data.join(format!("{name}.{end}"));
        json!({"tls": {"certificates": [{"cert": file("crt"), "key": file("key")}]}})
    };
    let running = over(&[&upstream], tls("shop")).await;
    assert!(running.context.endpoints.urls()["main"].starts_with("https://"));
    assert_eq!(running.service.health(), Health::Ready);
    let plain = raw(at(&running), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 400"), "plain HTTP to a listener with TLS: {plain}");
    let without = over(&[&upstream], tls("no-such")).await;
    assert!(matches!(without.service.health(), Health::Degraded(_)), "{:?}", without.service.health());
    let mut verifying = tls("shop");
    verifying["tls"]["client_ca"] = json!(data.join("no-such.crt"));
    let without_ca = over(&[&upstream], verifying).await;
    let Health::Degraded(why) = without_ca.service.health() else { panic!("it accepts no client") };
    assert_eq!(why.code.to_string(), "client-ca-missing");
}
