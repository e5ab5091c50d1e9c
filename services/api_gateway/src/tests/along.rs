//! Requests along routes: matching, destinations, rewriting, limits and keys, as clients and servers see them.

use super::*;

/// Sends a request with these lines in its head, and reads the whole answer.
async fn ask(gateway: &Running, line: &str, more: &str) -> String {
    gateway.raw(format!("{line} HTTP/1.1\r\n{more}connection: close\r\n\r\n")).await
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// The code of the problem in an answer.
fn code(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    let problem: Problem = serde_json::from_str(body).unwrap();
    assert!(problem.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{answer}");
    problem.code().to_owned()
}

async fn routes(routes: Value) -> Running {
    Running::with(json!({"routes": routes}), Vec::new()).await
}

#[tokio::test]
async fn a_request_goes_along_the_most_specific_route_that_takes_it() {
    let answer = |text: &str| json!({"body": text});
    let gateway = routes(json!([
        {"prefix": "/", "answer": answer("any")},
        {"prefix": "/", "hosts": ["*.shop.example"], "answer": answer("below")},
        {"prefix": "/", "hosts": ["Shop.example", "www.shop.example"], "answer": answer("shop")},
        {"prefix": "/api", "hosts": ["shop.example"], "methods": ["PUT"], "answer": answer("put")},
        {"prefix": "/api", "hosts": ["shop.example"], "headers": {"x-version": "2, 3"}, "answer": answer("version")},
        {"path": "/api", "hosts": ["shop.example"], "answer": answer("exact")},
    ]))
    .await;
    for (line, head, body) in [
        ("GET /", "host: other\r\n", "any"),
        ("GET /", "host: SHOP.example:8080\r\n", "shop"),
        ("GET http://shop.example/", "host: other\r\n", "shop"),
        ("GET /", "host: www.shop.example.\r\n", "shop"),
        ("GET /", "host: a.b.shop.example\r\n", "below"),
        ("GET /api", "host: shop.example\r\nx-version: 2\r\nx-version: 3\r\n", "exact"),
        ("GET /api/", "host: shop.example\r\nx-version: 2\r\nx-version: 3\r\n", "version"),
        ("GET /api/", "host: shop.example\r\nx-version: 2\r\n", "shop"),
        ("PUT /%61pi/x", "host: shop.example\r\nx-version: 2, 3\r\n", "put"),
        ("PUT /apis", "host: shop.example\r\n", "shop"),
    ] {
        let answer = ask(&gateway, line, head).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{line} {head}: {answer}");
        assert!(answer.contains("content-type: text/plain; charset=utf-8"), "{answer}");
    }
    let answer = ask(&gateway, "HEAD /", "host: a\r\n").await;
    assert!(answer.ends_with("\r\n\r\n") && answer.contains("content-length: 3"), "{answer}");
}

#[tokio::test]
async fn behaviour_4_path_and_query_reach_the_upstream_byte_for_byte() {
    let upstream = Upstream::serving(reflecting).await;
    let url = upstream.url().to_string();
    let gateway = routes(json!([
        {"prefix": "/strip", "to": [url]},
        {"prefix": "/keep", "to": [url], "strip_prefix": false},
        {"prefix": "/v1", "to": [url], "rewrite": {"prefix": "/v2/x"}},
        {"prefix": "/root", "to": [url], "rewrite": {"prefix": "/"}},
        {"path": "/exact", "to": [url]},
        {"prefix": "/no-slash", "to": [url], "slashes": "refuse"},
    ]))
    .await;
    let rest = "/a%2Fb//c;d=1/%7e%2E%2fx/+/%zz?q=%20+&r=//&&?";
    for (path, arrives) in [
        (format!("/strip{rest}"), rest.to_owned()),
        (format!("/%73trip{rest}"), rest.to_owned()),
        (format!("/keep{rest}"), format!("/keep{rest}")),
        (format!("/%6beep{rest}"), format!("/%6beep{rest}")),
        (format!("/v1{rest}"), format!("/v2/x{rest}")),
        ("/v1".to_owned(), "/v2/x".to_owned()),
        ("/v1?q".to_owned(), "/v2/x?q".to_owned()),
        ("/v1/".to_owned(), "/v2/x/".to_owned()),
        (format!("/root{rest}"), rest.to_owned()),
        ("/root".to_owned(), "/".to_owned()),
        ("/exact?".to_owned(), "/exact?".to_owned()),
        ("/no-slash/a%252Fb".to_owned(), "/a%252Fb".to_owned()),
    ] {
        let answer = ask(&gateway, &format!("GET {path}"), "host: a\r\n").await;
        assert!(answer.contains(&format!("GET {arrives}\n")), "{path}: {answer}");
    }
    for path in ["/no-slash/a%2fb", "/strip/../x", "/v1/%2e%2e/x", "/v1/x%00"] {
        let answer = ask(&gateway, &format!("GET {path}"), "host: a\r\n").await;
        assert_eq!((status(&answer), code(&answer).as_str()), (400, "bad-path"), "{path}");
    }
    assert_eq!(upstream.hits(), 12, "nothing else arrived");
}

#[tokio::test]
async fn behaviour_3_a_post_that_may_have_been_seen_is_sent_once_and_a_repeated_body_is_identical() {
    let breaks = Upstream::raw(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let echo = Upstream::serving(echoing).await;
    let closed = closed_port().await.to_string();
    let gateway = routes(json!([
        {"prefix": "/breaks", "to": [breaks.url().to_string()]},
        {"prefix": "/once", "to": [breaks.url().to_string()], "retry": {"attempts": 1}},
        {"prefix": "/again", "backends": [{"url": closed, "weight": 1000}, {"url": echo.url().to_string()}]},
    ]))
    .await;
    let post = |path: &str| format!("POST {path}");
    let body = "host: a\r\ncontent-length: 0\r\n";
    let answer = ask(&gateway, &post("/breaks"), body).await;
    assert_eq!((status(&answer), code(&answer).as_str(), breaks.hits()), (502, "broken-connection", 1));
    let answer = ask(&gateway, "GET /once", "host: a\r\n").await;
    assert_eq!((status(&answer), breaks.hits()), (502, 2), "no second attempt");
    let answer = ask(&gateway, "GET /breaks", "host: a\r\n").await;
    assert_eq!((status(&answer), breaks.hits()), (502, 5), "an idempotent request is sent three times");
    let request = "POST /again HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    let answer = gateway.raw(request).await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(echo.hits(), 1);
}

#[tokio::test]
async fn each_backend_gets_its_share() {
    let (heavy, light) = (Upstream::serving(reflecting).await, Upstream::serving(reflecting).await);
    let gateway = routes(json!([{"prefix": "/", "backends": [
        {"url": heavy.url().to_string(), "weight": 9},
        {"url": light.url().to_string()},
    ]}]))
    .await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for _ in 0..300 {
        let request = Request::get(format!("http://{}/", gateway.addr)).body(Full::default()).unwrap();
        whole(client.request(request).await.unwrap()).await;
    }
    // 30 expected, with a standard deviation of 5.2.
    assert!((5..60).contains(&light.hits()), "{} of 300", light.hits());
    assert_eq!(heavy.hits() + light.hits(), 300);
}

#[tokio::test]
async fn a_redirect_names_the_new_url() {
    let gateway = Running::with(
        json!({"trust": ["127.0.0.0/8"], "routes": [
            {"prefix": "/old", "redirect": {"to": "/new{rest}", "status": 308}},
            {"prefix": "/", "hosts": ["shop.example"], "redirect": {"scheme": "https"}},
            {"prefix": "/", "hosts": ["ports.example"], "redirect": {"scheme": "https", "port": 8443}},
            {"prefix": "/", "hosts": ["ports.example"], "answer": {"body": "ports"}},
            {"prefix": "/", "hosts": ["shop.example"], "answer": {"body": "shop"}, "response_headers": {"set": {"strict-transport-security": "max-age=1"}}},
        ]}),
        Vec::new(),
    )
    .await;
    let answer = ask(&gateway, "POST /old/a%2Fb?c", "host: x:80\r\n").await;
    assert_eq!(status(&answer), 308);
    assert!(answer.contains("\r\nlocation: /new/a%2Fb?c\r\n"), "{answer}");
    let answer = ask(&gateway, "GET /old//evil.example", "host: x\r\n").await;
    assert!(answer.contains("\r\nlocation: /new//evil.example\r\n"), "{answer}");
    let answer = ask(&gateway, "GET /a?b", "host: shop.example:80\r\n").await;
    assert_eq!(status(&answer), 302);
    assert!(answer.contains("\r\nlocation: https://shop.example/a?b\r\n"), "{answer}");
    let answer = ask(&gateway, "GET /a", "host: shop.example\r\nx-forwarded-proto: https\r\n").await;
    assert!(answer.ends_with("shop") && answer.contains("strict-transport-security: max-age=1"), "{answer}");
    let answer = ask(&gateway, "GET /a", "host: ports.example:8080\r\n").await;
    assert!(answer.contains("\r\nlocation: https://ports.example:8443/a\r\n"), "{answer}");
    let answer = ask(&gateway, "GET /a", "host: ports.example:8443\r\nx-forwarded-proto: https\r\n").await;
    assert!(answer.ends_with("ports"), "it does not lead to itself: {answer}");
}

#[tokio::test]
async fn a_service_is_reached_by_a_route_and_its_hosts_are_allowed() {
    let upstream = Upstream::serving(reflecting).await;
    let members = vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let settings = json!({"services": "none", "routes": [
        {"prefix": "/kv", "hosts": ["shop.example", "*.shop.example"], "service": "key-value"},
        {"prefix": "/kv", "service": "key_value"},
        {"prefix": "/none", "service": "analytics"},
    ]});
    let gateway = Running::with(settings, members).await;
    for host in ["shop.example", "www.shop.example:80", "127.0.0.1", "localhost"] {
        let answer = ask(&gateway, "GET /kv/a%2Fb?c", &format!("host: {host}\r\n")).await;
        assert!(answer.contains("GET /svc/key_value/a%2Fb?c\n"), "{host}: {answer}");
        assert!(answer.contains("x-forwarded-prefix: /kv"), "{host}: {answer}");
    }
    let answer = ask(&gateway, "GET /kv/a", "host: evil.example\r\n").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (403, "foreign-host"));
    let answer = ask(&gateway, "GET /kv/a", "host: shop.example\r\norigin: http://evil.example\r\n").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (403, "foreign-page"));
    for path in ["/kv/../x", "/kv/.", "/kv/a/./b"] {
        let answer = ask(&gateway, &format!("GET {path}"), "host: localhost\r\n").await;
        assert_eq!((status(&answer), code(&answer).as_str()), (400, "bad-path"), "{path}");
    }
    let answer = ask(&gateway, "GET /kv/%2e%2e", "host: localhost\r\n").await;
    assert!(answer.contains("GET /svc/key_value/%2e%2e\n"), "{answer}");
    let answer = ask(&gateway, "GET /key_value/a", "host: localhost\r\n").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (404, "no-route"), "services have no paths");
    let answer = ask(&gateway, "GET /none/a", "host: localhost\r\n").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (404, "unknown-service"));
    assert_eq!(upstream.hits(), 5);
}

