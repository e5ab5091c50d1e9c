//! Members that come, drain and go, and a balancer that does.

use std::io::ErrorKind;

use super::*;

/// A listener for the gateways' own listener.
fn gateways(more: Value) -> Value {
    json!([listener(json!({"service": "api_gateway", "listener": "web"}), more)])
}

#[tokio::test]
async fn the_members_of_a_service_are_the_backends_and_one_that_drains_gets_nothing_new() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let of = |phase_of_a, phase_of_b| {
        view(vec![
            member("a", "api_gateway", phase_of_a, &[("web", a.addr)]),
            member("b", "api_gateway", phase_of_b, &[("web", b.addr)]),
        ])
    };
    let running = Running::with(gateways(json!({"balance": "round_robin"})), Vec::new()).await;
    running.views.send_replace(of(Phase::Ready, Phase::Ready));
    running.until_states_are(&["up", "up"]).await;
    let (mut first, mut second) = (running.connect().await, running.connect().await);
    let mut names = [greeting(&mut first).await, greeting(&mut second).await];
    names.sort();
    assert_eq!(names, ["a", "b"]);
    running.views.send_replace(of(Phase::Draining, Phase::Ready));
    running.until_states_are(&["draining", "up"]).await;
    for _ in 0..6 {
        assert_eq!(running.greeted().await, "b");
    }
    for stream in [&mut first, &mut second] {
        stream.write_u8(5).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 5, "open connections live on");
    }
    let shown = running.backends().await;
    assert_eq!(shown["listeners"][0]["targets"][0]["backends"][0]["member"], "a");
    running.views.send_replace(of(Phase::Ready, Phase::Ready));
    running.until_states_are(&["up", "up"]).await;
}

#[tokio::test]
async fn the_connections_of_a_member_that_drains_for_too_long_are_reset() {
    let a = Backend::greeting("a").await;
    let members = |phase| vec![member("a", "api_gateway", phase, &[("web", a.addr)])];
    let running =
        Running::with(gateways(json!({"timeouts": {"drain": "50ms"}})), members(Phase::Ready)).await;
    let mut client = running.connect().await;
    assert_eq!(greeting(&mut client).await, "a");
    running.views.send_replace(view(members(Phase::Draining)));
    let error = timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(running.metric("cuts_total", ""), 1);
}

