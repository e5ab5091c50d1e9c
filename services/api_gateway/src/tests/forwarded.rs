//! `Forwarded` behind trusted proxies and strangers, as servers see it.

use super::*;

/// The forwarding fields that a server gets.
async fn arrived(gateway: &Running, path: &str, lines: &[&str]) -> Vec<String> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: own.example\r\nconnection: close\r\n{lines}\r\n");
    let answer = gateway.raw(request).await;
    let fields = answer.lines().filter(|line| {
        ["forwarded:", "x-forwarded-for:", "x-forwarded-proto:", "x-forwarded-host:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let mut fields: Vec<_> = fields.map(ToOwned::to_owned).collect();
    fields.sort();
    fields
}

async fn gateway(upstream: &Upstream, trust: Value) -> Running {
    let to = json!([upstream.url().to_string()]);
    let limits = json!({"rate": {"requests": 1, "per": "1h"}});
    let routes = json!([
        {"prefix": "/", "to": to},
        {"prefix": "/asked", "to": to, "forwarded": true},
        {"prefix": "/limited", "to": to, "limits": limits},
    ]);
    Running::with(json!({"trust": trust, "routes": routes}), Vec::new()).await
}

const BY_PROXY: &str = r#"Forwarded: for=9.9.9.9;proto=https;host=f.example, for="[2001:db8::1]:99""#;

#[tokio::test]
async fn behaviour_5_forwarded_of_a_trusted_proxy_is_extended_and_the_other_fields_say_the_same() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(&upstream, json!(["127.0.0.0/8", "2001:db8::/32"])).await;
    for path in ["/x", "/asked/x"] {
        let expected = [
            r#"forwarded: for=9.9.9.9;proto=https;host=f.example, for="[2001:db8::1]:99", for=127.0.0.1"#,
            "x-forwarded-for: 9.9.9.9, 2001:db8::1, 127.0.0.1",
            "x-forwarded-host: f.example",
            "x-forwarded-proto: https",
        ];
        assert_eq!(arrived(&gateway, path, &[BY_PROXY]).await, expected, "{path}");
    }
}

#[tokio::test]
async fn behaviour_5_forwarded_that_contradicts_is_removed_and_that_of_a_stranger_too() {
    let upstream = Upstream::serving(reflecting).await;
    for (trust, lines, expected) in [
        (
            json!(["127.0.0.1"]),
            &["Forwarded: for=9.9.9.9", "X-Forwarded-For: 8.8.8.8"][..],
            "8.8.8.8, 127.0.0.1",
        ),
        (json!(["127.0.0.1"]), &["Forwarded: for=\"oops"], "127.0.0.1"),
        (json!([]), &[BY_PROXY, "X-Forwarded-For: 8.8.8.8"], "127.0.0.1"),
    ] {
        let gateway = gateway(&upstream, trust).await;
        let expected = [
            &*format!("x-forwarded-for: {expected}"),
            "x-forwarded-host: own.example",
            "x-forwarded-proto: http",
        ];
        assert_eq!(arrived(&gateway, "/x", lines).await, expected, "{lines:?}");
    }
}

#[tokio::test]
async fn a_route_may_ask_for_forwarded() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(&upstream, json!([])).await;
    let fields = arrived(&gateway, "/asked/x", &[BY_PROXY]).await;
    assert_eq!(fields[0], r#"forwarded: for=127.0.0.1;host="own.example";proto=http"#);
    assert!(!arrived(&gateway, "/x", &[]).await.iter().any(|line| line.starts_with("forwarded")));
}

#[tokio::test]
async fn behaviour_5_limits_are_per_client_behind_a_proxy_that_writes_forwarded() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(&upstream, json!(["127.0.0.1"])).await;
    for (client, status) in [("1.1.1.1", 200), ("2.2.2.2", 200), ("1.1.1.1", 429)] {
        let request = Request::get(format!("http://{}/limited/x", gateway.addr));
        let request = request.header("forwarded", format!("for=7.7.7.7, for={client}"));
        assert_eq!(send(request, "").await.status(), status, "{client}");
    }
}

#[test]
fn a_route_without_a_server_can_not_ask_for_forwarded() {
    let routes = json!([{"prefix": "/", "answer": {"body": "own"}, "forwarded": true}]);
    let error = ApiGateway.prepare(&json!({"routes": routes})).err().unwrap().to_string();
    assert!(error.contains("/routes/0/forwarded"), "{error}");
}
