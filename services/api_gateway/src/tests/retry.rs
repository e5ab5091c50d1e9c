//! Which failed requests of a route are sent again.

use super::*;

/// Answers with this status until it was asked often enough, then with 200.
async fn failing(times: usize, status: u16, retry_after: Option<&'static str>) -> Upstream {
    let asked = Arc::new(AtomicUsize::new(0));
    Upstream::serving(move |request: Request<Incoming>| {
        let is_late = asked.fetch_add(1, Ordering::SeqCst) >= times;
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut answer = text(if is_late { body } else { Bytes::from_static(b"failed") });
            if !is_late {
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                if let Some(after) = retry_after {
                    answer.headers_mut().insert("retry-after", after.parse().unwrap());
                }
            }
            answer
        }
    })
    .await
}

fn route(upstream: &Upstream, retry: &Value) -> Value {
    json!({"routes": [{"prefix": "/", "to": [upstream.url().to_string()], "retry": retry}]})
}

async fn ask(gateway: &Running, method: &str, body: &'static str) -> (u16, String) {
    let request = Request::builder().method(method).uri(format!("http://{}/", gateway.addr));
    let answer = send(request, body).await;
    (answer.status().as_u16(), whole(answer).await)
}

#[tokio::test]
async fn an_answer_with_one_of_the_statuses_is_repeated_if_the_method_is_idempotent() {
    let codes = || json!({"codes": [502, 503]});
    for (times, status, after, retry, method, expected, hits) in [
        (2, 502, None, codes(), "PUT", (200, "body"), 3),
        (2, 502, None, codes(), "POST", (502, "failed"), 1),
        (2, 504, None, codes(), "PUT", (504, "failed"), 1),
        (9, 502, None, codes(), "PUT", (502, "failed"), 3),
        (9, 502, None, json!({"codes": [502], "attempts": 2}), "PUT", (502, "failed"), 2),
        (1, 503, Some("1"), codes(), "PUT", (200, "body"), 2),
        (1, 503, Some("2"), codes(), "PUT", (503, "failed"), 1),
        (2, 502, None, json!({}), "PUT", (502, "failed"), 1),
    ] {
        let upstream = failing(times, status, after).await;
        let gateway = Running::with(route(&upstream, &retry), Vec::new()).await;
        let found = ask(&gateway, method, "body").await;
        let shown = format!("{times} x {status} {after:?} {retry} {method}");
        assert_eq!((found.0, found.1.as_str()), expected, "{shown}");
        assert_eq!(upstream.hits(), hits, "{shown}");
    }
}

#[tokio::test]
async fn a_repeated_status_is_in_the_log_and_in_the_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = failing(1, 502, None).await;
    let mut settings = route(&upstream, &json!({"codes": [502]}));
    settings["access_log"] = json!({"to": path});
    let gateway = Running::with(settings, Vec::new()).await;
    assert_eq!(ask(&gateway, "GET", "").await.0, 200);
    let began = std::time::Instant::now();
    let line: Value = loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(line) = text.lines().next().filter(|_| text.ends_with('\n')) {
            break serde_json::from_str(line).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "no line");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(
        (&line["attempts"], &line["retry_reason"], &line["status"]),
        (&json!(2), &json!("status"), &json!(200))
    );
    let counted = gateway.context.mesh.upstream_counts().retries;
    assert!(counted.contains(&(mesh::RetryReason::Status, 1)), "{counted:?}");
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_kept_is_not_sent_again() {
    const LONG: &str = include_str!("compression.rs");
    let upstream = failing(1, 502, None).await;
    let gateway = Running::with(route(&upstream, &json!({"codes": [502]})), Vec::new()).await;
    let body: &'static str = Box::leak(LONG.repeat(400_000_usize.div_ceil(LONG.len())).into_boxed_str());
    assert_eq!(ask(&gateway, "PUT", body).await, (502, "failed".to_owned()));
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn a_members_answer_is_repeated_at_another_member() {
    let (bad, good) = (failing(99, 502, None).await, failing(0, 200, None).await);
    let members = vec![
        member("n1", "key_value", bad.addr, Phase::Ready),
        member("n2", "key_value", good.addr, Phase::Ready),
    ];
    let settings = json!({"routes": [{"prefix": "/", "service": "key_value", "retry": {"codes": [502]}}]});
    let gateway = Running::with(settings, members).await;
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "GET", "").await.0, 200);
    }
    assert!(good.hits() == 10 && bad.hits() <= 10, "{} and {}", good.hits(), bad.hits());
}

#[tokio::test]
async fn a_route_may_repeat_only_some_failures() {
    let breaks = Upstream::raw(|mut stream: TcpStream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let closed = closed_port().await.to_string();
    let works = failing(0, 200, None).await;
    let (breaks_at, works_at) = (breaks.url().to_string(), works.url().to_string());
    let gateway = Running::with(
        json!({"routes": [
            {"prefix": "/reset", "to": [breaks_at], "retry": {"on": ["connect"]}},
            {"prefix": "/both", "to": [breaks_at]},
            {"prefix": "/connect", "backends": [{"url": closed, "weight": 1000}, {"url": works_at}], "retry": {"on": ["reset"]}},
        ]}),
        Vec::new(),
    )
    .await;
    assert_eq!(gateway.get("/reset").await.status(), 502);
    assert_eq!(breaks.hits(), 1, "no second attempt");
    assert_eq!(gateway.get("/both").await.status(), 502);
    assert_eq!(breaks.hits(), 4);
    assert_eq!(gateway.problem("/connect").await.code(), "unreachable");
    assert_eq!(works.hits(), 0);
}
