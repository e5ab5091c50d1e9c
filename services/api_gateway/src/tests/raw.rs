//! Requests and answers byte by byte: what needs a look inside the gateway. The tables of malformed input run against the
//! real agent, in `tests/tests/raw_requests`.

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
async fn an_answer_with_too_many_fields_or_bytes_in_its_head_is_reported_as_such() {
    for fields in ["a: b\r\n".repeat(101), format!("a: {}\r\n", "b".repeat(200 * 1024))] {
        let upstream = Upstream::writing(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").leak().as_bytes()).await;
        let gateway = Running::routing("/", &upstream).await;
        let problem = gateway.problem("/").await;
        assert_eq!((problem.status, problem.code()), (502, "answer-head-too-large"));
        assert!(problem.detail.contains("100 fields and 64 KiB"), "{problem:?}");
    }
    let answer = format!("HTTP/1.1 200 OK\r\na: {}\r\ncontent-length: 0\r\n\r\n", "b".repeat(60_000));
    let upstream = Upstream::writing(answer.leak().as_bytes()).await;
    let gateway = Running::routing("/", &upstream).await;
    assert_eq!(gateway.get("/").await.headers()["a"].len(), 60_000);
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
            // Without the field, the connection stays open if the gateway was so fast that it read the whole body.
            let head = format!(
                "POST / HTTP/1.1\r\nHost: h\r\n{expect}Connection: close\r\nContent-Length: {length}\r\n\r\n"
            );
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
    assert_eq!(gateway.answered("499"), 3);
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