#[tokio::test]
async fn header_fields_are_changed_as_the_route_says() {
    let upstream = Upstream::serving(|request: Request<Incoming>| async {
        let mut answer = reflecting(request).await;
        answer.headers_mut().insert("server", "nginx".parse().unwrap());
        answer.headers_mut().insert("x-powered-by", "php".parse().unwrap());
        answer
    })
    .await;
    let gateway = routes(json!([{
        "prefix": "/", "to": [upstream.url().to_string()], "rewrite": {"host": "shop.example:81"},
        "request_headers": {"set": {"x-from": "gateway", "x-a": "new"}, "add": {"x-b": "2"}, "remove": ["X-Debug"]},
        "response_headers": {"set": {"server": "coterie"}, "add": {"x-c": "3"}, "remove": ["x-powered-by"]},
    }]))
    .await;
    let answer = ask(&gateway, "GET /", "host: a\r\nx-a: 1\r\nx-a: 2\r\nx-b: 1\r\nx-debug: 1\r\n").await;
    let (head, reflected) = answer.split_once("\r\n\r\n").unwrap();
    for line in
        ["host: shop.example:81", "x-from: gateway", "x-a: new", "x-b: 1", "x-b: 2", "x-forwarded-host: a"]
    {
        assert_eq!(reflected.lines().filter(|other| *other == line).count(), 1, "{line}: {reflected}");
    }
    assert!(!reflected.contains("x-debug") && !reflected.contains("x-a: 1"), "{reflected}");
    assert!(head.contains("\r\nserver: coterie") && head.contains("\r\nx-c: 3"), "{head}");
    assert!(!head.contains("x-powered-by"), "{head}");
}

