//! Listeners that are added, changed and removed while a balancer runs.

use std::io::ErrorKind;

use plugin::Updated;
use plugin::proxy_protocol::{ProxyVersion, header};

use super::requests::{body, http, named};
use super::*;

fn one(name: &str, address: &str, backend: &Backend, more: Value) -> Value {
    let mut one = listener(json!({"backends": [{"address": backend.addr}]}), more);
    (one["name"], one["address"]) = (json!(name), json!(address));
    one
}

const FREE: &str = "127.0.0.1:0";

pub(super) async fn update(running: &Running, listeners: Value) -> Updated {
    running.service.update(LoadBalancer.prepare(&json!({ "listeners": listeners })).unwrap()).await
}

async fn applied(running: &Running, listeners: Value) {
    let updated = update(running, listeners).await;
    assert!(matches!(updated, Updated::Applied), "{updated:?}");
}

async fn opened(running: &Running, name: &str) -> (TcpStream, String) {
    let mut stream = or_reset(TcpStream::connect(running.addr(name)).await).await;
    let greeted = greeting(&mut stream).await;
    (stream, greeted)
}

/// New connections get this backend, perhaps a moment after the settings have changed.
async fn leads_to(running: &Running, name: &str, backend: &str) {
    eventually(&format!("{name} leads to {backend}"), async || opened(running, name).await.1 == backend)
        .await;
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_u8(5).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 5, "the connection lives on");
}

async fn refuses(address: SocketAddr) {
    // Connecting would keep it open.
    eventually("nobody listens", async || TcpListener::bind(address).await.is_ok()).await;
}

#[tokio::test]
async fn listeners_are_added_renamed_and_removed_while_the_others_go_on() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let old = json!([one("web", FREE, &a, json!({})), one("gone", FREE, &a, json!({}))]);
    let running = Running::with(old, Vec::new()).await;
    let (web, gone) = (running.addr("web"), running.addr("gone"));
    let (mut on_web, greeted) = opened(&running, "web").await;
    assert_eq!(greeted, "a");
    let (mut on_gone, _) = opened(&running, "gone").await;
    let new = json!([one("added", FREE, &b, json!({})), one("renamed", &web.to_string(), &b, json!({}))]);
    applied(&running, new).await;
    assert_eq!(running.context.endpoints.urls().into_keys().collect::<Vec<_>>(), ["added", "renamed"]);
    assert_eq!(running.addr("renamed"), web, "it keeps its socket");
    echoes(&mut on_web).await;
    assert_eq!(opened(&running, "added").await.1, "b");
    leads_to(&running, "renamed", "b").await;
    refuses(gone).await;
    echoes(&mut on_gone).await;
    let metrics = running.metrics();
    assert!(!metrics.contains("\"web\"") && !metrics.contains("\"gone\""), "{metrics}");
    assert!(!metrics.contains("connections_total{listener=\"renamed\"} 1\n"), "its counts go on: {metrics}");
    let shown = running.backends().await;
    let names: Vec<_> =
        shown["listeners"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["added", "renamed"]);
}

