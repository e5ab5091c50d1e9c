//! What only operators may see is hidden from the gateway's clients: other gateways, balancers, and where routes lead.

use tower::ServiceExt;
use types::backends::Backends;

use super::*;

/// A member of a service whose name is not that of its type.
fn member_of_type(id: &str, service: &str, service_type: &str, at: SocketAddr) -> Member {
    let mut member = member(id, service, at, Phase::Ready);
    if let Some(state) = &mut member.state {
        state.service_type = Some(service_type.parse().unwrap());
    }
    member
}

async fn members(upstream: &Upstream) -> Vec<Member> {
    vec![
        member("g", "api_gateway", upstream.addr, Phase::Ready),
        member("b", "load_balancer", upstream.addr, Phase::Ready),
        member_of_type("e", "edge", "api_gateway", upstream.addr),
        member_of_type("f", "front", "load_balancer", upstream.addr),
        member("s", "storage", upstream.addr, Phase::Ready),
    ]
}

#[tokio::test]
async fn no_client_reaches_the_api_of_a_gateway_or_a_balancer() {
    let upstream = Upstream::serving(reflecting).await;
    let routes = json!([{"prefix": "/inner", "service": "edge"}]);
    let gateway = Running::with(json!({"routes": routes}), members(&upstream).await).await;
    for path in [
        "/api_gateway/routes",
        "/api-gateway/routes",
        "/%61pi_gateway/routes",
        "/load_balancer/backends",
        "/edge/backends",
        "/front/backends",
        "/inner/routes",
    ] {
        let answer = gateway.get(path).await;
        let status = answer.status().as_u16();
        assert!([403, 404].contains(&status), "{path}: {status}");
        let problem: Problem = serde_json::from_str(&whole(answer).await).unwrap();
        let hint = problem.hint.unwrap();
        if status == 403 {
            assert_eq!(problem.type_uri, "urn:coterie:problem:for-operators", "{path}");
            assert!(hint.contains("ctl routes"), "{path}: {hint}");
        }
    }
    assert_eq!(upstream.hits(), 0);
    assert!(whole(gateway.get("/storage/x").await).await.starts_with("GET /svc/storage/x"));
}

#[tokio::test]
async fn a_gateway_that_is_not_known_yet_is_no_destination_once_it_is_there() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = Running::with(json!({}), members(&upstream).await[4..].to_vec()).await;
    assert_eq!(gateway.problem("/api_gateway/routes").await.code(), "for-operators");
    let all = members(&upstream).await;
    gateway.views.send_replace(view(all));
    assert_eq!(gateway.problem("/edge/routes").await.code(), "for-operators");
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test]
async fn gateways_and_balancers_are_in_no_list_for_clients_and_in_no_pool() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = Running::with(json!({}), members(&upstream).await).await;
    let index: Value = serde_json::from_str(&whole(gateway.get("/").await).await).unwrap();
    assert_eq!(index["services"], json!({"storage": 1}));

    let request = Request::get("/backends").header("host", "127.0.0.1").body(axum::body::Body::empty());
    let answer = gateway.service.clone().routes().oneshot(request.unwrap()).await.unwrap();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let shown: Backends = serde_json::from_slice(&bytes).unwrap();
    let names: Vec<_> = shown.services.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["storage"]);
    let series = gateway.context.mesh.upstream_series();
    assert_eq!(series.iter().map(|series| series.name.as_str()).collect::<Vec<_>>(), ["storage"]);
}

#[tokio::test]
async fn without_paths_of_services_none_of_their_names_is_shown() {
    let upstream = Upstream::serving(reflecting).await;
    let settings = json!({"services": "none", "routes": [{"prefix": "/kv", "service": "storage"}]});
    let gateway = Running::with(settings, members(&upstream).await).await;
    let index = whole(gateway.get("/").await).await;
    let problem = gateway.problem("/api_gateway/routes").await;
    assert_eq!(problem.code(), "no-route");
    assert!(!problem.hint.unwrap_or_default().contains("storage"));
    assert!(!index.contains("storage") && !index.contains("services"), "{index}");
    assert_eq!(whole(gateway.get("/kv/x").await).await.lines().next(), Some("GET /svc/storage/x"));
}

