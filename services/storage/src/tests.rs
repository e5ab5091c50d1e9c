use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use plugin::testing::ShardCluster;
use plugin::{Context, Health, Plugin, Service};
use serde_json::{Value, json};
use store::Store;
use tower::ServiceExt;
use types::{KeyHash, Problem, Role, api};

use crate::Storage;

mod writes;

/// A node that owns one shard, the last one.
struct Node {
    service: Arc<dyn Service>,
    router: Router,
    context: Context,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn problem(&self) -> Problem {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Node {
    async fn owning(shard: u32, settings: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder_store(folder.path()).await;
        let role = Role::new("storage", Some(shard.try_into().unwrap())).unwrap();
        let (context, _) = Context::for_owner_test(role, &store).await;
        let Ok(prepared) = Storage.prepare(&settings) else { panic!("good settings") };
        let service = prepared.start(context.clone()).await.unwrap();
        Self { router: Arc::clone(&service).routes(), service, context, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        Answer { status: head.status, headers: head.headers, body: whole(body).await.unwrap() }
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        self.service.stop().await.unwrap();
        self.context.tasks.wait().await;
    }
}

/// Reads a body as a connection does: each part is dropped before the next one is read.
async fn whole(body: Body) -> Result<Bytes, axum::Error> {
    let (mut parts, mut whole) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        whole.extend_from_slice(&part?);
    }
    Ok(whole.into())
}

async fn folder_store(folder: &std::path::Path) -> Store {
    let url = format!("file://{}", folder.display()).parse().unwrap();
    Store::open(&url, &"test".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn every_path_that_is_described_is_answered() {
    let node = Node::owning(0, json!({})).await;
    let paths = Storage.openapi_paths();
    let paths = paths.as_object().unwrap();
    assert_eq!(paths.len(), 5);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert_eq!(node.call("PUT", "/kv/a", "1").await.status, 200);
            let request = Request::builder().method(&*method.to_uppercase()).uri(path.replace("{key}", "a"));
            // A watch is endless, so its body is not read.
            let answer = node.router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
            assert!(
                !matches!(answer.status().as_u16(), 404 | 405 | 500..),
                "{method} {path}: {}",
                answer.status()
            );
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn the_plugin_keeps_the_promises_of_all_plugins() {
    plugin::conformance::check(&Storage, &json!({})).await;
}

#[tokio::test]
async fn large_values_that_the_client_does_not_read_are_dropped_while_others_wait() {
    const SIZE: usize = 8 * 1024 * 1024;
    let node = Node::owning(0, json!({})).await;
    let value: Bytes = (0..SIZE).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into();
    assert_eq!(node.call("PUT", "/kv/large", value.clone()).await.status, StatusCode::OK);
    let mut unread = Vec::new();
    for _ in 0..4 {
        let request = Request::get("/kv/large").body(Body::empty()).unwrap();
        let answer = node.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        unread.push(answer.into_body());
    }
    assert_eq!(node.call("HEAD", "/kv/large", "").await.headers["content-length"], SIZE.to_string());
    let read = node.get("/kv/large").await;
    assert_eq!((read.status, &read.body), (StatusCode::OK, &value));
    let mut broken = 0;
    for body in unread {
        match whole(body).await {
            Ok(whole) => assert_eq!(whole, value),
            Err(_) => broken += 1,
        }
    }
    assert!(broken > 0, "a body that was cut off ends with an error");
    node.stop().await;
}

#[tokio::test]
async fn a_value_comes_back_as_it_was_put() {
    let node = Node::owning(0, json!({})).await;
    let binary: Vec<u8> = (0..=255).collect();
    let put =
        Request::put("/kv/%00%FF/a+b").header("content-type", "image/x-test").body(binary.clone().into());
    let put = node.send(put.unwrap()).await;
    assert_eq!(put.status, StatusCode::OK);

    let got = node.get("/kv/%00%ff%2Fa%2Bb").await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &binary[..]));
    assert_eq!(got.headers["content-type"], "image/x-test");
    assert_eq!(got.headers["etag"], put.headers["etag"]);
    assert_eq!(got.headers["content-security-policy"], "sandbox", "it can't act as a page of the API");

    let head = node.call("HEAD", "/kv/%00%FF/a+b", "").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.headers["content-length"], "256");

    let etag = put.headers["etag"].clone();
    let again = Request::get("/kv/%00%FF/a+b").header("if-none-match", etag.clone()).body(Body::empty());
    let again = node.send(again.unwrap()).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(again.headers["etag"], etag);
    for (method, tag, status) in [("GET", "\"0\"", 412), ("HEAD", "\"0\"", 412), ("GET", "*", 200)] {
        let asked = Request::builder().method(method).uri("/kv/%00%FF/a+b").header("if-match", tag);
        let answer = node.send(asked.body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), &answer.headers["etag"]), (status, &etag), "{method} {tag}");
    }

