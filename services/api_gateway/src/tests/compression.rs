//! Compressed answers, as clients get them.

use std::io::Read;

use flate2::read::GzDecoder;

use super::reload::applied;
use super::*;

const TEXT: &str = "a line that repeats itself\n";

/// 54 KB of text with an entity tag, in the answer to every request.
async fn page() -> Upstream {
    Upstream::serving(|request: Request<Incoming>| async move {
        let mut answer = match request.method().as_str() {
            "HEAD" => text(""),
            _ => text(TEXT.repeat(2000)),
        };
        for (name, value) in [
            ("content-type", "text/plain"),
            ("content-length", "54000"),
            ("accept-ranges", "bytes"),
            ("etag", "\"1\""),
        ] {
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
        answer
    })
    .await
}

fn compressing(upstream: &Upstream) -> Value {
    json!({"routes": [{"prefix": "/", "to": [upstream.url().to_string()], "compress": true}]})
}

/// The head and the body of an answer without framing.
async fn ask(gateway: &Running, line: &str, more: &str) -> (String, Vec<u8>) {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", gateway.addr));
    for line in more.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let (head, body) = send(request, "").await.into_parts();
    let lines = head.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
    (lines.collect(), body.collect().await.unwrap().to_bytes().to_vec())
}

fn gunzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn an_answer_is_compressed_for_clients_that_accept_it_and_counted_as_it_was_sent() {
    let upstream = page().await;
    let gateway = Running::with(compressing(&upstream), Vec::new()).await;
    let (head, body) = ask(&gateway, "GET /", "accept-encoding: gzip, deflate, br").await;
    for line in [
        "content-encoding: gzip\n",
        "vary: accept-encoding\n",
        "etag: W/\"1\"\n",
        "content-type: text/plain\n",
    ] {
        assert!(head.contains(line), "{line} in\n{head}");
    }
    assert!(!head.contains("content-length") && !head.contains("accept-ranges"), "{head}");
    assert_eq!(gunzipped(&body), TEXT.repeat(2000));
    assert!(body.len() < 2_000, "{} bytes", body.len());
    until(|| !gateway.in_flight()).await;
    assert_eq!(gateway.metric("response_bytes_total", ""), body.len() as u64);
    let (head, body) = ask(&gateway, "GET /", "accept-encoding: gzip, deflate, br, zstd").await;
    assert!(head.contains("content-encoding: zstd\n"), "{head}");
    assert_eq!(zstd::decode_all(&body[..]).unwrap(), TEXT.repeat(2000).as_bytes());
    for (line, more) in [
        ("GET /", ""),
        ("GET /", "accept-encoding: br"),
        ("GET /", "accept-encoding: gzip;q=0"),
        ("GET /", "accept-encoding: gzip\nrange: bytes=0-"),
        ("HEAD /", "accept-encoding: gzip"),
    ] {
        let (head, body) = ask(&gateway, line, more).await;
        assert!(!head.contains("content-encoding"), "{line} {more}: {head}");
        for line in ["content-length: 54000\n", "vary: accept-encoding\n", "etag: \"1\"\n"] {
            assert!(head.contains(line), "{line} in\n{head}");
        }
        assert_eq!(body.len(), if line == "HEAD /" { 0 } else { 54_000 }, "{line} {more}");
    }
    let http10 = gateway.raw("GET / HTTP/1.0\r\nhost: gw\r\naccept-encoding: gzip\r\n\r\n").await;
    assert!(http10.contains("content-length: 54000"), "{}", &http10[..300]);
}

#[tokio::test]
async fn fixed_answers_and_other_routes_are_as_their_settings_say() {
    let long = "x".repeat(5_000);
    let settings = |compress: bool| {
        json!({"routes": [
            {"path": "/long", "answer": {"body": long}, "compress": compress},
            {"path": "/short", "answer": {"body": "ok"}, "compress": true},
        ]})
    };
    let gateway = Running::with(settings(true), Vec::new()).await;
    let (head, body) = ask(&gateway, "GET /long", "accept-encoding: gzip").await;
    assert!(head.contains("content-encoding: gzip") && gunzipped(&body) == long, "{head}");
    let (head, body) = ask(&gateway, "GET /short", "accept-encoding: gzip").await;
    assert!(!head.contains("vary") && body == b"ok", "{head}");
    applied(&gateway, settings(false)).await;
    let (head, body) = ask(&gateway, "GET /long", "accept-encoding: gzip").await;
    assert!(!head.contains("vary") && body.len() == 5_000, "{head}");
}

/// Behaviour 6.
#[tokio::test]
async fn behaviour_6_the_first_chunk_is_at_the_client_before_the_next_one_leaves_compressed_or_not() {
    let next = Arc::new(Notify::new());
    let upstream = {
        let next = Arc::clone(&next);
        Upstream::raw(move |mut stream: TcpStream| {
            let next = Arc::clone(&next);
            async move {
                let head = read_head(&mut stream).await;
                let kind = if head.contains("/events") { "text/event-stream" } else { "text/plain" };
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                for piece in ["first\n", "second\n"] {
                    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
                    stream.write_all(chunk.as_bytes()).await.unwrap();
                    next.notified().await;
                }
                let _ = stream.write_all(b"0\r\n\r\n").await;
            }
        })
        .await
    };
    let gateway = Running::with(compressing(&upstream), Vec::new()).await;
    for (path, is_compressed) in [("/events", false), ("/lines", true)] {
        let request =
            Request::get(format!("http://{}{path}", gateway.addr)).header("accept-encoding", "gzip");
        let answer = send(request, "").await;
        assert_eq!(answer.headers().contains_key("content-encoding"), is_compressed);
        let (mut body, mut got) = (answer.into_body(), Vec::new());
        for whole in ["first\n", "first\nsecond\n"] {
            // The server sends no more until this has arrived.
            let decoded = |bytes: &[u8]| {
                let mut text = Vec::new();
                let _ = GzDecoder::new(bytes).read_to_end(&mut text);
                if is_compressed { text } else { bytes.to_vec() }
            };
            while decoded(&got) != whole.as_bytes() {
                let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await;
                got.extend_from_slice(frame.unwrap().unwrap().unwrap().data_ref().unwrap());
            }
            next.notify_one();
        }
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(rest.is_empty(), !is_compressed, "only gzip has an end of its own");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_no_clean_end() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5000\r\n\r\nhalf";
    let upstream = Upstream::writing(half).await;
    let gateway = Running::with(compressing(&upstream), Vec::new()).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: gw\r\naccept-encoding: gzip\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("content-encoding: gzip"), "{text}");
    assert!(!answer.ends_with(b"0\r\n\r\n"), "the last chunk is missing: {text}");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_server_up() {
    let sent = Arc::new(AtomicUsize::new(0));
    let upstream = {
        let sent = Arc::clone(&sent);
        Upstream::raw(move |mut stream: TcpStream| {
            let sent = Arc::clone(&sent);
            async move {
                read_head(&mut stream).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";
                stream.write_all(head).await.unwrap();
                // Bytes that can't be compressed, so that the client's side fills up.
                let mut state = 1_u64;
                loop {
                    let piece: Vec<u8> = std::iter::repeat_with(|| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (state >> 56) as u8
                    })
                    .take(64 * 1024)
                    .collect();
                    if stream.write_all(&piece).await.is_err() {
                        return;
                    }
                    sent.fetch_add(piece.len(), Ordering::SeqCst);
                }
            }
        })
        .await
    };
    let gateway = Running::with(compressing(&upstream), Vec::new()).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: gw\r\naccept-encoding: gzip\r\n\r\n").await.unwrap();
    // It stands still once the sockets are full: nothing moves for a second, long before this limit.
    let mut before = usize::MAX;
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while before != sent.load(Ordering::SeqCst) || before == 0 {
        before = sent.load(Ordering::SeqCst);
        assert!(before < 200 << 20 && std::time::Instant::now() < limit, "{before} bytes were read ahead");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
