use super::*;

async fn with_documents(shards: u32) -> Searchers {
    let searchers = Searchers::with_index(shards, json!({})).await;
    let lines: Vec<_> = (0..100)
        .map(|number| {
            let text = if number % 10 == 0 { "a quick http proxy" } else { "a slow thing" };
            format!("{{\"name\":\"d{number}\",\"text\":\"{text} {number}\",\"size\":{number}}}")
        })
        .collect();
    let answer = searchers.call("POST", "/x/docs?refresh=true", lines.join("\n")).await;
    assert_eq!(answer.json()["indexed"], 100);
    searchers
}

#[tokio::test]
async fn any_member_gathers_the_same_answer_from_all_shards() {
    let searchers = with_documents(3).await;
    let body = json!({"q": "http proxy", "size": 5, "facets": ["name"], "highlight": true}).to_string();
    let mut answers = Vec::new();
    for number in 0..3 {
        let node = searchers.0.owner(shard(number));
        let answer = searchers.call_at(&node, "POST", "/x/search", body.clone()).await;
        let mut shown = answer.json();
        assert_eq!(answer.status, 200, "{shown}");
        assert_eq!(shown["shards"], json!({"total": 3, "ok": 3, "failed": []}));
        assert!(shown["took_ms"].is_u64() && shown["timed_out"] == false, "{shown}");
        shown["took_ms"] = json!(0);
        answers.push(shown);
    }
    assert_eq!((&answers[0]["total"], answers[0]["hits"].as_array().unwrap().len()), (&json!(10), 5));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    searchers.stop().await;
}

#[tokio::test]
async fn pages_show_every_document_once() {
    let searchers = with_documents(2).await;
    let (mut seen, mut after) = (Vec::new(), None::<Value>);
    loop {
        let mut body = json!({"sort": "size", "size": 30});
        if let Some(after) = after.take() {
            body["search_after"] = after;
        }
        let page = searchers.call("POST", "/x/search", body.to_string()).await;
        seen.extend(page.ids());
        match page.json().get("next") {
            Some(next) if !next.is_null() => after = Some(next.clone()),
            _ => break,
        }
    }
    let wanted: Vec<_> = (0..100).map(|number| format!("d{number}")).collect();
    assert_eq!(seen, wanted);
    searchers.stop().await;
}

#[tokio::test]
async fn a_strong_search_sees_every_acknowledged_document_and_a_primary_one_the_last_refresh() {
    let searchers = Searchers::with_index(2, json!({"refresh": "1h"})).await;
    for number in 0..2 {
        let path = format!("/x/docs/{}", Searchers::id_of(number));
        assert_eq!(searchers.call("PUT", &path, "{\"text\":\"new\"}").await.status, 201);
    }
    let strong = searchers.get("/x/search?q=new&consistency=strong").await;
    assert_eq!(strong.json()["total"], 2, "{}", strong.json());
    let path = format!("/x/docs/{}", Searchers::id_of(0));
    assert_eq!(searchers.call("PUT", &path, "{\"text\":\"newer\"}").await.status, 200);
    assert_eq!(searchers.get("/x/search?q=newer").await.json()["total"], 0);
    let refreshed = searchers.call("POST", "/x/refresh", "").await;
    assert_eq!((refreshed.status, &refreshed.json()["shards"]["ok"]), (200, &json!(2)));
    assert_eq!(searchers.get("/x/search?q=newer").await.json()["total"], 1);
    searchers.stop().await;
}

