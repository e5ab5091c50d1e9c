//! What is seen of requests in HTTP mode: the reasons in the log, and what is counted.

use std::path::Path;

use mesh::testing::{Upstream, text};

use super::requests::{at, http, named, raw};
use super::*;

/// A balancer in HTTP mode with a log.
async fn logging(path: &Path, backend: SocketAddr, log: Value, more: Value) -> Running {
    let mut log = log;
    log["to"] = json!(path);
    let listeners = json!([http(json!({"backends": [{"address": backend}]}), more)]);
    Running::with_settings(listeners, json!({ "access_log": log }), Vec::new()).await
}

/// The lines of the log, once there are as many.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually("there are lines", async || read().lines().count() >= count).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const REQUEST: &str = "host: shop.example\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_a_timeout_and_one_that_breaks_off_a_reset() {
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let stops = Upstream::raw(move |mut stream| async move {
        let _ = mesh::testing::read_head(&mut stream).await;
        let _ = stream.write_all(part.as_bytes()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let breaks = Upstream::writing(part).await;
    for (upstream, reason) in [(stops, "upstream_timeout"), (breaks, "upstream_reset")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let more = json!({"timeouts": {"idle": "100ms"}});
        let running = logging(&path, upstream.addr, json!({}), more).await;
        let mut stream = TcpStream::connect(at(&running)).await.unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\n{REQUEST}").as_bytes()).await.unwrap();
        let mut got = Vec::new();
        let _ended = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
        let line = lines(&path, 1).await.remove(0);
        assert_eq!((&line["reason"], &line["status"]), (&json!(reason), &json!(200)), "{line}");
        assert_eq!(line["bytes_out"], 4, "{line}");
    }
}

#[tokio::test]
async fn a_line_has_the_trace_and_the_agent_and_perhaps_no_query() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let upstream = Upstream::serving(async |request: Request<hyper::body::Incoming>| {
        text(request.headers()["traceparent"].to_str().unwrap().to_owned())
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let running = logging(&path, upstream.addr, json!({"query": "omit"}), json!({})).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let head = format!("traceparent: {parent}\r\nuser-agent: x/1\r\nreferer: y\r\n{REQUEST}");
    let answer = raw(at(&running), &format!("GET /a?secret=1 HTTP/1.1\r\n{head}")).await;
    assert!(answer.ends_with(&parent), "{answer}");
    let line = lines(&path, 1).await.remove(0);
    for (key, value) in [("path", "/a"), ("trace_id", TRACE), ("user_agent", "x/1"), ("referer", "y")] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    let answer = raw(at(&running), &format!("GET / HTTP/1.1\r\n{REQUEST}")).await;
    let both = lines(&path, 2).await;
    let line = both.iter().find(|line| line["trace_id"] != TRACE).unwrap();
    assert!(
        answer.contains(line["trace_id"].as_str().unwrap()),
        "a request without a trace gets one: {answer}"
    );
}

#[tokio::test]
async fn a_head_that_is_refused_is_counted_and_logged() {
    let upstream = named("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let running = logging(&path, upstream.addr, json!({"query": "omit"}), json!({})).await;
    let two_hosts = format!("GET /x?q HTTP/1.1\r\nhost: a\r\n{REQUEST}");
    assert!(raw(at(&running), &two_hosts).await.starts_with("HTTP/1.1 400"));
    let smuggling = format!("POST /y HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n{REQUEST}");
    assert!(raw(at(&running), &smuggling).await.starts_with("HTTP/1.1 501"));
    for (reason, count) in [("\"host\"", 1), ("smuggling", 1), ("queue_full", 0)] {
        assert_eq!(running.metric("refused_total", reason), count, "{reason}");
    }
    assert_eq!((running.metric("requests_total", "4xx"), running.metric("requests_total", "5xx")), (1, 1));
    let mut lines = lines(&path, 2).await;
    // Each core writes its own lines.
    lines.sort_by_key(|line| line["path"].to_string());
    for (line, path, status) in [(&lines[0], "/x", 400), (&lines[1], "/y", 501)] {
        assert_eq!((&line["path"], &line["status"]), (&json!(path), &json!(status)), "{line}");
        assert_eq!((&line["reason"], &line["listener"]), (&json!("malformed"), &json!("main")), "{line}");
    }
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test]
async fn requests_to_backends_are_counted_under_the_name_of_the_listener() {
    let (a, b) = (named("a").await, named("b").await);
    let to = |server: &Upstream| json!([http(json!({"backends": [{"address": server.addr}]}), json!({}))]);
    let running = Running::with(to(&a), Vec::new()).await;
    requests::get(&running).await;
    let series = || {
        let all = running.context.mesh.upstream_series();
        let found = all.into_iter().find(|series| series.name == "main").unwrap();
        let members: Vec<_> = found.members.iter().map(|member| member.name.clone()).collect();
        (found.read.durations.count(), members)
    };
    eventually("it has ended", async || series() == (1, vec![a.addr.to_string()])).await;
    let updated = listeners::update(&running, to(&b)).await;
    assert!(matches!(updated, plugin::Updated::Applied), "{updated:?}");
    eventually("the new one is shown", async || series() == (1, vec![b.addr.to_string()])).await;
    requests::get(&running).await;
    eventually("the counts go on", async || series().0 == 2).await;
}

#[tokio::test]
async fn members_are_counted_and_logged_under_their_ids_whatever_their_addresses_are() {
    let (a, b) = (named("a").await, named("b").await);
    let gateway = |id: &str, server: &Upstream, phase| member(id, "edge", phase, &[("web", server.addr)]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let listeners = json!([http(json!({"service": "edge", "listener": "web"}), json!({}))]);
    let settings = json!({"access_log": {"to": path}});
    let members = vec![gateway("gateway-1", &a, Phase::Ready)];
    let running = Running::with_settings(listeners, settings, members).await;
    requests::get(&running).await;
    let names = || -> Vec<_> {
        let all = running.context.mesh.upstream_series();
        let of_listener = all.into_iter().filter(|series| series.name == "main");
        of_listener.flat_map(|series| series.members).map(|member| member.name).collect()
    };
    assert_eq!(lines(&path, 1).await[0]["member"], "gateway-1");
    assert_eq!(names(), ["gateway-1"]);
    // It drains, and another one comes.
    let members = vec![gateway("gateway-1", &a, Phase::Draining), gateway("gateway-2", &b, Phase::Ready)];
    running.views.send_replace(view(members));
    eventually("the series of the one that leaves is gone", async || names() == ["gateway-2"]).await;
}

#[tokio::test]
async fn a_listener_in_tcp_mode_has_no_counts_of_http() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], json!({})).await;
    assert_eq!(running.greeted().await, "a");
    let metrics = running.metrics();
    for absent in ["open_connections{", "smuggling", "tls_handshakes_total{"] {
        assert!(!metrics.contains(absent), "{absent} in {metrics}");
    }
}
