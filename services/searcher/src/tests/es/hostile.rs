//! Requests that are wrong, too large, or meant to do harm: each has its answer, and the next one is served.

use super::*;

/// A request, and what is expected of its answer: the status, and words in it.
type Case<'a> = (&'a str, &'a str, String, u16, &'a str);

/// What is wrong with the answer to a request.
async fn differs(searchers: &Searchers, (method, path, body, status, words): Case<'_>) -> Option<String> {
    let answer = searchers.call(method, &format!("/es{path}"), body.clone()).await;
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    let is_as_wanted = answer.status == status && shown.contains(words) && shown.len() < 4_000;
    let (asked, told): (String, String) =
        (body.chars().take(200).collect(), shown.chars().take(400).collect());
    (!is_as_wanted)
        .then(|| format!("{method} {path} {asked}: {} and not {status} {words}: {told}", answer.status))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one table")]
async fn bad_input_is_refused_with_its_reason_and_the_next_request_is_served() {
    let searchers = Searchers::start(2, json!({"max_body": 4 * 1024 * 1024})).await;
    let mapping = r#"{"mappings":{"properties":{"n":{"type":"long"},"at":{"type":"date"},"k":{"type":"keyword"},"t":{"type":"text"}}}}"#;
    ask(&searchers, "PUT", "/a", mapping, 200).await;
    ask(&searchers, "PUT", "/a/_doc/1?refresh=true", r#"{"n":1,"at":"2024-01-01","k":"x","t":"words"}"#, 201)
        .await;
    let query = |query: Value| json!({ "query": query }).to_string();
    let deep = |count: usize| format!("{}1{}", "{\"a\":".repeat(count), "}".repeat(count));
    let many: String = (0..10_000).map(|n| format!("w{n} ")).collect();
    let fields: String = (0..10_000).map(|n| format!("\"f{n}\":1,")).collect();
    let long_id = format!("/a/_doc/{}", "i".repeat(600));
    let (many_clauses, many_terms) = (vec![json!({"term": {"k": "x"}}); 10_000], vec!["x"; 100_000]);
    let deep_query = format!("{}{{}}{}", "{\"bool\":{\"must\":".repeat(2_000), "}}".repeat(2_000));
    let deep_query = format!("{{\"query\":{deep_query}}}");
    let mut trouble = Vec::new();
    for case in [
        // Keys that are there twice.
        ("POST", "/_mget", r#"{"docs":[{"_index":"a","_id":"1","_id":"2"}]}"#.to_owned(), 400, "duplicate field '_id'"),
        ("POST", "/a/_update/1", r#"{"doc":{"n":2},"doc":{"n":3}}"#.to_owned(), 400, "duplicate field 'doc'"),
        ("POST", "/a/_update/1", r#"{"doc":{"n":2,"n":3}}"#.to_owned(), 400, "field `n` is twice in one object"),
        ("POST", "/_reindex", r#"{"source":{"index":"a","index":"b"},"dest":{"index":"c"}}"#.to_owned(), 400, "duplicate field 'index'"),
        ("POST", "/_analyze", r#"{"text":"a","text":"b"}"#.to_owned(), 400, "duplicate field 'text'"),
        // Documents.
        ("PUT", "/a/_doc/2", deep(10_000), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", format!("{{{}\"x\":1}}", fields), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"n\":1e400}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"n\":9223372036854775808}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"n\":{\"x\":1}}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"a\":1,\"a\":2}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"at\":\"2024-13-01\"}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"at\":\"99999-01-01T00:00:00Z\"}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"at\":\"\"}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"at\":1e300}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", format!("{{\"k\":\"{}\"}}", "x".repeat(40_000)), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", String::new(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", "{\"t\":\"\\ud800\"}".to_owned(), 400, "document_parsing_exception"),
        ("PUT", "/a/_doc/2", format!("{{\"t\":\"{}\"}}", "x".repeat(5 << 20)), 413, "content_too_long_exception"),
        ("PUT", &long_id, "{}".to_owned(), 400, "id"),
        ("PUT", "/a/_doc/%FF", "{}".to_owned(), 400, "UTF-8"),
        ("POST", "/a/_update/1", "{\"doc\":[]}".to_owned(), 400, "object"),
        ("POST", "/a/_update/1", deep(10_000), 400, "parsing_exception"),
        // Bulk requests.
        ("POST", "/_bulk", format!("{{\"index\":{}}}\n{{}}\n", deep(10_000)), 400, "line [1]"),
        ("POST", "/a/_bulk", format!("{{\"index\":{{}}}}\n{}\n", "x".repeat(5 << 20)), 413, "content_too_long_exception"),
        ("POST", "/a/_bulk", "\u{0}\n".to_owned(), 400, "line [1]"),
        ("POST", "/a/_bulk", "{\"delete\":{\"_id\":\"1\"}}\n".repeat(60_000), 413, "items"),
        // Queries.
        ("POST", "/a/_search", query(json!({"bool": {"should": many_clauses}})), 400, "clauses"),
        ("POST", "/a/_search", query(json!({"terms": {"k": many_terms}})), 400, "terms"),
        ("POST", "/a/_search", query(json!({"match": {"t": many}})), 400, ""),
        ("POST", "/a/_search", query(json!({"query_string": {"query": many}})), 400, ""),
        ("POST", "/a/_search", query(json!({"query_string": {"query": "(".repeat(5_000)}})), 400, ""),
        ("POST", "/a/_search", query(json!({"simple_query_string": {"query": "(".repeat(5_000)}})), 200, ""),
        ("POST", "/a/_search", query(json!({"regexp": {"k": "(a*)*b"}})), 200, ""),
        ("POST", "/a/_search", query(json!({"regexp": {"k": "((a{1,100}){1,100}){1,100}"}})), 400, "regexp"),
        ("POST", "/a/_search", query(json!({"regexp": {"k": "(".repeat(5_000)}})), 400, "regexp"),
        ("POST", "/a/_search", query(json!({"wildcard": {"k": "*a".repeat(5_000)}})), 400, "pattern"),
        ("POST", "/a/_search", query(json!({"prefix": {"k": ""}})), 200, ""),
        ("POST", "/a/_search", query(json!({"fuzzy": {"k": "x".repeat(100_000)}})), 400, "pattern"),
        ("POST", "/a/_search", deep_query, 400, "parsing_exception"),
        ("POST", "/a/_search", deep(10_000), 400, "parsing_exception"),
        ("POST", "/a/_search", query(json!({"range": {"n": {"gte": "x"}}})), 400, "n"),
        ("POST", "/a/_search", query(json!({"range": {"at": {"gte": "now-1d/q"}}})), 400, "at"),
        ("POST", "/a/_search", query(json!({"range": {"at": {"gte": "now+99999999999999999999d"}}})), 400, "at"),
        ("POST", "/a/_search", query(json!({"range": {"at": {"gte": "2024-01-01||+9223372036854775807y"}}})), 400, "at"),
        ("POST", "/a/_search", query(json!({"function_score": {"gauss": {"at": {"origin": "now", "scale": "0d"}}}})), 400, "scale"),
        ("POST", "/a/_search", json!({"from": 9_000, "size": 1_001}).to_string(), 400, "Result window"),
        ("POST", "/a/_search", json!({"from": u64::MAX, "size": 1}).to_string(), 400, ""),
        ("POST", "/a/_search", json!({"size": -1}).to_string(), 400, "size"),
        ("POST", "/a/_search", "{\"sort\":[\"n\"],\"search_after\":[1e400]}".to_owned(), 400, "out of range"),
        ("POST", "/a/_search", "{\"query\":{\"match_all\":{}},\"query\":{\"match_none\":{}}}".to_owned(), 400, "query"),
        (
            "POST", "/a/_search",
            json!({"aggs": {"a": {"histogram": {"field": "n", "interval": 1e-300, "extended_bounds": {"min": 0, "max": 1e300}}}}}).to_string(),
            400, "buckets",
        ),
        (
            "POST", "/a/_search",
            json!({"aggs": {"a": {"date_histogram": {"field": "at", "fixed_interval": "1ms", "extended_bounds": {"min": 0, "max": 1_000_000}}}}}).to_string(),
            400, "buckets",
        ),
        ("POST", "/a/_search", json!({"aggs": {"a": {"terms": {"field": "k", "size": 1_000_000}}}}).to_string(), 400, "size"),
        ("POST", "/a/_search", json!({"highlight": {"fields": {"t": {"fragment_size": u64::MAX}}}}).to_string(), 200, ""),
        ("POST", "/a/_search?scroll=1m", json!({"size": 20_000}).to_string(), 400, "Result window"),
        ("POST", "/_search/scroll", json!({"scroll_id": "x".repeat(3 << 20)}).to_string(), 404, "search_context"),
        ("GET", "/a/_search?q=%00", String::new(), 200, ""),
        ("GET", "/a/_search?q=%FF", String::new(), 400, "UTF-8"),
        ("GET", "/a/_search?filter_path=%FF", String::new(), 400, "UTF-8"),
        ("GET", "/a/_search?size=99999999999999999999", String::new(), 400, "size"),
        // Names.
        ("PUT", "/..%2Fx", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/.", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/..", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/Upper", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/es", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/%00", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/%20", String::new(), 400, "invalid_index_name_exception"),
        ("PUT", &format!("/{}", "x".repeat(300)), String::new(), 400, "invalid_index_name_exception"),
        ("PUT", "/b", deep(10_000), 400, "parsing_exception"),
        ("PUT", "/b", "{\"mappings\":{\"properties\":{\"y\":{\"type\":\"wrong\"}}}}".to_owned(), 400, "wrong"),
        ("GET", "//_search", String::new(), 200, ""),
        ("GET", "/%2A,-%2A/_search", String::new(), 200, "\"value\":0"),
        ("PUT", "/a/_mapping", "{\"properties\":{\"n\":{\"type\":\"keyword\"}}}".to_owned(), 400, "n"),
    ] {
        trouble.extend(differs(&searchers, case).await);
    }
    assert!(trouble.is_empty(), "{}", trouble.join("\n"));
    // Bytes that are no text.
    for (path, body) in [
        ("/es/a/_doc/2", &b"{\"t\":\"\xff\"}"[..]),
        ("/es/a/_doc/2", b"\xfe\xff"),
        ("/es/a/_search", b"{\"query\":\"\xc3\x28\"}"),
        ("/es/a/_bulk", b"{\"index\":\"\xff\"}\n{}\n"),
        ("/es/a/_msearch", b"\xff\n\xff\n"),
        ("/es/_mget", b"\xff"),
        ("/es/a/_analyze", b"\xff"),
    ] {
        let answer = searchers.call("POST", path, body.to_vec()).await;
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            answer.status == 400 || (path.ends_with("_msearch") && shown.contains("\"status\":400")),
            "{path}: {shown}"
        );
    }
    // An id with any characters is one.
    let id = "a/b%c#d?e\u{1}\u{fc}";
    let encoded = plugin::http::query::percent_encode(id.as_bytes()).replace('/', "%2F");
    let path = format!("/a/_doc/{encoded}");
    assert_eq!(ask(&searchers, "PUT", &path, "{}", 201).await["_id"], id);
    assert_eq!(ask(&searchers, "GET", &path, "", 200).await["found"], true);
    assert_eq!(ask(&searchers, "GET", "/a/_doc/1", "", 200).await["_source"]["n"], 1);
    searchers.stop().await;
}

/// Each API with a wrong body, an index that does not exist, a pattern, a list and an exclusion.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "tables")]
async fn every_api_takes_expressions_and_refuses_what_is_wrong() {
    let searchers = Searchers::start(2, json!({})).await;
    for (index, field) in [("logs-1", "a"), ("logs-2", "b"), ("books", "c")] {
        let mapping = json!({"mappings": {"properties": {field: {"type": "keyword"}}}}).to_string();
        ask(&searchers, "PUT", &format!("/{index}"), &mapping, 200).await;
        ask(
            &searchers,
            "PUT",
            &format!("/{index}/_doc/1?refresh=true"),
            &json!({field: "x"}).to_string(),
            201,
        )
        .await;
    }
    let apis = [
        ("POST", "_search", "", "[]"),
        ("POST", "_count", "", "{\"size\":1}"),
        ("GET", "_field_caps?fields=*", "", "{\"x\":1}"),
        ("GET", "_mapping", "", ""),
        ("GET", "_settings", "", ""),
        ("POST", "_refresh", "", ""),
        ("PUT", "_settings", "{}", "{\"index\":{\"x\":1}}"),
        ("PUT", "_mapping", "{}", "{\"properties\":[]}"),
    ];
    for (method, api, body, wrong) in apis {
        for (expression, status) in [
            ("logs-1", 200),
            ("logs-1,books", 200),
            ("logs-*", 200),
            ("logs-*,-logs-2", 200),
            ("*", 200),
            ("_all", 200),
            ("nothing", 404),
            ("logs-1,nothing", 404),
            ("nothing-*", 200),
            ("Upper", 400),
            ("%3Clogs-%7Bnow%7D%3E", 400),
        ] {
            ask(&searchers, method, &format!("/{expression}/{api}"), body, status).await;
        }
        let more = if api.contains('?') { '&' } else { '?' };
        ask(&searchers, method, &format!("/logs-1,nothing/{api}{more}ignore_unavailable=true"), body, 200)
            .await;
        ask(&searchers, method, &format!("/nothing-*/{api}{more}allow_no_indices=false"), body, 404).await;
        ask(&searchers, method, &format!("/logs-1/{api}{more}x=1"), body, 400).await;
        if !wrong.is_empty() {
            ask(&searchers, method, &format!("/logs-1/{api}"), wrong, 400).await;
        }
        let wrong_method = searchers.call("PATCH", &format!("/es/logs-1/{api}"), "").await;
        assert_eq!(wrong_method.status, 405, "{api}");
    }
    let names = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(names(&ask(&searchers, "GET", "/logs-*,-logs-2/_mapping", "", 200).await), "logs-1");
    assert_eq!(names(&ask(&searchers, "GET", "/_settings", "", 200).await), "books logs-1 logs-2");
    let caps = ask(&searchers, "GET", "/logs-*/_field_caps?fields=*", "", 200).await;
    assert_eq!(
        (&caps["indices"], names(&caps["fields"])),
        (&json!(["logs-1", "logs-2"]), "_id a b".to_owned())
    );
    assert_eq!(ask(&searchers, "GET", "/logs-*,-logs-2,books/_count", "", 200).await["count"], 2);
    // Several searches: each has its own indexes and its own mistake.
    let lines = [
        "{\"index\":\"logs-*,-logs-2\"}",
        "{}",
        "{\"index\":[\"logs-1\",\"books\"]}",
        "{}",
        "{\"index\":\"nothing\"}",
        "{}",
        "{\"index\":\"nothing\",\"ignore_unavailable\":true}",
        "{}",
        "{\"index\":7}",
        "{}",
        "{\"indx\":\"a\"}",
        "{}",
        "{}",
        "[]",
        "not json",
        "{}",
        "{\"routing\":\"a\"}",
        "{}",
        "{}",
        "{\"query\":{\"nested\":{}}}",
    ];
    let body = format!("{}\n", lines.join("\n"));
    let answer = ask(&searchers, "POST", "/books/_msearch", &body, 200).await;
    let found: Vec<_> = answer["responses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["status"].as_u64().unwrap(), one["hits"]["total"]["value"].as_u64()))
        .collect();
    let refused = (400, None);
    assert_eq!(
        found,
        [
            (200, Some(1)),
            (200, Some(2)),
            (404, None),
            (200, Some(0)),
            refused,
            refused,
            refused,
            refused,
            refused,
            refused
        ]
    );
    for (body, status) in [("", 400), ("{}\n", 400), ("{}\n{}\n{}\n", 400)] {
        ask(&searchers, "POST", "/_msearch", body, status).await;
    }
    // Several documents: expressions are refused one by one.
    let docs = json!({"docs": [{"_index": "logs-1", "_id": "1"}, {"_index": "logs-*", "_id": "1"}, {"_index": "nothing", "_id": "1"},
        {"_index": "logs-1", "_id": "i".repeat(600)}, {"_index": "Upper", "_id": "1"}]});
    let got = ask(&searchers, "POST", "/_mget", &docs.to_string(), 200).await;
    let kinds: Vec<_> = got["docs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|doc| doc["error"]["type"].as_str().unwrap_or("-"))
        .collect();
    assert_eq!(
        kinds,
        [
            "-",
            "invalid_index_name_exception",
            "index_not_found_exception",
            "illegal_argument_exception",
            "invalid_index_name_exception"
        ]
    );
    for body in [
        "",
        "[]",
        "{}",
        "{\"docs\":[]}",
        "{\"docs\":[{\"_id\":\"1\"}]}",
        "{\"docs\":[{\"_index\":\"a\"}]}",
        "{\"ids\":[\"1\"]}",
        "{\"docs\":[{\"_index\":\"a\",\"_id\":\"1\",\"routing\":\"x\"}]}",
        "{\"docs\":[{\"_index\":\"a\",\"_id\":{}}]}",
        "{\"x\":1}",
    ] {
        ask(&searchers, "POST", "/_mget", body, 400).await;
    }
    searchers.stop().await;
}

/// The id of a point in time is not trusted: who writes one himself gets no more work done than with a search.
#[tokio::test]
async fn ids_of_points_in_time_that_were_made_up_are_refused() {
    use base64::Engine;
    let searchers = Searchers::start(1, json!({})).await;
    ask(&searchers, "PUT", "/a", "", 200).await;
    let uuid =
        ask(&searchers, "GET", "/a/_settings", "", 200).await["a"]["settings"]["index"]["uuid"].clone();
    let made_up = |token: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string());
    let unknown = "01a2290d-c590-756b-83c4-72719176695b";
    for (token, status) in [
        (json!({"PointInTime": {"indexes": [uuid]}}), 200),
        (json!({"PointInTime": {"indexes": vec![&uuid; 1_000]}}), 404),
        (json!({"PointInTime": {"indexes": [unknown]}}), 404),
        (json!({"PointInTime": {"indexes": "x"}}), 404),
        (json!({"Scroll": {"indexes": [uuid], "request": "{}", "now": 0, "after": null}}), 400),
    ] {
        let body = json!({"pit": {"id": made_up(token)}}).to_string();
        ask(&searchers, "POST", "/_search", &body, status).await;
    }
    for (request, after, status) in [
        ("{}", json!(null), 200),
        ("{\"size\":10000,\"sort\":[\"n\"]}", json!("[[[["), 404),
        ("[", json!(null), 400),
        ("{\"x\":1}", json!(null), 400),
        ("{}", json!("{}"), 404),
        ("{}", json!("[1,2,3,4,5]"), 400),
        ("{\"size\":99999}", json!(null), 400),
    ] {
        let token =
            json!({"Scroll": {"indexes": [uuid], "request": request, "now": i64::MIN, "after": after}});
        let body = json!({"scroll_id": made_up(token)}).to_string();
        ask(&searchers, "POST", "/_search/scroll", &body, status).await;
    }
    searchers.stop().await;
}