#[tokio::test]
async fn a_search_that_misses_a_shard_says_so_or_is_refused() {
    let searchers = with_documents(2).await;
    let node = searchers.0.owner(shard(0));
    searchers.0.lose(shard(1));
    let partial = searchers.call_at(&node, "GET", "/x/search?q=thing", "").await.json();
    let shards = &partial["shards"];
    assert_eq!(
        (&shards["total"], &shards["ok"], &shards["failed"][0]["shard"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert!(shards["failed"][0]["reason"].as_str().unwrap().contains("searcher/1"), "{partial}");
    assert!(partial["total"].as_u64().unwrap() > 0);
    for query in ["allow_partial=false", "consistency=strong"] {
        let answer = searchers.call_at(&node, "GET", &format!("/x/search?{query}"), "").await;
        assert_eq!(answer.code(), (503, "shard-missing".to_owned()), "{query}");
        assert!(answer.problem().detail.contains("shard 1"), "{}", answer.problem());
    }
    searchers.stop().await;
}

#[tokio::test]
async fn values_of_a_field_are_suggested_by_prefix() {
    let searchers = with_documents(2).await;
    let suggested = searchers.get("/x/suggest?field=name&prefix=d9&size=3").await.json();
    let values: Vec<_> = suggested["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value["value"].as_str().unwrap())
        .collect();
    assert_eq!(values, ["d9", "d90", "d91"]);
    assert_eq!((&suggested["values"][0]["count"], &suggested["shards"]["ok"]), (&json!(1), &json!(2)));
    searchers.stop().await;
}

#[tokio::test]
async fn a_large_answer_is_sent_whole() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let text = "word ".repeat(4_000);
    let lines: Vec<_> = (0..20).map(|n| format!("{{\"name\":\"d{n}\",\"text\":\"{text}\"}}")).collect();
    assert_eq!(searchers.call("POST", "/x/docs?refresh=true", lines.join("\n")).await.json()["indexed"], 20);
    let answer = searchers.get("/x/search?q=word&size=20").await;
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());
    assert_eq!(answer.json()["hits"][19]["source"]["text"].as_str().unwrap().len(), text.len());
    let document = searchers.get("/x/docs/d0").await;
    assert_eq!(document.json()["text"].as_str().unwrap().len(), text.len());
    searchers.stop().await;
}

#[tokio::test]
async fn an_answer_that_may_be_old_says_how_old() {
    let mut searchers = with_documents(2).await;
    let replica = searchers.0.replicate(shard(1)).await;
    until("the replica has the documents", async || {
        let answer = searchers.call_at(&replica, "GET", "/x/search?consistency=any", "").await;
        answer.status == 200 && answer.json()["total"] == 100
    })
    .await;
    for (query, has_staleness) in [("consistency=any", true), ("consistency=primary", false), ("", false)] {
        for path in ["/x/search?", "/x/suggest?field=name&"] {
            let answer = searchers.call_at(&replica, "GET", &format!("{path}{query}"), "").await;
            assert_eq!(answer.status, 200, "{path}{query}: {}", answer.json());
            assert_eq!(answer.headers.contains_key("coterie-staleness-ms"), has_staleness, "{path}{query}");
        }
    }
    searchers.0.lose(shard(1));
    let any = searchers.call_at(&replica, "GET", "/x/search?consistency=any", "").await.json();
    assert_eq!(
        (&any["total"], &any["shards"]["ok"]),
        (&json!(100), &json!(2)),
        "a replica answers without an owner"
    );
    searchers.stop().await;
}

#[tokio::test]
async fn a_member_that_is_told_of_a_later_catalog_reads_it_first() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let created = searchers.call_at(&searchers.0.owner(shard(0)), "PUT", "/later", "").await.json();
    let node = searchers.0.owner(shard(1));
    let uuid = created["uuid"].as_str().unwrap();
    let path = format!("/_shard/1/state?index={uuid}&catalog=2");
    assert_eq!(searchers.call_at(&node, "POST", &path, "").await.status, 200);
    let ahead = format!("/_shard/1/state?index={uuid}&catalog=99");
    assert_eq!(
        searchers.call_at(&node, "POST", &ahead, "").await.code(),
        (503, "catalog-unavailable".to_owned())
    );
    assert_eq!(searchers.call_at(&node, "POST", "/_catalog?number=2", "").await.json()["number"], 2);
    searchers.stop().await;
}

#[tokio::test]
async fn a_search_of_a_client_that_sends_nonsense_to_a_shard_is_refused() {
    let searchers = Searchers::with_index(1, json!({})).await;
    let uuid = searchers.get("/x").await.json()["uuid"].as_str().unwrap().to_owned();
    let node = searchers.0.owner(shard(0));
    for body in ["", "{}", "[]", r#"{"request": {}, "plan": {}}"#, r#"{"request": 7, "plan": null}"#] {
        let path = format!("/_shard/0/execute?index={uuid}");
        let answer = searchers.call_at(&node, "POST", &path, body).await;
        assert_eq!(answer.code(), (400, "bad-search".to_owned()), "{body}");
        let path = format!("/_shard/0/write?index={uuid}");
        let answer = searchers.call_at(&node, "POST", &path, "{\"id\": 7}").await;
        assert_eq!(answer.code(), (400, "bad-line".to_owned()));
    }
    searchers.stop().await;
}