    let replaced = node.call("PUT", "/kv/%00%FF/a+b", "").await;
    assert_ne!(replaced.headers["etag"], etag);
    let got = node.get("/kv/%00%FF/a+b").await;
    assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0), "an empty value is a value");
    assert_eq!(got.headers["content-type"], "application/octet-stream");

    for _ in 0..2 {
        let deleted = node.call("DELETE", "/kv/%00%FF/a+b", "").await;
        assert_eq!((deleted.status, deleted.body.len()), (StatusCode::NO_CONTENT, 0));
    }
    let gone = node.get("/kv/%00%FF/a+b").await;
    assert_eq!((gone.status, gone.problem().code()), (StatusCode::NOT_FOUND, "no-such-key"));
    node.stop().await;
}

#[tokio::test]
async fn mistakes_are_refused_with_their_code_and_a_hint() {
    let node = Node::owning(0, json!({"max_value": 10})).await;
    let long = format!("/kv/{}", "a".repeat(1025));
    for (method, path, status, code) in [
        ("GET", "/kv/", 400, "bad-key"),
        ("GET", "/kv/%", 400, "bad-key"),
        ("PUT", long.as_str(), 400, "bad-key"),
        ("PUT", "/kv/a?ttl=1", 400, "bad-query"),
        ("PUT", "/kv/a?ttl=0s", 400, "bad-query"),
        ("PUT", "/kv/a?ttl=11years", 400, "bad-query"),
        ("PUT", "/kv/a?ttl=1s&ttl=2s", 400, "bad-query"),
        ("PUT", "/kv/a?tll=1s", 400, "bad-query"),
        ("DELETE", "/kv/a?ttl=1s", 400, "bad-query"),
        ("GET", "/batch", 405, "method-not-allowed"),
        ("POST", "/batch", 400, "bad-batch"),
        ("POST", "/batch?shard=x", 400, "bad-query"),
        ("POST", "/batch?shard=7", 400, "unknown-shard"),
        ("GET", "/import", 405, "method-not-allowed"),
        ("POST", "/import?shards=1", 400, "bad-query"),
        ("POST", "/kv/a", 405, "method-not-allowed"),
        ("PUT", "/kv", 405, "method-not-allowed"),
        ("GET", "/kv?prefx=a", 400, "bad-query"),
        ("GET", "/kv?limit=0", 400, "bad-query"),
        ("GET", "/kv?shard=7", 400, "unknown-shard"),
        ("POST", "/watch", 405, "method-not-allowed"),
        ("GET", "/watch?form=1", 400, "bad-query"),
        ("GET", "/watch?values=1", 400, "bad-query"),
        ("GET", "/watch?from=x", 400, "bad-cursor"),
        ("GET", "/watch?from=0:1.0,1:1.0", 400, "bad-cursor"),
        ("GET", "/watch?shard=0&from=1:1.0", 400, "bad-cursor"),
        ("GET", "/watch?shard=7", 400, "unknown-shard"),
        ("GET", "/watch?from=0:99.0", 410, "history-gone"),
        ("GET", "/watch?shard=0&from=0:99.0", 410, "history-gone"),
        ("GET", "/watches", 404, "unknown-path"),
        ("GET", "/", 404, "unknown-path"),
        ("GET", "/kvs", 404, "unknown-path"),
    ] {
        let answer = node.call(method, path, "").await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (status, code), "{method} {path}");
        assert_eq!(answer.headers["content-type"], Problem::MEDIA_TYPE);
        assert!(answer.problem().hint.is_some(), "{path}: nothing says what to do next");
    }
    assert_eq!(node.get("/kv?prefx=a").await.problem().hint.as_deref(), Some("did you mean `prefix`?"));

    let large = node.call("PUT", "/kv/a", "12345678901").await;
    assert_eq!((large.status, large.problem().code()), (StatusCode::PAYLOAD_TOO_LARGE, "value-too-large"));
    assert!(large.problem().hint.is_some());
    let chunks = futures_util::stream::iter(["123456", "78901"].map(Ok::<_, std::io::Error>));
    let large = node.call("PUT", "/kv/a", Body::from_stream(chunks)).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "with or without a length");
    assert_eq!(node.call("PUT", "/kv/a", "1234567890").await.status, StatusCode::OK);

    for header in ["if-match", "if-none-match", "if-unmodified-since", "content-encoding", "content-range"] {
        let write = Request::put("/kv/a").header(header, "\"x\"").body(Body::from("1")).unwrap();
        assert_eq!(node.send(write).await.status, StatusCode::BAD_REQUEST, "{header} would be ignored");
    }
    assert_eq!(node.get("/kv/a").await.body, "1234567890");
    node.stop().await;
}

