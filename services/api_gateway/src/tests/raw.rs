//! Requests and answers byte by byte: unusual and malformed input from clients and servers.

use super::*;

/// The requests that a recorder behind the gateway received: heads and bodies.
#[derive(Clone, Default)]
struct Record(Arc<std::sync::Mutex<Vec<String>>>);

impl Record {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A server that records each request with its body and trailers, and answers 200.
async fn recorder() -> (Upstream, Record) {
    let record = Record::default();
    let noted = record.clone();
    let upstream = Upstream::serving(move |request: Request<Incoming>| {
        let noted = noted.clone();
        async move {
            let mut recorded = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                recorded += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            let body = request.into_body().collect().await;
            match body {
                Ok(body) => {
                    for (name, value) in body.trailers().into_iter().flatten() {
                        recorded += &format!("trailer {name}: {}\n", value.to_str().unwrap());
                    }
                    recorded += &format!("\n{}", String::from_utf8_lossy(&body.to_bytes()));
                }
                Err(_) => recorded += "\ncut",
            }
            noted.0.lock().unwrap().push(recorded);
            text("recorded")
        }
    })
    .await;
    (upstream, record)
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// The problem in an answer.
fn problem(answer: &str) -> Problem {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    assert!(head.contains("x-request-id: ") && head.contains("coterie-node: test-node"), "{answer}");
    let problem: Problem = serde_json::from_str(body).unwrap();
    assert!(problem.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{answer}");
    assert_eq!(problem.node.as_deref(), Some("test-node"), "{answer}");
    problem
}

const NEXT: &str = "GET /next HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn an_ambiguous_head_is_refused_with_a_problem_and_ends_the_connection() {
    let (upstream, record) = recorder().await;
    let gateway = Running::routing("/", &upstream).await;
    let many = "a: b\r\n".repeat(101);
    let large = format!("cookie: {}\r\n", "a".repeat(40_000));
    let long = "a".repeat(70_000);
    let method = "A".repeat(5_000);
    for (request, expected, code) in [
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "several-hosts"),
        ("GET /a HTTP/1.1\r\n\r\n", 400, "no-host"),
        ("GET /a HTTP/1.1\r\nHost: a b/c@d\r\n\r\n", 400, "bad-host"),
        ("GET /a HTTP/1.1\r\nHost: x, y\r\n\r\n", 400, "bad-host"),
        ("GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", 400, "bad-host"),
        ("GET /a HTTP/1.1\r\nHost: u@x\r\n\r\n", 400, "bad-host"),
        ("GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400, "bad-host"),
        ("GET /a HTTP/1.1\r\nHost: x:99999\r\n\r\n", 400, "bad-host"),
        ("GET http://u:p@other/u/ HTTP/1.1\r\nHost: h\r\n\r\n", 400, "user-name"),
        ("GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-target"),
        ("GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-target"),
        ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-target"),
        ("GET /a#/b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-target"),
        ("GET /caf\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad-target"),
        ("GET /u/a<b> HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-target"),
        ("GET /u/?q=\"x\" HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-target"),
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-request-line"),
        ("GET /u/ HTTP/1.2\r\nHost: h\r\n\r\n", 505, "http-version"),
        ("GET /u/ http/1.1\r\nHost: h\r\n\r\n", 400, "bad-request-line"),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            501,
            "transfer-coding",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            501,
            "transfer-coding",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            501,
            "transfer-coding",
        ),
        (
            "POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "transfer-coding",
        ),
        ("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", 400, "bad-length"),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            400,
            "bad-length",
        ),
        ("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", 400, "bad-length"),
        ("GET /a HTTP/1.1\r\nHost: h\r\na: b\r\n c\r\n\r\n", 400, "bad-header"),
        ("GET /a HTTP/1.1\r\nHost: h\r\nfoo bar\r\n\r\n", 400, "bad-header"),
        ("TRACE /a HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\n\r\n", 405, "no-trace"),
        ("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n", 501, "no-tunnels"),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nx",
            417,
            "bad-expectation",
        ),
        (&format!("{method} /a HTTP/1.1\r\nHost: h\r\n\r\n"), 400, "bad-method"),
        (&format!("GET /a HTTP/1.1\r\nHost: h\r\n{many}\r\n"), 431, "head-too-large"),
        (&format!("GET /a HTTP/1.1\r\nHost: h\r\n{large}\r\n"), 431, "head-too-large"),
        (&format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414, "target-too-long"),
        ("\u{16}\u{3}\u{1}\u{2}\u{1}\r\n\r\n", 400, "tls"),
    ] {
        let answer = gateway.raw(format!("{request}{NEXT}")).await;
        let shown: String = request.chars().take(80).collect();
        assert_eq!(status(&answer), expected, "{shown:?}: {answer}");
        let problem = problem(&answer);
        assert_eq!((problem.code(), problem.status), (code, expected), "{shown:?}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{shown:?}: {answer}");
        assert_eq!(record.take(), Vec::<String>::new(), "{shown:?}: nothing gets through");
    }
}

