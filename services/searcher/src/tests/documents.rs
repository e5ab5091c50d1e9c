use super::*;

#[tokio::test]
async fn a_document_comes_back_as_it_was_sent() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let source = "{\"text\":\"a  b\",\"n\":1.50,\"big\":12345678901234567890,\"z\":null}";
    for id in ["a", "a%2Fb", "a/b", "%25%23%3F", "b+c", "%00%0A", "gr%C3%B6%C3%9Fe", &"i".repeat(512)] {
        let path = format!("/x/docs/{id}");
        let pretty = source.replace(',', ",\r\n  ");
        let put = searchers.call("PUT", &path, pretty).await;
        let shown = put.json();
        assert!(put.status == 201 || id == "a/b", "{id}: {shown}");
        assert_eq!(put.headers["etag"], format!("\"{}\"", shown["seq"]).as_str());
        let got = searchers.get(&path).await;
        assert_eq!((got.status, &got.body[..]), (200, source.as_bytes()), "{id}");
        assert_eq!(got.headers["etag"], put.headers["etag"]);
        assert_eq!(got.headers["content-type"], "application/json");
        for (header, member) in
            [("coterie-seq", "seq"), ("coterie-term", "term"), ("coterie-version", "version")]
        {
            assert_eq!(got.headers[header], shown[member].to_string().as_str(), "{id} {header}");
        }
        let head = searchers.call("HEAD", &path, "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.headers["content-length"], source.len().to_string().as_str());
    }
    searchers.stop().await;
}

#[tokio::test]
async fn a_write_says_what_it_did() {
    let searchers = Searchers::with_index(1, json!({})).await;
    let mut seqs = Vec::new();
    for (method, body, status, result, version) in [
        ("PUT", "{\"a\":{\"b\":1}}", 201, "created", 1),
        ("PUT", "{\"a\":{\"b\":1}}", 200, "updated", 2),
        ("PATCH", "{\"a\":{\"c\":[2]},\"d\":null}", 200, "updated", 3),
        ("PATCH", "{\"a\":{\"c\":[2]}}", 200, "noop", 3),
        ("DELETE", "", 200, "deleted", 4),
        ("DELETE", "", 200, "not_found", 0),
        ("PUT", "{}", 201, "created", 1),
    ] {
        if result == "deleted" {
            let merged = searchers.get("/x/docs/a").await.json();
            assert_eq!(merged, json!({"a": {"b": 1, "c": [2]}, "d": null}));
        }
        let answer = searchers.call(method, "/x/docs/a", body).await;
        let shown = answer.json();
        assert_eq!((answer.status, shown["result"].as_str()), (status, Some(result)), "{shown}");
        assert_eq!((&shown["id"], &shown["index"]), (&json!("a"), &json!("x")));
        if version > 0 {
            assert_eq!(shown["version"], version, "{shown}");
        }
        if !matches!(result, "noop" | "not_found") {
            seqs.push(shown["seq"].as_u64().unwrap());
        }
    }
    assert!(seqs.is_sorted_by(|one, other| one < other), "{seqs:?}");
    let upsert = searchers.call("PATCH", "/x/docs/b?upsert=true", "{\"size\":1}").await;
    assert_eq!((upsert.status, &upsert.json()["result"]), (201, &json!("created")));
    let bad = searchers.call("PATCH", "/x/docs/b", "{\"size\":\"x\"}").await;
    assert_eq!(bad.code(), (400, "bad-document".to_owned()), "what a merge makes is checked");
    searchers.stop().await;
}

#[tokio::test]
async fn a_condition_that_does_not_hold_changes_nothing() {
    let searchers = Searchers::with_index(1, json!({})).await;
    let send = async |method: &str, query: &str, header: Option<(&str, &str)>| {
        let request = Request::builder().method(method).uri(format!("/x/docs/a{query}"));
        let request = header.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        searchers.send(request.body(Body::from("{\"size\":2}")).unwrap()).await
    };
    let only_new = Some(("if-none-match", "*"));
    let first = send("PUT", "", only_new).await;
    assert_eq!(first.status, 201, "{}", first.json());
    let (seq, term) = (first.json()["seq"].clone(), first.json()["term"].clone());
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let refused = send("PUT", "", only_new).await;
    assert_eq!(refused.code(), (412, "precondition-failed".to_owned()));
    assert_eq!(refused.headers["etag"], etag.as_str());
    let stale = format!("?if_seq_no={seq}&if_primary_term=999");
    for method in ["PUT", "PATCH", "DELETE"] {
        assert_eq!(send(method, &stale, None).await.code(), (409, "version-conflict".to_owned()), "{method}");
        let wrong = send(method, "", Some(("if-match", "\"99\""))).await;
        assert_eq!(wrong.code(), (412, "precondition-failed".to_owned()), "{method}");
    }
    assert_eq!(searchers.get("/x/docs/a").await.headers["etag"], etag.as_str());
    let held = send("PUT", &format!("?if_seq_no={seq}&if_primary_term={term}"), None).await;
    assert_eq!((held.status, &held.json()["result"]), (200, &json!("updated")));
    let etag = held.headers["etag"].to_str().unwrap().to_owned();
    let known = send("GET", "", Some(("if-none-match", etag.as_str()))).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(send("GET", "", Some(("if-match", "\"99\""))).await.status, 412);
    assert_eq!(send("DELETE", "", Some(("if-match", etag.as_str()))).await.status, 200);
    let gone = send("PUT", "", Some(("if-match", etag.as_str()))).await;
    assert_eq!((gone.status, gone.headers.contains_key("etag")), (412, false));
    searchers.stop().await;
}