#[tokio::test]
async fn clients_see_what_a_route_of_their_host_takes_and_not_where_it_leads() {
    let upstream = Upstream::serving(reflecting).await;
    let to = upstream.url().to_string();
    let routes = json!([
        {"name": "api", "hosts": ["shop.example"], "prefix": "/api", "methods": ["GET"], "to": [to]},
        {"name": "desk", "hosts": ["desk.example"], "prefix": "/desk", "to": [to]},
        {"path": "/one", "backends": [{"url": to}]},
    ]);
    let gateway = Running::with(json!({"routes": routes}), Vec::new()).await;
    let expected = json!([
        {"name": "api", "hosts": ["shop.example"], "prefix": "/api", "methods": ["GET"]},
        {"path": "/one"},
    ]);
    for (host, expected) in [("shop.example", &expected), ("localhost", &json!([{"path": "/one"}]))] {
        let answer =
            gateway.raw(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let index: Value = serde_json::from_str(body).unwrap();
        assert_eq!(&index["routes"], expected, "{host}: routes of other hosts are not shown");
    }
}

#[test]
fn a_route_to_a_gateway_or_a_balancer_is_a_mistake() {
    let routes = json!([
        {"prefix": "/a", "service": "api_gateway"},
        {"prefix": "/b", "service": "load-balancer"},
    ]);
    let error = ApiGateway.prepare(&json!({"routes": routes})).err().unwrap().to_string();
    for pointer in ["/routes/0/service", "/routes/1/service", "for operators"] {
        assert!(error.contains(pointer), "{error}");
    }
}

#[tokio::test]
async fn values_of_headers_that_may_be_secrets_are_in_no_answer_and_routes_stay_apart() {
    let route = |key: &str| json!({"prefix": "/a", "headers": {"x-api-key": key}, "answer": {}});
    let settings = json!({"routes": [route("s3cret-1"), route("s3cret-2")], "services": "none"});
    let gateway = Running::with(settings, Vec::new()).await;
    assert!(!whole(gateway.get("/").await).await.contains("s3cret"));
    let explained = explained(&gateway, "?test=/a&header=x-api-key:%20s3cret-2").await.to_string();
    assert!(explained.contains("another value than the route asks for"), "{explained}");
    assert!(explained.contains(r#""place":"/routes/1""#) && !explained.contains("s3cret"), "{explained}");
}

#[tokio::test]
async fn an_example_with_the_fields_of_a_proxy_is_explained_as_a_trusted_one_sends_it() {
    let routes = json!([{"prefix": "/a", "headers": {"x-forwarded-proto": "http"}, "answer": {}}]);
    let example = "?test=/a&header=x-forwarded-proto:%20http";
    let gateway = Running::with(json!({"routes": routes}), Vec::new()).await;
    let found = explained(&gateway, example).await;
    assert_eq!((&found["route"], &found["is_of_proxy"]), (&Value::Null, &Value::Null), "{found}");
    let settings = json!({"routes": routes, "trust": ["10.0.0.0/8"]});
    let gateway = Running::with(settings, Vec::new()).await;
    let found = explained(&gateway, example).await;
    assert_eq!(
        (&found["route"]["place"], &found["is_of_proxy"]),
        (&json!("/routes/0"), &json!(true)),
        "{found}"
    );
    assert_eq!(explained(&gateway, "?test=/a&header=x-b:%201").await["is_of_proxy"], Value::Null);
}

/// What `GET /routes` on the agent's listener answers.
async fn explained(gateway: &Running, query: &str) -> Value {
    let request = Request::get(format!("/routes{query}")).body(axum::body::Body::empty()).unwrap();
    let answer = gateway.service.clone().routes().oneshot(request).await.unwrap();
    serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
}
