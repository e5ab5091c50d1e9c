//! The backends that a gateway shows, and what it does with them.

use tower::ServiceExt;
use types::backends::{BackendPool, BackendState, Backends};

use super::*;

/// The answer to `GET /svc/{service}/backends` on the agent's listener.
async fn shown(gateway: &Running) -> Backends {
    let request = Request::get("/backends").header("host", "127.0.0.1").body(axum::body::Body::empty());
    let answer = gateway.service.clone().routes().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

fn states(pool: &BackendPool) -> Vec<BackendState> {
    pool.backends.iter().map(|backend| backend.state).collect()
}

async fn failing(request: Request<Incoming>) -> Answer {
    let mut answer = echoing(request).await;
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

#[tokio::test]
async fn the_backends_of_services_and_routes_are_shown_with_their_states() {
    let (good, bad) = (Upstream::serving(echoing).await, Upstream::serving(failing).await);
    let members = vec![
        member("n1", "key_value", good.addr, Phase::Ready),
        member("n2", "key_value", bad.addr, Phase::Draining),
    ];
    let to = [good.url().to_string(), bad.url().to_string()];
    let gateway = Running::with(json!({"routes": [{"prefix": "/files", "to": to}]}), members).await;
    gateway.get("/key_value/x").await;
    while bad.hits() < 5 {
        gateway.get("/files/x").await;
    }
    let backends = shown(&gateway).await;
    assert_eq!(backends.node.as_str(), "test-node");
    let [service] = &backends.services[..] else { panic!("{backends:?}") };
    assert_eq!((service.name.as_str(), service.panic), ("key_value", false));
    assert_eq!(states(service), [BackendState::Serving, BackendState::Draining]);
    assert_eq!(service.backends[0].node.as_ref().unwrap().as_str(), "n1");
    assert!(service.backends[0].estimate_ms.is_some() && service.backends[1].estimate_ms.is_none());

    let [route] = &backends.routes[..] else { panic!("{backends:?}") };
    assert_eq!(route.name, "/files");
    assert_eq!(states(route), [BackendState::Serving, BackendState::Ejected]);
    let ejected = &route.backends[1];
    assert_eq!((&ejected.address, ejected.why.as_deref()), (&to[1], Some("5 requests in a row failed")));
    assert!(ejected.until_ms.is_some());
    assert_eq!(ejected.weight, 0.0);
    let series = gateway.context.mesh.upstream_series();
    let files = series.iter().find(|series| series.name == "/files").unwrap();
    let shown: Vec<_> =
        files.members.iter().map(|member| (member.is_up, member.is_ejected, member.weight)).collect();
    assert_eq!(shown, [(true, false, 1.0), (false, true, 0.0)]);
    assert_eq!(files.members[1].attempts[5], ("5xx", 5));
    assert!(files.read.durations.count() >= 5 && files.read.waiting == 0);
}

#[tokio::test]
async fn backends_can_only_be_read_and_only_on_the_agents_listener() {
    let gateway = Running::with(json!({}), Vec::new()).await;
    let request = Request::delete("/backends").body(axum::body::Body::empty()).unwrap();
    let answer = gateway.service.clone().routes().oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &"GET, HEAD".parse().unwrap()));
    assert_eq!(gateway.get("/backends").await.status(), 404, "clients of the gateway don't see them");
}

#[tokio::test]
async fn only_a_trusted_proxy_sets_a_deadline() {
    let upstream = Upstream::serving(reflecting).await;
    for (trust, expected) in [(json!([]), 200), (json!(["127.0.0.1"]), 504)] {
        let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
        let gateway = Running::with(json!({"routes": routes, "trust": trust}), Vec::new()).await;
        let hits = upstream.hits();
        let request = Request::get(format!("http://{}/x", gateway.addr)).header(api::DEADLINE_MS, "0");
        let answer = send(request, "").await;
        assert_eq!(answer.status(), expected, "{trust}");
        let was_sent = upstream.hits() > hits;
        assert_eq!(was_sent, expected == 200);
        let body = whole(answer).await;
        assert!(!body.contains(api::DEADLINE_MS), "{body}");
        assert_eq!(body.contains("deadline-passed"), expected == 504, "{body}");
    }
}

