use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, WARNING};

use super::*;

mod aggregations;
mod aliases;
mod hostile;
mod scenarios;
mod search;
mod senders;
mod vectors;

/// A request with a JSON body, which must be answered with this status.
pub(super) async fn ask(searchers: &Searchers, method: &str, path: &str, body: &str, status: u16) -> Value {
    let answer = searchers.call(method, &format!("/es{path}"), body.to_owned()).await;
    let shown = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{method} {path} {body}: {shown}");
    assert_eq!(answer.headers["x-elastic-product"], "Elasticsearch", "{method} {path}");
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// The id of a scroll over no index.
const SCROLL: &str =
    "{\"scroll_id\":\"eyJTY3JvbGwiOnsiaW5kZXhlcyI6W10sInJlcXVlc3QiOiJ7fSIsIm5vdyI6MCwiYWZ0ZXIiOm51bGx9fQ\"}";

/// The query and the body of a request that is answered, for a path of the description with `x` as its index.
pub(super) fn example(path: &str, method: &str) -> Option<(&'static str, &'static str)> {
    let path = path.strip_prefix("/es/")?;
    Some(match (path.rsplit('/').find(|part| part.starts_with('_')).unwrap_or_default(), method) {
        ("_bulk", _) => ("", "{\"delete\":{\"_index\":\"x\",\"_id\":\"1\"}}\n"),
        ("_update", _) => ("", "{\"doc\":{}}"),
        ("_mget", _) => ("", "{\"docs\":[{\"_index\":\"x\",\"_id\":\"1\"}]}"),
        ("_search", "post" | "delete") if path.ends_with("scroll") => ("", SCROLL),
        ("_msearch", _) => ("", "{\"index\":\"x\"}\n{}\n"),
        ("_pit", "post") => ("?keep_alive=1m", ""),
        ("_pit", "delete") => ("", "{\"id\":\"x\"}"),
        ("_reindex", _) => ("", "{\"source\":{\"index\":\"x\"},\"dest\":{\"index\":\"other\"}}"),
        ("_delete_by_query", _) => ("", "{\"query\":{\"match_none\":{}}}"),
        ("_aliases", "post") => ("", "{\"actions\":[{\"add\":{\"index\":\"x\",\"alias\":\"z\"}}]}"),
        ("_index_template", "put") => ("", "{\"index_patterns\":[\"t\"]}"),
        ("_field_caps", _) => ("?fields=*", ""),
        ("_analyze", _) => ("", "{\"text\":\"a\"}"),
        _ => ("", "{}"),
    })
}

fn kind(answer: &Value) -> &str {
    answer["error"]["type"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn a_document_is_written_read_updated_and_deleted_by_its_id() {
    let searchers = Searchers::start(2, json!({})).await;
    let created = ask(&searchers, "PUT", "/books/_doc/a%2Fb", r#"{"title": "One", "n": 1.50}"#, 201).await;
    assert_eq!(
        (&created["result"], &created["_id"], &created["_version"]),
        (&json!("created"), &json!("a/b"), &json!(1))
    );
    let found = searchers.call("GET", "/es/books/_doc/a%2Fb", "").await;
    let shown = String::from_utf8_lossy(&found.body).into_owned();
    assert!(shown.contains(r#""_source":{"title":"One","n":1.50}"#), "{shown}");
    assert_eq!(ask(&searchers, "GET", "/books/_source/a%2Fb", "", 200).await["title"], "One");
    ask(&searchers, "HEAD", "/books/_doc/a%2Fb", "", 200).await;
    ask(&searchers, "HEAD", "/books/_doc/b", "", 404).await;
    let part =
        ask(&searchers, "GET", "/books/_doc/a%2Fb?_source_includes=n&filter_path=_source,found", "", 200)
            .await;
    assert_eq!(part, json!({"found": true, "_source": {"n": 1.5}}));

    let again = ask(&searchers, "PUT", "/books/_create/a%2Fb", "{}", 409).await;
    assert_eq!(kind(&again), "version_conflict_engine_exception");
    let noop = ask(&searchers, "POST", "/books/_update/a%2Fb", r#"{"doc": {"n": 1.5}}"#, 200).await;
    assert_eq!(noop["result"], "noop");
    let forced = r#"{"doc": {"n": 1.5}, "detect_noop": false}"#;
    assert_eq!(ask(&searchers, "POST", "/books/_update/a%2Fb", forced, 200).await["result"], "updated");
    let missing = ask(&searchers, "POST", "/books/_update/c", r#"{"doc": {}}"#, 404).await;
    assert_eq!(kind(&missing), "document_missing_exception");
    let upsert = r#"{"doc": {"n": 2}, "doc_as_upsert": true}"#;
    assert_eq!(ask(&searchers, "POST", "/books/_update/c", upsert, 201).await["result"], "created");
    let generated = ask(&searchers, "POST", "/books/_doc?refresh=true", r#"{"n": 3}"#, 201).await;
    assert_eq!(generated["forced_refresh"], true);

    let (seq, term) = (&created["_seq_no"], &created["_primary_term"]);
    let stale = format!("/books/_doc/a%2Fb?if_seq_no={seq}&if_primary_term={term}");
    assert_eq!(kind(&ask(&searchers, "PUT", &stale, "{}", 409).await), "version_conflict_engine_exception");
    assert_eq!(ask(&searchers, "DELETE", "/books/_doc/a%2Fb", "", 200).await["result"], "deleted");
    assert_eq!(ask(&searchers, "DELETE", "/books/_doc/a%2Fb", "", 404).await["result"], "not_found");
    assert_eq!(ask(&searchers, "GET", "/books/_doc/a%2Fb", "", 404).await["found"], false);
    assert_eq!(kind(&ask(&searchers, "GET", "/nothing/_doc/1", "", 404).await), "index_not_found_exception");

    let docs = json!({"docs": [{"_index": "books", "_id": "c"}, {"_index": "books", "_id": "x"}, {"_index": "no", "_id": "1"}]});
    let got = ask(&searchers, "POST", "/_mget", &docs.to_string(), 200).await;
    assert_eq!(got["docs"][0]["_source"], json!({"n": 2}));
    assert_eq!(
        (&got["docs"][1]["found"], &got["docs"][2]["error"]["type"]),
        (&json!(false), &json!("index_not_found_exception"))
    );
    let got = ask(&searchers, "GET", "/books/_mget?_source=false", r#"{"ids": ["c"]}"#, 200).await;
    assert_eq!((&got["docs"][0]["found"], &got["docs"][0]["_source"]), (&json!(true), &Value::Null));
    searchers.stop().await;
}

#[tokio::test]
async fn each_item_of_a_bulk_request_has_its_own_outcome_in_order() {
    let searchers = Searchers::start(2, json!({})).await;
    let mapping =
        r#"{"mappings": {"properties": {"n": {"type": "integer"}}}, "settings": {"number_of_shards": 3}}"#;
    let answer = searchers.call("PUT", "/es/typed", mapping).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.get_all(WARNING).iter().count(), 2, "{:?}", answer.headers);
    let body = [
        r#"{"index":{"_index":"typed","_id":"1"}}"#,
        r#"{"n":1}"#,
        r#"{"index":{"_index":"typed","_id":"1"}}"#,
        r#"{"n":2}"#,
        r#"{"create":{"_index":"typed","_id":"1"}}"#,
        r#"{"n":3}"#,
        r#"{"index":{"_index":"typed","_id":"2"}}"#,
        r#"{"n":"x"}"#,
        r#"{"update":{"_index":"typed","_id":"1"}}"#,
        r#"{"doc":{"n":4}}"#,
        r#"{"index":{"_index":"new"}}"#,
        r#"{"text":"made by the first write"}"#,
        r#"{"delete":{"_index":"typed","_id":"3"}}"#,
        r#"{"delete":{"_index":"missing","_id":"3"}}"#,
        r#"{"index":{"_index":"Wrong","_id":"3"}}"#,
        "{}",
        "",
    ]
    .join("\n");
    let answer = ask(&searchers, "POST", "/_bulk?refresh=wait_for", &body, 200).await;
    let items = answer["items"].as_array().unwrap();
    let shown: Vec<_> = items
        .iter()
        .map(|item| {
            let (action, item) = item.as_object().unwrap().iter().next().unwrap();
            (action.as_str(), item["status"].as_u64().unwrap(), item["error"]["type"].as_str().unwrap_or("-"))
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("index", 201, "-"),
            ("index", 200, "-"),
            ("create", 409, "version_conflict_engine_exception"),
            ("index", 400, "document_parsing_exception"),
            ("update", 200, "-"),
            ("index", 201, "-"),
            ("delete", 404, "-"),
            ("delete", 404, "index_not_found_exception"),
            ("index", 400, "invalid_index_name_exception"),
        ]
    );
    assert_eq!((&answer["errors"], &items[4]["update"]["_version"]), (&json!(true), &json!(3)));
    assert_eq!(ask(&searchers, "GET", "/typed/_source/1", "", 200).await, json!({"n": 4}));
    // One broken action refuses everything.
    let broken =
        "{\"index\":{\"_index\":\"typed\",\"_id\":\"9\"}}\n{}\n{\"index\":{\"routing\":\"a\"}}\n{}\n";
    assert_eq!(kind(&ask(&searchers, "POST", "/_bulk", broken, 400).await), "illegal_argument_exception");
    ask(&searchers, "GET", "/typed/_doc/9", "", 404).await;
    searchers.stop().await;
}

#[tokio::test]
async fn what_a_query_finds_is_deleted_in_all_shards() {
    let searchers = Searchers::start(2, json!({})).await;
    let lines: Vec<_> = (0..100)
        .map(|number| format!("{{\"index\":{{\"_id\":\"{number}\"}}}}\n{{\"n\":{number}}}\n"))
        .collect();
    ask(&searchers, "POST", "/logs/_bulk", &lines.concat(), 200).await;
    // Documents that no search sees yet are found, too.
    let query = r#"{"query": {"range": {"n": {"lt": 30}}}}"#;
    let deleted = ask(&searchers, "POST", "/logs/_delete_by_query?refresh=true", query, 200).await;
    assert_eq!((&deleted["deleted"], &deleted["version_conflicts"]), (&json!(30), &json!(0)), "{deleted}");
    assert_eq!(ask(&searchers, "GET", "/logs/_count", "", 200).await["count"], 70);
    for (body, words) in [
        ("{}", "query is missing"),
        (r#"{"query": {"nothing": {}}}"#, "nothing"),
        (r#"{"sort": 1}"#, "[sort]"),
    ] {
        let refused = ask(&searchers, "POST", "/logs/_delete_by_query", body, 400).await;
        assert!(refused.to_string().contains(words), "{refused}");
    }
    ask(&searchers, "POST", "/nothing/_delete_by_query", query, 404).await;
    searchers.stop().await;
}

#[tokio::test]
async fn values_of_other_types_are_converted_as_elasticsearch_does() {
    let searchers = Searchers::start(1, json!({})).await;
    let fields = json!({"t": {"type": "text"}, "k": {"type": "keyword"}, "n": {"type": "long"}, "b": {"type": "boolean"}});
    let body = json!({"mappings": {"properties": fields}});
    ask(&searchers, "PUT", "/a", &body.to_string(), 200).await;
    let document = r#"{"t": 7, "k": 1.50, "n": "12", "b": "true"}"#;
    ask(&searchers, "PUT", "/a/_doc/1?refresh=true", document, 201).await;
    for query in ["t:7", "k:1.5", "n:12", "b:true", "n:[11 TO 12]"] {
        let query = plugin::http::query::percent_encode(query.as_bytes());
        assert_eq!(
            ask(&searchers, "GET", &format!("/a/_count?q={query}"), "", 200).await["count"],
            1,
            "{query}"
        );
    }
    assert_eq!(ask(&searchers, "GET", "/a/_source/1", "", 200).await["n"], "12");
    for wrong in [r#"{"n": "x"}"#, r#"{"n": 1e30}"#, r#"{"b": "yes"}"#, r#"{"b": 1}"#] {
        ask(&searchers, "PUT", "/a/_doc/2", wrong, 400).await;
    }
    searchers.stop().await;
}

fn gzip(text: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_bodies_are_taken_within_the_limit() {
    let searchers = Searchers::start(1, json!({"max_body": 64 * 1024})).await;
    let send = async |body: Vec<u8>| {
        let request = Request::post("/es/logs/_bulk").header(CONTENT_ENCODING, "gzip");
        searchers
            .send(request.header(CONTENT_TYPE, "application/x-ndjson").body(Body::from(body)).unwrap())
            .await
    };
    let answer = send(gzip(b"{\"index\":{\"_id\":\"1\"}}\n{\"a\":1}\n")).await;
    assert_eq!((answer.status, answer.json()["errors"].clone()), (200, json!(false)));
    let bomb = send(gzip(&vec![b' '; 10 * 1024 * 1024])).await;
    assert_eq!((bomb.status, kind(&bomb.json())), (413, "content_too_long_exception"));
    let broken = send(b"no gzip".to_vec()).await;
    assert_eq!((broken.status, kind(&broken.json())), (400, "parse_exception"));
    searchers.stop().await;
}

#[tokio::test]
async fn indexes_have_mappings_and_are_shown_as_tables() {
    let searchers = Searchers::start(2, json!({"indexes": {"kept": {}}})).await;
    let mappings =
        json!({"properties": {"title": {"type": "text", "fields": {"keyword": {"type": "keyword"}}}}});
    let body = json!({ "mappings": mappings });
    ask(&searchers, "HEAD", "/books", "", 404).await;
    assert_eq!(ask(&searchers, "PUT", "/books", &body.to_string(), 200).await["acknowledged"], true);
    assert_eq!(kind(&ask(&searchers, "PUT", "/books", "", 400).await), "resource_already_exists_exception");
    ask(&searchers, "HEAD", "/books", "", 200).await;
    assert_eq!(ask(&searchers, "GET", "/books/_mapping", "", 200).await["books"]["mappings"], mappings);
    let more = r#"{"properties": {"year": {"type": "long"}}}"#;
    ask(&searchers, "PUT", "/books/_mapping", more, 200).await;
    let shown = ask(&searchers, "GET", "/books", "", 200).await;
    assert_eq!(shown["books"]["mappings"]["properties"]["year"], json!({"type": "long"}));
    assert_eq!(shown["books"]["settings"]["index"]["number_of_shards"], "2");
    let other = r#"{"properties": {"year": {"type": "text"}}}"#;
    assert_eq!(
        kind(&ask(&searchers, "PUT", "/books/_mapping", other, 400).await),
        "illegal_argument_exception"
    );
    let caps = ask(&searchers, "GET", "/books/_field_caps?fields=title*,year", "", 200).await;
    let fields: Vec<_> = caps["fields"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["title", "title.keyword", "year"]);
    assert_eq!(caps["fields"]["title.keyword"]["keyword"]["aggregatable"], true);

    for number in 0..5 {
        let path = format!("/books/_doc/{number}");
        ask(&searchers, "PUT", &path, &format!("{{\"title\": \"Book {number}\"}}"), 201).await;
    }
    ask(&searchers, "DELETE", "/books/_doc/0", "", 200).await;
    assert_eq!(ask(&searchers, "POST", "/books/_refresh", "", 200).await["_shards"]["failed"], 0);
    let sub_field = r#"{"query": {"term": {"title.keyword": "Book 3"}}}"#;
    let found = ask(&searchers, "POST", "/books/_search", sub_field, 200).await;
    assert_eq!(found["hits"]["hits"][0]["_id"], "3", "{found}");
    let table =
        ask(&searchers, "GET", "/_cat/indices/b*?format=json&h=index,docs.count,health", "", 200).await;
    assert_eq!(table, json!([{"index": "books", "docs.count": "4", "health": "green"}]));
    let text = searchers.get("/es/_cat/indices?h=index,docs.count&v=true").await;
    assert_eq!(String::from_utf8_lossy(&text.body), "index docs.count\nbooks          4\nkept           0\n");
    assert_eq!(ask(&searchers, "GET", "/_cat/indices?format=json&health=red", "", 200).await, json!([]));
    assert_eq!(
        ask(&searchers, "POST", "/books/_forcemerge?max_num_segments=1", "", 200).await["_shards"]["failed"],
        0
    );
    let tokens =
        ask(&searchers, "POST", "/_analyze", r#"{"analyzer": "english", "text": "running"}"#, 200).await;
    assert_eq!(tokens["tokens"][0]["token"], "run");

    let health = ask(&searchers, "GET", "/_cluster/health?wait_for_status=green&timeout=20s", "", 200).await;
    assert_eq!((&health["status"], &health["timed_out"]), (&json!("green"), &json!(false)));
    ask(&searchers, "DELETE", "/kept", "", 409).await;
    ask(&searchers, "DELETE", "/boo*", "", 400).await;
    ask(&searchers, "DELETE", "/books,nothing", "", 404).await;
    assert_eq!(ask(&searchers, "DELETE", "/books", "", 200).await["acknowledged"], true);
    ask(&searchers, "DELETE", "/books?ignore_unavailable=true", "", 200).await;
    searchers.stop().await;
}

#[tokio::test]
async fn a_first_write_creates_only_what_may_be_created() {
    let searchers = Searchers::start(1, json!({"auto_create": ["logs-*"]})).await;
    ask(&searchers, "PUT", "/logs-1/_doc/1", "{}", 201).await;
    let refused = ask(&searchers, "PUT", "/other/_doc/1", "{}", 404).await;
    assert!(refused["error"]["reason"].as_str().unwrap().contains("auto_create_index"), "{refused}");
    let settings = r#"{"persistent": {"action.auto_create_index": "other*"}}"#;
    ask(&searchers, "PUT", "/_cluster/settings", settings, 200).await;
    ask(&searchers, "PUT", "/other/_doc/1", "{}", 201).await;
    ask(&searchers, "PUT", "/logs-2/_doc/1", "{}", 404).await;
    let shown = ask(&searchers, "GET", "/_cluster/settings", "", 200).await;
    assert_eq!(shown["persistent"], json!({"action.auto_create_index": "other*"}));
    let back = r#"{"persistent": {"action.auto_create_index": null}}"#;
    ask(&searchers, "PUT", "/_cluster/settings", back, 200).await;
    ask(&searchers, "PUT", "/logs-2/_doc/1", "{}", 201).await;
    searchers.stop().await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let searchers = Searchers::start(1, json!({"max_body": 4096})).await;
    ask(&searchers, "PUT", "/a", "", 200).await;
    let long = format!("/a/_doc/{}", "i".repeat(600));
    let large = format!("{{\"a\":\"{}\"}}", "a".repeat(5_000));
    for (method, path, body, status, words) in [
        ("POST", "/_aliases", "{}", 400, "at least one action"),
        ("PUT", "/_index_template/x", "{}", 400, "1 to 10 patterns"),
        ("POST", "/_index_template/_simulate/x", "{}", 400, "[_index_template]"),
        ("GET", "/_tasks", "", 400, "[_tasks]"),
        ("GET", "/_cluster/state", "", 400, "[_cluster/state]"),
        ("GET", "/_cat/nodes", "", 400, "[_cat/nodes]"),
        ("GET", "/_nothing", "", 404, "no handler"),
        ("PATCH", "/a", "", 405, "allowed: [GET, HEAD, PUT, DELETE]"),
        ("GET", "/_bulk", "", 405, "POST"),
        ("PUT", "/A", "", 400, "Invalid index name [A]"),
        ("PUT", "/..%2Fx", "", 400, "Invalid index name"),
        ("PUT", "/es", "", 400, "reserved"),
        ("PUT", "/b", "[]", 400, "no JSON object"),
        ("PUT", "/b", r#"{"aliases": {"x": {"routing": "1"}}}"#, 400, "[routing]"),
        ("PUT", "/b", r#"{"maping": {}}"#, 400, "[maping]"),
        ("PUT", "/a/_settings", r#"{"index": {"sort": {}}}"#, 400, "[index.sort]"),
        ("PUT", "/a/_doc/1?routing=x", "{}", 400, "[routing]"),
        ("PUT", "/a/_doc/1?version=2&version_type=external", "{}", 400, "[version]"),
        ("PUT", "/a/_doc/1?pipeline=x", "{}", 400, "[pipeline]"),
        ("PUT", "/a/_doc/1?refesh=true", "{}", 400, "did you mean [refresh]"),
        ("PUT", "/a/_doc/1?op_type=x", "{}", 400, "opType"),
        ("PUT", "/a/_doc/1", "", 400, "JSON object"),
        ("PUT", "/a/_doc/1", "[]", 400, "JSON object"),
        ("PUT", "/a/_doc/1", "{\"a\":1,\"a\":2}", 400, "twice"),
        ("PUT", "/a/_doc/1", large.as_str(), 413, "4096"),
        ("POST", "/a/_bulk", large.as_str(), 413, "4096"),
        ("PUT", long.as_str(), "{}", 400, "512"),
        ("POST", "/a/_update/1", r#"{"script": "x"}"#, 400, "[script]"),
        ("POST", "/a/_bulk", "", 400, "request body is required"),
        ("POST", "/a/_forcemerge?max_num_segments=5", "", 400, "[max_num_segments]"),
        ("GET", "/_mget", r#"{"docs": [{"_id": "1"}]}"#, 400, "index is missing"),
        ("GET", "/_cluster/health?level=indices", "", 400, "[level=indices]"),
        ("PUT", "/_cluster/settings", r#"{"transient": {"a": 1}}"#, 400, "[a]"),
    ] {
        let answer = ask(&searchers, method, path, body, status).await;
        let shown = answer.to_string();
        assert!(shown.contains(words), "{method} {path} {body}: {shown}");
        assert_eq!(answer["status"], status, "{shown}");
        assert!(answer["error"]["root_cause"][0]["type"].is_string(), "{shown}");
    }
    searchers.stop().await;
}

#[tokio::test]
async fn clients_of_versions_8_and_9_are_answered_in_their_media_type() {
    let searchers = Searchers::start(1, json!({})).await;
    for version in ["8", "9"] {
        let media = format!("application/vnd.elasticsearch+json;compatible-with={version}");
        let request = Request::get("/es/").header(ACCEPT, &media).body(Body::empty()).unwrap();
        let answer = searchers.send(request).await;
        assert_eq!((answer.status, answer.headers[CONTENT_TYPE].to_str().unwrap()), (200, media.as_str()));
        assert!(answer.json()["version"]["number"].as_str().unwrap().starts_with("8."));
    }
    let request = Request::get("/es").header(ACCEPT, "application/yaml").body(Body::empty()).unwrap();
    assert_eq!(kind(&searchers.send(request).await.json()), "media_type_header_exception");
    searchers.stop().await;
}

#[tokio::test]
async fn the_api_has_a_listener_of_its_own_that_refuses_other_sites() {
    let searchers = Searchers::start(1, json!({"es_listen": "127.0.0.1:0"})).await;
    let node = searchers.0.owner(shard(0));
    let address = searchers.0.endpoint(&node, "elasticsearch");
    let send = async |head: &str| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = send("GET /_cluster/health HTTP/1.1\r\nHost: localhost").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"number_of_nodes\""), "{answer}");
    let answer = send("GET / HTTP/1.1\r\nHost: evil.example").await;
    assert!(answer.contains("foreign-host"), "{answer}");
    searchers.stop().await;
}
