use super::*;

/// An index of three books at two shards, and one of another at both.
async fn library() -> Searchers {
    let searchers = Searchers::start(2, json!({})).await;
    let mappings = json!({"mappings": {"properties": {
        "title": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
        "tag": {"type": "keyword"}, "pages": {"type": "integer"}, "at": {"type": "date"},
    }}});
    ask(&searchers, "PUT", "/books", &mappings.to_string(), 200).await;
    ask(&searchers, "PUT", "/more", &mappings.to_string(), 200).await;
    let lines = [
        json!({"index": {"_index": "books", "_id": "a"}}),
        json!({"title": "The quick brown fox", "tag": "x", "pages": 10, "at": "2024-01-01", "note": "Free text", "n": {"k": 1, "l": [1, 2]}}),
        json!({"index": {"_index": "books", "_id": "b"}}),
        json!({"title": "A brown <dog>", "tag": "y", "pages": 20, "at": "2024-01-02T10:00:00Z", "note": "Other text", "n": {"k": 2}}),
        json!({"index": {"_index": "books", "_id": "c"}}),
        json!({"title": "Thinking", "tag": "x", "pages": 30}),
        json!({"index": {"_index": "more", "_id": "d"}}),
        json!({"title": "brown bread", "tag": "z", "pages": 5, "at": "2024-01-03"}),
    ];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let done = ask(&searchers, "POST", "/_bulk?refresh=true", &body, 200).await;
    assert_eq!(done["errors"], false, "{done}");
    searchers
}