#[tokio::test]
async fn an_unambiguous_request_is_forwarded() {
    let (upstream, record) = recorder().await;
    let gateway = Running::routing("/", &upstream).await;
    for (request, line, body) in [
        ("GET /a HTTP/1.0\r\n\r\n", "GET /a", ""),
        ("\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a", ""),
        ("GET /a HTTP/1.1\nHost: x\n\n", "GET /a", ""),
        ("GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a", ""),
        ("GET /a%zz%2F//;+?&%00 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /a%zz%2F//;+?&%00", ""),
        ("get /a HTTP/1.1\r\nHost: x\r\n\r\n", "get /a", ""),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a",
            "hello",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a",
            "hello",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "POST /a",
            "hello",
        ),
        ("POST /a HTTP/1.1\r\nHost: x\r\nUpgrade: foo\r\nContent-Length: 5\r\n\r\nhello", "POST /a", "hello"),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a",
            "hello",
        ),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
            "POST /a",
            "hello",
        ),
    ] {
        let answer = gateway.raw(closing(request)).await;
        assert!(
            answer.contains("HTTP/1.1 200 OK") || answer.contains("HTTP/1.0 200 OK"),
            "{request:?}: {answer}"
        );
        let seen = record.take();
        assert_eq!(seen.len(), 1, "{request:?}: {seen:?}");
        assert!(seen[0].starts_with(&format!("{line}\n")), "{request:?}: {seen:?}");
        let (head, came) = seen[0].split_once("\n\n").unwrap();
        assert_eq!(came, body, "{request:?}");
        for gone in ["upgrade", "transfer_encoding", "connection", "te:"] {
            assert!(!head.contains(&format!("\n{gone}")), "{request:?}: {head}");
        }
    }
    let answer = gateway.raw(closing("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert!(status(&answer) == 200 && answer.contains("allow: GET, HEAD"), "{answer}");
    assert!(record.take().is_empty());
}

/// The same request, after which the connection ends.
fn closing(request: &str) -> String {
    if request.contains("\r\n\r\n") {
        request.replacen("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n", 1)
    } else {
        request.replacen("HTTP/1.1\n", "HTTP/1.1\nConnection: close\n", 1)
    }
}

#[tokio::test]
async fn a_length_beside_chunks_is_ignored_and_nothing_is_smuggled() {
    let (upstream, record) = recorder().await;
    let gateway = Running::routing("/", &upstream).await;
    let length = 5 + NEXT.len();
    let request = format!(
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}"
    );
    let answer = gateway.raw(request).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "what follows is never parsed: {answer}");
    let seen = record.take();
    assert!(seen.len() == 1 && !seen[0].contains("content-length"), "{seen:?}");
}

