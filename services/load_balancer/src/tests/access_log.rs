//! The access log of a balancer.

use std::path::Path;

use plugin::{SettingsMistake, Updated};

use super::requests::{ask, http, named};
use super::*;

/// A running balancer with a log.
pub(super) async fn logging(path: &Path, listeners: Value, members: Vec<Member>) -> Running {
    let more = json!({"access_log": {"to": path, "format": "json"}});
    Running::with_settings(listeners, more, members).await
}

/// Waits until the log has this many lines.
pub(super) async fn lines(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually("there are lines", async || read().lines().count() >= count).await;
    read().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_connection_is_a_line_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let a = Backend::greeting("a").await;
    let members = vec![member("g", "api_gateway", Phase::Ready, &[("gateway", a.addr)])];
    let running =
        logging(&path, json!([listener(json!({"service": "api_gateway"}), json!({}))]), members).await;
    let mut stream = running.connect().await;
    let from = stream.local_addr().unwrap();
    assert_eq!(greeting(&mut stream).await, "a");
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let line = lines(&path, 1).await.remove(0);
    for (key, value) in [
        ("listener", json!("main")),
        ("client_ip", json!("127.0.0.1")),
        ("peer", json!(from.to_string())),
        ("protocol", json!("tcp")),
        ("bytes_in", json!(5)),
        ("bytes_out", json!(7)),
        ("service", json!("api_gateway")),
        ("member", json!("g")),
        ("attempts", json!(1)),
        ("reason", Value::Null),
        ("sni", Value::Null),
        ("queue_ms", Value::Null),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    for key in ["duration_ms", "connect_ms"] {
        assert!(line[key].is_number(), "{key} in {line}");
    }
}

#[tokio::test]
async fn a_line_says_why_a_connection_was_closed_or_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (a, dead) = (Backend::greeting("a").await, closed_addr());
    let one = |name: &str, target: Value, more: Value| {
        let mut one = listener(target, more);
        one["name"] = json!(name);
        one
    };
    let listeners = json!([
        one("dead", json!({"backends": [{"address": dead}]}), json!({})),
        one("none", json!({"service": "storage"}), json!({"limits": {"wait": "10ms"}})),
        one(
            "proxied",
            json!({"backends": [{"address": a.addr}]}),
            json!({"proxy_protocol": true, "trust": ["127.0.0.1"]})
        ),
        one(
            "named",
            json!({"sni": [{"hosts": ["a.example"], "backends": [{"address": a.addr}]}]}),
            json!({})
        ),
        one("idle", json!({"backends": [{"address": a.addr}]}), json!({"timeouts": {"idle": "50ms"}})),
        one("left", json!({"backends": [{"address": a.addr}]}), json!({})),
    ]);
    let running = logging(&path, listeners, Vec::new()).await;
    let mut open = Vec::new();
    for name in ["dead", "none", "idle"] {
        // The balancer may reset it before the client looks at it.
        open.extend(TcpStream::connect(running.addr(name)).await);
    }
    for name in ["proxied", "named"] {
        let mut stream = TcpStream::connect(running.addr(name)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        open.push(stream);
    }
    let mut left = TcpStream::connect(running.addr("left")).await.unwrap();
    assert_eq!(greeting(&mut left).await, "a");
    left.set_zero_linger().unwrap();
    drop(left);
    let lines = lines(&path, 6).await;
    let mut reasons: Vec<_> =
        lines.iter().map(|line| (line["listener"].as_str(), line["reason"].as_str())).collect();
    reasons.sort_unstable();
    let expected = [
        ("dead", "connect_failed"),
        ("idle", "idle_timeout"),
        ("left", "client_gone"),
        ("named", "malformed"),
        ("none", "overflow"),
        ("proxied", "malformed"),
    ];
    assert_eq!(reasons, expected.map(|(listener, reason)| (Some(listener), Some(reason))));
    assert_eq!(
        lines.iter().find(|line| line["listener"] == "idle").unwrap()["member"],
        json!(a.addr.to_string())
    );
}

#[tokio::test]
async fn the_client_of_a_line_is_the_one_that_the_proxy_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let a = Backend::greeting("a").await;
    let more = json!({"proxy_protocol": true, "trust": ["127.0.0.1"]});
    let running =
        logging(&path, json!([listener(json!({"backends": [{"address": a.addr}]}), more)]), Vec::new()).await;
    let mut stream = running.connect().await;
    let from = stream.local_addr().unwrap();
    stream.write_all(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n").await.unwrap();
    assert_eq!(greeting(&mut stream).await, "a");
    running.service.drain(Instant::now()).await;
    running.service.stop().await.unwrap();
    let line = lines(&path, 1).await.remove(0);
    assert_eq!((&line["client_ip"], &line["peer"]), (&json!("203.0.113.7"), &json!(from.to_string())));
    assert_eq!(line["reason"], "drained");
}

#[test]
fn a_log_has_an_absolute_path_which_a_manifest_may_shorten() {
    let backend = json!([listener(json!({"backends": [{"address": "127.0.0.1:1"}]}), json!({}))]);
    let mut settings = json!({"listeners": backend, "access_log": {"to": "log"}});
    let Err(error) = LoadBalancer.prepare(&settings) else { panic!("the path is relative") };
    assert_eq!(error.mistakes[0].pointer, "/access_log/to");
    LoadBalancer.resolve_files(&mut settings, Path::new("/m"));
    assert_eq!(settings["access_log"]["to"], "/m/log");
    assert!(LoadBalancer.prepare(&settings).is_ok());
    settings["access_log"] = json!({"to": "stdout", "format": "combined"});
    let Err(error) = LoadBalancer.prepare(&settings) else { panic!("connections have no such format") };
    assert_eq!(error.mistakes[0].pointer, "/access_log/format");
}

#[test]
fn the_combined_format_is_for_balancers_whose_listeners_are_all_in_http_mode() {
    let one = |name: &str, mode: &str| {
        let backends = json!({"backends": [{"address": "127.0.0.1:1"}]});
        let mut one = listener(backends, json!({"mode": mode}));
        one["name"] = json!(name);
        one
    };
    for (modes, wrong) in [
        (vec!["http"], None),
        (vec!["http", "http"], None),
        (vec!["tcp"], Some("listener `l0`")),
        (vec!["http", "tcp", "tcp"], Some("listener `l1`")),
    ] {
        let listeners: Vec<_> =
            modes.iter().enumerate().map(|(at, mode)| one(&format!("l{at}"), mode)).collect();
        let settings =
            |format| json!({"listeners": listeners, "access_log": {"to": "stdout", "format": format}});
        assert!(LoadBalancer.prepare(&settings("json")).is_ok(), "{modes:?}");
        match (LoadBalancer.prepare(&settings("combined")), wrong) {
            (Ok(_), None) => {}
            (Err(error), Some(wrong)) => {
                assert_eq!(error.mistakes.len(), 1, "{error}");
                let SettingsMistake { pointer, message, hint, .. } = &error.mistakes[0];
                assert_eq!(pointer, "/access_log/format");
                assert!(message.contains(wrong) && hint.is_some(), "{error}");
            }
            (Ok(_), Some(_)) => panic!("{modes:?} is accepted"),
            (Err(error), None) => panic!("{modes:?}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_combined_log_has_no_line_for_connections_that_outlast_their_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let a = Backend::greeting("a").await;
    let upstream = named("hello").await;
    let front = http(json!({"backends": [{"address": upstream.addr}]}), json!({}));
    let mut tcp = listener(json!({"backends": [{"address": a.addr}]}), json!({}));
    tcp["name"] = json!("tcp");
    let running = logging(&path, json!([front, tcp]), Vec::new()).await;
    let mut stream = TcpStream::connect(running.addr("tcp")).await.unwrap();
    assert_eq!(greeting(&mut stream).await, "a");
    let new = json!({"listeners": [front], "access_log": {"to": path, "format": "combined"}});
    let updated = running.service.update(LoadBalancer.prepare(&new).unwrap()).await;
    assert!(matches!(updated, Updated::Applied), "{updated:?}");
    drop(stream);
    ask(&running, "GET /a?b", "user-agent: t\r\n").await;
    running.service.drain(Instant::now()).await;
    running.service.stop().await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{text}");
    assert!(lines[0].ends_with("] \"GET /a?b HTTP/1.1\" 200 5 \"-\" \"t\""), "{text}");
}