#[tokio::test]
async fn a_backend_is_unreachable_with_the_reason_until_a_connection_succeeds() {
    let plain = Upstream::serving(echoing).await;
    let closed = closed_port().await;
    let tls = plain.url().to_string().replace("http://", "https://");
    let settings = json!({"connect_timeout": "500ms", "routes": [
        {"prefix": "/refused", "to": [closed.to_string()], "retry": {"attempts": 1}},
        {"prefix": "/unknown", "to": ["http://no-such-host.invalid:80"], "retry": {"attempts": 1}},
        {"prefix": "/tls", "to": [tls], "retry": {"attempts": 1}},
        {"prefix": "/fine", "to": [plain.url().to_string()]},
    ]});
    let gateway = Running::with(settings, Vec::new()).await;
    for path in ["/refused", "/unknown", "/tls"] {
        assert_eq!(gateway.get(path).await.status(), 502, "{path}");
    }
    gateway.get("/fine").await;
    // Long enough to be tried again: it has failed all the same.
    tokio::time::sleep(gateway.context.mesh.limits().avoid + Duration::from_millis(100)).await;
    let all = shown(&gateway).await.routes;
    let mut reasons = Vec::new();
    for pool in &all[..3] {
        let backend = &pool.backends[0];
        assert_eq!((backend.state, backend.weight), (BackendState::Unreachable, 0.0), "{backend:?}");
        assert_eq!(backend.estimate_ms, None, "it never answered: {backend:?}");
        reasons.push(backend.why.clone().unwrap());
    }
    assert!(reasons[0].contains("refused"), "{reasons:?}");
    assert!(reasons[0] != reasons[1] && reasons[1] != reasons[2], "{reasons:?}");
    assert_eq!(states(&all[3]), [BackendState::Serving]);
    let up = |series: &mesh::UpstreamSeries| series.members.iter().all(|member| member.is_up);
    let series = gateway.context.mesh.upstream_series();
    let up: Vec<_> = series.iter().map(|series| (series.name.as_str(), up(series))).collect();
    assert_eq!(up, [("/fine", true), ("/refused", false), ("/tls", false), ("/unknown", false)]);
}

#[tokio::test]
async fn retries_connects_and_connections_are_counted_for_each_route() {
    let fine = Upstream::serving(echoing).await;
    let closed = closed_port().await;
    let gateway = Running::with(
        json!({"routes": [
            {"prefix": "/fine", "to": [fine.url().to_string()]},
            {"prefix": "/half", "backends": [{"url": closed.to_string(), "weight": 1000}, {"url": fine.url().to_string()}]},
        ]}),
        Vec::new(),
    )
    .await;
    gateway.get("/fine").await;
    let began = std::time::Instant::now();
    while gateway.context.mesh.upstream_series()[1].read.retries[0] == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no request was sent a second time");
        gateway.get("/half").await;
    }
    let series = gateway.context.mesh.upstream_series();
    let [one, half] = &series[..] else { panic!("{series:?}") };
    assert_eq!((one.name.as_str(), half.name.as_str()), ("/fine", "/half"));
    assert_eq!(one.read.retries, [0; 6], "another route was retried");
    assert_eq!(one.read.connects, [1, 0, 0, 0, 0]);
    assert!(half.read.connects[1] >= 1, "refused: {:?}", half.read);
    // The bodies of the answers were dropped; their connections may just be closing.
    let all = gateway.context.mesh.upstream_counts();
    assert!(one.read.open >= one.read.idle && all.active + all.idle <= 1 + half.read.connects[0] as usize);
    let total = |at: usize| one.read.connects[at] + half.read.connects[at];
    assert_eq!(all.connects.map(|(_, count)| count), std::array::from_fn(total));
}
