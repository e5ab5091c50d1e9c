use super::es::ask;
use super::*;

/// An index `x` of documents whose `size` is a number, and an index `y` where it is text.
async fn two(shards: u32, documents: usize) -> Searchers {
    let searchers = Searchers::with_index(shards, json!({})).await;
    let lines: Vec<_> = (0..documents)
        .map(|number| format!("{{\"name\":\"d{number}\",\"text\":\"words {number}\",\"size\":{number}}}"))
        .collect();
    let answer = searchers.call("POST", "/x/docs", lines.join("\n")).await;
    assert_eq!(answer.json()["indexed"], documents);
    let changed = json!({"id": "name", "coerce": true, "fields": {"size": {"type": "keyword"}}});
    assert_eq!(searchers.call("PUT", "/y", changed.to_string()).await.status, 201);
    searchers
}

async fn copy(searchers: &Searchers, body: Value) -> Value {
    let answer = searchers.call("POST", "/x/reindex", body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.json());
    answer.json()
}

async fn count(searchers: &Searchers, index: &str, q: &str) -> Value {
    let body = json!({"q": q, "size": 0, "consistency": "strong"}).to_string();
    searchers.call("POST", &format!("/{index}/search"), body).await.json()["total"].clone()
}

#[tokio::test]
async fn a_type_is_changed_by_copies_that_miss_no_write() {
    let searchers = two(2, 1_500).await;
    let refused = searchers.call("PUT", "/x", r#"{"fields": {"size": {"type": "keyword"}}}"#).await.problem();
    let hint = refused.hint.unwrap();
    assert!(hint.contains("`ctl index reindex x x-2`"), "{hint}");
    assert!(
        hint.contains(r#"`curl -X POST -d '{"to":"x-2"}' http://MEMBER/svc/searcher/x/reindex`"#),
        "{hint}"
    );
    let first = copy(&searchers, json!({"to": "y"})).await;
    let expected = json!({"total": 2, "ok": 2, "failed": []});
    assert_eq!(
        (&first["copied"], &first["skipped"], &first["refused"]),
        (&json!(1500), &json!(0), &json!(0))
    );
    assert_eq!((&first["timed_out"], &first["shards"]), (&json!(false), &expected));
    assert!(first["seqs"]["0"].is_u64() && first["seqs"]["1"].is_u64(), "{first}");
    assert_eq!(searchers.get("/y/docs/d7").await.json(), json!({"name": "d7", "text": "words 7", "size": 7}));
    assert_eq!(count(&searchers, "y", "size:7").await, 1);
    let again = copy(&searchers, json!({"to": "y"})).await;
    assert_eq!((&again["copied"], &again["skipped"]), (&json!(0), &json!(1500)));
    // Written after the copy: to the first index, to the other one, and to both, in either order.
    for (path, body) in [
        ("/x/docs/d1", r#"{"text": "changed"}"#),
        ("/x/docs/new", r#"{"text": "changed"}"#),
        ("/y/docs/d2", r#"{"text": "client"}"#),
        ("/x/docs/d3", r#"{"text": "changed"}"#),
        ("/y/docs/d3", r#"{"text": "client"}"#),
        ("/y/docs/d4", r#"{"text": "client"}"#),
        ("/x/docs/d4", r#"{"text": "changed"}"#),
    ] {
        assert!(searchers.call("PUT", path, body).await.status < 300);
    }
    assert_eq!(searchers.call("DELETE", "/x/docs/d5", "").await.status, 200);
    let later = copy(&searchers, json!({"to": "y", "after_seq": first["seqs"]})).await;
    assert_eq!((&later["copied"], &later["skipped"]), (&json!(3), &json!(1)), "{later}");
    for (id, text) in
        [("d1", "changed"), ("new", "changed"), ("d2", "client"), ("d3", "client"), ("d4", "changed")]
    {
        assert_eq!(searchers.get(&format!("/y/docs/{id}")).await.json(), json!({"text": text}), "{id}");
    }
    assert_eq!(searchers.get("/y/docs/d5").await.status, 200, "deletions are not copied");
    let whole = copy(&searchers, json!({"to": "y"})).await;
    assert_eq!((&whole["copied"], &whole["skipped"]), (&json!(0), &json!(1500)), "{whole}");
    let none = copy(&searchers, json!({"to": "y", "after_seq": whole["seqs"]})).await;
    assert_eq!((&none["copied"], &none["skipped"]), (&json!(0), &json!(0)));
    searchers.stop().await;
}

#[tokio::test]
async fn what_clients_write_while_a_copy_runs_stays() {
    let searchers = two(2, 1_200).await;
    let writing = async {
        for number in 0..60 {
            let path = format!("/y/docs/d{}", number * 20);
            assert!(searchers.call("PUT", &path, r#"{"text": "client"}"#).await.status < 300);
        }
    };
    let ((), copied) = tokio::join!(writing, copy(&searchers, json!({"to": "y"})));
    assert_eq!(copied["timed_out"], false);
    assert_eq!(count(&searchers, "y", "text:client").await, 60);
    assert_eq!(count(&searchers, "y", "*").await, 1_200);
    searchers.stop().await;
}

#[tokio::test]
async fn a_copy_that_a_takeover_ends_is_completed_by_another_one() {
    let mut searchers = two(1, 1_700).await;
    let mut copied = 0;
    // A slow machine may need more than one.
    while copied == 0 {
        let part = copy(&searchers, json!({"to": "y", "timeout": "1ms"})).await;
        assert_eq!(part["timed_out"], true, "{part}");
        copied = part["copied"].as_u64().unwrap();
    }
    assert!(copied < 1_700, "{copied}");
    searchers.0.take_over(shard(0)).await;
    let rest = copy(&searchers, json!({"to": "y"})).await;
    assert_eq!((rest["skipped"].as_u64(), rest["copied"].as_u64()), (Some(copied), Some(1_700 - copied)));
    assert_eq!(count(&searchers, "y", "*").await, 1_700);
    // In parts, each of which goes on where the last one ended.
    assert_eq!(searchers.call("PUT", "/z", "{}").await.status, 201);
    let mut sum = 0;
    let mut part = json!({"seqs": {}, "timed_out": true});
    while part["timed_out"] == true {
        part = copy(&searchers, json!({"to": "z", "timeout": "1ms", "after_seq": part["seqs"]})).await;
        assert_eq!(part["skipped"], 0, "{part}");
        sum += part["copied"].as_u64().unwrap();
        if sum < 1_000 {
            searchers.0.move_shard(shard(0)).await;
        }
    }
    assert_eq!((sum, count(&searchers, "z", "*").await), (1_700, json!(1_700)));
    searchers.stop().await;
}

#[tokio::test]
async fn documents_that_do_not_fit_are_listed_and_the_others_copied() {
    let searchers = two(2, 300).await;
    let strict = json!({"dynamic": "strict", "fields": {"name": {"type": "keyword"}, "size": {"type": "i64"}, "ip": {"type": "ip"}}});
    assert_eq!(searchers.call("PUT", "/s", strict.to_string()).await.status, 201);
    assert_eq!(searchers.call("PUT", "/x/docs/good", r#"{"size": 1}"#).await.status, 201);
    let copied = copy(&searchers, json!({"to": "s"})).await;
    assert_eq!((&copied["copied"], &copied["refused"]), (&json!(1), &json!(300)));
    let refusals = copied["refusals"].as_array().unwrap();
    assert_eq!((refusals.len(), &refusals[0]["code"]), (100, &json!("bad-document")));
    assert!(refusals[0]["detail"].as_str().unwrap().contains("`text` is not declared"), "{}", refusals[0]);
    // The index names another field as the id.
    let other = json!({"id": "size"}).to_string();
    assert_eq!(searchers.call("PUT", "/i", other).await.status, 201);
    let copied = copy(&searchers, json!({"to": "i", "q": "size:[10 TO 12]"})).await;
    assert_eq!((&copied["refused"], &copied["refusals"][0]["code"]), (&json!(3), &json!("bad-id")));
    // Only what a query finds.
    let some = copy(&searchers, json!({"to": "y", "q": "words", "filter": ["size:[0 TO 9]"]})).await;
    assert_eq!(some["copied"], 10);
    let bad = searchers.call("POST", "/x/reindex", r#"{"to": "y", "q": "(a"}"#).await;
    assert_eq!(bad.code(), (400, "bad-search".to_owned()));
    let bad = searchers.call("POST", "/x/reindex", r#"{"to": "y", "after_seq": {"7": 1}}"#).await;
    assert_eq!(bad.code(), (400, "bad-reindex".to_owned()));
    searchers.stop().await;
}

#[tokio::test]
async fn an_empty_index_and_large_documents_are_copied() {
    let searchers = two(2, 0).await;
    let none = copy(&searchers, json!({"to": "y"})).await;
    assert_eq!((&none["copied"], &none["timed_out"]), (&json!(0), &json!(false)), "{none}");
    assert_eq!(copy(&searchers, json!({"to": "y", "after_seq": none["seqs"]})).await["copied"], 0);
    let large = format!("{{\"blob\":[\"{}\"]}}", "word ".repeat(600_000));
    for number in 0..4 {
        let path = format!("/x/docs/{number}");
        assert_eq!(searchers.call("PUT", &path, large.clone()).await.status, 201);
    }
    assert_eq!(copy(&searchers, json!({"to": "y"})).await["copied"], 4);
    assert_eq!(searchers.get("/y/docs/3").await.body.len(), large.len());
    searchers.stop().await;
}

#[tokio::test]
async fn elasticsearchs_api_copies_too() {
    let searchers = two(2, 30).await;
    let order = |more: Value| {
        let mut order = json!({"source": {"index": "x"}, "dest": {"index": "y"}});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order.to_string()
    };
    let query = json!({"source": {"index": "x", "query": {"range": {"size": {"lt": 10}}}}});
    let some = ask(&searchers, "POST", "/_reindex?refresh=true", &order(query), 200).await;
    assert_eq!((&some["created"], &some["total"], &some["failures"]), (&json!(10), &json!(10), &json!([])));
    let shown = ask(&searchers, "GET", "/y/_count", "", 200).await;
    assert_eq!(shown["count"], 10);
    let all = ask(&searchers, "POST", "/_reindex", &order(json!({})), 200).await;
    assert_eq!(
        (&all["created"], &all["noops"], &all["version_conflicts"]),
        (&json!(20), &json!(10), &json!(0))
    );
    let create = json!({"dest": {"index": "y", "op_type": "create"}});
    let conflicts = ask(&searchers, "POST", "/_reindex", &order(create.clone()), 409).await;
    assert_eq!(conflicts["version_conflicts"], 30);
    let mut proceed = create;
    proceed["conflicts"] = json!("proceed");
    ask(&searchers, "POST", "/_reindex", &order(proceed), 200).await;
    let strict = json!({"mappings": {"dynamic": "strict", "properties": {"size": {"type": "long"}}}});
    ask(&searchers, "PUT", "/s", &strict.to_string(), 200).await;
    let refused = ask(&searchers, "POST", "/_reindex", &order(json!({"dest": {"index": "s"}})), 400).await;
    assert_eq!(refused["failures"].as_array().unwrap().len(), 30);
    for (body, status, words) in [
        (order(json!({"script": {}})), 400, "[script] of [reindex] is not supported"),
        (order(json!({"source": {"index": "nothing"}})), 404, "no such index [nothing]"),
        (order(json!({"dest": {"index": "x"}})), 400, "into itself"),
    ] {
        let answer = ask(&searchers, "POST", "/_reindex", &body, status).await;
        assert!(answer.to_string().contains(words), "{body}: {answer}");
    }
    let wait = ask(&searchers, "POST", "/_reindex?wait_for_completion=false", &order(json!({})), 400).await;
    assert!(wait.to_string().contains("wait_for_completion"), "{wait}");
    searchers.stop().await;
}