#[tokio::test]
async fn a_client_can_neither_remove_nor_forge_the_fields_of_the_gateway() {
    let (upstream, record) = recorder().await;
    let gateway = Running::routing("/u", &upstream).await;
    let request = "GET /u/ HTTP/1.1\r\nHost: h\r\n\
        Connection: close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Prefix, X-Request-Id, \
        Authorization, Cookie, CDN-Loop, X-Hop\r\n\
        X-Forwarded-For: 9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nX.Forwarded.For: 9.9.9.9\r\n\
        X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: //evil.example\r\n\
        X-Forwarded-Port: 1\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nX-Request-Id: mine\r\n\
        Coterie-Hops: 3\r\nCoterie-Epoch: 99\r\nCoterie_Epoch: 99\r\nCoterie-Not-Processed: 1\r\n\
        Authorization: Basic a\r\nCookie: a=b\r\nX-Hop: 1\r\nX-Kept: 1\r\n\r\n";
    let answer = gateway.raw(request).await;
    assert_eq!(status(&answer), 200, "{answer}");
    let seen = record.take().pop().unwrap();
    let mut lines: Vec<_> = seen.lines().skip(1).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let id = lines.iter().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    assert_ne!(id, "mine");
    assert_eq!(
        lines,
        [
            "authorization: Basic a",
            "cdn-loop: coterie",
            "cookie: a=b",
            &format!("host: {}", upstream.addr),
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: h",
            "x-forwarded-prefix: /u",
            "x-forwarded-proto: http",
            "x-kept: 1",
            &format!("x-request-id: {id}"),
        ]
    );
}

#[tokio::test]
async fn a_route_is_not_left_by_dot_segments() {
    let (upstream, record) = recorder().await;
    let route = json!({"prefix": "/base", "to": [format!("{}/public", upstream.url())]});
    let gateway = Running::with(json!({"routes": [route]}), Vec::new()).await;
    for (path, arrives) in [
        ("/base/../secret", None),
        ("/base/%2e%2e/secret", None),
        ("/base/.%2E/secret", None),
        ("/base/..;x/secret", None),
        ("/base/..%5csecret", None),
        ("/base/x%00", None),
        ("/base/%252e%252e/secret", Some("/public/%252e%252e/secret")),
        ("/base/..%2fsecret", Some("/public/..%2fsecret")),
        ("/base/a..b/...", Some("/public/a..b/...")),
        ("/base?../", Some("/public/?../")),
    ] {
        let answer =
            gateway.raw(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        let seen = record.take().pop().map(|seen| seen.lines().next().unwrap().replace("GET ", ""));
        assert_eq!(seen.as_deref(), arrives, "{path}: {answer}");
        if arrives.is_none() {
            assert_eq!((status(&answer), problem(&answer).code()), (400, "bad-path"), "{path}");
        }
    }
}

#[tokio::test]
async fn trailers_forge_nothing_and_reach_only_members() {
    let (upstream, record) = recorder().await;
    let members = vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let route = json!({"prefix": "/u", "to": [upstream.url().to_string()]});
    let gateway = Running::with(json!({"routes": [route]}), members).await;
    let trailers = "Checksum: 1\r\nX-Forwarded-For: 9.9.9.9\r\nContent-Length: 3\r\nHost: z\r\n";
    for (path, has_checksum) in [("/u/", false), ("/key_value/", true)] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             Trailer: Checksum, X-Forwarded-For, Content-Length, Host\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n"
        );
        let answer = gateway.raw(request).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let seen = record.take().pop().unwrap();
        let came: Vec<_> = seen.lines().filter_map(|line| line.strip_prefix("trailer ")).collect();
        assert_eq!(came, if has_checksum { vec!["checksum: 1"] } else { Vec::new() }, "{path}: {seen}");
        assert!(seen.ends_with("hello"), "{seen}");
        assert_eq!(seen.contains("\ntrailer: "), has_checksum, "{seen}");
    }
}

