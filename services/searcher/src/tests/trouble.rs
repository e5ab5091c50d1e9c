//! A store or a disk that fails, through HTTP.

use std::io::ErrorKind;
use std::time::Instant;

use store::faults::Mode;

use super::*;

/// The code of a shard's health, and why.
fn health(searchers: &Searchers) -> (String, String) {
    match searchers.0.service(&searchers.0.owner(shard(0))).health() {
        Health::Ready => Default::default(),
        Health::Degraded(why) => (why.code.to_string(), why.text),
        Health::Failed(why) => panic!("it failed: {why:?}"),
    }
}

async fn until_ready(searchers: &Searchers) {
    until("it is ready again", async || health(searchers).0.is_empty()).await;
}

async fn total(searchers: &Searchers, query: &str) -> u64 {
    searchers.get(&format!("/x/search?q={query}&consistency=strong")).await.json()["total"].as_u64().unwrap()
}

#[tokio::test]
async fn writes_that_wait_for_segments_say_why_the_store_has_none_and_go_on_once_it_takes_them() {
    let (searchers, faults) = Searchers::on_faults(json!({})).await;
    assert_eq!(searchers.call("PUT", "/x/docs/first?refresh=wait", "{\"text\":\"word\"}").await.status, 201);
    faults.refuse(["manifest"]);
    let began = Instant::now();
    let line = "{\"name\":\"line\",\"text\":\"word\"}";
    let es = "{\"index\":{\"_id\":\"item\"}}\n{\"text\":\"word\"}\n";
    let es = Request::post("/es/x/_bulk?refresh=wait_for")
        .header("content-type", "application/x-ndjson")
        .body(Body::from(es));
    let (put, patch, bulk, es) = tokio::join!(
        searchers.call("PUT", "/x/docs/put?refresh=wait", "{\"text\":\"word\"}"),
        searchers.call("PATCH", "/x/docs/patch?refresh=true&upsert=true", "{\"text\":\"word\"}"),
        searchers.call("POST", "/x/docs?refresh=wait", line),
        searchers.send(es.unwrap()),
    );
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    for answer in [&put, &patch] {
        assert_eq!(answer.code(), (504, "not-visible-in-time".to_owned()));
        let detail = answer.problem().detail;
        assert!(detail.contains("permission denied"), "{detail}");
    }
    let refused = &bulk.json()["refused"][0];
    assert_eq!((&refused["status"], &refused["code"]), (&json!(504), &json!("not-visible-in-time")));
    assert!(refused["detail"].as_str().unwrap().contains("permission denied"), "{refused}");
    // Elasticsearch's clients would send a 504 again.
    let item = &es.json()["items"][0]["index"];
    assert_eq!((&item["status"], &item["forced_refresh"]), (&json!(201), &json!(false)), "{item}");
    let (code, why) = health(&searchers);
    assert_eq!(code, "store-unavailable");
    assert!(why.contains("permission denied"), "{why}");
    // They are durable, and the owner's searches show them.
    assert_eq!(total(&searchers, "word").await, 5);
    assert_eq!(searchers.get("/x/docs/line").await.status, 200);
    faults.refuse([]);
    until_ready(&searchers).await;
    let again = searchers.call("PUT", "/x/docs/put?refresh=wait", "{\"text\":\"word\"}").await;
    assert_eq!(again.status, 200, "{}", again.json());
    assert_eq!(total(&searchers, "word").await, 5);
    searchers.stop().await;
}

#[tokio::test]
async fn a_store_that_takes_nothing_makes_the_outcome_unknown_and_health_says_why() {
    let (searchers, faults) = Searchers::on_faults(json!({})).await;
    assert_eq!(searchers.call("PUT", "/x/docs/first?refresh=wait", "{\"text\":\"word\"}").await.status, 201);
    faults.set(Mode::FailWrites(ErrorKind::StorageFull));
    let put = searchers.call("PUT", "/x/docs/put?refresh=wait", "{\"text\":\"word\"}").await;
    assert_eq!(put.code(), (503, "not-durable-in-time".to_owned()));
    assert!(!put.is_untouched());
    assert!(put.problem().detail.contains("the disk is full"), "{}", put.problem().detail);
    until("health says so", async || health(&searchers).0 == "data-not-open").await;
    until("health says why", async || health(&searchers).1.contains("the disk is full")).await;
    let any = searchers.get("/x/search?q=word&consistency=any").await;
    assert_eq!(any.status, 200, "{}", any.json());
    faults.set(Mode::Work);
    until_ready(&searchers).await;
    let again = searchers.call("PUT", "/x/docs/put?refresh=wait", "{\"text\":\"word\"}").await;
    assert!(again.status < 300, "{}", again.json());
    assert_eq!(total(&searchers, "word").await, 2);
    searchers.stop().await;
}

