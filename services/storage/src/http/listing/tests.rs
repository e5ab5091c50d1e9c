//! Three nodes with a shard each, over real connections.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::StatusCode;
use plugin::testing::ShardCluster;
use serde_json::{Value, json};
use types::KeyHash;

use crate::Storage;

const SHARDS: NonZeroU32 = NonZeroU32::new(3).unwrap();

async fn start() -> ShardCluster {
    ShardCluster::start(Arc::new(Storage), &json!({}), SHARDS).await
}

/// Sends a request and reads the answer as JSON.
async fn call(cluster: &ShardCluster, method: &str, path: &str, body: String) -> (StatusCode, Value) {
    let answer = cluster.call(method, path, body).await;
    (answer.status(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

/// Removes the owner of the last shard from the view.
fn lose_one(cluster: &ShardCluster) {
    cluster.lose(2.try_into().unwrap());
}

#[tokio::test]
async fn a_listing_is_in_order_over_all_shards_or_names_the_one_that_is_missing() {
    let cluster = start().await;
    let names: Vec<_> = (0..40).map(|number| format!("key/{number:03}")).collect();
    let mut counts = [0; 3];
    for name in &names {
        counts[KeyHash::of(name.as_bytes()).shard(SHARDS).as_u32() as usize] += 1;
        assert_eq!(
            call(&cluster, "PUT", &format!("/kv/{name}"), "12".to_owned()).await.0,
            StatusCode::OK,
            "the mesh finds its shard"
        );
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");

    let (mut shown, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, page) =
            call(&cluster, "GET", &format!("/kv?prefix=key/&limit=7&after={after}"), String::new()).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        pages += 1;
        shown.extend(
            page["keys"].as_array().unwrap().iter().map(|listed| listed["key"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!((shown, pages), (names, 6));

    lose_one(&cluster);
    let (status, problem) = call(&cluster, "GET", "/kv", String::new()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("shard 2"), "{problem}");
    cluster.stop().await;
}

#[tokio::test]
async fn an_import_reaches_every_shard_through_any_member_and_is_shown_with_its_values() {
    let cluster = start().await;
    let lines: String = (0..3_000)
        .map(|n| {
            let value = if n % 2 == 0 {
                format!("\"value\":\"{n}\"")
            } else {
                "\"value_base64\":\"AP8=\"".to_owned()
            };
            format!("{{\"key\":\"key/{n:04}\",{value}}}\n")
        })
        .collect();
    let (status, answer) = call(&cluster, "POST", "/import", lines.clone()).await;
    assert_eq!((status, &answer), (StatusCode::OK, &json!({"imported": 3_000})));

    let (mut shown, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/kv?values=true&bytes=100000&limit=10000&after={after}");
        let (status, page) = call(&cluster, "GET", &path, String::new()).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert!(page.to_string().len() < 200_000, "a page is bounded by its bytes");
        shown.extend(page["keys"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(shown.len(), 3_000);
    for (n, listed) in shown.iter().enumerate() {
        assert_eq!(listed["key"], format!("key/{n:04}"));
        assert_eq!(listed["etag"], format!("\"{}\"", listed["version"]));
        if n % 2 == 0 {
            assert_eq!((&listed["value"], &listed["value_base64"]), (&json!(n.to_string()), &Value::Null));
        } else {
            assert_eq!((&listed["value"], &listed["value_base64"]), (&Value::Null, &json!("AP8=")));
        }
    }

    let bad = lines.replacen("key/2000", "%", 1).replace("key/", "other/");
    let (status, problem) = call(&cluster, "POST", "/import", bad).await;
    assert_eq!((status, &problem["line"]), (StatusCode::BAD_REQUEST, &json!(2_001)), "{problem}");
    let (_, page) = call(&cluster, "GET", "/kv?prefix=other/", String::new()).await;
    assert_eq!(page["keys"], json!([]), "nothing is written if a line is bad");

    lose_one(&cluster);
    let (status, problem) = call(&cluster, "POST", "/import", lines).await;
    assert_eq!((status, &problem["title"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("import incomplete")));
    assert!(problem["detail"].as_str().unwrap().contains("shard 2: "), "{problem}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_batch_through_any_member_is_made_where_its_keys_are() {
    let cluster = start().await;
    for tag in 0..12 {
        let key = |name: &str| format!("{{tag-{tag}}}/{name}").replace('{', "%7B").replace('}', "%7D");
        let batch = json!({"operations": [
            {"put": key("a"), "value": "1", "if_none_match": true},
            {"put": key("b"), "value": "2", "ttl": "1h"},
        ]});
        let (status, answer) = call(&cluster, "POST", "/batch", batch.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let (status, problem) = call(&cluster, "POST", "/batch", batch.to_string()).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED);
        let failed = json!([{"operation": 0, "key": key("a"), "version": answer["version"]}]);
        assert_eq!(problem["failed"], failed, "{problem}");
        let (status, value) = call(&cluster, "GET", &format!("/kv/{}", key("b")), String::new()).await;
        assert_eq!((status, value), (StatusCode::OK, json!(2)));
    }
    let apart: Vec<_> = (0..20).map(|n| json!({ "put": format!("key/{n:03}"), "value": "1" })).collect();
    let (status, problem) =
        call(&cluster, "POST", "/batch", json!({ "operations": apart }).to_string()).await;
    assert_eq!((status, &problem["title"]), (StatusCode::BAD_REQUEST, &json!("several shards")));
    let shards: Vec<_> =
        problem["shards"].as_array().unwrap().iter().map(|part| part["shard"].as_u64()).collect();
    assert_eq!(shards, [Some(0), Some(1), Some(2)], "{problem}");
    cluster.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_takeovers_and_moves_and_a_former_owner_acknowledges_nothing() {
    let mut cluster = start().await;
    let keys: Vec<_> = (0..30).map(|number| format!("/kv/key-{number}")).collect();
    for key in &keys {
        assert_eq!(call(&cluster, "PUT", key, "1".to_owned()).await.0, StatusCode::OK);
    }
    let (taken, moved) = (0.try_into().unwrap(), 1.try_into().unwrap());
    let former = cluster.take_over(taken).await;
    cluster.move_shard(moved).await;
    for key in &keys {
        assert_eq!(call(&cluster, "GET", key, String::new()).await, (StatusCode::OK, json!(1)), "{key}");
        assert_eq!(call(&cluster, "PUT", key, "2".to_owned()).await.0, StatusCode::OK);
    }
    let own = keys.iter().find(|key| KeyHash::of(&key.as_bytes()[4..]).shard(SHARDS) == taken).unwrap();
    for (method, body) in [("PUT", "late"), ("GET", "")] {
        let late = cluster.call_at(&former, method, own, body).await;
        assert!(!late.status().is_success(), "{method}: {late:?}");
    }
    assert_eq!(call(&cluster, "GET", own, String::new()).await, (StatusCode::OK, json!(2)));
    cluster.stop().await;
}