#[tokio::test]
async fn behaviour_14_a_body_over_the_limit_is_refused_with_the_limit_and_the_route() {
    let upstream = Upstream::serving(echoing).await;
    let gateway = routes(json!([
        {"name": "small", "prefix": "/", "to": [upstream.url().to_string()], "limits": {"body": "5B"}},
    ]))
    .await;
    let sent = |head: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{head}\r\n\r\n{body}")
    };
    let answer = gateway.raw(sent("content-length: 5", "hello")).await;
    assert!(answer.ends_with("hello"), "{answer}");
    for (head, body, hits) in [
        ("content-length: 6", "hello!", 1),
        ("content-length: 6\r\nexpect: 100-continue", "", 1),
        ("content-length: 99999999999", "", 1),
    ] {
        let answer = gateway.raw(sent(head, body)).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (413, "body-too-large"), "{head}");
        assert!(
            answer.contains("5 bytes") && answer.contains("limits.body") && answer.contains("small"),
            "{answer}"
        );
        assert_eq!(upstream.hits(), hits, "{head}: nothing arrives");
    }
    let reading = Upstream::serving(|request: Request<Incoming>| async {
        match request.into_body().collect().await {
            Ok(_) => text("whole"),
            Err(_) => text("cut"),
        }
    })
    .await;
    let gateway =
        routes(json!([{"prefix": "/", "to": [reading.url().to_string()], "limits": {"body": 5}}])).await;
    let answer = gateway.raw(sent("transfer-encoding: chunked", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    assert!(answer.ends_with("whole"), "{answer}");
    let answer = gateway.raw(sent("transfer-encoding: chunked", "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")).await;
    assert_eq!((status(&answer), code(&answer).as_str()), (413, "body-too-large"), "the upload is cut");
}

#[tokio::test]
async fn behaviour_7_an_upload_and_an_answer_live_for_as_long_as_bytes_move() {
    const PIECES: usize = 35;
    // What arrives goes back at once, and the end of the answer is that of the connection.
    let upstream = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        for _ in 0..PIECES {
            let piece = stream.read_u8().await.unwrap();
            stream.write_u8(piece).await.unwrap();
        }
    })
    .await;
    let gateway = routes(json!([
        {"prefix": "/", "to": [upstream.url().to_string()], "timeouts": {"answer": "3s", "idle": "3s"}},
    ]))
    .await;
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {PIECES}\r\n\r\n");
    writing.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    let uploading = async {
        for _ in 0..PIECES {
            tokio::time::sleep(Duration::from_millis(200)).await;
            writing.write_all(b"~").await.unwrap();
        }
    };
    let mut answer = String::new();
    let ((), read) = tokio::join!(uploading, reading.read_to_string(&mut answer));
    read.unwrap();
    assert!(began.elapsed() > 2 * Duration::from_secs(3), "it took longer than every limit");
    assert_eq!((status(&answer), answer.matches('~').count()), (200, PIECES), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "the answer is whole: {answer}");
}

