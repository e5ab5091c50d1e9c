//! Several listeners of one gateway.

use plugin::{ExpectedHttp, Expects, Health, ListenSetting};

use super::*;

fn named(settings: &[(&str, Value)]) -> Value {
    let one = |(name, more): &(&str, Value)| {
        let mut listener = json!({"name": name, "address": "127.0.0.1:0"});
        listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        listener
    };
    Value::Array(settings.iter().map(one).collect())
}

async fn get_from(addr: SocketAddr, path: &str, lines: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn every_listener_is_gossiped_under_its_name_and_has_its_own_trust_and_metrics() {
    let upstream = Upstream::serving(reflecting).await;
    let listeners = named(&[("inner", json!({"trust": ["127.0.0.0/8"]})), ("outer", json!({}))]);
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    assert_eq!(gateway.context.endpoints.urls().into_keys().collect::<Vec<_>>(), ["inner", "outer"]);
    let forwarded = "x-forwarded-for: 203.0.113.7\r\n";
    let inner = get_from(gateway.listener("inner"), "/", forwarded).await.unwrap();
    assert!(inner.contains("x-forwarded-for: 203.0.113.7, 127.0.0.1"), "{inner}");
    assert!(inner.contains("x-forwarded-proto: http\n"), "{inner}");
    for _ in 0..2 {
        let outer = get_from(gateway.listener("outer"), "/", forwarded).await.unwrap();
        assert!(outer.contains("x-forwarded-for: 127.0.0.1"), "{outer}");
    }
    until(|| gateway.metrics().contains(r#"open_connections{listener="outer",protocol="h1"} 0"#)).await;
    let metrics = gateway.metrics();
    for line in [
        r#"connections_total{listener="inner"} 1"#,
        r#"connections_total{listener="outer"} 2"#,
        r#"requests_total{listener="outer",route="/",method="GET",code="200"} 2"#,
        r#"refused_total{listener="outer",reason="smuggling"} 0"#,
        r#"coterie_accept_paused_total{listener="outer"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("tls_"), "no listener has TLS");
}

#[tokio::test]
async fn a_busy_port_fails_the_start_and_names_listener_and_address() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let listeners = json!([
        {"name": "free", "address": "127.0.0.1:0"},
        {"name": "web", "address": addr.to_string()},
    ]);
    let (context, _failures) = Context::for_test("gateway".parse().unwrap());
    let prepared = ApiGateway.prepare(&json!({"listeners": listeners})).unwrap();
    let setting = |pointer: &str, name: &str, address| ListenSetting {
        pointer: pointer.to_owned(),
        name: name.to_owned(),
        address,
        expects: Expects { proxies: None, http: Some(ExpectedHttp { tls: false, http1: true }) },
    };
    let free = setting("/listeners/0/address", "free", "127.0.0.1:0".parse().unwrap());
    assert_eq!(prepared.listens(), [free, setting("/listeners/1/address", "web", addr)]);
    let Err(error) = prepared.start(context).await else { panic!("the port is taken") };
    let text = error.to_string();
    assert!(text.contains("`web`") && text.contains(&addr.to_string()), "{text}");
}

#[tokio::test]
async fn a_readiness_check_fails_as_soon_as_the_gateway_drains_and_all_listeners_drain_together() {
    let (upstream, release) = waiting().await;
    let listeners = named(&[("web", json!({"ready": "/ready"})), ("plain", json!({}))]);
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    let (web, plain) = (gateway.listener("web"), gateway.listener("plain"));
    let answer = get_from(web, "/ready?x", "").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ready\n"), "{answer}");

    let mut check = TcpStream::connect(web).await.unwrap();
    let request = b"GET /ready HTTP/1.1\r\nhost: gw\r\n\r\n";
    check.write_all(request).await.unwrap();
    let mut first = [0; 12];
    check.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut open = JoinSet::new();
    open.spawn(get_from(plain, "/slow", ""));
    until(|| gateway.in_flight()).await;
    let checks = async {
        // One may be answered just before the drain begins.
        let mut answers = first.to_vec();
        while !answers.ends_with(b"draining\n") {
            answers.push(check.read_u8().await.expect("it is answered"));
            if answers.ends_with(b"ready\n") {
                check.write_all(request).await.unwrap();
            }
        }
        assert!(String::from_utf8_lossy(&answers).contains("HTTP/1.1 503 "), "{answers:?}");
        until(|| gateway.service.health() == Health::Ready && closed_now(plain)).await;
        until(|| closed_now(web)).await;
        release.notify_one();
        open.join_next().await.unwrap().unwrap().unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let (answer, ()) = tokio::join!(checks, gateway.service.drain(deadline));
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    gateway.service.stop().await.unwrap();
}

/// An upstream that answers once it is released.
async fn waiting() -> (Upstream, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let released = Arc::clone(&release);
    let upstream = Upstream::serving(move |_| {
        let released = Arc::clone(&released);
        async move {
            released.notified().await;
            text("answered")
        }
    })
    .await;
    (upstream, release)
}

/// Whether nobody listens any more. Connecting would show it as well, but a draining listener stays open while somebody
/// connects.
pub(super) fn closed_now(addr: SocketAddr) -> bool {
    std::net::TcpListener::bind(addr).is_ok()
}

/// An answer to a request whose connection begins with some bytes; empty if the connection is closed instead.
async fn begun_with(addr: SocketAddr, first: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n";
    for piece in [first, request].concat().chunks(3) {
        // The gateway may have closed the connection already.
        let _ = stream.write_all(piece).await;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_proxy_in_front_names_the_client_in_a_header_of_the_proxy_protocol() {
    let upstream = Upstream::serving(reflecting).await;
    let listeners = named(&[
        ("web", json!({"proxy_protocol": true, "trust": ["127.0.0.1"]})),
        ("strict", json!({"proxy_protocol": true, "trust": ["192.0.2.0/24"]})),
    ]);
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    let client = plugin::proxy_protocol::Proxied {
        source: "203.0.113.7:4711".parse().unwrap(),
        destination: "198.51.100.1:443".parse().unwrap(),
    };
    for version in [plugin::proxy_protocol::ProxyVersion::V1, plugin::proxy_protocol::ProxyVersion::V2] {
        let header = plugin::proxy_protocol::header(version, Some(client));
        let answer = begun_with(gateway.listener("web"), &header).await;
        assert!(answer.contains("x-forwarded-for: 203.0.113.7\n"), "{version:?}: {answer}");
        assert_eq!(begun_with(gateway.listener("strict"), &header).await, "", "not a trusted proxy");
    }
    assert_eq!(begun_with(gateway.listener("web"), b"").await, "", "a header is needed");
    let metrics = gateway.metrics();
    assert!(metrics.contains(r#"refused_total{listener="web",reason="proxy_protocol"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"refused_total{listener="strict",reason="proxy_protocol"} 2"#), "{metrics}");
}

#[tokio::test]
async fn a_client_has_a_limit_of_connections_on_each_listener_unless_it_is_a_trusted_proxy() {
    let listeners = named(&[
        ("web", json!({})),
        ("more", json!({"max_connections_per_client": 2})),
        ("trusting", json!({"trust": ["127.0.0.1"]})),
        ("proxied", json!({"proxy_protocol": true, "trust": ["127.0.0.1"]})),
    ]);
    let settings = |more: Value| {
        let mut settings =
            json!({"listeners": listeners, "routes": [{"prefix": "/", "answer": {"body": "ok"}}]});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let gateway = Running::with(settings(json!({"max_connections_per_client": 1})), Vec::new()).await;
    let open = async |name: &str, first: &str| {
        let mut stream = TcpStream::connect(gateway.listener(name)).await.unwrap();
        let _ = stream.write_all(format!("{first}GET / HTTP/1.1\r\nhost: gw\r\n\r\n").as_bytes()).await;
        stream.read_u8().await.ok().map(|_| stream)
    };
    let of = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n");
    let mut held = vec![open("web", "").await.expect("its first")];
    for (name, first) in [
        ("more", String::new()),
        ("more", String::new()),
        ("trusting", String::new()),
        ("trusting", String::new()),
        ("proxied", of("203.0.113.7")),
        ("proxied", of("203.0.113.8")),
    ] {
        held.push(open(name, &first).await.expect(name));
    }
    for (name, first) in [("web", String::new()), ("more", String::new()), ("proxied", of("203.0.113.7"))] {
        assert!(open(name, &first).await.is_none(), "{name}");
        let line = format!("refused_total{{listener=\"{name}\",reason=\"per_client\"}} 1");
        assert!(gateway.metrics().contains(&line), "{}", gateway.metrics());
    }
    assert!(gateway.metrics().contains(r#"coterie_connections_waited_total{listener="web"} 0"#));
    // Another limit counts for new connections, and open ones stay.
    reload::applied(&gateway, settings(json!({"max_connections_per_client": 2}))).await;
    held.push(open("web", "").await.expect("one more"));
    assert!(open("web", "").await.is_none());
    reload::applied(&gateway, settings(json!({}))).await;
    held.push(open("web", "").await.expect("there is no limit"));
}

#[tokio::test]
async fn health_names_the_certificate_the_dead_route_and_the_log_together() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "no folder").unwrap();
    let tls = json!({"certificates": [{"cert": "/no/such.crt", "key": "/no/such.key"}]});
    let dead = closed_port().await.to_string();
    let settings = json!({
        "listeners": named(&[("plain", json!({})), ("web", json!({"tls": tls}))]),
        "routes": [{"prefix": "/dead", "to": [dead]}],
        "access_log": {"to": folder.path().join("file/log")},
    });
    let gateway = Running::with(settings, Vec::new()).await;
    let began = std::time::Instant::now();
    loop {
        let health = gateway.service.health();
        let text = match &health {
            Health::Degraded(reason) => reason.text.clone(),
            Health::Ready | Health::Failed(_) => String::new(),
        };
        if ["/no/such.crt", "route /dead", "file/log"].iter().all(|word| text.contains(word)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{health:?}");
        let _ = get_from(gateway.listener("plain"), "/dead", "").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
