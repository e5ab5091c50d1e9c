//! Where requests go that have something in common, and how the others are spread.

use std::collections::BTreeSet;

use super::*;

/// Servers, each of which answers with its number.
async fn servers(number: usize) -> Vec<Upstream> {
    let mut servers = Vec::new();
    for at in 0..number {
        servers.push(Upstream::serving(move |_| async move { text(at.to_string()) }).await);
    }
    servers
}

async fn before(servers: &[Upstream], settings: Value) -> Running {
    let mut route = settings;
    route["prefix"] = json!("/");
    route["to"] = servers.iter().map(|server| server.url().to_string()).collect();
    Running::with(json!({"routes": [route], "trust": ["127.0.0.0/8"]}), Vec::new()).await
}

/// Sends a request with a field. Returns the number of the server and the cookie that is set.
async fn ask(gateway: &Running, name: &str, value: &str) -> (usize, Option<String>) {
    let mut request = Request::get(format!("http://{}/x", gateway.addr));
    if !name.is_empty() {
        request = request.header(name, value);
    }
    let answer = send(request, "").await;
    assert_eq!(answer.status(), 200);
    let cookie = answer.headers().get("set-cookie").map(|line| line.to_str().unwrap().to_owned());
    (whole(answer).await.parse().unwrap(), cookie)
}

/// The servers that get twelve requests, each with a field of its own.
async fn reached(gateway: &Running, name: &str, value: impl Fn(usize) -> String) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for number in 0..12 {
        found.insert(ask(gateway, name, &value(number)).await.0);
    }
    found
}

#[tokio::test]
async fn requests_with_one_value_of_a_header_reach_one_server() {
    let servers = servers(4).await;
    let gateway = before(&servers, json!({"affinity": {"header": "x-user"}})).await;
    assert_eq!(reached(&gateway, "x-user", |_| "ann".to_owned()).await.len(), 1);
    assert!(reached(&gateway, "x-user", |number| format!("user-{number}")).await.len() > 1);
    assert!(reached(&gateway, "", |_| String::new()).await.len() > 1, "those without it are spread");
}

#[tokio::test]
async fn requests_of_one_client_reach_one_server_even_behind_a_proxy() {
    let servers = servers(4).await;
    let gateway = before(&servers, json!({"affinity": "client"})).await;
    assert_eq!(reached(&gateway, "", |_| String::new()).await.len(), 1);
    let of_one = reached(&gateway, "x-forwarded-for", |number| format!("198.51.100.{number}, 192.0.2.7"));
    assert_eq!(of_one.await.len(), 1, "the client is the rightmost address that is not trusted");
    assert!(reached(&gateway, "x-forwarded-for", |number| format!("192.0.2.{number}")).await.len() > 1);
}

#[tokio::test]
async fn a_client_that_returns_its_cookie_stays_at_its_server() {
    let servers = servers(4).await;
    let gateway = before(&servers, json!({"affinity": {"cookie": "shop-affinity"}})).await;
    let mut homes = BTreeSet::new();
    for _ in 0..12 {
        let (home, cookie) = ask(&gateway, "", "").await;
        let cookie = cookie.unwrap();
        let pair = cookie.split(';').next().unwrap();
        assert!(pair.starts_with("shop-affinity="), "{cookie}");
        let again = ask(&gateway, "cookie", &format!("theme=dark; {pair}")).await;
        assert_eq!(again, (home, None), "and it gets no other cookie");
        homes.insert(home);
    }
    assert!(homes.len() > 1, "clients are spread");
}

#[tokio::test]
async fn only_the_clients_of_a_server_that_is_gone_move_and_they_return() {
    let mut servers = servers(4).await;
    let gateway = before(&servers, json!({"affinity": {"header": "x-user"}})).await;
    let mut homes = Vec::new();
    for user in 0..20 {
        homes.push(ask(&gateway, "x-user", &user.to_string()).await.0);
    }
    let gone = homes[0];
    drop(servers.remove(gone));
    for (user, home) in homes.iter().enumerate() {
        let now = ask(&gateway, "x-user", &user.to_string()).await.0;
        assert_eq!(now == *home, *home != gone, "user {user} from {home} to {now}, {gone} is gone");
    }
}

#[tokio::test]
async fn round_robin_gives_each_server_its_turn() {
    let servers = servers(3).await;
    let gateway = before(&servers, json!({"balance": "round_robin"})).await;
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(ask(&gateway, "", "").await.0);
    }
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test]
async fn least_connections_avoids_a_server_that_holds_its_requests() {
    let slow = Upstream::serving(|_| std::future::pending()).await;
    let fast = Upstream::serving(async |_| text("1")).await;
    let servers = [slow, fast];
    let gateway = before(&servers, json!({"balance": "least_connections"})).await;
    let url = format!("http://{}/x", gateway.addr);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut held = JoinSet::new();
    // Of two idle servers either may be chosen.
    while servers[0].hits() == 0 {
        let before = servers[1].hits();
        let (client, url) = (client.clone(), url.clone());
        held.spawn(async move { client.get(url.parse().unwrap()).await.is_ok() });
        until(|| servers[0].hits() == 1 || servers[1].hits() > before).await;
    }
    for _ in 0..20 {
        until(|| gateway.metric("in_flight", "") == 1).await;
        assert_eq!(ask(&gateway, "", "").await.0, 1);
    }
}

#[tokio::test]
async fn routes_say_how_they_choose() {
    let gateway = Running::with(
        json!({"routes": [
            {"path": "/a", "to": ["http://127.0.0.1:1"], "affinity": {"cookie": "sid"}},
            {"path": "/b", "backends": [{"url": "http://127.0.0.1:1"}]},
            {"path": "/c", "service": "storage", "balance": "least_connections"},
            {"path": "/d", "answer": {}},
        ]}),
        Vec::new(),
    )
    .await;
    let answer = tower::ServiceExt::oneshot(
        gateway.service.clone().routes(),
        Request::get("/routes").header("host", "127.0.0.1").body(axum::body::Body::empty()).unwrap(),
    )
    .await
    .unwrap();
    let routes: Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let shown: Vec<_> = routes["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| (&route["affinity"], &route["balance"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("cookie sid"), &Value::Null),
            (&Value::Null, &json!("weights")),
            (&Value::Null, &json!("least_connections")),
            (&Value::Null, &Value::Null),
        ]
    );
}
