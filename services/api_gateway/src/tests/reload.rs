//! New settings for a gateway that runs.

use std::sync::atomic::AtomicBool;

use plugin::Updated;

use super::*;

pub(super) async fn update(gateway: &Running, settings: Value) -> Updated {
    gateway.service.update(ApiGateway.prepare(&settings).unwrap()).await
}

pub(super) async fn applied(gateway: &Running, settings: Value) {
    let updated = update(gateway, settings).await;
    assert!(matches!(updated, Updated::Applied), "{updated:?}");
}

fn to(upstream: &Upstream) -> Value {
    json!([upstream.url().to_string()])
}

/// A connection on which several requests are sent.
struct Connection(TcpStream);

impl Connection {
    async fn open(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    async fn ask(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: gw\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        self.answer().await
    }

    /// The head and the body of one answer that has a length.
    async fn answer(&mut self) -> String {
        let mut text = String::new();
        loop {
            text.push(char::from(self.0.read_u8().await.unwrap()));
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn a_route_changes_and_connections_stay_open() {
    let (a, b) =
        (Upstream::serving(|_| async { text("a") }).await, Upstream::serving(|_| async { text("b") }).await);
    let gateway = Running::with(json!({"routes": [{"prefix": "/", "to": to(&a)}]}), Vec::new()).await;
    let mut connection = Connection::open(gateway.addr).await;
    assert!(connection.ask("/x").await.ends_with("\r\n\r\na"));
    applied(&gateway, json!({"routes": [{"prefix": "/", "to": to(&b)}, {"prefix": "/new", "to": to(&a)}]}))
        .await;
    assert!(connection.ask("/x").await.ends_with("\r\n\r\nb"), "the same connection");
    assert!(connection.ask("/new").await.ends_with("\r\n\r\na"));
    assert!(
        gateway.metrics().contains(r#"connections_total{listener="gateway"} 1"#),
        "{}",
        gateway.metrics()
    );
    let routes = Request::get("/routes").header("host", "127.0.0.1").body(axum::body::Body::empty()).unwrap();
    let shown = tower::ServiceExt::oneshot(gateway.service.clone().routes(), routes).await.unwrap();
    let shown = shown.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&shown).contains("/new"), "the agent's listener shows the new routes");
}

#[tokio::test]
async fn a_request_in_flight_finishes_with_the_settings_with_which_it_began() {
    let go = Arc::new(Notify::new());
    let waiting = Arc::clone(&go);
    let slow = Upstream::serving(move |_| {
        let go = Arc::clone(&waiting);
        async move {
            go.notified().await;
            text("old")
        }
    })
    .await;
    let gateway = Running::with(
        json!({"routes": [{"prefix": "/", "to": to(&slow), "response_headers": {"set": {"x-settings": "old"}}}]}),
        Vec::new(),
    )
    .await;
    let mut connection = Connection::open(gateway.addr).await;
    connection.0.write_all(b"GET / HTTP/1.1\r\nhost: gw\r\n\r\n").await.unwrap();
    until(|| slow.hits() == 1).await;
    applied(
        &gateway,
        json!({"routes": [{"prefix": "/", "answer": {"body": "new"}}], "response_timeout": "1s"}),
    )
    .await;
    assert_eq!(whole(gateway.get("/").await).await, "new");
    go.notify_one();
    let answer = connection.answer().await;
    assert!(answer.contains("x-settings: old") && answer.ends_with("old"), "{answer}");
    assert!(connection.ask("/").await.ends_with("new"));
}

#[tokio::test]
async fn listeners_are_added_renamed_and_removed_while_the_others_go_on() {
    let route = json!([{"prefix": "/", "answer": {"body": "ok"}}]);
    let listeners = |names: &[(&str, String)]| {
        let each =
            names.iter().map(|(name, address)| json!({"name": name, "address": address, "ready": "/ready"}));
        json!({"listeners": each.collect::<Vec<_>>(), "routes": route})
    };
    let any = || "127.0.0.1:0".to_owned();
    let gateway = Running::with(listeners(&[("web", any()), ("gone", any())]), Vec::new()).await;
    let (web, gone) = (gateway.listener("web"), gateway.listener("gone"));
    let (mut on_web, mut on_gone) = (Connection::open(web).await, Connection::open(gone).await);
    for connection in [&mut on_web, &mut on_gone] {
        assert!(connection.ask("/").await.ends_with("ok"));
    }
    applied(&gateway, listeners(&[("renamed", web.to_string()), ("new", any())])).await;
    assert_eq!(gateway.context.endpoints.urls().into_keys().collect::<Vec<_>>(), ["new", "renamed"]);
    assert_eq!(gateway.listener("renamed"), web, "it keeps its socket");
    assert!(on_web.ask("/").await.ends_with("ok"), "and its connections");
    assert!(Connection::open(gateway.listener("new")).await.ask("/").await.ends_with("ok"));
    assert!(on_web.ask("/ready").await.contains("200 OK"), "the others do not drain");
    // A request may still be answered, with the news that it is the last one; then the connection ends.
    until(|| listeners::closed_now(gone)).await;
    let mut rest = Vec::new();
    let _ = on_gone.0.read_to_end(&mut rest).await;
    let metrics = gateway.metrics();
    assert!(
        metrics.contains(r#"listener="renamed""#) && !metrics.contains(r#"listener="gone""#),
        "{metrics}"
    );
    assert!(!metrics.contains(r#"listener="web""#), "{metrics}");
}

#[tokio::test]
async fn what_concerns_connections_counts_for_new_ones_and_open_ones_keep_what_they_have() {
    let listener = |more: Value| {
        let mut listener = json!({"name": "web", "address": "127.0.0.1:0"});
        listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"listeners": [listener], "routes": [{"prefix": "/", "answer": {"body": "ok"}}]})
    };
    let at = |name: &str| tls::testdata().join(name);
    let certificates = json!({"certificates": [{"cert": at("shop.crt"), "key": at("shop.key")}]});
    let gateway = Running::with(listener(json!({})), Vec::new()).await;
    let web = gateway.listener("web");
    let mut plain = Connection::open(web).await;
    assert!(plain.ask("/").await.ends_with("ok"));

    applied(&gateway, listener(json!({"tls": certificates}))).await;
    assert_eq!(gateway.context.endpoints.urls()["web"], format!("https://{web}"));
    assert!(plain.ask("/").await.ends_with("ok"), "it is still plain");
    assert!(Connection::open(web).await.ask("/").await.contains("plain-http"), "a new one is not");
    let encrypted = tls::connect(web, "shop.example", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(encrypted.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    applied(&gateway, listener(json!({"tls": certificates, "protocols": ["http1"]}))).await;
    let encrypted = tls::connect(web, "shop.example", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(encrypted.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    applied(&gateway, listener(json!({"proxy_protocol": true, "trust": ["127.0.0.1"]}))).await;
    assert_eq!(gateway.context.endpoints.urls()["web"], format!("http://{web}"));
    assert!(plain.ask("/").await.ends_with("ok"), "it began without a header of the PROXY protocol");
    let mut proxied = Connection::open(web).await;
    proxied.0.write_all(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n").await.unwrap();
    assert!(proxied.ask("/").await.ends_with("ok"));
    applied(&gateway, listener(json!({"proxy_protocol": true, "trust": ["192.0.2.0/24"]}))).await;
    assert!(proxied.ask("/").await.ends_with("ok"));
    let mut untrusted = Connection::open(web).await;
    let _ = untrusted.0.write_all(b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n").await;
    assert!(untrusted.0.read_u8().await.is_err(), "its proxy is not trusted any more");

    applied(&gateway, listener(json!({"keep_alive": "1s"}))).await;
    let mut hurried = Connection::open(web).await;
    assert!(hurried.ask("/").await.ends_with("ok"));
    assert!(hurried.0.read_u8().await.is_err(), "it was idle for too long");
    assert!(plain.ask("/").await.ends_with("ok"), "it keeps its time");

    applied(&gateway, listener(json!({"max_connections": 1}))).await;
    drop((encrypted, proxied, untrusted));
    let mut next = Connection::open(web).await;
    assert!(next.ask("/").await.ends_with("ok"));
    assert!(plain.0.read_u8().await.is_err(), "the one that was idle longest made room");
    applied(&gateway, listener(json!({"max_connections": 2}))).await;
    assert!(Connection::open(web).await.ask("/").await.ends_with("ok"));
    assert!(next.ask("/").await.ends_with("ok"), "there is room for both");
}

#[tokio::test]
async fn a_removed_listener_drains_with_its_last_settings_and_the_role_waits_for_it() {
    let go = Arc::new(Notify::new());
    let waiting = Arc::clone(&go);
    let slow = Upstream::serving(move |_| {
        let go = Arc::clone(&waiting);
        async move {
            go.notified().await;
            text("done")
        }
    })
    .await;
    let settings =
        |listeners: Value| json!({"listeners": listeners, "routes": [{"prefix": "/", "to": to(&slow)}]});
    let gone = |ready: &str| json!({"name": "gone", "address": "127.0.0.1:0", "ready": ready});
    let web = json!({"name": "web", "address": "127.0.0.1:0"});
    let gateway = Running::with(settings(json!([web, gone("/first")])), Vec::new()).await;
    applied(&gateway, settings(json!([web, gone("/last")]))).await;
    let address = gateway.listener("gone");
    let (mut busy, mut kept) = (Connection::open(address).await, Connection::open(address).await);
    assert!(kept.ask("/last").await.contains("200 OK"));
    busy.0.write_all(b"GET /slow HTTP/1.1\r\nhost: gw\r\n\r\n").await.unwrap();
    until(|| slow.hits() == 1).await;
    applied(&gateway, settings(json!([web]))).await;
    // Its request in flight keeps its connections open.
    let answer = kept.ask("/last").await;
    assert!(answer.contains("503 ") && answer.ends_with("draining\n"), "{answer}");

    let is_released = AtomicBool::new(false);
    let draining = async {
        gateway.service.drain(Instant::now() + Duration::from_secs(300)).await;
        assert!(is_released.load(Ordering::SeqCst), "it waits for the removed listener");
    };
    let releasing = async {
        until(|| listeners::closed_now(gateway.addr)).await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        is_released.store(true, Ordering::SeqCst);
        go.notify_one();
        busy.answer().await
    };
    let ((), answer) = tokio::join!(draining, releasing);
    assert!(answer.ends_with("done"), "{answer}");
    gateway.service.stop().await.unwrap();
    assert!(listeners::closed_now(address));
}

#[tokio::test]
async fn settings_that_fail_leave_everything_as_it_was() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let old = json!([{"name": "web", "address": "127.0.0.1:0"}]);
    let gateway = Running::with(
        json!({"listeners": old, "routes": [{"prefix": "/", "answer": {"body": "old"}}]}),
        Vec::new(),
    )
    .await;
    let (before, web) = (gateway.context.endpoints.urls(), gateway.listener("web"));
    let mut connection = Connection::open(web).await;
    let new_route = json!([{"prefix": "/", "answer": {"body": "new"}}]);
    let tls = json!({"certificates": [{"cert": "/no/such.crt", "key": "/no/such.key"}]});
    for (listeners, expected) in [
        (json!([{"name": "web", "address": "127.0.0.1:0"}, {"name": "b", "address": busy}]), busy.as_str()),
        (json!([{"name": "new", "address": "127.0.0.1:0"}, {"name": "b", "address": busy}]), "listener `b`"),
        (
            json!([{"name": "web", "address": "127.0.0.1:0"}, {"name": "s", "address": "127.0.0.1:0", "tls": tls}]),
            "/no/such.crt",
        ),
        (json!([{"name": "web", "address": "127.0.0.1:0", "tls": tls}]), "/no/such.crt"),
    ] {
        let updated = update(&gateway, json!({"listeners": listeners, "routes": new_route})).await;
        let Updated::Failed(error) = updated else { panic!("{updated:?}") };
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), types::ErrorKind::Unavailable, "a later attempt may succeed");
        assert_eq!(gateway.context.endpoints.urls(), before);
        assert!(connection.ask("/").await.ends_with("old"), "{listeners}");
        assert!(Connection::open(web).await.ask("/").await.ends_with("old"));
    }
    // A restart would not help: the listener would not be opened then either.
    let wide = json!([{"name": "web", "address": format!("0.0.0.0:{}", web.port())}]);
    let updated = update(&gateway, json!({"listeners": wide, "routes": new_route})).await;
    let Updated::Failed(error) = updated else { panic!("{updated:?}") };
    assert!(error.to_string().contains("open to the network"), "{error}");
    assert_eq!(error.kind(), types::ErrorKind::Invalid);
    assert!(connection.ask("/").await.ends_with("old"), "all or nothing");
    drop(taken);
    let both = json!([{"name": "web", "address": "127.0.0.1:0"}, {"name": "b", "address": busy}]);
    applied(&gateway, json!({"listeners": both, "routes": new_route})).await;
    assert!(connection.ask("/").await.ends_with("new"));
}

#[tokio::test]
async fn an_address_that_overlaps_and_may_be_listened_on_needs_a_restart() {
    let settings = |address: String| json!({"listeners": [{"name": "web", "address": address}]});
    let exposure = Exposure { loopback: types::Loopback::NotRequired, ..Exposure::default() };
    let gateway = Running::exposed(settings("127.0.0.1:0".to_owned()), Vec::new(), exposure).await;
    let web = gateway.listener("web");
    let updated = update(&gateway, settings(format!("0.0.0.0:{}", web.port()))).await;
    let Updated::NeedsRestart(settings) = updated else { panic!("{updated:?}") };
    assert_eq!(settings, ["/listeners/0/address"]);
}

#[tokio::test]
async fn an_update_that_is_dropped_midway_leaves_nothing_behind() {
    let gateway =
        Running::with(json!({"listeners": [{"name": "web", "address": "127.0.0.1:0"}]}), Vec::new()).await;
    let before = gateway.context.endpoints.urls();
    let tls = json!({"certificates": [{"cert": "/no/such.crt", "key": "/no/such.key"}]});
    let settings = json!({"listeners": [
        {"name": "web", "address": "127.0.0.1:0"},
        {"name": "b", "address": "127.0.0.1:0", "tls": tls},
    ]});
    let polls = std::future::poll_fn(|cx| {
        let mut updating = Box::pin(gateway.service.update(ApiGateway.prepare(&settings).unwrap()));
        // It reads files, and may have read them by now.
        let _ = updating.as_mut().poll(cx);
        std::task::Poll::Ready(())
    });
    polls.await;
    assert_eq!(gateway.context.endpoints.urls(), before);
}

#[tokio::test]
async fn a_change_of_settings_forgives_no_client_and_keeps_the_places_in_flight() {
    let go = Arc::new(Notify::new());
    let waiting = Arc::clone(&go);
    let slow = Upstream::serving(move |_| {
        let go = Arc::clone(&waiting);
        async move {
            go.notified().await;
            text("done")
        }
    })
    .await;
    let settings = |more: &str| {
        json!({"wait": "1s", "routes": [
            {"name": "limited", "prefix": "/limited", "answer": {"body": more},
                "limits": {"rate": {"requests": 2, "per": "1h"}}},
            {"prefix": "/slow", "to": to(&slow), "limits": {"in_flight": 1}},
            {"prefix": format!("/{more}"), "answer": {"body": more}},
        ]})
    };
    let gateway = Running::with(settings("first"), Vec::new()).await;
    for expected in [200, 200, 429] {
        assert_eq!(gateway.get("/limited").await.status(), expected);
    }
    let mut first = Connection::open(gateway.addr).await;
    first.0.write_all(b"GET /slow HTTP/1.1\r\nhost: gw\r\n\r\n").await.unwrap();
    until(|| slow.hits() == 1).await;
    for more in ["second", "third"] {
        applied(&gateway, settings(more)).await;
        assert_eq!(gateway.get("/limited").await.status(), 429, "{more}");
        assert_eq!(gateway.problem("/slow").await.code(), "route-busy");
    }
    go.notify_one();
    assert!(first.answer().await.ends_with("done"));
    let served = async {
        until(|| slow.hits() == 2).await;
        go.notify_one();
    };
    let (second, ()) = tokio::join!(gateway.get("/slow"), served);
    assert_eq!(second.status(), 200);
}

#[tokio::test]
async fn behaviour_2_a_stream_that_began_with_old_settings_goes_on() {
    let endless = Upstream::serving(|_| async {
        let mut answer = text("");
        let chunks = futures_util::stream::unfold(0, |number| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok(http_body::Frame::data(Bytes::from(format!("data: {number}\n\n")))), number + 1))
        });
        *answer.body_mut() = BodyExt::boxed(http_body_util::StreamBody::new(chunks));
        answer
    })
    .await;
    let gateway = Running::with(json!({"routes": [{"prefix": "/", "to": to(&endless)}]}), Vec::new()).await;
    let mut events = gateway.get("/events").await.into_body();
    events.frame().await.unwrap().unwrap();
    for round in 0..3 {
        applied(&gateway, json!({"routes": [{"prefix": "/", "answer": {"body": format!("{round}")}}]})).await;
        for _ in 0..3 {
            events.frame().await.expect("the stream goes on").unwrap();
        }
        assert_eq!(whole(gateway.get("/events").await).await, format!("{round}"));
    }
}

#[tokio::test]
async fn the_access_log_moves_and_no_line_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let routes = json!([{"prefix": "/", "answer": {"body": "ok"}}]);
    let settings =
        |file: &std::path::Path| json!({"access_log": {"to": file.to_str().unwrap()}, "routes": routes});
    let gateway = Running::with(settings(&first), Vec::new()).await;
    let lines = |file: &std::path::Path| std::fs::read_to_string(file).unwrap_or_default().lines().count();
    for _ in 0..3 {
        gateway.get("/").await.collect().await.unwrap();
    }
    applied(&gateway, settings(&second)).await;
    for _ in 0..2 {
        gateway.get("/").await.collect().await.unwrap();
    }
    until(|| (lines(&first), lines(&second)) == (3, 2)).await;
    applied(&gateway, json!({})).await;
    gateway.get("/").await.collect().await.unwrap();
    gateway.context.shutdown.cancel();
    gateway.service.stop().await.unwrap();
    gateway.context.tasks.wait().await;
    assert_eq!((lines(&first), lines(&second)), (3, 2));
    assert!(gateway.metrics().contains("access_log_dropped_total 0"));
}

#[tokio::test]
async fn what_checks_have_found_stays_and_ends_with_them() {
    let gone = closed_port().await;
    let settings = |check: Value, more: &str| {
        let mut checked =
            json!({"name": "checked", "prefix": "/", "to": [format!("http://{}", gone.authority())]});
        if !check.is_null() {
            checked["check"] = check;
        }
        json!({"routes": [checked, {"prefix": format!("/{more}"), "answer": {"body": more}}]})
    };
    let check = |every: &str| json!({"tcp": {}, "every": every, "fall": 3, "rise": 1});
    let gateway = Running::with(settings(check("20ms"), "first"), Vec::new()).await;
    let is_dead = || format!("{:?}", gateway.service.health()).contains("checked");
    until(is_dead).await;
    applied(&gateway, settings(check("20ms"), "second")).await;
    assert!(is_dead(), "without a new check");
    assert_eq!(gateway.get("/second").await.status(), 200);
    applied(&gateway, settings(Value::Null, "third")).await;
    assert!(!is_dead(), "{:?}", gateway.service.health());
}

#[test]
fn an_address_whose_certificates_others_sign_now_is_another_one() {
    let table = |ca: &str| {
        let settings = json!({"routes": [{"prefix": "/", "to": ["https://shop.example"], "ca": ca}]});
        plugin::check_settings(&settings, crate::Settings::check).unwrap().table
    };
    let old = table("/a.pem");
    old.ways()[0].addresses()[0].mark_reached();
    for (ca, expected) in [("/a.pem", 1), ("/b.pem", 0)] {
        let mut new = table(ca);
        new.inherit(&old);
        assert_eq!(new.ways()[0].addresses()[0].reached(), expected, "{ca}");
    }
}
