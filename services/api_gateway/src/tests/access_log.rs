//! The access log of a gateway.

use std::path::Path;

use super::*;

async fn gateway(log: Value, upstream: &Upstream) -> Running {
    let routes = json!([{"prefix": "/files", "to": [upstream.url().to_string()]}]);
    Running::with(json!({"access_log": log, "routes": routes}), Vec::new()).await
}

/// Waits until the log has this many lines.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    let began = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(ToOwned::to_owned).collect();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn each_request_is_a_line_without_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::serving(echoing).await;
    let gateway = gateway(json!({"to": path}), &upstream).await;
    gateway
        .raw(
            "POST /files/a?q=1 HTTP/1.1\r\nhost: shop.example\r\nuser-agent: test\r\nreferer: r\r\n\
             authorization: secret\r\ncookie: secret\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
        )
        .await;
    gateway.raw("GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut lines = lines(&path, 2).await;
    // Each core writes its own lines.
    lines.sort_by_key(|line| line.contains("/none"));
    assert!(lines.iter().all(|line| !line.contains("secret")), "{lines:?}");
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (key, value) in [
        ("listener", json!("gateway")),
        ("client_ip", json!("127.0.0.1")),
        ("protocol", json!("HTTP/1.1")),
        ("method", json!("POST")),
        ("host", json!("shop.example")),
        ("path", json!("/files/a?q=1")),
        ("status", json!(200)),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(5)),
        ("route", json!("/files")),
        ("user_agent", json!("test")),
        ("referer", json!("r")),
    ] {
        assert_eq!(objects[0][key], value, "{key} in {}", objects[0]);
    }
    assert!(objects[0]["request_id"].is_string() && objects[0]["reason"].is_null(), "{}", objects[0]);
    assert_eq!((&objects[1]["status"], &objects[1]["reason"]), (&json!(404), &json!("no_route")));
}

#[tokio::test]
async fn an_answer_to_head_is_no_client_that_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let routes = json!([{"path": "/up", "answer": {"body": "ok"}}]);
    let settings = json!({"listen": "127.0.0.1:0", "routes": routes, "access_log": {"to": path}});
    let gateway = Running::with(settings, Vec::new()).await;
    gateway.raw("HEAD /up HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let object: Value = serde_json::from_str(&lines(&path, 1).await[0]).unwrap();
    assert_eq!((&object["status"], &object["reason"]), (&json!(200), &Value::Null), "{object}");
    assert_eq!(object["bytes_out"], 0);
}

#[tokio::test]
async fn a_client_that_left_is_logged_as_499() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::serving(|_| std::future::pending::<Answer>()).await;
    let gateway = gateway(json!({"to": path, "query": "omit"}), &upstream).await;
    let mut stream = TcpStream::connect(gateway.addr).await.unwrap();
    stream
        .write_all(b"GET /files/slow?secret HTTP/1.1\r\nhost: x\r\nreferer: http://x/a?secret\r\n\r\n")
        .await
        .unwrap();
    until(|| gateway.in_flight()).await;
    socket_reset(stream);
    let line = lines(&path, 1).await.remove(0);
    let object: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&object["status"], &object["path"]), (&json!(499), &json!("/files/slow")), "{line}");
    assert_eq!(object["reason"], "client_gone");
    assert_eq!(object["referer"], "http://x/a", "its query is left out as well");
}

/// Closes a connection with a reset.
fn socket_reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_opened_again_and_no_line_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let upstream = Upstream::serving(echoing).await;
    let gateway = gateway(json!({"to": path, "format": "combined"}), &upstream).await;
    let ask = async || gateway.raw("GET /files/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    ask().await;
    let first = lines(&path, 1).await.remove(0);
    assert!(first.starts_with("127.0.0.1 - - ["), "{first}");
    assert!(first.ends_with("] \"GET /files/ HTTP/1.1\" 200 0 \"-\" \"-\""), "{first}");
    std::fs::rename(&path, &moved).unwrap();
    let mut asked = 1;
    while !path.exists() {
        ask().await;
        asked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway.service.drain(Instant::now() + Duration::from_secs(10)).await;
    gateway.service.stop().await.unwrap();
    let count = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(count(&path) + count(&moved), asked, "a stop writes what is queued");
    assert!(gateway.metrics().contains("access_log_dropped_total 0"));
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_reported_and_delays_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file/access.log");
    std::fs::write(folder.path().join("file"), "no folder").unwrap();
    let upstream = Upstream::serving(echoing).await;
    let gateway = gateway(json!({"to": path}), &upstream).await;
    let ask = async || gateway.raw("GET /files/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(ask().await.starts_with("HTTP/1.1 200 "));
    let began = std::time::Instant::now();
    while gateway.service.health() == plugin::Health::Ready {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is reported");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let plugin::Health::Degraded(why) = gateway.service.health() else { panic!("it is degraded") };
    assert_eq!(why.code.to_string(), "access-log-unwritable");
    while !gateway.metrics().contains("access_log_dropped_total 1") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", gateway.metrics());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(folder.path().join("file")).unwrap();
    ask().await;
    lines(&path, 1).await;
}
