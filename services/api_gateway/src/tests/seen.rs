//! What operators see of the requests: metrics that stay bounded, and a line in the log for every end that a request can have.

use std::path::Path;

use super::*;

/// The lines of the log by their paths, once there are this many. Each core writes its own lines in order.
pub(super) async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let began = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            let mut lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines.sort_by_key(|line| line["path"].as_str().unwrap_or_default().to_owned());
            return lines;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A folder with a log, and the settings for it.
pub(super) fn log() -> (tempfile::TempDir, std::path::PathBuf, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let settings = json!({"to": path});
    (folder, path, settings)
}

#[tokio::test]
async fn behaviour_15_the_metrics_stay_bounded_whatever_clients_send() {
    let upstream = Upstream::serving(echoing).await;
    let routes = json!([{"name": "files", "prefix": "/files", "to": [upstream.url().to_string()]}]);
    let members = vec![member("n1", "storage", upstream.addr, Phase::Ready)];
    let gateway = Running::with(json!({"routes": routes}), members).await;
    let odd = async |number: usize| {
        for request in [
            format!(
                "BREW{number} /files/{number} HTTP/1.1\r\nhost: h{number}.example\r\nx-request-id: {number}\r\n"
            ),
            format!("GET /none-{number}/x HTTP/1.1\r\nhost: h{number}\r\nuser-agent: {number}\r\n"),
            format!("GET /storage/{number} HTTP/1.1\r\nhost: 127.0.0.1\r\n"),
            format!("GET /{number}\u{e9} HTTP/1.1\r\nhost: h{number}\r\n"),
            format!("BR{{EW{number} / HTTP/1.1\r\nhost: x\r\n"),
            format!("GET / HTTP/1.1\r\nhost: a{number}, b\r\n"),
        ] {
            gateway.raw(format!("{request}connection: close\r\n\r\n")).await;
        }
    };
    let series = || {
        let text = gateway.metrics();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    odd(0).await;
    let (before, upstreams) = (series(), gateway.context.mesh.upstream_series());
    for number in 1..30 {
        odd(number).await;
    }
    let metrics = gateway.metrics();
    assert_eq!(series(), before, "{metrics}");
    let now = gateway.context.mesh.upstream_series();
    assert_eq!(now.len(), upstreams.len(), "{now:?}");
    for line in [
        r#"requests_total{listener="gateway",route="files",method="_OTHER",code="200"} 30"#,
        r#"requests_total{listener="gateway",route="_SERVICES",method="GET",code="200"} 30"#,
        r#"requests_total{listener="gateway",route="_UNROUTED",method="_OTHER",code="400"} 30"#,
        r#"refused_total{listener="gateway",reason="host"} 30"#,
        r#"refused_total{listener="gateway",reason="method"} 30"#,
        r#"refused_total{listener="gateway",reason="path"} 30"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn behaviour_5_forwarding_rate_limit_and_log_see_one_client() {
    let (_folder, path, access_log) = log();
    let upstream = Upstream::serving(reflecting).await;
    let rate = json!({"requests": 1, "per": "1h", "by": "client"});
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()], "limits": {"rate": rate}}]);
    let listeners = json!([
        {"name": "inner", "address": "127.0.0.1:0", "trust": ["127.0.0.0/8", "10.0.0.0/8"]},
        {"name": "outer", "address": "127.0.0.1:0"},
    ]);
    let settings = json!({"listeners": listeners, "routes": routes, "access_log": access_log});
    let gateway = Running::with(settings, Vec::new()).await;
    let ask = async |listener: &str, path: &str, forwarded: &str| {
        let mut stream = TcpStream::connect(gateway.listener(listener)).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {forwarded}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    // The rightmost address that is not trusted: what stands left of it may be made up.
    let first = ask("inner", "/1", "1.1.1.1, 203.0.113.7, 10.0.0.2").await;
    assert!(first.contains("x-forwarded-for: 1.1.1.1, 203.0.113.7, 10.0.0.2, 127.0.0.1"), "{first}");
    assert!(ask("inner", "/2", "2.2.2.2, 203.0.113.7").await.starts_with("HTTP/1.1 429 "));
    assert!(ask("inner", "/3", "203.0.113.8").await.starts_with("HTTP/1.1 200 "));
    // A stranger is itself, whatever it says.
    let stranger = ask("outer", "/4", "203.0.113.9").await;
    assert!(stranger.contains("x-forwarded-for: 127.0.0.1\n"), "{stranger}");
    assert!(ask("outer", "/5", "203.0.113.10").await.starts_with("HTTP/1.1 429 "));
    let lines = lines(&path, 5).await;
    let seen =
        |line: &Value| (line["client_ip"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap());
    let expected = [
        ("203.0.113.7", 200),
        ("203.0.113.7", 429),
        ("203.0.113.8", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1", 429),
    ];
    let expected = expected.map(|(client, status)| (client.to_owned(), status));
    assert_eq!(lines.iter().map(seen).collect::<Vec<_>>(), expected);
    assert_eq!(lines[1]["reason"], "rate_limited");
}

#[tokio::test]
async fn a_line_shows_what_the_mesh_did() {
    let (_folder, path, access_log) = log();
    let upstream = Upstream::serving(reflecting).await;
    let closed = closed_port().await.to_string();
    let open = upstream.url().to_string();
    let routes = json!([
        {"prefix": "/1", "service": "storage"},
        {"prefix": "/2", "backends": [{"url": closed, "weight": 1000}, {"url": open}]},
        {"prefix": "/3", "to": [closed]},
    ]);
    let members = vec![member("n1", "storage", upstream.addr, Phase::Ready)];
    let settings = json!({"routes": routes, "access_log": access_log});
    let gateway = Running::with(settings, members).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = |path: &str| {
        let head = "host: 127.0.0.1\r\nauthorization: secret\r\nx-api-key: secret\r\nconnection: close\r\n";
        format!("GET {path} HTTP/1.1\r\n{head}traceparent: {parent}\r\n\r\n")
    };
    let answer = gateway.raw(traced("/1/a")).await;
    assert!(answer.contains(&format!("traceparent: {parent}")), "{answer}");
    let answer = gateway.raw(traced("/2/a")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    gateway.raw(traced("/3/a")).await;
    let answer = gateway.raw("GET /storage/b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("traceparent: 00-"), "a request without a trace begins one: {answer}");
    let lines = lines(&path, 4).await;
    let [storage, again, closed_line, new] = &lines[..] else { panic!("{lines:?}") };
    let expected = json!({"service": "storage", "member": "n1", "upstream_status": 200, "attempts": 1,
                          "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&storage[key], value, "{key} in {storage}");
    }
    for key in ["upstream_ms", "connect_ms", "duration_ms"] {
        assert!(storage[key].is_number(), "{key} in {storage}");
    }
    assert!(storage["reason"].is_null() && new["route"].is_null(), "{storage} {new}");
    let authority = open.trim_start_matches("http://");
    assert_eq!((&again["route"], &again["member"]), (&json!("/2"), &json!(authority)), "{again}");
    if again["attempts"] == 2 {
        assert_eq!(again["retry_reason"], "connect", "{again}");
    }
    assert_eq!((&closed_line["status"], &closed_line["reason"]), (&json!(502), &json!("connect_failed")));
    assert!(closed_line["upstream_status"].is_null() && closed_line["attempts"].is_number(), "{closed_line}");
    let id = new["trace_id"].as_str().unwrap();
    assert!(answer.contains(&format!("traceparent: 00-{id}-")), "{id} in {answer}");
    assert!(lines.iter().all(|line| !line.to_string().contains("secret")), "{lines:?}");
}

#[tokio::test]
async fn refused_heads_are_lines_too() {
    let (_folder, path, access_log) = log();
    let gateway =
        Running::with(json!({"access_log": {"to": access_log["to"], "query": "omit"}}), Vec::new()).await;
    for request in [
        "GET /a?secret HTTP/1.1\r\nhost: a, b\r\nuser-agent: test\r\nconnection: close\r\n\r\n",
        "G{T /b?secret HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /c HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\nhello",
    ] {
        assert!(gateway.raw(request).await.starts_with("HTTP/1.1 400 "), "{request}");
    }
    let lines = lines(&path, 3).await;
    let shown = |line: &Value| {
        (line["method"].clone(), line["path"].clone(), line["status"].clone(), line["reason"].clone())
    };
    let refused =
        |method: Option<&str>, path: &str| (json!(method), json!(path), json!(400), json!("malformed"));
    // What is no method may be anything, so it is left out.
    let expected = [refused(Some("GET"), "/a"), refused(None, "/b"), refused(Some("POST"), "/c")];
    assert_eq!(lines.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!((&lines[0]["user_agent"], &lines[0]["client_ip"]), (&json!("test"), &json!("127.0.0.1")));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_from_a_client_that_left() {
    let (_folder, path, access_log) = log();
    let broken = Upstream::writing("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    let silent = Upstream::serving(|_| std::future::pending()).await;
    let routes = json!([
        {"prefix": "/broken", "to": [broken.url().to_string()]},
        {"prefix": "/slow", "to": [silent.url().to_string()], "timeouts": {"answer": "50ms"}},
    ]);
    let gateway = Running::with(json!({"routes": routes, "access_log": access_log}), Vec::new()).await;
    for path in ["/broken/", "/slow/"] {
        gateway.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await;
    }
    let lines = lines(&path, 2).await;
    assert_eq!(
        (&lines[0]["status"], &lines[0]["reason"]),
        (&json!(200), &json!("upstream_reset")),
        "{}",
        lines[0]
    );
    assert_eq!(
        (&lines[1]["status"], &lines[1]["reason"]),
        (&json!(504), &json!("upstream_timeout")),
        "{}",
        lines[1]
    );
}