#[tokio::test]
async fn too_much_behind_is_429_until_the_store_takes_segments_again() {
    let (searchers, faults) = Searchers::on_faults(json!({"max_behind": {"operations": 1000}})).await;
    // Opening the shard writes a manifest.
    assert_eq!(searchers.call("PUT", "/x/docs/first?refresh=wait", "{\"text\":\"other\"}").await.status, 201);
    faults.refuse(["packs", "manifest"]);
    let line = |number: usize| json!({"name": format!("id-{number}"), "text": "word"}).to_string();
    let lines = |from| (from..from + 1000).map(line).collect::<Vec<_>>().join("\n");
    let first = searchers.call("POST", "/x/docs", lines(0)).await.json();
    assert_eq!(first["indexed"], 1000, "{first}");
    for (method, path) in
        [("PUT", "/x/docs/a"), ("PUT", "/x/docs/a?refresh=true"), ("DELETE", "/x/docs/id-1")]
    {
        let answer = searchers.call(method, path, "{\"text\":\"word\"}").await;
        assert_eq!(answer.code(), (429, "too-far-behind".to_owned()), "{method} {path}");
        assert!(answer.headers.contains_key("retry-after"), "{method} {path}");
    }
    let bulk = searchers.call("POST", "/x/docs", lines(1000)).await.json();
    assert_eq!((&bulk["indexed"], bulk["refused"].as_array().unwrap().len()), (&json!(0), 1000));
    assert_eq!(bulk["refused"][0]["status"], 429);
    let es = searchers.call("PUT", "/es/x/_doc/a", "{\"text\":\"word\"}").await;
    assert_eq!(es.status, 429, "{}", es.json());
    assert_eq!(total(&searchers, "word").await, 1000, "reads go on");
    faults.refuse([]);
    until("writes go on", async || {
        searchers.call("PUT", "/x/docs/a", "{\"text\":\"word\"}").await.status == 201
    })
    .await;
    assert_eq!(total(&searchers, "word").await, 1001);
    until_ready(&searchers).await;
    searchers.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_507_until_there_is_room() {
    let searchers = Searchers::with_index(1, json!({})).await;
    assert_eq!(searchers.call("PUT", "/x/docs/first?refresh=wait", "{\"text\":\"word\"}").await.status, 201);
    let folder = searchers.0.cache_dir(&searchers.0.owner(shard(0))).join("searcher/searcher/0");
    std::fs::write(folder.join("full"), "").unwrap();
    let mut acknowledged = 1;
    until("writes are refused", async || {
        let path = format!("/x/docs/{}", rand::random::<u64>());
        searchers.call("PUT", &path, "{\"text\":\"other\"}").await.status == 507
    })
    .await;
    let put = searchers.call("PUT", "/x/docs/a?refresh=wait", "{\"text\":\"word\"}").await;
    assert_eq!(put.code(), (507, "no-space".to_owned()));
    let bulk = searchers.call("POST", "/x/docs", "{\"name\":\"a\"}\n{\"name\":\"b\"}").await.json();
    assert_eq!((&bulk["indexed"], &bulk["refused"][1]["status"]), (&json!(0), &json!(507)));
    let es = searchers.call("PUT", "/es/x/_doc/a", "{\"text\":\"word\"}").await;
    assert_eq!(es.status, 507, "{}", es.json());
    assert_eq!(health(&searchers).0, "disk-full");
    assert_eq!(searchers.get("/x/docs/first").await.status, 200);
    let strong = searchers.get("/x/search?q=word&consistency=strong").await;
    assert_eq!(strong.code(), (507, "no-space".to_owned()));
    assert_eq!(searchers.get("/x/search?q=word").await.json()["total"], 1, "reads go on");
    std::fs::remove_file(folder.join("full")).unwrap();
    until_ready(&searchers).await;
    let put = searchers.call("PUT", "/x/docs/a?refresh=wait", "{\"text\":\"word\"}").await;
    acknowledged += u64::from(put.status == 201);
    assert_eq!(total(&searchers, "word").await, acknowledged);
    searchers.stop().await;
}
