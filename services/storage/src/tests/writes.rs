//! Conditions, times to live, batches and imports over HTTP.

use super::*;

impl Node {
    async fn given(&self, method: &str, path: &str, header: (&str, &str)) -> Answer {
        let request = Request::builder().method(method).uri(path).header(header.0, header.1);
        self.send(request.body(Body::from("1")).unwrap()).await
    }
}

fn etag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_write_happens_only_if_its_condition_holds() {
    let node = Node::owning(0, json!({})).await;
    let created = node.given("PUT", "/kv/a", ("if-none-match", "*")).await;
    assert_eq!(created.status, StatusCode::OK);
    let first = etag(&created);
    assert_eq!(node.get("/kv/a").await.headers["etag"], first);

    for (method, header) in [
        ("PUT", ("if-none-match", "*")),
        ("PUT", ("if-match", "\"0\"")),
        ("DELETE", ("if-match", "\"0\"")),
        ("DELETE", ("if-none-match", "*")),
    ] {
        let failed = node.given(method, "/kv/a", header).await;
        assert_eq!(failed.status, StatusCode::PRECONDITION_FAILED, "{method} {header:?}");
        assert_eq!((failed.problem().code(), etag(&failed)), ("precondition-failed", first.clone()));
        assert!(failed.problem().hint.is_some());
    }
    let second = node.given("PUT", "/kv/a", ("if-match", &first)).await;
    assert_eq!(second.status, StatusCode::OK);
    assert!(etag(&second) != first);
    assert_eq!(node.given("PUT", "/kv/a", ("if-match", "*")).await.status, StatusCode::OK);
    let late = node.given("DELETE", "/kv/a", ("if-match", &etag(&second))).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        node.given("DELETE", "/kv/a", ("if-match", &etag(&late))).await.status,
        StatusCode::NO_CONTENT
    );
    let gone = node.given("PUT", "/kv/a", ("if-match", "*")).await;
    assert_eq!((gone.status, gone.headers.get("etag")), (StatusCode::PRECONDITION_FAILED, None));
    node.stop().await;
}