#[tokio::test]
async fn a_document_of_another_shard_is_not_touched() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let node = searchers.0.owner(shard(1));
    let path = format!("/x/docs/{}", Searchers::id_of(0));
    for method in ["PUT", "GET", "PATCH", "DELETE"] {
        let answer = searchers.call_at(&node, method, &path, "{}").await;
        assert_eq!(answer.code(), (421, "misdirected".to_owned()), "{method}");
    }
    assert_eq!(searchers.call_at(&node, "POST", "/_shard/0/state", "").await.status, 421);
    assert_eq!(searchers.call("PUT", &path, "{}").await.status, 201, "the mesh finds its owner");
    searchers.stop().await;
}

#[tokio::test]
async fn acknowledged_documents_survive_a_takeover_and_a_move() {
    let mut searchers = Searchers::with_index(1, json!({})).await;
    assert_eq!(searchers.call("PUT", "/x/docs/a", "{\"text\":\"one\"}").await.status, 201);
    let former = searchers.0.take_over(shard(0)).await;
    assert_eq!(searchers.get("/x/docs/a").await.json(), json!({"text": "one"}));
    let late = searchers.call_at(&former, "PUT", "/x/docs/b", "{}").await;
    assert!(late.status == 503 && late.is_untouched(), "{}", late.json());
    assert_eq!(searchers.call("PUT", "/x/docs/b", "{\"text\":\"two\"}").await.status, 201);
    searchers.0.move_shard(shard(0)).await;
    assert_eq!(searchers.get("/x/docs/b").await.json(), json!({"text": "two"}));
    let found = searchers.call("POST", "/x/search", r#"{"consistency": "strong", "sort": "_seq"}"#).await;
    assert_eq!(found.ids(), ["a", "b"]);
    searchers.stop().await;
}

#[tokio::test]
async fn a_replica_answers_reads_that_may_be_old_and_nothing_else() {
    let mut searchers = Searchers::with_index(1, json!({"refresh": "100ms"})).await;
    let replica = searchers.0.replicate(shard(0)).await;
    assert_eq!(searchers.call("PUT", "/x/docs/a?refresh=wait", "{\"text\":\"one\"}").await.status, 201);
    until("the replica has the document", async || {
        let answer = searchers.call_at(&replica, "GET", "/x/docs/a?consistency=any", "").await;
        if answer.status == 200 {
            assert!(answer.headers.contains_key("coterie-staleness-ms"));
        }
        answer.status == 200
    })
    .await;
    let search = searchers.call_at(&replica, "GET", "/x/search?q=one&consistency=any", "").await;
    assert_eq!(search.ids(), ["a"]);
    assert!(search.headers.contains_key("coterie-staleness-ms"));
    for (method, path) in [
        ("GET", "/x/docs/a"),
        ("GET", "/x/docs/a?consistency=primary"),
        ("PUT", "/x/docs/a"),
        ("PATCH", "/x/docs/a"),
        ("DELETE", "/x/docs/a"),
        ("POST", "/_shard/0/prepare"),
        ("POST", "/_shard/0/write"),
        ("POST", "/_shard/0/refresh"),
    ] {
        let answer = searchers.call_at(&replica, method, path, "{}").await;
        assert_eq!(answer.code(), (421, "owner-only".to_owned()), "{method} {path}");
        assert!(answer.is_untouched(), "{method} {path}");
    }
    let forwarded = searchers.call_at(&replica, "GET", "/x/search?q=one", "").await;
    assert_eq!(forwarded.ids(), ["a"], "searches of the owner are gathered by any member");
    assert!(searchers.0.service(&replica).staleness().is_some());
    searchers.stop().await;
}
