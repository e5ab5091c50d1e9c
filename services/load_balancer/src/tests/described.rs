//! The description of the balancer's HTTP API matches its answers.

use std::collections::BTreeSet;

use super::*;

fn keys(of: &Value) -> BTreeSet<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Whether an answer has all required keys and only described ones, in itself and below.
fn matches(answer: &Value, schema: &Value, seen: &mut BTreeSet<String>) {
    if let Some(items) = answer.as_array() {
        items.iter().for_each(|item| matches(item, &schema["items"], seen));
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    let required = schema["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    assert!(keys(answer).is_superset(&required), "{answer} lacks some of {required:?}");
    for (key, value) in answer.as_object().unwrap() {
        let schema = properties.get(key).unwrap_or_else(|| panic!("{key} is not described"));
        seen.insert(key.clone());
        if let Some(words) = schema["enum"].as_array() {
            assert!(words.contains(value), "{key} is {value}");
        }
        matches(value, schema, seen);
    }
}

#[tokio::test]
async fn the_list_of_backends_is_as_described() {
    let (a, dead) = (Backend::greeting("a").await, closed_addr());
    let sni = json!([
        {"hosts": ["a.example"], "backends": [{"address": a.addr}, {"address": dead, "backup": true}]},
        {"hosts": ["b.example"], "service": "api_gateway"},
        {"hosts": ["c.example"], "service": "storage"},
        {"hosts": ["d.example"], "backends": [{"address": "no-such-host.invalid:1"}]},
    ]);
    let listener = listener(json!({"sni": sni}), json!({}));
    let members = vec![member("g", "api_gateway", Phase::Ready, &[("gateway", a.addr)])];
    let running = Running::with(json!([listener]), members).await;
    eventually("the name is not found", async || {
        running.backends().await["listeners"][0]["targets"][3]["backends"][0]["state"] == "unresolved"
    })
    .await;
    let paths = LoadBalancer.openapi_paths();
    assert_eq!(keys(&paths), BTreeSet::from(["/backends"]));
    let schema = &paths["/backends"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    let mut seen = BTreeSet::new();
    matches(&running.backends().await, schema, &mut seen);
    for key in ["hosts", "service", "listener", "why", "member", "state"] {
        assert!(seen.contains(key), "{key} was not shown");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_a_hint() {
    let a = Backend::greeting("a").await;
    let running = Running::over(&[&a], json!({})).await;
    for (method, path, status) in [("GET", "/", 404), ("GET", "/backends/x", 404), ("PUT", "/backends", 405)]
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = running.service.clone().routes().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let problem: types::Problem = serde_json::from_slice(&body).unwrap();
        assert!(problem.hint.is_some(), "{problem:?}");
    }
}