#[tokio::test]
async fn an_unsupported_condition_is_refused() {
    let node = Node::owning(0, json!({})).await;
    for header in [
        ("if-match", "W/\"1\""),
        ("if-match", "\"1\", \"2\""),
        ("if-match", "1"),
        ("if-none-match", "\"1\""),
        ("if-unmodified-since", "Mon, 23 Nov 2026 11:00:00 GMT"),
    ] {
        for method in ["PUT", "DELETE"] {
            let refused = node.given(method, "/kv/a", header).await;
            assert_eq!((refused.status.as_u16(), refused.problem().code()), (400, "bad-condition"));
        }
    }
    let both = Request::put("/kv/a").header("if-match", "*").header("if-none-match", "*").body(Body::empty());
    assert_eq!(node.send(both.unwrap()).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(node.get("/kv/a").await.status, StatusCode::NOT_FOUND);
    node.stop().await;
}

#[tokio::test]
async fn a_value_has_its_expiry_in_a_header_and_then_disappears() {
    let node = Node::owning(0, json!({})).await;
    let at = |answer: &Answer| answer.headers.get(api::EXPIRES_MS)?.to_str().unwrap().parse::<u128>().ok();
    assert_eq!(node.call("PUT", "/kv/long?ttl=2h%2030m", "1").await.status, StatusCode::OK);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let (hours, got) = (2 * 3_600_000 + 30 * 60_000, node.get("/kv/long").await);
    assert!((now + hours - 60_000..=now + hours).contains(&at(&got).unwrap()));
    assert_eq!(at(&node.call("HEAD", "/kv/long", "").await), at(&got));
    assert_eq!(node.get("/kv").await.json()["keys"][0]["expires_ms"], json!(at(&got).unwrap() as u64));
    node.call("PUT", "/kv/long", "1").await;
    assert_eq!(at(&node.get("/kv/long").await), None, "the last write counts");

    assert_eq!(node.call("PUT", "/kv/short?ttl=1s", "1").await.status, StatusCode::OK);
    let due = at(&node.get("/kv/short").await).unwrap();
    while node.get("/kv/short").await.status != StatusCode::NOT_FOUND {
        assert!(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() < due + 30_000, "it never expired");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() >= due, "not before its time");
    assert_eq!(node.get("/kv/long").await.status, StatusCode::OK);
    node.stop().await;
}

#[tokio::test]
async fn the_largest_value_that_is_listed_can_be_imported_again() {
    let node = Node::owning(0, json!({})).await;
    for byte in [0xff, b'"', b'x', 0] {
        let value = vec![byte; 8 * 1024 * 1024];
        assert_eq!(node.call("PUT", "/kv/large", value.clone()).await.status, StatusCode::OK);
        let mut listed = node.get("/kv?values=true").await.json();
        let mut line = listed["keys"][0].take();
        let given = ["key", "value", "value_base64", "content_type", "expires_ms"];
        line.as_object_mut().unwrap().retain(|name, _| given.contains(&name.as_str()));
        assert_eq!(node.call("DELETE", "/kv/large", "").await.status, StatusCode::NO_CONTENT);
        let imported = node.call("POST", "/import", line.to_string()).await;
        assert_eq!((imported.status, imported.json()), (StatusCode::OK, json!({"imported": 1})), "{byte}");
        assert!(node.get("/kv/large").await.body == value, "{byte}");
    }
    node.stop().await;
}

#[tokio::test]
async fn requests_that_are_too_large_or_misdirected_are_refused() {
    let node = Node::owning(1, json!({})).await;
    for (path, most) in [("/batch", 8), ("/import", 12)] {
        let answer = node.call("POST", path, "x".repeat(most * 1024 * 1024 + 1)).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let answer = node.given("POST", path, ("content-encoding", "gzip")).await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (400, "unsupported-header"), "{path}");
        let answer =
            node.call("POST", &format!("{path}?shard=0"), r#"{"operations":[{"delete":"x"}]}"#).await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (421, "misdirected"), "{path}");
    }
    let two = 2.try_into().unwrap();
    let mut names = (0..100).map(|number| format!("key-{number}"));
    let theirs = names.find(|name| KeyHash::of_tagged(name.as_bytes()).shard(two).as_u32() == 0).unwrap();
    for (path, body) in [
        ("/batch?shard=1", format!(r#"{{"operations":[{{"delete":"{theirs}"}}]}}"#)),
        ("/import?shard=1", format!(r#"{{"key":"{theirs}","value":"1"}}"#)),
    ] {
        let answer = node.call("POST", path, body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (421, "misdirected"), "{path}");
    }
    assert_eq!(node.call("POST", "/import", "").await.json(), json!({"imported": 0}));
    let lines = "{\"key\":\"a\",\"value\":\"1\"}\n".repeat(10_001);
    let answer = node.call("POST", "/import", lines).await;
    assert_eq!((answer.status.as_u16(), answer.problem().code()), (413, "too-many-lines"));
    node.stop().await;
}

/// A body that stalls after one byte.
fn one_byte() -> Body {
    let byte =
        futures_util::stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")) });
    Body::from_stream(byte.chain(futures_util::stream::pending()))
}

#[tokio::test]
async fn bodies_that_announce_much_and_send_little_hold_no_space() {
    let node = Node::owning(0, json!({})).await;
    let mut slow = Vec::new();
    for number in 0..50 {
        for (method, path) in
            [("PUT", format!("/kv/slow{number}")), ("POST", "/import".into()), ("POST", "/batch".into())]
        {
            let request = Request::builder().method(method).uri(path).body(one_byte()).unwrap();
            let mut answer = Box::pin(node.send(request));
            assert!(futures_util::poll!(&mut answer).is_pending());
            slow.push(answer);
        }
    }
    for number in 0..3 {
        let put = node.call("PUT", &format!("/kv/{number}"), vec![b'x'; 4 * 1024 * 1024]).await;
        assert_eq!(put.status, StatusCode::OK);
    }
    drop(slow);
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_stalls_is_refused_after_ten_seconds() {
    let node = Node::owning(0, json!({})).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let answer = node.call("PUT", "/kv/slow", one_byte()).await;
    assert_eq!((answer.status, answer.problem().code()), (StatusCode::REQUEST_TIMEOUT, "slow-body"));
    assert!(began.elapsed() >= std::time::Duration::from_secs(10));
    tokio::time::resume();
    node.stop().await;
}