fn found(answer: &Value) -> String {
    let hits = answer["hits"]["hits"].as_array().unwrap_or_else(|| panic!("no hits: {answer}"));
    hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_hit_has_what_was_asked_for() {
    let searchers = library().await;
    let body = json!({
        "query": {"match": {"title": "dog"}}, "version": true, "seq_no_primary_term": true, "explain": true,
        "_source": {"includes": ["n*", "title"], "excludes": ["note"]},
        "highlight": {"fields": {"title": {}}, "pre_tags": ["<b>"], "post_tags": ["</b>"]},
    });
    let answer = ask(&searchers, "POST", "/books/_search", &body.to_string(), 200).await;
    assert_eq!(answer["hits"]["total"], json!({"value": 1, "relation": "eq"}));
    assert_eq!(answer["_shards"], json!({"total": 2, "successful": 2, "skipped": 0, "failed": 0}));
    let hit = &answer["hits"]["hits"][0];
    assert_eq!((&hit["_index"], &hit["_id"], &hit["_version"]), (&json!("books"), &json!("b"), &json!(1)));
    assert!(hit["_seq_no"].is_u64() && hit["_primary_term"].is_u64(), "{hit}");
    assert_eq!(hit["_score"], answer["hits"]["max_score"]);
    assert_eq!(hit["_source"], json!({"title": "A brown <dog>", "n": {"k": 2}}));
    assert_eq!(hit["highlight"], json!({"title": ["A brown <<b>dog</b>>"]}));
    assert!(hit["_explanation"]["value"].is_number() && hit["sort"].is_null(), "{hit}");
    let none =
        ask(&searchers, "GET", "/books/_search?q=title:dog&_source=false&track_total_hits=false", "", 200)
            .await;
    assert_eq!((&none["hits"]["total"], &none["hits"]["hits"][0]["_source"]), (&Value::Null, &Value::Null));
    let stale = ask(
        &searchers,
        "GET",
        "/books/_search?q=dog&stored_fields=_none_&rest_total_hits_as_int=true",
        "",
        200,
    )
    .await;
    assert_eq!((&stale["hits"]["total"], &stale["hits"]["hits"][0]["_source"]), (&json!(1), &Value::Null));
    let (seq, term) = (&hit["_seq_no"], &hit["_primary_term"]);
    let update = format!("/books/_doc/b?if_seq_no={seq}&if_primary_term={term}");
    ask(&searchers, "PUT", &update, "{}", 200).await;
    searchers.stop().await;
}

#[tokio::test]
async fn hits_are_sorted_and_continued_by_their_sort_values() {
    let searchers = library().await;
    for (sort, order) in [
        (json!("pages"), "a b c"),
        (json!([{"pages": "desc"}]), "c b a"),
        (json!([{"tag": {"order": "asc"}}, {"pages": {"order": "desc"}}]), "c a b"),
        (json!([{"at": {"order": "desc", "missing": "_first"}}]), "c b a"),
        (json!({"title.keyword": "asc"}), "b a c"),
        (json!([{"note.keyword": {"order": "desc"}}]), "b a c"),
        (json!([{"nowhere": {"unmapped_type": "long"}}, "pages"]), "a b c"),
        (json!(["_score", "pages"]), "a b c"),
    ] {
        let body = json!({"sort": sort, "track_total_hits": true});
        let all = ask(&searchers, "POST", "/books/_search", &body.to_string(), 200).await;
        assert_eq!(found(&all), order, "{sort}");
        let (mut seen, mut after) = (Vec::new(), None::<Value>);
        loop {
            let mut body = json!({"sort": sort, "size": 1});
            if let Some(after) = after.take() {
                body["search_after"] = after;
            }
            let page = ask(&searchers, "POST", "/books/_search", &body.to_string(), 200).await;
            let Some(hit) = page["hits"]["hits"].get(0) else { break };
            seen.push(hit["_id"].as_str().unwrap().to_owned());
            after = Some(hit["sort"].clone());
        }
        assert_eq!(seen.join(" "), order, "{sort}");
    }
    let body = json!({"sort": [{"at": "asc"}], "size": 1});
    let first = ask(&searchers, "POST", "/books/_search", &body.to_string(), 200).await;
    assert_eq!(first["hits"]["hits"][0]["sort"], json!([1_704_067_200_000_i64]));
    assert_eq!(
        (&first["hits"]["max_score"], &first["hits"]["hits"][0]["_score"]),
        (&Value::Null, &Value::Null)
    );
    let uri = ask(&searchers, "GET", "/books/_search?sort=pages:desc&size=2&from=1", "", 200).await;
    assert_eq!(found(&uri), "b a");
    searchers.stop().await;
}

#[tokio::test]
async fn several_indexes_are_searched_as_one() {
    let searchers = library().await;
    let body = json!({"query": {"match": {"title": "brown"}}, "sort": ["pages"], "from": 1, "size": 2,
        "aggs": {"tags": {"terms": {"field": "tag", "order": {"_key": "asc"}}}}});
    let answer = ask(&searchers, "POST", "/books,more/_search", &body.to_string(), 200).await;
    assert_eq!(found(&answer), "a b");
    assert_eq!((&answer["hits"]["total"]["value"], &answer["_shards"]["total"]), (&json!(3), &json!(4)));
    let buckets: Vec<_> = answer["aggregations"]["tags"]["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["key"].as_str().unwrap())
        .collect();
    assert_eq!(buckets, ["x", "y", "z"]);
    let lines = [
        json!({"index": "books"}),
        json!({"query": {"match_all": {}}, "size": 0}),
        json!({}),
        json!({"query": {"match": {"title": "brown"}}}),
        json!({"index": "nothing"}),
        json!({}),
        json!({"index": ["more"]}),
        json!({"querry": {}}),
    ];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let answers = ask(&searchers, "POST", "/more/_msearch", &body, 200).await;
    let answers = answers["responses"].as_array().unwrap();
    assert_eq!((&answers[0]["hits"]["total"]["value"], &answers[0]["status"]), (&json!(3), &json!(200)));
    assert_eq!(found(&answers[1]), "d");
    assert_eq!((&answers[2]["status"], kind(&answers[2])), (&json!(404), "index_not_found_exception"));
    assert_eq!((&answers[3]["status"], kind(&answers[3])), (&json!(400), "parsing_exception"));
    for (path, body, count) in [
        ("/_count", "", 4),
        ("/books/_count?q=title:brown", "", 2),
        ("/books/_count", r#"{"query": {"term": {"tag": "x"}}}"#, 2),
    ] {
        assert_eq!(ask(&searchers, "POST", path, body, 200).await["count"], count, "{path}");
    }
    searchers.stop().await;
}

#[tokio::test]
async fn a_scroll_and_a_point_in_time_show_every_document_once() {
    let searchers = Searchers::start(2, json!({})).await;
    let lines: String = (0..50)
        .map(|n| {
            let index = if n % 3 == 0 { "one" } else { "two" };
            format!(
                "{}\n{}\n",
                json!({"index": {"_index": index, "_id": format!("d{n}")}}),
                json!({"n": n % 7, "f": f64::from(n) / 3.0})
            )
        })
        .collect();
    assert_eq!(ask(&searchers, "POST", "/_bulk?refresh=true", &lines, 200).await["errors"], false);
    let wanted: std::collections::BTreeSet<String> = (0..50).map(|n| format!("d{n}")).collect();
    for sort in ["", r#", "sort": ["_doc"]"#, r#", "sort": [{"n": "desc"}]"#, r#", "sort": ["f"]"#] {
        let body = format!(r#"{{"size": 7{sort}}}"#);
        let mut page = ask(&searchers, "POST", "/one,two/_search?scroll=1m", &body, 200).await;
        let mut seen = Vec::new();
        while !found(&page).is_empty() {
            assert_eq!(page["hits"]["total"]["value"], 50);
            seen.extend(found(&page).split(' ').map(str::to_owned));
            let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            page = ask(&searchers, "POST", "/_search/scroll", &next.to_string(), 200).await;
        }
        assert_eq!((seen.len(), seen.into_iter().collect()), (50, wanted.clone()), "{sort}");
        let close = json!({"scroll_id": [page["_scroll_id"]]}).to_string();
        assert_eq!(ask(&searchers, "DELETE", "/_search/scroll", &close, 200).await["succeeded"], true);
    }
    let pit = ask(&searchers, "POST", "/one,two/_pit?keep_alive=1m", "", 200).await["id"].clone();
    for sort in [json!(["n"]), json!([{"f": "desc"}]), json!(["_shard_doc"])] {
        let (mut seen, mut after) = (Vec::new(), None::<Value>);
        loop {
            let mut body = json!({"size": 8, "sort": sort, "pit": {"id": pit, "keep_alive": "1m"}});
            if let Some(after) = after.take() {
                body["search_after"] = after;
            }
            let page = ask(&searchers, "POST", "/_search", &body.to_string(), 200).await;
            assert_eq!(page["pit_id"], pit);
            let hits = page["hits"]["hits"].as_array().unwrap();
            let Some(last) = hits.last() else { break };
            after = Some(last["sort"].clone());
            seen.extend(hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()));
        }
        assert_eq!((seen.len(), seen.into_iter().collect()), (50, wanted.clone()), "{sort}");
    }
    let close = json!({"id": pit}).to_string();
    assert_eq!(ask(&searchers, "DELETE", "/_pit", &close, 200).await["num_freed"], 1);
    for (id, status) in [("x", 404), ("eyJ4IjoxfQ", 404)] {
        let body = json!({"scroll_id": id}).to_string();
        let answer = ask(&searchers, "POST", "/_search/scroll", &body, status).await;
        assert_eq!(kind(&answer), "search_context_missing_exception");
    }
    searchers.stop().await;
}

#[tokio::test]
async fn aggregations_are_answered_as_elasticsearch_does() {
    let searchers = library().await;
    let body = json!({"size": 0, "aggs": {
        "tags": {"terms": {"field": "tag", "execution_hint": "map"}, "meta": {"a": 1},
            "aggs": {"pages": {"sum": {"field": "pages"}}, "with": {"filter": {"exists": {"field": "n"}}}}},
        "titles": {"terms": {"field": "title.keyword", "size": 1, "order": [{"_key": "desc"}]}},
        "notes": {"terms": {"field": "note.keyword", "order": {"_key": "asc"}}},
        "none": {"missing": {"field": "at"}, "aggregations": {"most": {"max": {"field": "pages"}}}},
        "named": {"filters": {"filters": {"few": {"range": {"pages": {"lt": 15}}}, "x": {"term": {"tag": "x"}}}},
            "aggs": {"all": {"value_count": {"field": "pages"}}}},
        "listed": {"filters": {"filters": [{"match_all": {}}]}},
        "days": {"date_histogram": {"field": "at", "fixed_interval": "1d"}},
        "first": {"min": {"field": "at"}},
        "kinds": {"cardinality": {"field": "tag", "precision_threshold": 100}},
    }});
    let answer = ask(&searchers, "POST", "/books/_search", &body.to_string(), 200).await;
    let all = &answer["aggregations"];
    let x = &all["tags"]["buckets"][0];
    assert_eq!((&x["key"], &x["doc_count"], &x["pages"]["value"]), (&json!("x"), &json!(2), &json!(40.0)));
    assert_eq!((&x["with"]["doc_count"], &all["tags"]["meta"]), (&json!(1), &json!({"a": 1})));
    assert_eq!(all["titles"]["buckets"][0]["key"], "Thinking");
    assert_eq!(all["notes"]["buckets"][0]["key"], "Free text");
    assert_eq!((&all["none"]["doc_count"], &all["none"]["most"]["value"]), (&json!(1), &json!(30.0)));
    assert_eq!(all["named"]["buckets"]["few"], json!({"doc_count": 1, "all": {"value": 1}}));
    assert_eq!(all["named"]["buckets"]["x"]["doc_count"], 2);
    assert_eq!(all["listed"]["buckets"], json!([{"doc_count": 3}]));
    assert_eq!(
        all["days"]["buckets"][0],
        json!({"key": 1_704_067_200_000_i64, "key_as_string": "2024-01-01T00:00:00.000Z", "doc_count": 1})
    );
    assert_eq!(all["kinds"]["value"], 2);
    let first = json!({"value": 1_704_067_200_000.0, "value_as_string": "2024-01-01T00:00:00.000Z"});
    assert_eq!(all["first"], first);
    assert_eq!(all.as_object().unwrap().len(), 9);
    for (aggs, words) in [
        (
            json!({"a": {"terms": {"field": "tag"}, "aggs": {"b": {"bucket_sort": {}}}}}),
            "no pipeline aggregations",
        ),
        (
            json!({"a": {"date_histogram": {"field": "at", "calendar_interval": "1M"}}}),
            "`calendar_interval` is not supported",
        ),
        (json!({"a": {"composite": {"sources": []}}}), "`composite` needs `sources`"),
        (json!({"a": {"filter": {"nested": {}}}}), "[nested] is not supported"),
        (json!({"a": {"terms": {"field": "tag", "script": {}}}}), "`script` is not supported"),
        (json!({"a": {"filter": "tag:x"}}), "must start with start_object"),
        (json!({"a[0]": {"terms": {"field": "tag"}}}), "Invalid aggregation name"),
    ] {
        let answer = ask(&searchers, "POST", "/books/_search", &json!({"aggs": aggs}).to_string(), 400).await;
        assert!(answer["error"]["reason"].as_str().unwrap().contains(words), "{aggs}: {answer}");
    }
    searchers.stop().await;
}

#[tokio::test]
async fn searches_that_can_not_be_answered_are_refused_by_name() {
    let searchers = library().await;
    for (query, body, status, words) in [
        (
            "",
            json!({"querry": {}}),
            400,
            "unknown key [querry] in the body of a search did you mean [query]?",
        ),
        ("", json!({"collapse": {"field": "tag"}}), 400, "[collapse] is not supported"),
        ("", json!({"runtime_mappings": {"a": {}}}), 400, "[runtime_mappings] is not supported"),
        ("", json!({"suggest": {"a": {}}}), 400, "[suggest] is not supported"),
        ("", json!({"knn": {"a": {}}}), 400, "[knn] unknown field [a]"),
        ("", json!({"retriever": {"rrf": {}}}), 400, "[retriever] is not supported"),
        ("", json!({"size": 10_001}), 400, "Result window is too large"),
        ("", json!({"search_after": [1]}), 400, "Sort must contain"),
        ("", json!({"sort": ["pages"], "search_after": [1, 2]}), 400, "has 2 value(s) but sort has 1"),
        ("", json!({"sort": [{"_script": {}}]}), 400, "sort by _script"),
        ("", json!({"sort": [{"pages": {"ordr": "asc"}}]}), 400, "did you mean [order]?"),
        ("", json!({"sort": ["title"]}), 400, "title"),
        ("", json!({"post_filter": {"match_all": {}}, "aggs": {}}), 400, "[post_filter]"),
        ("", json!({"query": {"match": {"pages": "many"}}}), 400, "failed to create query"),
        ("", json!({"highlight": {"fields": {"title": {"highlight_query": {}}}}}), 400, "[highlight_query]"),
        ("", json!({"stored_fields": ["a"]}), 400, "[stored_fields]"),
        ("?routing=a", json!({}), 400, "[routing] is not supported"),
        ("?typed_keys=true", json!({}), 400, "[typed_keys]"),
        ("?scroll=soon", json!({}), 400, "[soon]"),
        ("?scroll=1m", json!({"sort": ["_score"]}), 400, "_score"),
        ("?scroll=1m", json!({"size": 0}), 400, "[size]"),
        ("?nothing=1", json!({}), 400, "unrecognized parameter"),
        ("", json!([]), 400, "not a JSON object"),
    ] {
        let answer =
            ask(&searchers, "POST", &format!("/books/_search{query}"), &body.to_string(), status).await;
        assert!(answer["error"]["reason"].as_str().unwrap().contains(words), "{query} {body}: {answer}");
    }
    let missing = ask(&searchers, "GET", "/nothing/_search", "", 404).await;
    assert_eq!(kind(&missing), "index_not_found_exception");
    let hints = "timeout=1s&preference=_local&request_cache=true&ccs_minimize_roundtrips=true&search_type=dfs_query_then_fetch&pretty";
    ask(
        &searchers,
        "GET",
        &format!("/books/_search?{hints}"),
        r#"{"profile": false, "docvalue_fields": []}"#,
        200,
    )
    .await;
    searchers.stop().await;
}

#[tokio::test]
async fn a_search_of_over_a_mebibyte_is_answered_by_all_shards() {
    let searchers = library().await;
    let tags: Vec<String> = (0..8_000).map(|n| format!("{n:0>200}")).chain(["x".to_owned()]).collect();
    let body = json!({"query": {"terms": {"tag": tags}}}).to_string();
    assert!(body.len() > 3 << 19);
    for number in 0..2 {
        let node = searchers.0.owner(shard(number));
        let answer = searchers.call_at(&node, "POST", "/es/books/_search", body.clone()).await.json();
        assert_eq!(answer["_shards"]["failed"], 0, "{answer}");
        assert_eq!(answer["hits"]["total"]["value"], 2, "{answer}");
    }
    searchers.stop().await;
}
