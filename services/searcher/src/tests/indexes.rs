use super::*;

#[tokio::test]
async fn an_index_is_created_once_and_extended_and_listed() {
    let searchers = Searchers::start(2, json!({})).await;
    let one = json!({"fields": {"a": {"type": "text"}}}).to_string();
    let created = searchers.call("PUT", "/x", one.clone()).await;
    assert_eq!((created.status, &created.json()["created"]), (201, &json!(true)));
    let again = searchers.call("PUT", "/x", one).await;
    assert_eq!(
        (again.status, &again.json()["created"], &again.json()["extended"]),
        (200, &json!(false), &json!(false))
    );
    assert_eq!(again.json()["uuid"], created.json()["uuid"]);
    let two = json!({"fields": {"a": {"type": "text"}, "b": {"type": "i64"}}}).to_string();
    let extended = searchers.call("PUT", "/x", two).await;
    assert_eq!((extended.status, &extended.json()["extended"]), (200, &json!(true)));
    let more = json!({"synonyms": ["tv, television"]}).to_string();
    assert_eq!(searchers.call("PUT", "/x", more).await.json()["extended"], true);
    let only = json!({"fields": {"c": {"type": "bool"}}}).to_string();
    assert_eq!(searchers.call("PUT", "/x", only).await.json()["extended"], true);
    let now = searchers.get("/x").await.json()["definition"].clone();
    assert_eq!((&now["synonyms"], now["fields"].as_object().unwrap().len()), (&json!(["tv, television"]), 3));
    // Every member knows the new field at once.
    for number in 0..2 {
        let node = searchers.0.owner(shard(number));
        let body = "{\"b\":\"no number\"}";
        let answer =
            searchers.call_at(&node, "PUT", &format!("/x/docs/{}", Searchers::id_of(number)), body).await;
        assert_eq!(answer.code(), (400, "bad-document".to_owned()));
    }
    let listed = searchers.get("/").await.json();
    let index = &listed["indexes"][0];
    assert_eq!(
        (&index["name"], &index["fields"], &index["declared"]),
        (&json!("x"), &json!(3), &json!(false))
    );
    searchers.stop().await;
}

#[tokio::test]
async fn an_index_shows_its_documents_at_each_shard() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let lines: Vec<_> = (0..20).map(|number| format!("{{\"name\":\"d{number}\"}}")).collect();
    searchers.call("POST", "/x/docs?refresh=true", lines.join("\n")).await;
    let shown = searchers.get("/x").await.json();
    assert_eq!((&shown["documents"], &shown["is_complete"]), (&json!(20), &json!(true)), "{shown}");
    assert!(shown["bytes"].as_u64().unwrap() > 0);
    assert_eq!(shown["definition"]["id"], "name");
    let shards = shown["shards"].as_array().unwrap();
    assert_eq!((shards.len(), &shards[0]["answered_by"]), (2, &json!("owner")));
    let listed = searchers.get("/").await.json();
    assert_eq!(listed["indexes"][0]["documents"], 20, "{listed}");
    let node = searchers.0.owner(shard(0));
    searchers.0.lose(shard(1));
    let listed = searchers.call_at(&node, "GET", "/", "").await.json();
    assert_eq!((&listed["indexes"][0]["name"], listed["indexes"][0].get("documents")), (&json!("x"), None));
    let partial = searchers.call_at(&node, "GET", "/x", "").await.json();
    assert_eq!(partial["is_complete"], false);
    assert!(partial["shards"][1]["reason"].is_string(), "{partial}");
    searchers.stop().await;
}

#[tokio::test]
async fn a_deleted_index_is_gone_at_every_member_and_a_new_one_is_empty() {
    let searchers = Searchers::with_index(2, json!({"auto_create": false})).await;
    for number in 0..2 {
        let path = format!("/x/docs/{}", Searchers::id_of(number));
        assert_eq!(searchers.call("PUT", &path, "{\"text\":\"old\"}").await.status, 201);
    }
    let deleted = searchers.call("DELETE", "/x", "").await;
    assert_eq!((deleted.status, &deleted.json()["unreached"]), (200, &json!([])), "{}", deleted.json());
    for number in 0..2 {
        let node = searchers.0.owner(shard(number));
        let path = format!("/x/docs/{}", Searchers::id_of(number));
        for (method, path) in [("GET", path.as_str()), ("PUT", &path), ("GET", "/x/search"), ("GET", "/x")] {
            let answer = searchers.call_at(&node, method, path, "{}").await;
            assert_eq!(answer.code(), (404, "no-such-index".to_owned()), "{method} {path}");
        }
    }
    // As a member asks that does not know of the deletion yet.
    let uri = format!("/_shard/0/state?index={}&name=x", deleted.json()["uuid"].as_str().unwrap());
    let gone = searchers.call_at(&searchers.0.owner(shard(0)), "POST", &uri, "").await;
    assert_eq!((gone.status, gone.problem().detail), (404, "the index `x` was deleted".to_owned()));
    assert_eq!(searchers.call("DELETE", "/x", "").await.code(), (404, "no-such-index".to_owned()));
    assert_eq!(searchers.call("PUT", "/x", "").await.status, 201);
    let found = searchers.call("POST", "/x/search", r#"{"consistency": "strong"}"#).await;
    assert_eq!(found.json()["total"], 0);
    assert_eq!(searchers.get(&format!("/x/docs/{}", Searchers::id_of(0))).await.status, 404);
    searchers.stop().await;
}

#[tokio::test]
async fn declared_indexes_exist_and_can_not_be_deleted() {
    let settings = json!({"indexes": {"packages": {"fields": {"a": {"type": "text"}}}}});
    let searchers = Searchers::start(2, settings).await;
    until("the index is there", async || searchers.get("/packages").await.status == 200).await;
    let refused = searchers.call("DELETE", "/packages", "").await;
    assert_eq!(refused.code(), (409, "declared-index".to_owned()));
    assert_eq!(searchers.get("/").await.json()["indexes"][0]["declared"], true);
    let missing = searchers.get("/pakages").await;
    assert_eq!(missing.problem().hint.as_deref(), Some("did you mean `packages`?"));
    searchers.stop().await;
}

#[tokio::test]
async fn a_compaction_leaves_one_segment_without_deleted_documents() {
    let searchers = Searchers::with_index(1, json!({"refresh": "100ms"})).await;
    for number in 0..4 {
        let path = format!("/x/docs/d{number}?refresh=true");
        assert_eq!(searchers.call("PUT", &path, "{\"text\":\"a\"}").await.status, 201);
    }
    searchers.call("DELETE", "/x/docs/d0?refresh=true", "").await;
    let compacted = searchers.call("POST", "/x/compact", "").await;
    assert_eq!(compacted.status, 200, "{}", compacted.json());
    let shown = searchers.get("/x").await.json();
    assert_eq!((&shown["documents"], &shown["shards"][0]["segments"]), (&json!(3), &json!(1)), "{shown}");
    searchers.stop().await;
}
