//! Active checks of a route's addresses, and what they decide.

use types::backends::{BackendState, Backends};

use super::*;

/// A server whose health check answers with a status that can be changed.
async fn server(name: &'static str) -> (Upstream, Arc<AtomicUsize>) {
    let status = Arc::new(AtomicUsize::new(200));
    let now = Arc::clone(&status);
    let server = Upstream::serving(move |request| {
        let status = now.load(Ordering::SeqCst);
        async move {
            let mut answer = text(name);
            if request.uri().path() == "/up" {
                *answer.status_mut() = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap();
            }
            answer
        }
    });
    (server.await, status)
}

async fn checking(servers: [&Upstream; 2], check: Value) -> Running {
    let to: Vec<_> = servers.iter().map(|server| server.url().to_string()).collect();
    let route = json!({"name": "shop", "prefix": "/", "to": to, "check": check});
    Running::with(json!({"routes": [route]}), Vec::new()).await
}

async fn states(gateway: &Running) -> Vec<(BackendState, Option<String>)> {
    let request = Request::get("/backends").header("host", "127.0.0.1").body(axum::body::Body::empty());
    let routes = gateway.service.clone().routes();
    let answer = tower::ServiceExt::oneshot(routes, request.unwrap()).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let backends: Backends = serde_json::from_slice(&body).unwrap();
    backends.routes[0].backends.iter().map(|backend| (backend.state, backend.why.clone())).collect()
}

/// Waits until the states are these.
async fn until_states(gateway: &Running, wanted: [BackendState; 2]) {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let found = states(gateway).await;
        if found.iter().map(|(state, _)| *state).eq(wanted) {
            return;
        }
        assert!(Instant::now() < patience, "{found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the server `good` gets a request.
async fn until_good(gateway: &Running) {
    let patience = Instant::now() + Duration::from_secs(20);
    while whole(gateway.get("/x").await).await != "good" {
        assert!(Instant::now() < patience, "it gets none");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_address_whose_check_fails_gets_no_requests_until_it_succeeds_again() {
    use BackendState::{Down, Serving};
    let ((good, good_status), (other, other_status)) = (server("good").await, server("other").await);
    let http = json!({"http": {"path": "/up"}, "every": "20ms", "rise": 2, "fall": 2, "timeout": "10s"});
    let gateway = checking([&good, &other], http).await;
    other_status.store(503, Ordering::SeqCst);
    until_states(&gateway, [Serving, Down]).await;
    assert_eq!(states(&gateway).await[1].1.as_deref(), Some("its checks fail: it answers 503"));
    for _ in 0..20 {
        assert_eq!(whole(gateway.get("/x").await).await, "good");
    }
    assert_eq!(gateway.service.health(), plugin::Health::Ready, "one address is enough");

    good_status.store(500, Ordering::SeqCst);
    until_states(&gateway, [Down, Down]).await;
    let problem = gateway.problem("/x").await;
    assert_eq!((problem.status, problem.code()), (503, "no-backend"));
    let plugin::Health::Degraded(reason) = gateway.service.health() else { panic!("it is not degraded") };
    let text = format!("{reason:?}");
    assert!(
        text.contains("no-backend") && text.contains("route shop") && text.contains("answers 500"),
        "{text}"
    );

    other_status.store(200, Ordering::SeqCst);
    until_states(&gateway, [Down, Serving]).await;
    assert_eq!(whole(gateway.get("/x").await).await, "other");
    good_status.store(200, Ordering::SeqCst);
    until_good(&gateway).await;
}

#[tokio::test]
async fn a_server_without_grpc_health_is_down() {
    let ((one, _), (other, _)) = (server("one").await, server("other").await);
    let grpc = json!({"grpc": {"service": "shop.v1.Orders"}, "every": "20ms", "timeout": "10s"});
    let gateway = checking([&one, &other], grpc).await;
    until_states(&gateway, [BackendState::Down, BackendState::Down]).await;
    assert_eq!(gateway.problem("/x").await.code(), "no-backend");
}

#[tokio::test]
async fn a_draining_gateway_sends_no_checks() {
    let ((one, _), (other, _)) = (server("one").await, server("other").await);
    let gateway = checking([&one, &other], json!({"http": {"path": "/up"}, "every": "10ms"})).await;
    until(|| one.hits() > 1).await;
    gateway.service.drain(Instant::now() + Duration::from_secs(5)).await;
    let hits = one.hits();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One may have been on its way.
    assert!(one.hits() <= hits + 1, "{} after {hits}", one.hits());
}