#[tokio::test]
async fn the_connections_of_a_removed_listener_end_within_its_drain() {
    let a = Backend::greeting("a").await;
    let drain = json!({"timeouts": {"drain": "50ms"}});
    let both = json!([one("web", FREE, &a, json!({})), one("gone", FREE, &a, drain)]);
    let running = Running::with(both, Vec::new()).await;
    let (mut on_web, _) = opened(&running, "web").await;
    let (mut on_gone, _) = opened(&running, "gone").await;
    applied(&running, json!([one("web", FREE, &a, json!({}))])).await;
    let error = timeout(PATIENCE, on_gone.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    echoes(&mut on_web).await;
}

#[tokio::test]
async fn the_drain_of_the_balancer_waits_for_a_listener_that_is_being_removed() {
    let a = Backend::greeting("a").await;
    let both = json!([one("web", FREE, &a, json!({})), one("gone", FREE, &a, json!({}))]);
    let running = Running::with(both, Vec::new()).await;
    let (mut on_gone, _) = opened(&running, "gone").await;
    applied(&running, json!([one("web", FREE, &a, json!({}))])).await;
    let (service, web) = (Arc::clone(&running.service), running.addr("web"));
    let mut draining = JoinSet::new();
    draining.spawn(async move { service.drain(Instant::now() + PATIENCE).await });
    refuses(web).await;
    echoes(&mut on_gone).await;
    assert!(draining.try_join_next().is_none(), "one connection is open");
    drop(on_gone);
    timeout(PATIENCE, draining.join_next()).await.expect("it was the last one").unwrap().unwrap();
    running.service.stop().await.unwrap();
}

#[tokio::test]
async fn settings_that_fail_leave_everything_as_it_was() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let taken = TcpListener::bind(FREE).await.unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let running = Running::with(json!([one("web", FREE, &a, json!({}))]), Vec::new()).await;
    let (before, web) = (running.context.endpoints.urls(), running.addr("web"));
    let (mut open, _) = opened(&running, "web").await;
    let tls =
        json!({"mode": "http", "tls": {"certificates": [{"cert": "/no/such.crt", "key": "/no/such.key"}]}});
    for (listeners, expected) in [
        (json!([one("web", FREE, &b, json!({})), one("more", &busy, &b, json!({}))]), busy.as_str()),
        (json!([one("first", FREE, &b, json!({})), one("more", &busy, &b, json!({}))]), "listener `more`"),
        (json!([one("web", &busy, &b, json!({}))]), busy.as_str()),
        (json!([one("web", FREE, &b, json!({})), one("tls", FREE, &b, tls)]), "/no/such.crt"),
    ] {
        let updated = update(&running, listeners).await;
        let Updated::Failed(error) = updated else { panic!("{updated:?}") };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), types::ErrorKind::Unavailable, "a later attempt may succeed");
        assert_eq!(
            (running.context.endpoints.urls(), running.service.health()),
            (before.clone(), Health::Ready)
        );
        assert_eq!(opened(&running, "web").await.1, "a");
        echoes(&mut open).await;
    }
    let updated = update(&running, json!([one("web", FREE, &b, json!({"mode": "http"}))])).await;
    let Updated::NeedsRestart(settings) = updated else { panic!("{updated:?}") };
    assert_eq!(settings, ["/listeners/0/mode"]);
    assert_eq!(opened(&running, "web").await.1, "a", "all or nothing");
    // A restart would not help: the listener would not be opened then either.
    let wide = json!([one("web", &format!("0.0.0.0:{}", web.port()), &b, json!({}))]);
    let updated = update(&running, wide.clone()).await;
    let Updated::Failed(error) = updated else { panic!("{updated:?}") };
    assert!(error.to_string().contains("open to the network"), "{error}");
    assert_eq!(opened(&running, "web").await.1, "a", "all or nothing");
    let exposure = Exposure { loopback: types::Loopback::NotRequired, ..Exposure::default() };
    let start = json!([one("web", FREE, &b, json!({}))]);
    let allowed = Running::exposed(start, json!({}), Vec::new(), exposure).await;
    let wide = json!([one("web", &format!("0.0.0.0:{}", allowed.addr("web").port()), &b, json!({}))]);
    let updated = update(&allowed, wide).await;
    let Updated::NeedsRestart(settings) = updated else { panic!("{updated:?}") };
    assert_eq!(settings, ["/listeners/0/address"]);
    drop(taken);
    applied(&running, json!([one("web", FREE, &b, json!({})), one("more", &busy, &b, json!({}))])).await;
    leads_to(&running, "web", "b").await;
    leads_to(&running, "more", "b").await;
}