#[tokio::test]
async fn members_that_all_disappear_at_once_still_get_connections_until_they_refuse_them() {
    let (a, b) = (Backend::greeting("a").await, Backend::greeting("b").await);
    let gone = closed_addr();
    let of = |id: &str, addr| member(id, "api_gateway", Phase::Ready, &[("web", addr)]);
    let members = vec![of("a", a.addr), of("b", b.addr), of("c", gone)];
    let running = Running::with(gateways(json!({"balance": "round_robin"})), members).await;
    running.until_states_are(&["up", "up", "up"]).await;
    running.views.send_replace(view(Vec::new()));
    eventually("they are kept", async || {
        let shown = running.backends().await;
        let why = shown["listeners"][0]["targets"][0]["backends"][0]["why"].as_str().map(ToOwned::to_owned);
        why.is_some_and(|why| why.contains("is kept"))
    })
    .await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..6 {
        names.insert(running.greeted().await);
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    // The one that refused is not tried again. It may be shown until it is looked at again.
    let up = async || running.states().await.iter().filter(|state| *state == "up").count();
    eventually("two are left", async || up().await == 2).await;
    // For two intervals of the detector only.
    running.until_states_are(&[]).await;
    assert_eq!(running.greeted().await, "");
}

#[tokio::test]
async fn a_service_without_such_a_listener_is_no_target() {
    let a = Backend::greeting("a").await;
    let members = vec![member("a", "api_gateway", Phase::Ready, &[("other", a.addr)])];
    let running = Running::with(gateways(json!({})), members).await;
    eventually("its health says so", async || running.service.health() != Health::Ready).await;
    let Health::Degraded(reason) = running.service.health() else { panic!("it has no backend") };
    assert_eq!(reason.text, "listener main: no member of api_gateway has a listener `web`");
    let began = Instant::now();
    assert_eq!(running.greeted().await, "");
    assert!(began.elapsed() < Duration::from_secs(5), "it is closed without a wait");
    assert_eq!(a.accepted(), 0);
}

#[tokio::test]
async fn a_connection_waits_for_a_member_that_is_about_to_serve() {
    let a = Backend::greeting("a").await;
    let members = |phase| vec![member("a", "api_gateway", phase, &[("web", a.addr)])];
    let more = json!({"limits": {"wait": "30s"}});
    let running = Running::with(gateways(more), members(Phase::Starting)).await;
    let mut client = running.connect().await;
    eventually("it waits", async || running.metric("queue", "") == 1).await;
    running.views.send_replace(view(members(Phase::Ready)));
    assert_eq!(greeting(&mut client).await, "a");
}

#[tokio::test]
async fn a_balancer_that_would_forward_to_itself_does_not_start() {
    let role = Role::Service { service: LoadBalancer.service_type().into(), shard: None };
    let (context, _failures) = Context::for_test(role);
    let settings = json!({"listeners": [listener(json!({"service": "load_balancer"}), json!({}))]});
    let started = LoadBalancer.prepare(&settings).unwrap_or_else(|error| panic!("{error}"));
    let Err(error) = started.start(context).await else { panic!("it leads to itself") };
    assert!(error.to_string().contains("would forward to its own service"), "{error}");
}

#[tokio::test]
async fn a_drain_refuses_new_connections_and_waits_for_the_open_ones() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], json!({})).await;
    let mut client = running.connect().await;
    assert_eq!(greeting(&mut client).await, "a");
    let service = Arc::clone(&running.service);
    let draining = async { service.drain(Instant::now() + PATIENCE).await };
    let using = async {
        // Connecting would keep it open.
        eventually("nobody listens", async || TcpListener::bind(running.addr("main")).await.is_ok()).await;
        client.write_u8(5).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), 5);
        drop(client);
        Instant::now()
    };
    let began = Instant::now();
    let ((), ended) = timeout(PATIENCE, async { tokio::join!(draining, using) }).await.unwrap();
    assert!(ended >= began);
    running.service.stop().await.unwrap();
}

#[tokio::test]
async fn connections_that_outlive_the_drain_are_reset() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], json!({"timeouts": {"drain": "50ms"}})).await;
    let mut client = running.connect().await;
    assert_eq!(greeting(&mut client).await, "a");
    let drain = running.service.drain(Instant::now() + 10 * PATIENCE);
    timeout(PATIENCE, drain).await.expect("the listener's own limit is shorter");
    client.write_u8(5).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 5, "it lives until the stop");
    timeout(PATIENCE, running.service.stop()).await.unwrap().unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_busy_port_is_named_and_the_other_listeners_are_closed_again() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let role = Role::Service { service: LoadBalancer.service_type().into(), shard: None };
    let (context, _failures) = Context::for_test(role);
    let backends = json!([{"address": "127.0.0.1:1"}]);
    let settings = json!({"listeners": [
        {"name": "free", "address": "127.0.0.1:0", "backends": backends},
        {"name": "busy", "address": taken.local_addr().unwrap().to_string(), "backends": backends},
    ]});
    let prepared = LoadBalancer.prepare(&settings).unwrap_or_else(|error| panic!("{error}"));
    let Err(error) = prepared.start(context.clone()).await else { panic!("the port is taken") };
    assert!(error.to_string().contains("busy"), "{error}");
    let url = context.endpoints.urls()["free"].clone();
    let free: SocketAddr = url.strip_prefix("tcp://").unwrap().parse().unwrap();
    assert!(TcpStream::connect(free).await.is_err(), "the first one is closed again");
}