#[tokio::test]
async fn behaviour_14_a_body_is_never_buffered_whole() {
    const LEN: usize = 64 * 1024 * 1024;
    let (seen, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let upstream = {
        let (seen, arrived) = (Arc::clone(&seen), Arc::clone(&arrived));
        Upstream::serving(move |request: Request<Incoming>| {
            let (seen, arrived) = (Arc::clone(&seen), Arc::clone(&arrived));
            async move {
                let mut body = request.into_body();
                if let Some(Ok(frame)) = body.frame().await {
                    seen.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::SeqCst);
                }
                arrived.notified().await;
                let _ = body.collect().await;
                text("read")
            }
        })
        .await
    };
    let gateway =
        routes(json!([{"prefix": "/", "to": [upstream.url().to_string()], "limits": {"body": "1GiB"}}]))
            .await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {LEN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server reads one piece and waits: the sockets fill up, and then the client can write no more.
    let piece = vec![7; 1024 * 1024];
    let mut written = 0;
    while let Ok(Ok(len)) = tokio::time::timeout(Duration::from_secs(2), stream.write(&piece)).await {
        written += len;
        assert!(written < LEN, "all of the body was taken, although the server has read one piece");
    }
    assert!(seen.load(Ordering::SeqCst) > 0, "the first piece arrived before the body was whole");
    arrived.notify_one();
    while written < LEN {
        written += stream.write(&piece[..piece.len().min(LEN - written)]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("read"), "{answer}");
}

#[tokio::test]
async fn a_rate_beyond_the_limit_is_refused_until_retry_after() {
    let rate = |by: Value| json!({"rate": {"requests": 2, "per": "1h", "by": by}});
    let settings = json!({"trust": ["127.0.0.1"], "routes": [
        {"prefix": "/route", "answer": {}, "limits": rate(json!("route"))},
        {"prefix": "/client", "answer": {}, "limits": rate(json!("client"))},
        {"prefix": "/user", "answer": {}, "limits": rate(json!({"header": "x-user"}))},
    ]});
    let gateway = Running::with(settings, Vec::new()).await;
    for (path, one, other) in [
        ("/client", "x-forwarded-for: 192.0.2.1", "x-forwarded-for: 192.0.2.2"),
        ("/user", "x-user: a", "x-user: b"),
    ] {
        let asked = |more: &str| format!("host: a\r\n{more}\r\n");
        for _ in 0..2 {
            assert_eq!(status(&ask(&gateway, &format!("GET {path}"), &asked(one)).await), 200, "{path}");
        }
        let answer = ask(&gateway, &format!("GET {path}"), &asked(one)).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (429, "rate-limited"), "{path}");
        assert!(answer.contains("retry-after: 1") && answer.contains("2 per 1h, burst 2"), "{answer}");
        assert_eq!(status(&ask(&gateway, &format!("GET {path}"), &asked(other)).await), 200, "{path}");
    }
    for expected in [200, 200, 429] {
        let answer = ask(&gateway, "GET /route", "host: a\r\n").await;
        assert_eq!(status(&answer), expected);
    }
}

#[tokio::test]
async fn a_route_with_keys_needs_one_and_the_server_does_not_see_it() {
    let upstream = Upstream::serving(reflecting).await;
    // printf %s secret | sha256sum
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let settings = json!({
        "keys": {"partners": {"sha256": [digest]}},
        "routes": [{"prefix": "/", "to": [upstream.url().to_string()], "keys": "partners"}],
    });
    let gateway = Running::with(settings, Vec::new()).await;
    for (more, refusal) in [
        ("", "no-key"),
        ("authorization: Basic c2VjcmV0\r\n", "no-key"),
        ("authorization: Bearer wrong\r\n", "unknown-key"),
        ("x-api-key: wrong\r\n", "unknown-key"),
        (&format!("x-api-key: {digest}\r\n"), "unknown-key"),
    ] {
        let answer = ask(&gateway, "GET /", &format!("host: a\r\n{more}")).await;
        assert_eq!((status(&answer), code(&answer).as_str()), (401, refusal), "{more}");
        assert!(answer.contains("\r\nwww-authenticate: Bearer\r\n"), "{answer}");
    }
    assert_eq!(upstream.hits(), 0);
    for more in ["authorization: Bearer secret\r\n", "x-api-key: secret\r\n"] {
        let answer = ask(&gateway, "GET /", &format!("host: a\r\n{more}")).await;
        assert_eq!(status(&answer), 200, "{more}");
        assert!(!answer.contains("secret") && !answer.contains("authorization"), "{answer}");
    }
}

#[tokio::test]
async fn each_api_key_has_a_rate_of_its_own() {
    // printf %s secret | sha256sum; printf %s other | sha256sum
    let digests = [
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
    ];
    let rate = json!({"requests": 1, "per": "1h", "by": "key"});
    let settings = json!({
        "keys": {"partners": {"sha256": digests}},
        "routes": [{"prefix": "/", "answer": {}, "keys": "partners", "limits": {"rate": rate}}],
    });
    let gateway = Running::with(settings, Vec::new()).await;
    for (more, expected) in [
        ("x-api-key: secret", 200),
        ("authorization: Bearer secret", 429),
        ("x-api-key: other", 200),
        ("x-api-key: other", 429),
        ("x-api-key: wrong", 401),
    ] {
        let answer = ask(&gateway, "GET /", &format!("host: a\r\n{more}\r\n")).await;
        assert_eq!(status(&answer), expected, "{more}: {answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
}

#[tokio::test]
async fn gateways_that_come_and_go_change_each_others_parts_of_a_shared_rate() {
    let rate = json!({"requests": 6, "per": "1h", "by": {"header": "x-user"}, "shared": true});
    let settings = json!({"routes": [{"name": "r", "prefix": "/", "answer": {}, "limits": {"rate": rate}}]});
    let gateway = Running::with(settings, Vec::new()).await;
    let addr = gateway.addr;
    let shown = async |words: &str| {
        let began = Instant::now();
        loop {
            let request = Request::get("/routes").body(axum::body::Body::empty()).unwrap();
            let answer = tower::ServiceExt::oneshot(gateway.service.clone().routes(), request).await.unwrap();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains(words) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{text}");
            tokio::task::yield_now().await;
        }
    };
    let own = || member("test-node", "api_gateway", addr, Phase::Ready);
    let other = |id: &str, phase| member(id, "api_gateway", addr, phase);
    shown("6 per 1h, burst 6, by header x-user, shared by 1 gateway").await;
    let storage = member("s", "storage", addr, Phase::Ready);
    let starting = other("d", Phase::Starting);
    gateway
        .views
        .send(view(vec![own(), other("b", Phase::Ready), other("c", Phase::Ready), starting, storage]))
        .unwrap();
    shown("shared by 3 gateways").await;
    for expected in [200, 200, 429] {
        assert_eq!(status(&ask(&gateway, "GET /", "host: a\r\nx-user: a\r\n").await), expected);
    }
    gateway.views.send(view(vec![own()])).unwrap();
    shown("shared by 1 gateway").await;
    for expected in [200, 200, 200, 200, 200, 200, 429] {
        assert_eq!(status(&ask(&gateway, "GET /", "host: a\r\nx-user: b\r\n").await), expected);
    }
}

#[tokio::test]
async fn a_route_has_time_limits_of_its_own() {
    let silent = Upstream::serving(|_| std::future::pending()).await;
    let half = Upstream::raw(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        std::future::pending::<()>().await;
    })
    .await;
    let (silent, half) = (silent.url().to_string(), half.url().to_string());
    let gateway = routes(json!([
        {"prefix": "/answer", "to": [silent], "timeouts": {"answer": "100ms"}},
        {"prefix": "/total", "to": [silent], "timeouts": {"total": "100ms"}},
        {"prefix": "/idle", "to": [half], "timeouts": {"idle": "100ms"}},
        {"prefix": "/whole", "to": [half], "timeouts": {"total": "300ms"}},
    ]))
    .await;
    let answer = ask(&gateway, "GET /answer", "host: a\r\n").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (504, "no-answer-in-time"));
    let answer = ask(&gateway, "GET /total", "host: a\r\n").await;
    assert_eq!((status(&answer), code(&answer).as_str()), (504, "too-slow"));
    for path in ["/idle", "/whole"] {
        // The connection ends in the middle of the body: never a clean end.
        let answer = ask(&gateway, &format!("GET {path}"), "host: a\r\n").await;
        assert!(answer.contains("content-length: 10") && answer.ends_with("half"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_routes_are_listed_in_order_and_a_test_is_explained() {
    let gateway = Running::with(
        json!({"routes": [
            {"prefix": "/", "to": ["http://127.0.0.1:1"], "limits": {"body": "1KiB", "min_rate": "100B", "in_flight": 5}},
            {"name": "api", "prefix": "/api", "hosts": ["*.shop.example", "shop.example"], "methods": ["GET"], "service": "storage"},
        ]}),
        Vec::new(),
    )
    .await;
    let routes = |query: &'static str| {
        let service = gateway.service.clone();
        async move {
            let request = Request::get(format!("/routes{query}")).body(axum::body::Body::empty()).unwrap();
            let answer = tower::ServiceExt::oneshot(service.routes(), request).await.unwrap();
            let status = answer.status().as_u16();
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice::<Value>(&bytes).unwrap())
        }
    };
    let (_, listed) = routes("").await;
    let api = |host: &str| {
        json!({"place": "/routes/1", "name": "api", "host": host, "prefix": "/api", "methods": ["GET"],
               "target": {"service": "storage"}, "balance": "two_choices", "limits": {}})
    };
    let root = json!({"place": "/routes/0", "name": "/", "prefix": "/", "target": {"to": ["http://127.0.0.1:1"]}, "balance": "two_choices",
                      "limits": {"body": 1024, "min_rate": 100, "in_flight": 5}});
    assert_eq!(
        listed,
        json!({"node": "test-node", "routes": [api("shop.example"), api("*.shop.example"), root]})
    );
    let (_, explained) = routes("?test=GET%20https://a.shop.example/api/x").await;
    let passed =
        json!([{"route": api("shop.example"), "why": "the host is a.shop.example, not shop.example"}]);
    assert_eq!(explained, json!({"passed": passed, "route": api("*.shop.example")}));
    let (_, explained) = routes("?test=PUT%20http://shop.example/api").await;
    assert_eq!(explained["passed"][0]["why"], "the method is not GET");
    assert_eq!(explained["route"], root);
    let (status, problem) = routes("?test=GET%20ftp://a").await;
    assert_eq!((status, problem["status"].as_u64()), (400, Some(400)));
}

#[tokio::test]
async fn an_example_that_the_gateway_refuses_is_shown_as_refused_as_the_request_is() {
    let settings = json!({
        "listeners": [{"name": "web", "address": "127.0.0.1:0", "ready": "/ready"}],
        "keys": {"partners": {"sha256": ["2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]}},
        "routes": [
            {"prefix": "/base", "to": ["http://127.0.0.1:1/below"]},
            {"prefix": "/keys", "keys": "partners", "answer": {}},
            {"prefix": "/slash", "slashes": "refuse", "answer": {}},
            {"prefix": "/kv", "service": "storage"},
            {"prefix": "/fine", "answer": {}},
        ],
    });
    let upstream = Upstream::serving(echoing).await;
    let gateway = Running::with(settings, vec![member("n1", "storage", upstream.addr, Phase::Ready)]).await;
    let test = async |request: &str, header: Option<&str>| {
        let mut query = format!("?test={}", request.replace('%', "%25").replace(' ', "%20"));
        query += &header.map(|header| format!("&header={}", header.replace(' ', "%20"))).unwrap_or_default();
        let service = Arc::clone(&gateway.service);
        let request = Request::get(format!("/routes{query}")).body(axum::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::oneshot(service.routes(), request).await.unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    for (method, host, path, header, status) in [
        ("GET", "evil.example", "/storage/kv/a", None, 403),
        ("GET", "evil.example", "/kv/a", None, 403),
        ("GET", "localhost", "/storage/kv/../a", None, 400),
        ("GET", "localhost", "/nothing/../a", None, 400),
        ("GET", "localhost", "/base/../x", None, 400),
        ("GET", "localhost", "/base/%2e%2e/x", None, 400),
        ("TRACE", "localhost", "/fine", None, 405),
        ("GET", "localhost", "/keys", None, 401),
        ("GET", "localhost", "/keys", Some("x-api-key: wrong"), 401),
        ("GET", "localhost", "/slash/a%2Fb", None, 400),
        ("GET", "localhost", "/kv/a", Some("origin: http://evil.example"), 403),
    ] {
        let found = test(&format!("{method} http://{host}{path}"), header).await;
        assert_eq!(found["refused"]["status"], status, "{method} {host}{path}: {found}");
        let line = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
        let raw = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{line}connection: close\r\n\r\n");
        let answer = gateway.raw(raw).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {host}{path}: {answer}");
        let code = found["refused"]["code"].as_str().unwrap();
        assert!(answer.contains(code), "{code}: {answer}");
    }
    let connect = test("CONNECT http://localhost/fine", None).await;
    assert_eq!(connect["refused"]["code"], "no-tunnels", "{connect}");
    for (request, header) in [
        ("GET http://localhost/fine", None),
        ("GET /fine", None),
        ("GET http://evil.example/fine", None),
        ("GET http://localhost/keys", Some("x-api-key: secret")),
        ("GET http://localhost/storage/kv/a", None),
    ] {
        let found = test(request, header).await;
        assert_eq!(found["refused"], Value::Null, "{request}: {found}");
    }
    let ready = test("GET http://any.example/ready", None).await;
    assert_eq!((&ready["ready"], &ready["is_ready_everywhere"]), (&json!(["web"]), &json!(true)));
    assert_eq!(test("POST /ready", None).await["ready"], Value::Null);
    assert_eq!(
        test("GET /", None).await,
        json!({"passed": test("GET /x", None).await["passed"], "is_index": true})
    );
}

#[tokio::test]
async fn a_route_is_shown_with_all_that_its_settings_give_it() {
    let routes = json!([{
        "prefix": "/a", "to": ["http://127.0.0.1:1"], "rewrite": {"prefix": "/v2", "host": "b.example"},
        "slashes": "refuse", "timeouts": {"answer": "2s", "total": "1m"},
        "request_headers": {"set": {"x-a": "1", "authorization": "Bearer s3cret"}, "remove": ["x-b"]},
        "response_headers": {"add": {"x-c": "2"}},
        "check": {"http": {"path": "/up"}, "every": "1h"}, "forwarded": true,
    }, {"prefix": "/kept", "strip_prefix": false, "to": ["http://127.0.0.1:1"], "headers": {"x-api-key": "s3cret", "x-a": "1"}}]);
    let gateway = Running::with(json!({"routes": routes}), Vec::new()).await;
    let service = Arc::clone(&gateway.service);
    let request = Request::get("/routes").body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(service.routes(), request).await.unwrap();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let found: Value = serde_json::from_slice(&bytes).unwrap();
    let by_prefix = |prefix: &str| {
        let routes = found["routes"].as_array().unwrap();
        routes.iter().find(|route| route["prefix"] == prefix).unwrap().clone()
    };
    let route = by_prefix("/a");
    assert_eq!(route["rewrite"], json!({"prefix": "/v2", "host": "b.example"}));
    assert_eq!(route["slashes"], "refuse");
    assert_eq!(route["timeouts"], json!({"answer": "2s", "total": "60s"}));
    assert_eq!(route["request_headers"]["remove"], json!(["x-b"]));
    let mut set: Vec<_> = route["request_headers"]["set"].as_array().unwrap().clone();
    set.sort_by_key(ToString::to_string);
    assert_eq!(set, [json!("authorization: (not shown)"), json!("x-a: 1")]);
    assert_eq!(route["response_headers"]["add"], json!(["x-c: 2"]));
    assert_eq!(route["check"], "http /up every 3600s, timeout 2s, rise 2, fall 3");
    assert_eq!((&route["forwarded"], &by_prefix("/kept")["forwarded"]), (&json!(true), &Value::Null));
    assert_eq!(by_prefix("/kept")["strip_prefix"], false);
    assert_eq!(by_prefix("/kept")["headers"], json!({"x-api-key": "(not shown)", "x-a": "1"}));
}