#[tokio::test]
async fn a_key_of_another_shard_is_not_touched() {
    let node = Node::owning(1, json!({})).await;
    let two = 2.try_into().unwrap();
    let of = |shard| {
        let mut names = (0..100).map(|number| format!("key-{number}"));
        names.find(|name| KeyHash::of(name.as_bytes()).shard(two).as_u32() == shard).unwrap()
    };
    let (ours, theirs) = (format!("/kv/{}", of(1)), format!("/kv/{}", of(0)));
    assert_eq!(node.call("PUT", &ours, "1").await.status, StatusCode::OK);
    for method in ["PUT", "GET", "DELETE"] {
        let answer = node.call(method, &theirs, "1").await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (421, "misdirected"));
    }
    assert_eq!(node.get("/kv?shard=0").await.status.as_u16(), 421);
    assert_eq!(node.get("/kv?shard=1").await.json()["keys"][0]["key"], of(1));
    node.stop().await;
}

#[tokio::test]
async fn a_listing_that_misses_a_shard_says_so_instead() {
    let node = Node::owning(1, json!({})).await;
    let impatient = mesh::Limits { wait: std::time::Duration::ZERO, ..mesh::Limits::default() };
    let context = Context { mesh: node.context.mesh.with_limits(impatient), ..node.context.clone() };
    let Ok(prepared) = Storage.prepare(&json!({})) else { panic!("good settings") };
    let service = prepared.start(context).await.unwrap();
    let request = Request::get("/kv").body(Body::empty()).unwrap();
    let answer = Arc::clone(&service).routes().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem.code(), "shard-missing");
    assert!(problem.detail.contains("shard 0"), "{problem}");
    node.stop().await;
    service.stop().await.unwrap();
}

