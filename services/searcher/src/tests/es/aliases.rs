use super::*;

async fn total(searchers: &Searchers, expression: &str) -> Value {
    ask(searchers, "GET", &format!("/{expression}/_count"), "", 200).await["count"].clone()
}

#[tokio::test]
async fn aliases_are_added_switched_shown_and_removed() {
    let searchers = Searchers::start(2, json!({})).await;
    for (index, count) in [("logs-1", 3), ("logs-2", 4)] {
        let lines: Vec<_> =
            (0..count).map(|id| format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{{}}\n")).collect();
        ask(&searchers, "POST", &format!("/{index}/_bulk?refresh=true"), &lines.concat(), 200).await;
    }
    let add = r#"{"actions": [{"add": {"index": "logs-*", "alias": "logs"}}, {"add": {"index": "logs-1", "alias": "now"}}]}"#;
    assert_eq!(ask(&searchers, "POST", "/_aliases", add, 200).await["acknowledged"], true);
    assert_eq!((total(&searchers, "logs").await, total(&searchers, "now").await), (json!(7), json!(3)));
    assert_eq!((total(&searchers, "*,-now").await, total(&searchers, "no*").await), (json!(4), json!(3)));
    let switch = r#"{"actions": [{"remove": {"index": "logs-1", "alias": "now"}}, {"add": {"index": "logs-2", "alias": "now"}}]}"#;
    ask(&searchers, "POST", "/_aliases", switch, 200).await;
    assert_eq!(total(&searchers, "now").await, 4);

    let shown = ask(&searchers, "GET", "/_alias", "", 200).await;
    assert_eq!(
        shown,
        json!({"logs-1": {"aliases": {"logs": {}}}, "logs-2": {"aliases": {"logs": {}, "now": {}}}})
    );
    assert_eq!(ask(&searchers, "GET", "/_aliases", "", 200).await, shown);
    let now = json!({"logs-2": {"aliases": {"now": {}}}});
    assert_eq!(ask(&searchers, "GET", "/_alias/no*", "", 200).await, now);
    assert_eq!(ask(&searchers, "GET", "/logs-2/_alias/now", "", 200).await, now);
    assert_eq!(
        ask(&searchers, "GET", "/logs-1/_alias", "", 200).await["logs-1"]["aliases"],
        json!({"logs": {}})
    );
    assert_eq!(
        ask(&searchers, "GET", "/now", "", 200).await["logs-2"]["aliases"],
        json!({"logs": {}, "now": {}})
    );
    ask(&searchers, "HEAD", "/_alias/now", "", 200).await;
    ask(&searchers, "HEAD", "/logs-1/_alias/now", "", 404).await;
    let missing = ask(&searchers, "GET", "/_alias/now,then", "", 404).await;
    assert_eq!((&missing["error"], &missing["logs-2"]), (&json!("alias [then] missing"), &now["logs-2"]));
    let table = searchers.call("GET", "/es/_cat/aliases/now?h=alias,index,is_write_index", "").await;
    assert_eq!(String::from_utf8_lossy(&table.body), "now logs-2 -\n");
    assert_eq!(
        ask(&searchers, "GET", "/_cat/aliases?format=json", "", 200).await.as_array().unwrap().len(),
        3
    );

    // Writes go to one index, whose name the answers have.
    let refused = ask(&searchers, "PUT", "/logs/_doc/x", "{}", 400).await;
    assert!(
        refused["error"]["reason"].as_str().unwrap().contains("no write index is defined for alias [logs]")
    );
    ask(&searchers, "PUT", "/logs-1/_alias/logs", r#"{"is_write_index": true}"#, 200).await;
    assert_eq!(ask(&searchers, "PUT", "/logs/_doc/x", r#"{"n": 1}"#, 201).await["_index"], "logs-1");
    let body = "{\"index\":{\"_index\":\"logs\",\"_id\":\"y\"}}\n{}\n{\"delete\":{\"_index\":\"logs\",\"_id\":\"y\"}}\n";
    let bulk = ask(&searchers, "POST", "/_bulk", body, 200).await;
    assert_eq!(
        (&bulk["items"][0]["index"]["_index"], &bulk["errors"]),
        (&json!("logs-1"), &json!(false)),
        "{bulk}"
    );
    assert_eq!(bulk["items"][1]["delete"]["result"], "deleted");
    assert_eq!(ask(&searchers, "GET", "/now/_doc/0", "", 200).await["_index"], "logs-2");
    let several = ask(&searchers, "GET", "/logs/_doc/x", "", 400).await;
    assert!(several["error"]["reason"].as_str().unwrap().contains("more than one index associated with it"));
    let got = ask(&searchers, "POST", "/now/_mget", r#"{"ids": ["0", "9"]}"#, 200).await;
    assert_eq!((&got["docs"][0]["_index"], &got["docs"][1]["found"]), (&json!("logs-2"), &json!(false)));
    let hits = ask(&searchers, "GET", "/now,nothing/_search?ignore_unavailable=true", "", 200).await;
    assert_eq!(hits["hits"]["hits"][0]["_index"], "logs-2");
    let mapping = r#"{"properties": {"k": {"type": "keyword"}}}"#;
    ask(&searchers, "PUT", "/logs/_mapping?write_index_only=true", mapping, 200).await;
    let mappings = ask(&searchers, "GET", "/logs/_mapping", "", 200).await;
    assert_eq!(mappings["logs-1"]["mappings"]["properties"]["k"]["type"], "keyword");
    assert_eq!(mappings["logs-2"]["mappings"]["properties"]["k"], Value::Null);
    let query = r#"{"query": {"match_all": {}}}"#;
    let deleted = ask(&searchers, "POST", "/logs/_delete_by_query?refresh=true", query, 200).await;
    assert_eq!((&deleted["deleted"], total(&searchers, "logs").await), (&json!(8), json!(0)));

    for (method, path, body, status, words) in [
        ("PUT", "/now", "{}", 400, "already exists as alias"),
        ("DELETE", "/now", "", 400, "matches an alias"),
        ("PUT", "/logs-1/_alias/logs-2", "", 400, "invalid_alias_name_exception"),
        ("PUT", "/logs-1/_alias/x", r#"{"filter": {"term": {"a": 1}}}"#, 400, "[filter] is not supported"),
        ("PUT", "/logs-1/_alias/x", r#"{"routing": "1"}"#, 400, "[routing] is not supported"),
        ("PUT", "/nothing/_alias/x", "", 404, "index_not_found_exception"),
        ("PUT", "/_alias/x", "", 400, "index is missing"),
        ("DELETE", "/logs-1/_alias/x", "", 404, "aliases_not_found_exception"),
        (
            "POST",
            "/_aliases",
            r#"{"actions": [{"add": {"index": "now", "alias": "x"}}]}"#,
            400,
            "is an alias",
        ),
        (
            "POST",
            "/_aliases",
            r#"{"actions": [{"add": {"index": "logs-2", "alias": "logs", "is_write_index": true}}]}"#,
            400,
            "more than one write index",
        ),
        ("PUT", "/_aliases", "{}", 405, "allowed"),
    ] {
        let answer = ask(&searchers, method, path, body, status).await;
        assert!(answer.to_string().contains(words), "{method} {path}: {answer}");
    }
    ask(&searchers, "PUT", "/c", r#"{"aliases": {"now": {"is_write_index": false}}}"#, 200).await;
    assert_eq!(ask(&searchers, "GET", "/now/_settings", "", 200).await.as_object().unwrap().len(), 2);
    ask(&searchers, "DELETE", "/_all/_alias/*", "", 200).await;
    ask(&searchers, "GET", "/now/_search", "", 404).await;
    searchers.stop().await;
}

#[tokio::test]
async fn index_templates_are_put_shown_applied_and_deleted() {
    let searchers = Searchers::start(1, json!({})).await;
    let template = json!({
        "index_patterns": ["logs-*"], "priority": 7, "version": 2, "_meta": {"by": "ops"},
        "template": {
            "settings": {"number_of_replicas": 1},
            "mappings": {"properties": {"level": {"type": "keyword"}}},
            "aliases": {"logs": {}},
        },
    });
    ask(&searchers, "PUT", "/_index_template/logs?create=true", &template.to_string(), 200).await;
    ask(&searchers, "PUT", "/_index_template/logs?create=true", &template.to_string(), 400).await;
    ask(&searchers, "POST", "/_index_template/logs", &template.to_string(), 200).await;
    let shown = ask(&searchers, "GET", "/_index_template/logs", "", 200).await["index_templates"][0].clone();
    assert_eq!((&shown["name"], &shown["index_template"]["priority"]), (&json!("logs"), &json!(7)));
    assert_eq!(shown["index_template"]["version"], 2);
    assert_eq!(ask(&searchers, "GET", "/_index_template/l*", "", 200).await["index_templates"][0], shown);
    assert_eq!(ask(&searchers, "GET", "/_index_template", "", 200).await["index_templates"][0], shown);
    ask(&searchers, "HEAD", "/_index_template/logs", "", 200).await;
    ask(&searchers, "HEAD", "/_index_template/log", "", 404).await;
    let missing = ask(&searchers, "GET", "/_index_template/log", "", 404).await;
    assert_eq!(kind(&missing), "resource_not_found_exception");
    let overlapping = r#"{"index_patterns": ["*"], "priority": 7}"#;
    let refused = ask(&searchers, "PUT", "/_index_template/all", overlapping, 400).await;
    assert!(refused.to_string().contains("`logs` has the same priority"), "{refused}");

    ask(&searchers, "POST", "/logs-1/_doc?refresh=true", r#"{"level": "info"}"#, 201).await;
    let mappings = ask(&searchers, "GET", "/logs/_mapping", "", 200).await;
    assert_eq!(mappings["logs-1"]["mappings"]["properties"]["level"]["type"], "keyword");
    let own = r#"{"mappings": {"properties": {"n": {"type": "long"}}}}"#;
    ask(&searchers, "PUT", "/logs-2", own, 200).await;
    let mappings = ask(&searchers, "GET", "/logs-2/_mapping", "", 200).await;
    assert_eq!(mappings["logs-2"]["mappings"]["properties"].as_object().unwrap().len(), 2);
    ask(&searchers, "DELETE", "/_index_template/logs", "", 200).await;
    let gone = ask(&searchers, "DELETE", "/_index_template/logs", "", 404).await;
    assert_eq!(kind(&gone), "index_template_missing_exception");
    ask(&searchers, "DELETE", "/_index_template/l*", "", 200).await;
    searchers.stop().await;
}