#[tokio::test]
async fn answers_with_ambiguous_framing_are_repaired_or_refused() {
    for (answer, expected, code, framing) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n6\r\nhello\n\r\n0\r\n\r\n"[..],
            200,
            "6\r\nhello\n\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6, 6\r\n\r\nhello\n", 200, "hello\n", "content-length: 6\r\n"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\nhello\n",
            200,
            "hello\n",
            "content-length: 6\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, "bad-answer", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 502, "bad-answer", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nhello", 502, "bad-answer", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 502, "bad-answer", ""),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 502, "bad-answer", ""),
        (b"220 mail.example ESMTP\r\n\r\n", 502, "bad-answer", ""),
    ] {
        let upstream = Upstream::writing(answer).await;
        let gateway = Running::routing("/", &upstream).await;
        let came = gateway.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(status(&came), expected, "{shown}: {came}");
        if expected == 200 {
            let (head, body) = came.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, code, "{shown}");
            assert!((head.to_owned() + "\r\n").contains(framing), "{shown}: {head}");
            assert_eq!(head.contains("content-length"), framing.contains("content-length"), "{shown}: {head}");
        } else {
            assert_eq!(problem(&came).code(), code, "{shown}: {came}");
        }
    }
}

#[tokio::test]
async fn an_answer_with_too_many_fields_is_reported_as_such() {
    let answer = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    let upstream = Upstream::writing(answer.leak().as_bytes()).await;
    let gateway = Running::routing("/", &upstream).await;
    let problem = gateway.problem("/").await;
    assert_eq!((problem.status, problem.code()), (502, "answer-head-too-large"));
    assert!(problem.detail.contains("100 fields"), "{problem:?}");
}

