//! WebSockets in HTTP mode.

use mesh::testing::{Upstream, accepting, handshake, read_head, text};

use super::access_log::{lines, logging};
use super::requests::{at, http};
use super::*;

/// Sends a handshake with these lines in its head; returns the head of the answer.
async fn shake(running: &Running, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(at(running)).await.unwrap();
    let request = handshake("/chat").replacen("\r\n\r\n", &format!("\r\n{more}\r\n"), 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = timeout(PATIENCE, read_head(&mut stream)).await.unwrap();
    (stream, head)
}

async fn echoes(stream: &mut TcpStream, sent: &str, expected: &str) {
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut arrived = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&arrived), expected);
}

async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_websocket_lasts_until_it_is_idle_and_is_a_line_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::websocket().await;
    let limits = json!({"limits": {"connections": 1, "wait": "50ms"}, "timeouts": {"websocket": "5s"}});
    let listeners = json!([http(json!({"backends": [{"address": upstream.addr}]}), limits)]);
    let running = logging(&path, listeners, Vec::new()).await;
    let (mut stream, head) = shake(&running, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    echoes(&mut stream, "there", "hellothere").await;
    // It keeps its place.
    let (_refused, head) = shake(&running, "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    ended(&mut stream).await;
    let lines = lines(&path, 2).await;
    let line = lines.iter().find(|line| line["status"] == 101).unwrap();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&json!(5), &json!(10)), "{line}");
    assert_eq!((&line["reason"], &line["path"]), (&json!("upstream_timeout"), &json!("/chat")), "{line}");
    assert_eq!(line["member"], json!(upstream.addr.to_string()));
    let (mut stream, head) = shake(&running, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "its place is free again: {head}");
    echoes(&mut stream, "", "hello").await;
    running.service.drain(Instant::now()).await;
    running.service.stop().await.unwrap();
    ended(&mut stream).await;
}

#[tokio::test]
async fn what_opens_no_websocket_ends_the_connection() {
    let plain = Upstream::serving(|_| async { text("no") }).await;
    let listeners = json!([http(json!({"backends": [{"address": plain.addr}]}), json!({}))]);
    let running = Running::with(listeners, Vec::new()).await;
    let next = "GET /next HTTP/1.1\r\nhost: x\r\n\r\n";
    for (request, status) in [
        (handshake("/"), "200"),
        (handshake("/").replace("13", "8"), "426"),
        (handshake("/").replace("Key: d", "Key: "), "400"),
    ] {
        let mut stream = TcpStream::connect(at(&running)).await.unwrap();
        stream.write_all((request + next).as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert_eq!((answer.matches("HTTP/1.1").count(), plain.hits()), (1, 1), "{answer}");
    }
    let unsound = Upstream::writing(accepting(&handshake("/")).replace("s3pP", "S3pP")).await;
    let listeners = json!([http(json!({"backends": [{"address": unsound.addr}]}), json!({}))]);
    let running = Running::with(listeners, Vec::new()).await;
    let (_stream, head) = shake(&running, "").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

#[tokio::test]
async fn a_websocket_counts_with_its_handshake_and_a_reset_of_one_side_resets_the_other() {
    let dying = Upstream::raw(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let _ = stream.write_all((accepting(&head) + "hello").as_bytes()).await;
        let _ = stream.read_u8().await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let listeners = json!([http(json!({"backends": [{"address": dying.addr}]}), json!({}))]);
    let running = Running::with(listeners, Vec::new()).await;
    let durations = || {
        let series = running.context.mesh.upstream_series();
        series.iter().map(|series| series.read.durations.count()).sum::<u64>()
    };
    let (mut stream, head) = shake(&running, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(durations(), 1, "it is open, and its handshake is over");
    echoes(&mut stream, "x", "hello").await;
    let end = timeout(PATIENCE, stream.read(&mut [0])).await.expect("it ends");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    eventually("it has ended", async || running.metric("active", "") == 0).await;
    assert_eq!(durations(), 1, "how long it lasted is not recorded");
}

#[tokio::test]
async fn a_foreign_page_opens_no_websocket_to_a_service() {
    let upstream = Upstream::websocket().await;
    let members = vec![Member {
        http: format!("http://{}", upstream.addr),
        ..member("n1", "storage", Phase::Ready, &[])
    }];
    let running = Running::with(json!([http(json!({"service": "storage"}), json!({}))]), members).await;
    for (more, status) in [("Origin: http://127.0.0.1\r\n", 101), ("Origin: http://evil.example\r\n", 403)] {
        let (_stream, head) = shake(&running, more).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    assert_eq!(upstream.hits(), 1);
}
