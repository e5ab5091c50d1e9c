use super::*;

#[tokio::test]
async fn a_template_defines_indexes_that_requests_and_first_writes_create() {
    let searchers = Searchers::start(2, json!({})).await;
    let template = json!({
        "patterns": ["logs-*"], "priority": 5, "aliases": {"logs": {}},
        "definition": {"fields": {"level": {"type": "keyword"}}, "id": "key", "delete_after": "30d"},
    });
    let put = searchers.call("PUT", "/_templates/logs", template.to_string()).await;
    assert_eq!((put.status, put.json()), (201, json!({"name": "logs", "created": true})));
    assert_eq!(searchers.call("PUT", "/_templates/logs", template.to_string()).await.status, 200);
    let shown = searchers.get("/_templates/logs").await.json();
    assert_eq!((&shown["name"], &shown["definition"]["delete_after"]), (&json!("logs"), &json!("30d")));
    assert_eq!(searchers.get("/_templates").await.json()["templates"]["logs"]["priority"], 5);
    let overlapping = searchers.call("PUT", "/_templates/x", r#"{"patterns": ["*-1"], "priority": 5}"#).await;
    assert_eq!(overlapping.code(), (400, "template-overlap".to_owned()));

    // By a first write, by a request, and through Elasticsearch's API.
    let written = searchers.call("POST", "/logs-1/docs", "{\"key\":\"a\",\"level\":\"info\"}").await;
    assert_eq!(written.json()["indexed"], 1);
    assert_eq!(searchers.call("PUT", "/logs-2", r#"{"fields": {"n": {"type": "i64"}}}"#).await.status, 201);
    assert_eq!(searchers.call("PUT", "/es/logs-3/_doc/b", "{\"key\":\"b\"}").await.status, 201);
    for index in ["logs-1", "logs-2", "logs-3"] {
        let shown = searchers.get(&format!("/{index}")).await.json();
        let definition = &shown["definition"];
        assert_eq!(
            (&definition["id"], &definition["delete_after"]),
            (&json!("key"), &json!("30d")),
            "{shown}"
        );
        assert_eq!(definition["fields"]["level"]["type"], "keyword");
        assert_eq!(shown["aliases"], json!(["logs"]));
    }
    assert_eq!(searchers.get("/logs-1/docs/a").await.json()["level"], "info");
    assert_eq!(searchers.get("/logs-2").await.json()["definition"]["fields"]["n"]["type"], "i64");
    let listed = searchers.get("/").await.json();
    assert_eq!(listed["indexes"][0]["delete_after"], "30d");
    // The same request again changes nothing, though the index has more than it says.
    assert_eq!(
        searchers.call("PUT", "/logs-2", r#"{"fields": {"n": {"type": "i64"}}}"#).await.json()["extended"],
        false
    );
    let conflict = searchers.call("PUT", "/logs-4", r#"{"default_fields": {"level": -1}}"#).await;
    assert_eq!(conflict.status, 400, "{}", conflict.json());
    assert_eq!(searchers.call("DELETE", "/_templates/logs", "").await.status, 200);
    assert_eq!(searchers.call("DELETE", "/_templates/logs", "").await.status, 404);
    assert_eq!(searchers.call("PUT", "/logs-5", "").await.status, 201);
    assert_eq!(searchers.get("/logs-5").await.json()["definition"]["id"], Value::Null);
    searchers.stop().await;
}

#[tokio::test]
async fn an_index_is_deleted_when_it_is_old_enough_and_a_declared_one_never() {
    let settings = json!({"indexes": {"declared": {}}});
    let searchers = Searchers::start(2, settings).await;
    until("the declared index is there", async || searchers.get("/declared").await.status == 200).await;
    let refused = searchers.call("PUT", "/declared", r#"{"delete_after": "1s"}"#).await;
    assert_eq!(refused.code(), (409, "declared-index".to_owned()));
    assert_eq!(
        searchers
            .call("PUT", "/_templates/all", r#"{"patterns": ["*"], "definition": {"delete_after": "1s"}}"#)
            .await
            .status,
        201
    );
    assert_eq!(searchers.call("PUT", "/kept", r#"{"delete_after": "never"}"#).await.status, 201);
    assert_eq!(searchers.call("POST", "/old/docs", "{\"a\":1}").await.json()["indexed"], 1);
    assert_eq!(searchers.call("PUT", "/old/aliases/alias", "").await.status, 200);
    assert_eq!(searchers.call("PUT", "/later", r#"{"delete_after": "1h"}"#).await.status, 201);
    until("it is gone", async || searchers.call("GET", "/old/search", "").await.status == 404).await;
    assert_eq!(searchers.get("/alias/search").await.status, 404);
    let listed = searchers.get("/").await.json();
    let names: Vec<_> =
        listed["indexes"].as_array().unwrap().iter().map(|index| index["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["declared", "kept", "later"]);
    // It may be kept for longer or shorter afterwards.
    assert_eq!(searchers.call("PUT", "/later", r#"{"delete_after": "1s"}"#).await.json()["extended"], true);
    until("it is gone", async || searchers.get("/later").await.status == 404).await;
    searchers.stop().await;
}
