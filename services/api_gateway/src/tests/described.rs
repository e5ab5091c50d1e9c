//! The description of what an agent's listener shows of a gateway matches its answers, and each error has a status.

use std::collections::BTreeSet;

use tower::ServiceExt;

use super::*;

fn keys(of: &Value) -> BTreeSet<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The answer of the service's router, as the agent mounts it.
async fn below_svc(gateway: &Running, method: &str, path: &str) -> (u16, String) {
    let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = gateway.service.clone().routes().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn each_path_that_is_described_is_answered_as_described() {
    let upstream = Upstream::serving(reflecting).await;
    let members = vec![member("n1", "key_value", upstream.addr, Phase::Ready)];
    let gateway = Running::with(json!({}), members).await;
    let paths = ApiGateway.openapi_paths();
    assert_eq!(keys(&paths), BTreeSet::from(["/backends", "/routes"]));
    for path in ["/backends", "/routes"] {
        assert_eq!(keys(&paths[path]), BTreeSet::from(["get"]));
        let (status, body) = below_svc(&gateway, "GET", path).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let shown = &paths["/backends"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    let (_, backends) = below_svc(&gateway, "GET", "/backends").await;
    assert_eq!(keys(&serde_json::from_str(&backends).unwrap()), keys(&shown["properties"]));
    // The listener's own index.
    let index: Value = serde_json::from_str(&whole(gateway.get("/").await).await).unwrap();
    assert_eq!(keys(&index), BTreeSet::from(["node", "routes", "services"]));
}

#[tokio::test]
async fn each_error_of_the_gateway_has_a_status_of_its_own() {
    let silent = Upstream::serving(|_| std::future::pending()).await;
    let based = Upstream::serving(reflecting).await;
    let reading = Upstream::serving(|request: Request<Incoming>| async {
        let _ = request.into_body().collect().await;
        text("read")
    })
    .await;
    let settings = json!({
        "routes": [
            {"prefix": "/reading", "to": [reading.url().to_string()]},
            {"prefix": "/closed", "to": ["http://127.0.0.1:1"]},
            {"prefix": "/silent", "to": [silent.url().to_string()]},
            {"prefix": "/based", "to": [format!("{}/base", based.url())]},
            {"prefix": "/small", "to": [based.url().to_string()], "limits": {"body": 0}},
            {"prefix": "/keys", "to": [based.url().to_string()], "keys": "all"},
            {"prefix": "/rate", "to": [based.url().to_string()], "limits": {"rate": {"requests": 1, "per": "1h"}}},
        ],
        "keys": {"all": {"sha256": ["0".repeat(64)]}},
        "response_timeout": "100ms",
        "idle_timeout": "100ms",
        "wait": "0s",
    });
    let members = vec![member("n1", "key_value", based.addr, Phase::Starting)];
    let gateway = Running::with(settings, members).await;
    gateway.raw("GET /rate/x HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await;
    let mut seen = BTreeSet::new();
    for (path, more) in [
        ("/based/../x", ""),
        ("/key_value/x", "sec-fetch-site: cross-site\r\n"),
        ("/nothing/x", ""),
        ("/reading/x", "content-length: 9\r\n"),
        ("/closed/x", ""),
        ("/key_value/x", ""),
        ("/silent/x", ""),
        ("/based/x", "cdn-loop: coterie, coterie, coterie, coterie\r\n"),
        ("/small/x", "content-length: 1\r\n"),
        ("/keys/x", ""),
        ("/rate/x", ""),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{more}\r\n");
        let answer = gateway.raw(&head).await;
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(answer.contains("application/problem+json"), "{path} {more}: {answer}");
        assert!(seen.insert(status), "{path} {more} is answered as another one: {answer}");
    }
    let expected = ["400", "401", "403", "404", "408", "413", "429", "502", "503", "504", "508"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