#[tokio::test]
async fn an_address_of_a_route_cannot_send_coterie_headers() {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    let upstream = Upstream::serving(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {
            let mut answer = text("no");
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            for name in [api::NOT_PROCESSED, api::EPOCH, "x-kept"] {
                answer.headers_mut().insert(name, "1".parse().unwrap());
            }
            answer
        }
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    let answer = send(Request::post(format!("http://{}/", gateway.addr)), "body").await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let headers = answer.headers();
    assert!(!headers.contains_key(api::NOT_PROCESSED) && !headers.contains_key(api::EPOCH), "{headers:?}");
    assert!(headers.contains_key("x-kept"));
    assert_eq!(hits.load(Ordering::SeqCst), 1, "it is sent once");
}

#[tokio::test]
async fn a_final_answer_is_passed_on_while_the_body_is_still_being_sent() {
    const REFUSAL: &[u8] =
        b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // This server closes its connection without reading the body, which resets it.
    let upstream = Upstream::raw(|mut stream: TcpStream| async move {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut some = [0; 4096];
            match stream.read(&mut some).await {
                Ok(read) if read > 0 => head.extend_from_slice(&some[..read]),
                _ => return,
            }
        }
        let _ = stream.write_all(REFUSAL).await;
    })
    .await;
    let gateway = Running::routing("/", &upstream).await;
    for expect in ["", "Expect: 100-continue\r\n"] {
        for _ in 0..10 {
            let length = 20_000_000;
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{expect}Content-Length: {length}\r\n\r\n");
            let stream = TcpStream::connect(gateway.addr).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let sending = async {
                writer.write_all(head.as_bytes()).await.unwrap();
                if expect.is_empty() {
                    // The gateway may end the connection before all is sent.
                    let _ = writer.write_all(&vec![0; length]).await;
                }
            };
            let mut answer = Vec::new();
            let ((), _) = tokio::join!(sending, reader.read_to_end(&mut answer));
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(status(&answer), 417, "{expect:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_100_continue_of_the_server_reaches_the_client() {
    let (upstream, record) = recorder().await;
    let gateway = Running::routing("/", &upstream).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go = [0; 25];
    stream.read_exact(&mut go).await.unwrap();
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(record.take().pop().unwrap().ends_with("hello"));
    // A request without a body needs no 100.
    let answer =
        gateway.raw("GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(!record.take().pop().unwrap().contains("expect"));
}

#[tokio::test]
async fn a_client_that_ends_its_sending_side_gets_its_answer() {
    let (upstream, _record) = recorder().await;
    let slow = Upstream::serving(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        text("late")
    })
    .await;
    for upstream in [upstream, slow] {
        let gateway = Running::routing("/", &upstream).await;
        for request in [
            "GET /u/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "POST /u/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        ] {
            let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert_eq!(status(&answer), 200, "{request}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_client_that_disconnects_cancels_its_request() {
    let upstream = Upstream::serving(|_| std::future::pending()).await;
    let gateway = Running::routing("/", &upstream).await;
    let ask = async || {
        let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        until(|| gateway.in_flight()).await;
        stream
    };
    // A reset cancels the request at once, even after the client has ended its sending side.
    for ends_first in [false, true] {
        let mut stream = ask().await;
        if ends_first {
            stream.shutdown().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(gateway.in_flight(), "it may still read");
        }
        let began = Instant::now();
        stream.set_zero_linger().unwrap();
        drop(stream);
        until_awake(|| !gateway.in_flight()).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    // If the client has ended its sending side, the gateway waits for the answer, up to a limit.
    let mut stream = ask().await;
    stream.shutdown().await.unwrap();
    let began = Instant::now();
    until_awake(|| !gateway.in_flight()).await;
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
    assert!(gateway.metrics().contains(r#"requests_total{outcome="aborted"} 3"#));
}

/// Like [`until`], but sleeps between the checks.
async fn until_awake(mut condition: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < patience, "it never became true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn web_pages_of_other_sites_reach_routes_but_no_service() {
    let (upstream, record) = recorder().await;
    let members = || vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let route = json!({"prefix": "/u", "to": [upstream.url().to_string()]});
    let gateway = Running::with(json!({"routes": [route.clone()]}), members()).await;
    let ask = async |gateway: &Running, method: &str, path: &str, host: &str, more: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
        gateway.raw(request).await
    };
    for method in ["GET", "PUT", "DELETE"] {
        let answer = ask(&gateway, method, "/key_value/x", "evil.example:80", "").await;
        let problem = problem(&answer);
        assert_eq!((problem.status, problem.code()), (403, "foreign-host"), "{answer}");
        assert!(problem.hint.unwrap().contains("`hosts` in the settings of api_gateway: `evil.example`"));
        let foreign = "Origin: http://evil.example\r\n";
        let answer = ask(&gateway, method, "/key_value/x", "127.0.0.1:80", foreign).await;
        assert_eq!(status(&answer), 403, "{answer}");
        let foreign = "Sec-Fetch-Site: cross-site\r\n";
        let answer = ask(&gateway, method, "/key_value/x", "127.0.0.1:80", foreign).await;
        assert_eq!(status(&answer), 403, "{answer}");
    }
    assert!(record.take().is_empty());
    for (path, host, more) in [
        ("/u/x", "evil.example:80", "Origin: http://evil.example\r\n"),
        ("/key_value/x", "gateway", ""),
        ("/key_value/x", "127.0.0.1:80", "Origin: http://127.0.0.1:80\r\nSec-Fetch-Site: same-origin\r\n"),
    ] {
        let answer = ask(&gateway, "GET", path, host, more).await;
        assert_eq!(status(&answer), 200, "{path} {host}: {answer}");
        let seen = record.take().pop().unwrap();
        assert_eq!(seen.contains("\norigin: "), path == "/u/x", "a member gets no Origin: {seen}");
    }
    assert_eq!(status(&ask(&gateway, "GET", "/nothing/x", "evil.example", "").await), 404);

    for hosts in [json!("any"), json!(["*.example"])] {
        let settings = json!({"routes": [route.clone()], "hosts": hosts});
        let gateway = Running::with(settings, members()).await;
        let answer = ask(&gateway, "GET", "/key_value/x", "shop.example", "").await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}
