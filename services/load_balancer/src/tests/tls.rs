//! TLS in HTTP mode, on both sides, and what is seen of it.

use std::path::PathBuf;

use super::requests::{at, body, get, http, named, raw};
use super::*;

/// A certificate, key or CA for tests.
pub(super) fn testdata(name: &str) -> PathBuf {
    plugin::testing::tls::testdata().join(name)
}

/// A balancer in HTTP mode with TLS, for a backend, and further settings.
async fn terminating(backend: SocketAddr, more: Value) -> Running {
    let tls = json!({"certificates": [{"cert": testdata("shop.crt"), "key": testdata("shop.key")}]});
    let target = json!({"backends": [{"address": backend}]});
    Running::with_settings(json!([http(target, json!({ "tls": tls }))]), more, Vec::new()).await
}

/// A balancer in HTTP mode for a backend at `https://HOST:port` of this machine.
async fn in_front(port: u16, host: &str, ca: Option<PathBuf>) -> Running {
    let mut more = json!({"retry": {"attempts": 1}});
    if let Some(ca) = ca {
        more["ca"] = json!(ca);
    }
    let target = json!({"backends": [{"address": format!("https://{host}:{port}")}]});
    let role = Role::Service { service: LoadBalancer.service_type().into(), shard: None };
    let (mut context, _failures) = Context::for_test(role);
    let (views, receiver) = watch::channel(view(Vec::new()));
    context.mesh = Mesh::new(receiver.clone(), Targets::any(), Limits::default());
    context.view = receiver;
    let settings = json!({"listeners": [http(target, more)]});
    let plan =
        plugin::check_settings(&settings, crate::plan::check).unwrap_or_else(|error| panic!("{error}"));
    // Every name is this machine.
    let lookup: crate::resolve::Lookup =
        Arc::new(|_, port| Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]) }));
    let service = crate::balancer::Balancer::start(plan, &context, &lookup).await.unwrap();
    Running { context, service: Arc::new(service), views }
}

#[test]
fn files_of_cas_that_cannot_be_used_are_named_with_their_places() {
    let settings = |client_ca: PathBuf, ca: PathBuf| {
        let certificates = json!([{"cert": testdata("shop.crt"), "key": testdata("shop.key")}]);
        let tls = json!({"certificates": certificates, "client_ca": client_ca});
        let target = json!({"backends": [{"address": "https://shop.example"}]});
        json!({"listeners": [http(target, json!({"tls": tls, "ca": ca}))]})
    };
    let well = settings(testdata("client-ca.crt"), testdata("ca.crt"));
    assert!(LoadBalancer.check_files(&well).is_empty());
    let found = LoadBalancer.check_files(&settings(testdata("gone.crt"), testdata("shop.key")));
    let places: Vec<_> = found.iter().map(|found| found.pointer.as_str()).collect();
    assert_eq!(places, ["/listeners/0/tls/client_ca", "/listeners/0/ca"]);
    assert!(found[1].message.contains("no certificate"), "{found:?}");
}

#[test]
fn a_log_that_goes_to_the_standard_output_of_agents_without_one_is_a_warning() {
    let places = |to: &str| {
        let found = LoadBalancer.check_files(&json!({"access_log": {"to": to}}));
        found.into_iter().map(|found| found.pointer).collect::<Vec<_>>()
    };
    assert_eq!((places("stdout"), places("/log")), (vec!["/access_log/to".to_owned()], vec![]));
}

#[tokio::test]
async fn a_backend_with_tls_must_have_a_certificate_for_its_host() {
    let upstream = named("a").await;
    let behind = terminating(upstream.addr, json!({})).await;
    let port = at(&behind).port();
    let trusted = in_front(port, "shop.example", Some(testdata("ca.crt"))).await;
    assert_eq!(body(&get(&trusted).await), "a");
    for (ca, host) in [(Some(testdata("ca.crt")), "other.example"), (None, "shop.example")] {
        let refused = get(&in_front(port, host, ca).await).await;
        assert!(
            refused.starts_with("HTTP/1.1 502") && body(&refused).contains("certificate"),
            "{host}: {refused}"
        );
        assert!(body(&refused).contains("no-tls-session") && body(&refused).contains("`ca`"), "{refused}");
    }
}

#[tokio::test]
async fn handshakes_connections_and_certificates_are_counted() {
    let upstream = named("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let behind = terminating(upstream.addr, json!({"access_log": {"to": path}})).await;
    let address = at(&behind);
    let front = in_front(address.port(), "shop.example", Some(testdata("ca.crt"))).await;
    assert_eq!(body(&get(&front).await), "a");
    let has = |line: &str| behind.metrics().lines().any(|shown| shown == line);
    for line in [
        r#"coterie_tls_handshakes_total{listener="main",version="TLSv1.3",result="done"} 1"#,
        r#"coterie_test_open_connections{listener="main",protocol="h2"} 1"#,
        r#"coterie_tls_settings_reloads_total{listener="main",result="loaded"} 1"#,
    ] {
        assert!(has(line), "{line} in {}", behind.metrics());
    }
    assert!(
        behind
            .metrics()
            .contains(r#"tls_certificate_not_after_seconds{listener="main",name="shop.example"}"#)
    );
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("there is a line", async || read().lines().count() == 1).await;
    let line: Value = serde_json::from_str(&read()).unwrap();
    for (key, value) in [("tls_version", "TLSv1.3"), ("sni", "shop.example"), ("protocol", "HTTP/2.0")] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    // Plain HTTP, which is refused.
    let answer = raw(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let failed = r#"coterie_tls_handshakes_total{listener="main",version="unknown",result="failed"} 1"#;
    assert!(has(failed), "{}", behind.metrics());
    assert_eq!(behind.metric("refused_total", "malformed"), 1);
    assert!(!front.metrics().contains("tls_handshakes_total{"), "it has no TLS: {}", front.metrics());
}

/// Waits for the limit of the listener for heads, which is ten seconds.
#[tokio::test]
async fn a_handshake_that_never_ends_is_counted_as_failed_and_as_too_late() {
    let upstream = named("a").await;
    let behind = terminating(upstream.addr, json!({})).await;
    let failed = |count: usize| {
        let line = format!(
            r#"coterie_tls_handshakes_total{{listener="main",version="unknown",result="failed"}} {count}"#
        );
        behind.metrics().lines().any(|shown| shown == line)
    };
    // A health check of TCP is no handshake.
    drop(TcpStream::connect(at(&behind)).await.unwrap());
    let mut stalled = TcpStream::connect(at(&behind)).await.unwrap();
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "it gets no answer");
    eventually("it is counted", async || {
        failed(1) && behind.metric("refused_total", "reason=\"timeout\"") == 1
    })
    .await;
}
