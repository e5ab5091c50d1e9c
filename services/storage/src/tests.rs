use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use plugin::{Context, Health, Plugin, Service};
use serde_json::{Value, json};
use store::Store;
use tower::ServiceExt;
use types::{KeyHash, Problem, Role, api};

use crate::Storage;

mod writes;

/// A node that owns one shard, the last of some.
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
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
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

async fn folder_store(folder: &std::path::Path) -> Store {
    let url = format!("file://{}", folder.display()).parse().unwrap();
    Store::open(&url, &"test".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_plugin_keeps_the_promises_of_all_plugins() {
    plugin::conformance::check(&Storage, &json!({})).await;
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
async fn what_is_wrong_is_told() {
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
        ("GET", "/", 404, "unknown-path"),
        ("GET", "/kvs", 404, "unknown-path"),
    ] {
        let answer = node.call(method, path, "").await;
        assert_eq!((answer.status.as_u16(), answer.problem().code()), (status, code), "{method} {path}");
        assert_eq!(answer.headers["content-type"], Problem::MEDIA_TYPE);
    }
    assert_eq!(node.get("/kv?prefx=a").await.problem().hint.as_deref(), Some("did you mean `prefix`?"));

    let large = node.call("PUT", "/kv/a", "12345678901").await;
    assert_eq!((large.status, large.problem().code()), (StatusCode::PAYLOAD_TOO_LARGE, "value-too-large"));
    let chunks = futures_util::stream::iter(["123456", "78901"].map(Ok::<_, std::io::Error>));
    let large = node.call("PUT", "/kv/a", Body::from_stream(chunks)).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "whether its length was told or not");
    assert_eq!(node.call("PUT", "/kv/a", "1234567890").await.status, StatusCode::OK);

    for header in ["if-match", "if-none-match", "if-unmodified-since", "content-encoding", "content-range"] {
        let write = Request::put("/kv/a").header(header, "\"x\"").body(Body::from("1")).unwrap();
        assert_eq!(
            node.send(write).await.status,
            StatusCode::BAD_REQUEST,
            "{header} would be taken for heard"
        );
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
async fn a_listing_shows_keys_as_they_may_be_asked_for() {
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

#[tokio::test]
async fn a_service_that_has_ended_refuses_what_it_did_not_touch() {
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
