use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// With indexes whose documents have their ids in `name`.
async fn with(shards: u32, indexes: &[&str]) -> Searchers {
    let searchers = Searchers::start(shards, json!({})).await;
    let definition = json!({"id": "name", "fields": {"name": {"type": "keyword"}, "text": {"type": "text"}}});
    for index in indexes {
        assert_eq!(searchers.call("PUT", &format!("/{index}"), definition.to_string()).await.status, 201);
    }
    searchers
}

/// The body of a request that takes an alias from all indexes and gives it to one.
fn switch(alias: &str, index: &str) -> String {
    let remove = json!({"remove": {"index": "*", "alias": alias}});
    json!({"actions": [remove, {"add": {"index": index, "alias": alias}}]}).to_string()
}

fn lines(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().map(|name| format!("{{\"name\":\"{name}\",\"text\":\"word\"}}\n")).collect()
}

#[tokio::test]
async fn an_alias_stands_for_its_indexes_in_every_request() {
    let searchers = with(2, &["logs-1", "logs-2", "other"]).await;
    for (index, count) in [("logs-1", 30), ("logs-2", 20), ("other", 5)] {
        let body = lines((0..count).map(|number| format!("{index}-{number}")));
        let stored = searchers.call("POST", &format!("/{index}/docs?refresh=true"), body).await.json();
        assert_eq!(stored["indexed"], count, "{stored}");
    }
    let added = searchers.call("PUT", "/logs-1/aliases/logs", "").await;
    assert_eq!((added.status, added.json()), (200, json!({"changed": true, "unreached": []})));
    assert_eq!(searchers.call("PUT", "/logs-1/aliases/logs", "").await.json()["changed"], false);
    // Every member knows it at once: its only index takes writes, too.
    for number in 0..2 {
        let (node, id) = (searchers.0.owner(shard(number)), Searchers::id_of(number));
        let path = format!("/logs/docs/{id}");
        let put = searchers.call_at(&node, "PUT", &path, "{\"text\":\"one\"}").await;
        assert_eq!((put.status, &put.json()["index"]), (201, &json!("logs-1")), "{}", put.json());
        assert_eq!(searchers.call_at(&node, "PATCH", &path, "{\"n\":1}").await.status, 200);
        assert_eq!(searchers.call_at(&node, "GET", &path, "").await.json()["n"], 1);
        assert_eq!(searchers.call_at(&node, "DELETE", &path, "").await.json()["result"], "deleted");
    }
    assert_eq!(searchers.get("/logs").await.json()["name"], "logs-1");
    searchers.call("PUT", "/logs-2/aliases/logs", r#"{"is_write_index": true}"#).await;
    let shown = searchers.get("/_aliases").await.json();
    let indexes = json!({"logs-1": {}, "logs-2": {"is_write_index": true}});
    assert_eq!(shown, json!({"aliases": {"logs": {"indexes": indexes, "write_index": "logs-2"}}}));
    assert_eq!(searchers.get("/logs-1/aliases").await.json(), shown);
    assert_eq!(searchers.get("/logs-1/aliases/logs").await.json()["write_index"], "logs-2");
    assert_eq!(searchers.get("/logs-1").await.json()["aliases"], json!(["logs"]));
    assert_eq!(searchers.get("/").await.json()["indexes"][0]["aliases"], json!(["logs"]));

    // Reads go to both, in pages, with facets.
    let body = json!({"q": "word", "size": 40, "facets": {"name": 1}}).to_string();
    let first = searchers.call("POST", "/logs/search", body).await;
    let answer = first.json();
    assert_eq!((&answer["total"], &answer["shards"]["ok"]), (&json!(50), &json!(4)), "{answer}");
    assert_eq!(answer["facets"]["name"].as_array().unwrap().len(), 1);
    let rest = json!({"q": "word", "size": 40, "search_after": answer["next"]}).to_string();
    let rest = searchers.call("POST", "/logs/search", rest).await;
    let tail = searchers.call("POST", "/logs/search", r#"{"q": "word", "from": 40, "size": 40}"#).await;
    assert_eq!((rest.ids(), rest.ids().len()), (tail.ids(), 10));
    let mut ids = [first.ids(), rest.ids()].concat();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50, "no hit is on two pages");
    for hit in answer["hits"].as_array().unwrap() {
        let index = hit["index"].as_str().unwrap();
        assert!(hit["id"].as_str().unwrap().starts_with(index), "{hit}");
    }
    for (expression, total) in [
        ("logs", 50),
        ("logs-1,other", 35),
        ("*", 55),
        ("*,-logs", 5),
        ("logs*,-logs-2", 30),
        ("nothing*", 0),
        ("log*,other", 55),
    ] {
        let found = searchers.get(&format!("/{expression}/search?size=0")).await.json();
        assert_eq!(found["total"], total, "{expression}: {found}");
    }
    let suggested = searchers.get("/logs/suggest?field=name&prefix=logs-&size=100").await.json();
    assert_eq!(suggested["values"].as_array().unwrap().len(), 50);
    let put = searchers.call("POST", "/logs/docs?refresh=true", lines(["new".to_owned()])).await;
    assert_eq!(put.json()["indexed"], 1);
    assert_eq!(searchers.get("/logs-2/search?size=0").await.json()["total"], 21);
    assert_eq!(searchers.call("POST", "/logs/refresh", "").await.json()["shards"]["ok"], 2);
    assert_eq!(searchers.call("POST", "/logs/compact", "").await.json()["shards"]["ok"], 4);
    // One document of several indexes is none.
    let several = searchers.get("/logs/docs/new").await;
    assert_eq!(several.code(), (400, "alias-of-several".to_owned()));
    assert_eq!(searchers.get("/logs").await.code(), (400, "alias-of-several".to_owned()));
    assert_eq!(searchers.get("/logs-2/docs/new").await.status, 200);
    let deleted = searchers.call("POST", "/logs/delete", r#"{"q": "*"}"#).await.json();
    assert_eq!((&deleted["deleted"], &deleted["shards"]["total"]), (&json!(51), &json!(4)), "{deleted}");
    searchers.stop().await;
}

#[tokio::test]
async fn a_name_is_of_an_index_or_of_an_alias_and_a_deleted_index_leaves_its_aliases() {
    let searchers = with(2, &["old", "new"]).await;
    for index in ["old", "new"] {
        assert_eq!(searchers.call("PUT", &format!("/{index}/aliases/a"), "").await.status, 200);
    }
    let refused = searchers.call("PUT", "/a", "").await;
    assert_eq!(refused.code(), (409, "name-taken".to_owned()));
    assert_eq!(searchers.call("DELETE", "/a", "").await.code(), (400, "is-an-alias".to_owned()));
    assert_eq!(searchers.call("PUT", "/old/aliases/new", "").await.code(), (409, "name-taken".to_owned()));
    let no_write = searchers.call("POST", "/a/docs", lines(["x".to_owned()])).await;
    assert_eq!(no_write.code(), (400, "no-write-index".to_owned()));
    let two = r#"{"actions": [{"add": {"indices": ["old", "new"], "alias": "a", "is_write_index": true}}]}"#;
    assert_eq!(searchers.call("POST", "/_aliases", two).await.code(), (409, "two-write-indexes".to_owned()));

    assert_eq!(searchers.call("DELETE", "/old", "").await.status, 200);
    for number in 0..2 {
        let node = searchers.0.owner(shard(number));
        let shown = searchers.call_at(&node, "GET", "/_aliases", "").await.json();
        assert_eq!(shown["aliases"]["a"], json!({"indexes": {"new": {}}, "write_index": "new"}));
        let found = searchers.call_at(&node, "POST", "/a/search", "{}").await;
        assert_eq!((found.status, &found.json()["total"]), (200, &json!(0)));
    }
    assert_eq!(searchers.call("PUT", "/old", "").await.status, 201);
    assert_eq!(searchers.get("/old/aliases").await.json(), json!({"aliases": {}}), "it is another index");
    let swap =
        r#"{"actions": [{"remove_index": {"index": "old"}}, {"add": {"index": "new", "alias": "old"}}]}"#;
    assert_eq!(searchers.call("POST", "/_aliases", swap).await.status, 200);
    assert_eq!(searchers.get("/old").await.json()["name"], "new");
    assert_eq!(searchers.call("DELETE", "/new", "").await.status, 200);
    assert_eq!(searchers.get("/_aliases").await.json(), json!({"aliases": {}}));
    assert_eq!(searchers.get("/a/search").await.code(), (404, "no-such-index".to_owned()));
    searchers.stop().await;
}

/// Two aliases are switched together, over and over, by two members at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_aliases_are_switched_every_request_sees_one_of_the_states() {
    let searchers = with(2, &["x", "y"]).await;
    for index in ["x", "y"] {
        searchers.call("POST", &format!("/{index}/docs?refresh=true"), lines([format!("in{index}")])).await;
    }
    let both = |a: &str, b: &str| {
        let action = |alias: &str, index: &str| json!({"add": {"index": index, "alias": alias}});
        let remove = json!({"remove": {"index": "*", "aliases": ["a", "b"]}});
        json!({"actions": [remove, action("a", a), action("b", b)]}).to_string()
    };
    assert_eq!(searchers.call("POST", "/_aliases", both("x", "y")).await.status, 200);
    let is_over = AtomicBool::new(false);
    let switching = async {
        for round in 0..10 {
            let (one, other) = if round % 2 == 0 { ("y", "x") } else { ("x", "y") };
            let nodes = [0, 1].map(|number| searchers.0.owner(shard(number)));
            let switched = futures_util::future::join(
                searchers.call_at(&nodes[0], "POST", "/_aliases", both(one, other)),
                searchers.call_at(&nodes[1], "POST", "/_aliases", both(other, one)),
            );
            let (left, right) = switched.await;
            assert_eq!((left.status, right.status), (200, 200), "{} {}", left.json(), right.json());
        }
        is_over.store(true, Ordering::Release);
    };
    let searching = async {
        let (mut seen, mut number) = (0, 0);
        while !is_over.load(Ordering::Acquire) || seen == 0 {
            let found = searchers.get("/a/search?q=name:inx%20OR%20name:iny").await.json();
            assert_eq!((&found["total"], &found["shards"]["ok"]), (&json!(1), &json!(2)), "{found}");
            let found = searchers.get("/a,b/search?q=name:inx%20OR%20name:iny").await.json();
            assert_eq!((&found["total"], &found["shards"]["ok"]), (&json!(2), &json!(4)), "{found}");
            let es =
                searchers.call("POST", "/es/a,b/_count", r#"{"query": {"prefix": {"name": "in"}}}"#).await;
            assert_eq!(es.json()["count"], 2, "{}", es.json());
            let action = |alias: &str| {
                format!("{{\"index\":{{\"_index\":\"{alias}\",\"_id\":\"n{number}\"}}}}\n{{}}\n")
            };
            let body = [action("a"), action("b")].concat();
            let written = searchers.call("POST", "/es/_bulk", body).await.json();
            let index = |at: usize| written["items"][at]["index"]["_index"].as_str().unwrap().to_owned();
            assert_eq!(written["errors"], false, "{written}");
            assert_ne!(index(0), index(1), "one of the two states: {written}");
            let native = searchers.call("POST", "/a/docs", lines([format!("native-{number}")])).await.json();
            assert_eq!(native["indexed"], 1, "{native}");
            (seen, number) = (seen + 1, number + 1);
        }
        number
    };
    let ((), number) = futures_util::future::join(switching, searching).await;
    for id in (0..number).map(|number| format!("native-{number}")) {
        let found = [
            searchers.get(&format!("/x/docs/{id}")).await.status,
            searchers.get(&format!("/y/docs/{id}")).await.status,
        ];
        assert!(matches!(found, [200, 404] | [404, 200]), "{id}: {found:?}");
    }
    assert_eq!(searchers.call("POST", "/_aliases", switch("a", "x")).await.status, 200);
    searchers.stop().await;
}
