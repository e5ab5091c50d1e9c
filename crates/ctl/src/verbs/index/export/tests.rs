//! The export from a member that answers as the test says.

use std::sync::Mutex;

use serde_json::{Value, json};
use types::{ErrorKind, Problem};

use super::*;
use crate::fake::{Answer, Fake};

fn hit(source: &str) -> String {
    format!(r#"{{"id":"x","sort":[1,0],"source":{source}}}"#)
}

fn answer(hits: &[String], next: Option<u64>, failed: &Value) -> Value {
    let hits: Vec<Value> = hits.iter().map(|hit| serde_json::from_str(hit).unwrap()).collect();
    json!({ "took_ms": 1, "total": 3, "hits": hits, "next": next.map(|seq| vec![seq, 0]),
            "shards": { "total": 1, "ok": 1, "failed": failed } })
}

async fn exported(fake: &Fake) -> anyhow::Result<(usize, String)> {
    let mut out = Vec::new();
    let index = "books".parse().unwrap();
    let count = export(&fake.reached, &index, &mut out, &mut Progress::new(), Instant::now()).await?;
    Ok((count, String::from_utf8(out).unwrap()))
}

#[tokio::test]
async fn pages_are_read_after_one_another_in_the_order_of_writes() {
    let searches = std::sync::Arc::new(Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&searches);
    let fake = Fake::new("searcher/0", move |request, body| {
        assert_eq!(request, "POST /books/search");
        let search: Value = serde_json::from_str(body).unwrap();
        let page = search["search_after"][0].as_u64();
        seen.lock().unwrap().push(search);
        Answer::json(&match page {
            None => answer(&[hit(r#"{"a":1.0}"#), hit("{\"b\":\n2}")], Some(7), &json!([])),
            Some(7) => answer(&[hit(r#"{"c":"é"}"#)], Some(9), &json!([])),
            _ => answer(&[], None, &json!([])),
        })
    })
    .await;
    let (count, lines) = exported(&fake).await.unwrap();
    assert_eq!((count, lines.as_str()), (3, "{\"a\":1.0}\n{\"b\":2}\n{\"c\":\"é\"}\n"));
    let searches = searches.lock().unwrap();
    let first = json!({ "sort": ["_seq"], "size": 1000, "source": true, "consistency": "strong",
                        "allow_partial": false, "did_you_mean": false });
    assert_eq!(searches[0], first);
    assert_eq!((&searches[1]["consistency"], &searches[1]["search_after"]), (&Value::Null, &json!([7, 0])));
    assert_eq!(searches.len(), 3);
}

#[tokio::test]
async fn an_export_that_lacks_documents_fails() {
    let failed = json!([{ "shard": 1, "reason": "no owner" }]);
    let fake = Fake::new("searcher/0", move |_, _| Answer::json(&answer(&[hit("{}")], None, &failed))).await;
    let error = exported(&fake).await.unwrap_err();
    assert_eq!(error.to_string(), "the service left documents out of a page");
}

#[tokio::test]
async fn documents_that_are_too_large_for_one_answer_are_asked_for_in_smaller_pages() {
    let fake = Fake::new("searcher/0", move |_, body| {
        let size = serde_json::from_str::<Value>(body).unwrap()["size"].as_u64().unwrap();
        if size > 100 {
            return Answer::problem(&Problem::new(ErrorKind::TooLarge, "answer-too-large", "too much"));
        }
        Answer::json(&answer(&[hit("{}")], None, &json!([])))
    })
    .await;
    assert_eq!(exported(&fake).await.unwrap(), (1, "{}\n".to_owned()));
}
