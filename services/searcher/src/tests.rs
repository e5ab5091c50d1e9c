use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use plugin::testing::ShardCluster;
use plugin::{Health, Plugin};
use serde_json::{Value, json};
use store::Store;
use store::faults::Faults;
use store::object_store::memory::InMemory;
use types::{KeyHash, NodeId, Problem, ShardId, api};

use crate::Searcher;

mod addresses;
mod aliases;
mod auto_create;
mod bulk;
mod damage;
mod documents;
mod es;
mod indexes;
mod paths;
mod reindex;
mod searches;
mod templates;
mod trouble;
mod vectors;

/// A service with all its shards.
struct Searchers(ShardCluster);

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn of(answer: Response<Bytes>) -> Self {
        let (head, body) = answer.into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn problem(&self) -> Problem {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn code(&self) -> (u16, String) {
        (self.status, self.problem().code().to_owned())
    }

    /// The ids of the hits.
    fn ids(&self) -> Vec<String> {
        let answer = self.json();
        let hits = answer["hits"].as_array().unwrap_or_else(|| panic!("no hits: {answer}"));
        hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    }

    fn is_untouched(&self) -> bool {
        self.headers.contains_key(api::NOT_PROCESSED)
    }
}

impl Searchers {
    async fn start(shards: u32, settings: Value) -> Self {
        let shards = NonZeroU32::new(shards).unwrap();
        Self(ShardCluster::start(Arc::new(Searcher), &settings, shards).await)
    }

    /// One shard on a store that fails on demand, with the index `x`.
    async fn on_faults(settings: Value) -> (Self, Faults) {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let url = "memory:///".parse().unwrap();
        let store = Store::over(faults.objects(), url, &"test".parse().unwrap()).await.unwrap();
        let cluster = ShardCluster::start_on(store, Arc::new(Searcher), &settings, NonZeroU32::MIN).await;
        let searchers = Self(cluster);
        searchers.define().await;
        (searchers, faults)
    }

    /// With an index `x` whose documents have their id in `name`.
    async fn with_index(shards: u32, settings: Value) -> Self {
        let searchers = Self::start(shards, settings).await;
        searchers.define().await;
        searchers
    }

    async fn define(&self) {
        let definition = json!({
            "id": "name",
            "fields": {"name": {"type": "keyword"}, "text": {"type": "text"}, "size": {"type": "i64"}},
        });
        let created = self.call("PUT", "/x", definition.to_string()).await;
        assert_eq!(created.status, 201, "{}", created.json());
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        Answer::of(self.0.call(method, path, body).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    async fn call_at(&self, node: &NodeId, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        Answer::of(self.0.call_at(node, method, path, body).await)
    }

    /// Sends a request with headers through the mesh.
    async fn send(&self, request: Request<Body>) -> Answer {
        let sent = self.0.mesh().send(&"searcher".parse().unwrap(), request).await.unwrap();
        let (head, body) = sent.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        Answer::of(Response::from_parts(head, body))
    }

    /// An id whose documents belong to a shard of two.
    fn id_of(shard: u32) -> String {
        let mut ids = (0..100).map(|number| format!("id-{number}"));
        let two = NonZeroU32::new(2).unwrap();
        ids.find(|id| KeyHash::of(id.as_bytes()).shard(two).as_u32() == shard).unwrap()
    }

    async fn stop(self) {
        self.0.stop().await;
    }
}

fn shard(number: u32) -> ShardId {
    number.try_into().unwrap()
}

#[tokio::test]
async fn the_plugin_keeps_the_promises_of_all_plugins() {
    plugin::conformance::check(&Searcher, &json!({})).await;
    let declared = json!({"indexes": {"x": {"fields": {"a": {"type": "text"}}}}});
    plugin::conformance::check(&Searcher, &declared).await;
}

#[tokio::test]
async fn every_path_that_is_described_is_answered() {
    let searchers = Searchers::with_index(1, json!({})).await;
    assert_eq!(searchers.call("PUT", "/other", "{}").await.status, 201);
    let paths = Searcher.openapi_paths();
    let paths = paths.as_object().unwrap();
    assert_eq!(paths.len(), 15 + 47);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            if method == "delete" && (path == "/{index}" || path == "/es/{index}") {
                continue;
            }
            assert!(searchers.call("PUT", "/x/docs/a", "{\"name\":\"a\"}").await.status < 300);
            assert!(searchers.call("PUT", "/x/aliases/z", "").await.status < 300);
            assert!(searchers.call("PUT", "/_templates/t", r#"{"patterns": ["t"]}"#).await.status < 300);
            let (query, body) = es::example(path, method).unwrap_or(match path {
                path if path.ends_with("suggest") => ("?field=name", "{}"),
                path if path.ends_with("delete") => ("", "{\"q\":\"nothing\"}"),
                path if path.ends_with("reindex") => ("", "{\"to\":\"other\"}"),
                _ => ("", "{}"),
            });
            let index = if path == "/es/{index}" && method == "put" { "y" } else { "x" };
            let uri = format!("{}{query}", path.replace("{id}", "a").replace("{index}", index));
            let uri = uri.replace("{alias}", "z").replace("{name}", "t");
            let answer = searchers.call(&method.to_uppercase(), &uri, body).await;
            let shown = String::from_utf8_lossy(&answer.body).into_owned();
            let is_known = !matches!(answer.status, 404 | 405 | 500..);
            assert!(is_known, "{method} {uri}: {} {shown}", answer.status);
            // Its requests are complete, and the document of `_create` exists.
            let is_es = path.starts_with("/es/") && answer.status >= 400;
            assert!(!is_es || answer.status == 409, "{method} {uri}: {} {shown}", answer.status);
        }
    }
    assert_eq!(searchers.call("DELETE", "/x", "").await.status, 200);
    searchers.stop().await;
}

/// Method, path and body of a request, and the status and the code that it is refused with.
type Mistake = (&'static str, &'static str, &'static str, u16, &'static str);

const MISTAKES: &[Mistake] = &[
    ("GET", "/X", "", 400, "bad-index-name"),
    ("PUT", "/..%2Fx", "{}", 400, "bad-index-name"),
    ("PUT", "/.", "{}", 400, "bad-index-name"),
    ("GET", "//search", "", 400, "bad-index-name"),
    ("PUT", "/y", "[]", 400, "bad-definition"),
    ("PUT", "/y", r#"{"fields": {"a": {"type": "txt"}}}"#, 400, "bad-definition"),
    ("PUT", "/y?x=1", "{}", 400, "bad-query"),
    ("PUT", "/x", r#"{"id": "name", "fields": {"size": {"type": "text"}}}"#, 409, "index-exists"),
    ("POST", "/x", "{}", 405, "method-not-allowed"),
    ("POST", "/", "{}", 405, "method-not-allowed"),
    ("GET", "/?x=1", "", 400, "bad-query"),
    ("DELETE", "/nothing", "", 404, "no-such-index"),
    ("GET", "/nothing", "", 404, "no-such-index"),
    ("GET", "/x/nothing", "", 404, "unknown-path"),
    ("GET", "/x/docs/", "", 400, "bad-id"),
    ("GET", "/x/docs/%FF", "", 400, "bad-id"),
    ("GET", "/x/docs/%", "", 400, "bad-id"),
    ("GET", "/x/docs/a?refresh=true", "", 400, "bad-query"),
    ("GET", "/x/docs/a?consistency=weak", "", 400, "bad-query"),
    ("GET", "/x/docs/a", "", 404, "no-such-document"),
    ("GET", "/nothing/docs/a", "", 404, "no-such-index"),
    ("PUT", "/x/docs/a", "", 400, "bad-document"),
    ("PUT", "/x/docs/a", "[]", 400, "bad-document"),
    ("PUT", "/x/docs/a", "{\"size\":\"x\"}", 400, "bad-document"),
    ("PUT", "/x/docs/a", "{\"name\":\"b\"}", 400, "bad-id"),
    ("PUT", "/x/docs/a?refresh=now", "{}", 400, "bad-query"),
    ("PUT", "/x/docs/a?upsert=true", "{}", 400, "bad-query"),
    ("PUT", "/x/docs/a?if_seq_no=1", "{}", 400, "bad-query"),
    ("PATCH", "/x/docs/a", "7", 400, "bad-document"),
    ("PATCH", "/x/docs/a", "{}", 404, "no-such-document"),
    ("POST", "/x/docs/a", "{}", 405, "method-not-allowed"),
    ("GET", "/x/docs", "", 405, "method-not-allowed"),
    ("POST", "/x/docs?refresh=1", "", 400, "bad-query"),
    ("POST", "/nothing/docs", "{}", 404, "no-such-index"),
    ("POST", "/x/delete", "{}", 400, "bad-search"),
    ("POST", "/x/delete", r#"{"q": "nofield:a AND"}"#, 400, "bad-search"),
    ("GET", "/x/delete", "", 405, "method-not-allowed"),
    ("GET", "/x/reindex", "", 405, "method-not-allowed"),
    ("POST", "/x/reindex?to=y", "{}", 400, "bad-query"),
    ("POST", "/x/reindex", "", 400, "bad-reindex"),
    ("POST", "/x/reindex", r#"{"to": "x"}"#, 400, "bad-reindex"),
    ("POST", "/x/reindex", r#"{"to": "../x"}"#, 400, "bad-index-name"),
    ("POST", "/x/reindex", r#"{"to": "nothing"}"#, 404, "no-such-index"),
    ("POST", "/nothing/reindex", r#"{"to": "x"}"#, 404, "no-such-index"),
    ("POST", "/x/search", "[]", 400, "bad-search"),
    ("POST", "/x/search", r#"{"querry": "a"}"#, 400, "bad-search"),
    ("POST", "/x/search", r#"{"size": 10001}"#, 400, "bad-search"),
    ("POST", "/x/search?q=a", "{}", 400, "bad-query"),
    ("GET", "/x/search?q=(", "", 400, "bad-search"),
    ("PUT", "/x/search", "{}", 405, "method-not-allowed"),
    ("GET", "/x/suggest", "", 400, "bad-query"),
    ("GET", "/x/suggest?field=text", "", 400, "bad-search"),
    ("GET", "/x/refresh", "", 405, "method-not-allowed"),
    ("POST", "/x/compact?x=1", "", 400, "bad-query"),
    ("DELETE", "/_aliases", "", 405, "method-not-allowed"),
    ("POST", "/_aliases", "{}", 400, "bad-alias"),
    (
        "POST",
        "/_aliases",
        r#"{"actions": [{"add": {"index": "x", "alias": "y", "filter": {}}}]}"#,
        400,
        "bad-alias",
    ),
    ("POST", "/_aliases", r#"{"actions": [{"add": {"index": "z", "alias": "y"}}]}"#, 404, "no-such-index"),
    ("POST", "/_aliases", r#"{"actions": [{"remove": {"index": "x", "alias": "y"}}]}"#, 404, "no-such-alias"),
    ("PUT", "/x/aliases/x", "", 409, "name-taken"),
    ("PUT", "/x/aliases/Y", "", 400, "bad-alias-name"),
    ("PUT", "/x/aliases/y", "[]", 400, "bad-alias"),
    ("PUT", "/x/aliases/y?a=1", "", 400, "bad-query"),
    ("PUT", "/nothing/aliases/y", "", 404, "no-such-index"),
    ("GET", "/x/aliases/y", "", 404, "no-such-alias"),
    ("DELETE", "/x/aliases/y", "", 404, "no-such-alias"),
    ("POST", "/x/aliases", "", 405, "method-not-allowed"),
    ("GET", "/nothing/aliases", "", 404, "no-such-index"),
    ("GET", "/x,nothing/search", "", 404, "no-such-index"),
    ("GET", "/x,/search", "", 400, "bad-index-name"),
    ("GET", "/x*/docs/a", "", 400, "bad-index-name"),
    ("PUT", "/_templates", "{}", 405, "method-not-allowed"),
    ("PUT", "/_templates/T", "{}", 400, "bad-template"),
    ("PUT", "/_templates/t", "{}", 400, "bad-template"),
    ("PUT", "/_templates/t", "[]", 400, "bad-template"),
    (
        "PUT",
        "/_templates/t",
        r#"{"patterns": ["a"], "definition": {"delete_after": "1"}}"#,
        400,
        "bad-template",
    ),
    ("GET", "/_templates/t", "", 404, "no-such-template"),
    ("DELETE", "/_templates/t", "", 404, "no-such-template"),
    ("POST", "/_templates/t", "{}", 405, "method-not-allowed"),
    ("PUT", "/y", r#"{"delete_after": "soon"}"#, 400, "bad-definition"),
    ("GET", "/_shard/0/write", "", 405, "method-not-allowed"),
    ("POST", "/_shard/0/write?index=x", "", 400, "bad-query"),
    ("POST", "/_shard/7/state", "", 400, "unknown-shard"),
    ("POST", "/_shard/0/state", "", 404, "no-such-index"),
];

#[tokio::test]
async fn mistakes_are_refused_with_their_code_and_a_hint() {
    let searchers = Searchers::with_index(1, json!({"max_body": 4096, "auto_create": false})).await;
    let long = format!("/x/docs/{}", "a".repeat(600));
    for (method, path, body, status, code) in
        MISTAKES.iter().copied().chain([("PUT", &*long, "{}", 400, "bad-id")])
    {
        // Sent to the member itself: the mesh finds no member for a shard that does not exist.
        let answer = searchers.call_at(&searchers.0.owner(shard(0)), method, path, body).await;
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{method} {path} {body}: {shown}");
        assert_eq!(answer.problem().code(), code, "{method} {path} {body}: {shown}");
        assert_eq!(answer.headers["content-type"], Problem::MEDIA_TYPE);
        assert!(answer.problem().hint.is_some(), "{method} {path}: nothing says what to do next");
    }
    let large = format!("{{\"text\":\"{}\"}}", "a".repeat(5_000));
    for (method, path) in [("PUT", "/x/docs/a"), ("PATCH", "/x/docs/a"), ("POST", "/x/docs")] {
        let answer = searchers.call(method, path, large.clone()).await;
        assert_eq!(answer.code(), (413, "body-too-large".to_owned()), "{method} {path}");
    }
    searchers.stop().await;
}

#[tokio::test]
async fn a_stopped_service_refuses_what_changes_nothing_as_not_processed() {
    let searchers = Searchers::with_index(1, json!({})).await;
    let node = searchers.0.owner(shard(0));
    until("it is ready", async || searchers.0.service(&node).health() == Health::Ready).await;
    searchers.0.service(&node).stop().await.unwrap();
    for (method, path, body) in
        [("PUT", "/x/docs/a", "{}"), ("GET", "/x/docs/a", ""), ("POST", "/x/search", "{}")]
    {
        let answer = searchers.call_at(&node, method, path, body).await;
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 503, "{method} {path}: {shown}");
        assert!(answer.is_untouched() || method == "POST", "{method} {path}: {shown}");
    }
    searchers.stop().await;
}

/// Waits until a check holds.
async fn until<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    let waiting = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "never: {what}");
}