#[tokio::test]
async fn limits_and_trusted_proxies_change_for_new_connections() {
    let a = Backend::greeting("a").await;
    let to_a = |more: Value| json!([one("main", FREE, &a, more)]);
    let running = Running::with(to_a(json!({})), Vec::new()).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(opened(&running, "main").await.0);
    }
    applied(&running, to_a(json!({"limits": {"connections": 2, "queue": 1, "wait": "1h"}}))).await;
    for stream in &mut open {
        echoes(stream).await;
    }
    let mut waiting = running.connect().await;
    eventually("it waits", async || running.metric("queue", "") == 1).await;
    assert_eq!(running.greeted().await, "", "the queue is full");
    open.pop();
    // That one was beyond the limit already.
    eventually("it has ended", async || running.metric("active", "") == 2).await;
    assert_eq!(running.metric("queue", ""), 1);
    applied(&running, to_a(json!({"limits": {"connections": 3, "per_client": 1}}))).await;
    assert_eq!(greeting(&mut waiting).await, "a", "there is room again");
    drop(open);
    let (_first, greeted) = opened(&running, "main").await;
    assert_eq!((greeted.as_str(), running.greeted().await.as_str()), ("a", ""), "one for each client");
    let proxied = json!({"proxy_protocol": true, "trust": ["127.0.0.1"]});
    applied(&running, to_a(proxied)).await;
    let mut without = running.connect().await;
    let _ = without.write_all(b"no header of the protocol\r\n").await;
    assert_eq!(greeting(&mut without).await, "");
    let mut with = running.connect().await;
    with.write_all(&header(ProxyVersion::V2, None)).await.unwrap();
    assert_eq!(greeting(&mut with).await, "a");
    applied(&running, to_a(json!({"proxy_protocol": true, "trust": ["192.0.2.1"]}))).await;
    let mut stranger = running.connect().await;
    let _ = stranger.write_all(&header(ProxyVersion::V2, None)).await;
    assert_eq!(greeting(&mut stranger).await, "");
    echoes(&mut with).await;
}

#[tokio::test]
async fn server_names_come_and_go_and_connections_of_both_stay() {
    use crate::hello::tests::hello;
    let (a, b, c) =
        (Backend::greeting("a").await, Backend::greeting("b").await, Backend::greeting("c").await);
    let names = |targets: &[(&str, &Backend)]| {
        let each =
            targets.iter().map(|(host, to)| json!({"hosts": [host], "backends": [{"address": to.addr}]}));
        json!([listener(json!({"sni": each.collect::<Vec<_>>()}), json!({}))])
    };
    let running = Running::with(names(&[("a.example", &a), ("b.example", &b)]), Vec::new()).await;
    let asked = async |name: &str| {
        let mut stream = running.connect().await;
        let _ = stream.write_all(&hello(Some(name), 1 << 14)).await;
        let greeted = greeting(&mut stream).await;
        (stream, greeted)
    };
    let (mut on_a, greeted) = asked("a.example").await;
    assert_eq!(greeted, "a");
    let (mut on_b, _) = asked("b.example").await;
    applied(&running, names(&[("c.example", &c), ("b.example", &c)])).await;
    assert_eq!(asked("a.example").await.1, "", "nobody has it any more");
    for name in ["b.example", "c.example"] {
        eventually("it leads to c", async || asked(name).await.1 == "c").await;
    }
    for stream in [&mut on_a, &mut on_b] {
        let mut hello = vec![0; hello(Some("a.example"), 1 << 14).len()];
        stream.read_exact(&mut hello).await.unwrap();
        echoes(stream).await;
    }
    // From names to one target, and back.
    applied(&running, json!([listener(json!({"backends": [{"address": a.addr}]}), json!({}))])).await;
    assert_eq!(running.greeted().await, "a");
    applied(&running, names(&[("a.example", &a)])).await;
    assert_eq!(asked("a.example").await.1, "a");
    echoes(&mut on_a).await;
}