#[tokio::test]
async fn a_listing_shows_keys_as_paths_take_them() {
    let node = Node::owning(0, json!({})).await;
    let paths = ["/kv/user/1", "/kv/a%20b", "/kv/%FF%FE", "/kv/x%2F%2Fy", "/kv/100%25+1"];
    for path in paths {
        assert_eq!(node.call("PUT", path, "12").await.status, StatusCode::OK);
    }
    let (mut shown, mut after) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/kv?limit=2&after={after}")).await.json();
        for listed in page["keys"].as_array().unwrap() {
            let name = listed["key"].as_str().unwrap();
            let value = node.get(&format!("/kv/{name}")).await;
            assert_eq!((value.status, &value.body[..]), (StatusCode::OK, &b"12"[..]), "{name}");
            assert_eq!(value.headers["etag"], listed["etag"].as_str().unwrap());
            assert_eq!(
                (&listed["size"], &listed["content_type"]),
                (&json!(2), &json!("application/octet-stream"))
            );
            shown.push(name.to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(shown, ["100%25%2B1", "a%20b", "user/1", "x%2F%2Fy", "%FF%FE"]);
    node.stop().await;
}

/// Reads a stream until it has sent this many events, or ends.
async fn events(body: &mut Body, parser: &mut types::SseParser, count: usize) -> Vec<types::Frame> {
    let mut frames = Vec::new();
    while frames.len() < count
        && let Some(part) = body.frame().await
    {
        frames.extend(parser.push(&part.unwrap().into_data().unwrap()).unwrap());
    }
    frames
}

#[tokio::test]
async fn a_watch_begins_with_its_cursor_and_is_resumed_after_the_last_event() {
    let node = Node::owning(0, json!({})).await;
    let open = async |query: &str, last: Option<&str>| {
        let request = Request::get(format!("/watch?{query}"));
        let request = match last {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let answer = node.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        (answer.into_body(), types::SseParser::default())
    };
    let (mut body, mut parser) = open("values=true", None).await;
    let ready = events(&mut body, &mut parser, 1).await.remove(0);
    assert_eq!((ready.event.as_str(), ready.id.as_deref()), ("ready", Some("0:1.0")));
    assert_eq!(ready.data, r#"{"cursor":"0:1.0"}"#);
    for number in 0..3 {
        node.call("PUT", &format!("/kv/a%20{number}"), "x").await;
    }
    let received = events(&mut body, &mut parser, 3).await;
    assert_eq!(
        serde_json::from_str::<Value>(&received[0].data).unwrap(),
        json!({
            "key": "a%200", "version": 1, "shard": 0, "size": 1,
            "content_type": "application/octet-stream", "value": "x",
        })
    );
    for query in ["", "shard=0&"] {
        for (from, last) in [("0:2.0", None), ("0:1.0", Some("0:2.0"))] {
            let (mut body, mut parser) = open(&format!("{query}from={from}&values=true"), last).await;
            let again = events(&mut body, &mut parser, 3).await;
            assert_eq!(again[0].id.as_deref(), Some("0:2.0"), "`ready` has the cursor at which it resumes");
            assert_eq!(again[1..], received[1..], "{query} {from}");
        }
    }

    // A drain does not wait for watches.
    let (mut one, mut its_parser) = open("shard=0", None).await;
    events(&mut one, &mut its_parser, 1).await;
    node.service.drain(tokio::time::Instant::now()).await;
    assert_eq!(events(&mut body, &mut parser, 1).await, []);
    assert_eq!(events(&mut one, &mut its_parser, 1).await, []);
    node.stop().await;
}

#[tokio::test]
async fn the_number_of_watches_is_limited() {
    let node = Node::owning(0, json!({"max_watches": 2})).await;
    let open = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        node.router.clone().oneshot(request).await.unwrap()
    };
    let measured = || -> (u32, u32) {
        let mut text = String::new();
        node.context.metrics.encode(&mut text).unwrap();
        let number = |name: &str| {
            let mut parts = text.lines().filter_map(|line| line.split_once(' '));
            let found =
                parts.find(|(named, _)| named.ends_with(name)).and_then(|(_, number)| number.parse().ok());
            found.unwrap_or_else(|| panic!("{name} in {text}"))
        };
        (number("_watches"), number("_watches_refused_total"))
    };
    let first = open("/watch").await;
    let second = open("/watch?shard=0").await;
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    for path in ["/watch", "/watch?shard=0"] {
        let refused = node.get(path).await;
        let found = (refused.status.as_u16(), refused.problem().code().to_owned());
        assert_eq!(found, (503, "too-many-watches".to_owned()));
        assert!(refused.problem().hint.unwrap().contains("max_watches"));
        assert_eq!(refused.headers["retry-after"], "1");
        assert!(refused.headers.contains_key(api::NOT_PROCESSED), "another member may take it");
    }
    assert_eq!(
        node.get("/watch?from=x").await.status,
        StatusCode::BAD_REQUEST,
        "mistakes are reported first"
    );
    assert_eq!(measured(), (2, 2));
    drop(first);
    assert_eq!(measured(), (1, 2));
    assert_eq!(open("/watch").await.status(), StatusCode::OK);
    node.stop().await;
}

#[tokio::test]
async fn a_large_value_is_watched_and_listed_in_slices_and_whole() {
    let node = Node::owning(0, json!({})).await;
    let value = "0123456789abcdef".repeat(256 * 1024);
    let request = Request::get("/watch?values=true").body(Body::empty()).unwrap();
    let mut body = node.router.clone().oneshot(request).await.unwrap().into_body();
    for name in ["a", "b"] {
        assert_eq!(node.call("PUT", &format!("/kv/{name}"), value.clone()).await.status, StatusCode::OK);
    }
    let mut parser = types::SseParser::new(32 * 1024 * 1024);
    let received = events(&mut body, &mut parser, 3).await;
    for (frame, name) in received[1..].iter().zip(["a", "b"]) {
        let data: Value = serde_json::from_str(&frame.data).unwrap();
        assert_eq!((&data["key"], data["value"].as_str()), (&json!(name), Some(value.as_str())));
    }
    for path in ["/kv?values=true&limit=1", "/kv?values=true&limit=1&shard=0"] {
        let page = node.get(path).await;
        assert_eq!(page.headers["content-length"], page.body.len().to_string().as_str());
        assert_eq!(page.json()["keys"][0]["value"], value);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_replica_answers_reads_that_may_be_old_and_nothing_else() {
    let mut cluster = ShardCluster::start(Arc::new(Storage), &json!({}), NonZeroU32::MIN).await;
    let replica = cluster.replicate(0.try_into().unwrap()).await;
    assert_eq!(cluster.service(&replica).health(), Health::Ready);
    let put = cluster.call("PUT", "/kv/a", "1").await;
    let ask = async |method, path, body| {
        let (head, body) = cluster.call_at(&replica, method, path, body).await.into_parts();
        Answer { status: head.status, headers: head.headers, body }
    };
    let answer = loop {
        let answer = ask("GET", "/kv/a?consistency=any", "").await;
        let stale: u64 = answer.headers["coterie-staleness-ms"].to_str().unwrap().parse().unwrap();
        assert!(stale < 30_000, "{stale}");
        if answer.status == StatusCode::OK {
            break answer;
        }
        assert_eq!(answer.problem().code(), "no-such-key");
        tokio::task::yield_now().await;
    };
    assert_eq!((&answer.body[..], &answer.headers["etag"]), (&b"1"[..], &put.headers()["etag"]));
    for path in ["/kv?consistency=any", "/kv?consistency=any&shard=0"] {
        let listed = ask("GET", path, "").await;
        assert_eq!(listed.json()["keys"][0]["key"], "a", "{path}");
        assert!(listed.headers.contains_key("coterie-staleness-ms"));
    }
    assert_eq!(ask("HEAD", "/kv/a?consistency=any", "").await.status, StatusCode::OK);
    for (method, path) in [
        ("GET", "/kv/a"),
        ("GET", "/kv/a?consistency=strong"),
        ("GET", "/kv/a?consistency=primary"),
        ("PUT", "/kv/a"),
        ("DELETE", "/kv/a"),
        ("GET", "/kv?shard=0"),
        ("GET", "/watch?shard=0"),
    ] {
        let answer = ask(method, path, "2").await;
        let found = (answer.status.as_u16(), answer.problem().code().to_owned());
        assert_eq!(found, (421, "owner-only".to_owned()), "{method} {path}");
        assert!(answer.headers.contains_key(api::NOT_PROCESSED), "{method} {path}");
    }
    assert!(cluster.service(&replica).staleness().is_some());
    cluster.stop().await;
}

#[tokio::test]
async fn an_owner_answers_whatever_consistency_is_asked_for() {
    let node = Node::owning(0, json!({})).await;
    assert_eq!(node.service.staleness(), None);
    node.call("PUT", "/kv/a", "1").await;
    for (consistency, has_staleness) in [("strong", false), ("primary", false), ("any", true)] {
        for path in ["/kv/a?", "/kv?", "/kv?shard=0&"] {
            let answer = node.get(&format!("{path}consistency={consistency}")).await;
            assert_eq!(answer.status, StatusCode::OK, "{path} {consistency}");
            assert_eq!(
                answer.headers.contains_key("coterie-staleness-ms"),
                has_staleness,
                "{path} {consistency}"
            );
        }
    }
    for path in ["/kv/a?consistency=weak", "/kv/a?consistncy=any", "/kv?consistency=weak"] {
        let answer = node.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (400, "bad-query"), "{path}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_stopped_service_refuses_requests_as_not_processed() {
    let node = Node::owning(0, json!({})).await;
    assert_eq!(node.service.health(), Health::Ready);
    node.context.shutdown.cancel();
    node.service.stop().await.unwrap();
    for method in ["PUT", "GET", "DELETE"] {
        let answer = node.call(method, "/kv/a", "1").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers.contains_key(api::NOT_PROCESSED), "{method}");
    }
    node.stop().await;
}