#[tokio::test]
async fn in_http_mode_everything_changes_in_place_for_new_connections() {
    let (a, b) = (named("a").await, named("b").await);
    let to = |server: &mesh::testing::Upstream, more: Value| {
        json!([http(json!({"backends": [{"address": server.addr}]}), more)])
    };
    let running = Running::with(to(&a, json!({})), Vec::new()).await;
    let address = requests::at(&running);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut ask = async || {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let head = mesh::testing::read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        char::from(stream.read_u8().await.unwrap())
    };
    assert_eq!(ask().await, 'a');
    let more = json!({
        "timeouts": {"answer": "7s", "idle": "8s"}, "retry": {"attempts": 1}, "balance": "round_robin",
        "limits": {"connections": 7, "per_client": 3}, "trust": ["127.0.0.1"],
    });
    applied(&running, to(&b, more)).await;
    eventually("on the same connection", async || ask().await == 'b').await;
    // Each for new connections; open ones speak as before.
    let get = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    applied(&running, to(&b, json!({"protocols": ["http2"]}))).await;
    assert!(requests::raw(address, get).await.starts_with("HTTP/1.1 505"), "HTTP/2 alone");
    assert_eq!(ask().await, 'b');
    let data = plugin::testing::tls::testdata();
    let tls = json!({"certificates": [{"cert": data.join("shop.crt"), "key": data.join("shop.key")}]});
    applied(&running, to(&b, json!({ "tls": tls }))).await;
    assert!(running.context.endpoints.urls()["main"].starts_with("https://"));
    assert!(requests::raw(address, get).await.starts_with("HTTP/1.1 400"), "plain HTTP to TLS");
    assert_eq!(ask().await, 'b');
    applied(&running, to(&b, json!({}))).await;
    assert!(requests::raw(address, get).await.ends_with('b'));
    assert!(running.context.endpoints.urls()["main"].starts_with("http://"));
    let proxied = json!({"proxy_protocol": true, "trust": ["127.0.0.1"]});
    applied(&running, to(&b, proxied)).await;
    let with = format!("PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n{get}");
    assert_eq!(body(&requests::raw(address, &with).await), "b");
    let mut without = TcpStream::connect(address).await.unwrap();
    let _ = without.write_all(get.as_bytes()).await;
    let mut answer = Vec::new();
    let _closed_or_reset = timeout(PATIENCE, without.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.is_empty(), "without a header there is no answer");
    assert_eq!(ask().await, 'b', "a connection that was open needs none");
    // From addresses to the API of a service.
    applied(&running, json!([http(json!({"service": "storage"}), json!({}))])).await;
    assert_eq!(running.backends().await["listeners"][0]["targets"][0]["service"], "storage");
}

#[tokio::test]
async fn certificates_change_in_place_and_one_that_can_not_be_read_changes_nothing() {
    let upstream = named("a").await;
    let data = plugin::testing::tls::testdata();
    let with = |names: &[&str]| {
        let pair = |name: &&str| {
            let file = |end: &str| data.join(format!("{name}.{end}"));
            json!({"cert": file("crt"), "key": file("key")})
        };
        let certificates: Vec<_> = names.iter().map(pair).collect();
        let target = json!({"backends": [{"address": upstream.addr}]});
        json!([http(target, json!({"tls": {"certificates": certificates}}))])
    };
    let running = Running::with(with(&["shop"]), Vec::new()).await;
    let names = || {
        let metrics = running.metrics();
        metrics.lines().filter(|line| line.contains("tls_certificate_not_after_seconds{")).count()
    };
    assert_eq!(names(), 1);
    let updated = update(&running, with(&["shop", "no-such"])).await;
    assert!(matches!(updated, Updated::Failed(_)), "{updated:?}");
    assert_eq!((names(), running.service.health()), (1, Health::Ready));
    applied(&running, with(&["shop", "wild"])).await;
    eventually("both are served", async || names() == 2).await;
}
