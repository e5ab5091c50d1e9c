use super::es::ask;
use super::*;

const HOSTS: [(&str, &str, &str); 7] = [
    ("a", "10.0.0.1", "10.0.0.1"),
    ("b", "10.2.0.9", "10.2.0.9"),
    ("c", "9.255.255.255", "9.255.255.255"),
    ("d", "192.168.0.1", "192.168.0.1"),
    ("e", "2001:DB8:0::1", "2001:db8::1"),
    ("f", "::1", "::1"),
    ("g", "::ffff:10.0.0.1", "10.0.0.1"),
];

async fn hosts() -> Searchers {
    let searchers = Searchers::start(2, json!({})).await;
    let definition = json!({"fields": {"ip": {"type": "ip"}, "size": {"type": "i64"}}, "id": "name"});
    assert_eq!(searchers.call("PUT", "/h", definition.to_string()).await.status, 201);
    fill(&searchers, "h").await;
    searchers
}

async fn fill(searchers: &Searchers, index: &str) {
    let lines = HOSTS.map(|(name, ip, _)| json!({"name": name, "ip": ip, "size": 1}).to_string());
    let more = json!({"name": "z", "size": 2}).to_string();
    let body = format!("{}\n{more}", lines.join("\n"));
    let answer = searchers.call("POST", &format!("/{index}/docs?refresh=true"), body).await.json();
    assert_eq!(answer, json!({"indexed": 8, "refused": []}));
}

fn sorted(answer: &Answer) -> String {
    let mut ids = answer.ids();
    ids.sort();
    ids.join("")
}

async fn search(searchers: &Searchers, index: &str, body: Value) -> Answer {
    let answer = searchers.call("POST", &format!("/{index}/search"), body.to_string()).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.json());
    answer
}

#[tokio::test]
async fn addresses_are_found_alone_by_network_and_by_range() {
    let searchers = hosts().await;
    for (q, found) in [
        ("ip:10.0.0.1", "ag"),
        (r#"ip:"::ffff:10.0.0.1""#, "ag"),
        ("ip:10.0.0.0/8", "abg"),
        (r#"ip:"10.0.0.0/8""#, "abg"),
        ("ip:10.0.0.77/24", "ag"),
        ("ip:0.0.0.0/0", "abcdg"),
        (r#"ip:"2001:db8::/32""#, "e"),
        (r#"ip:"::/0""#, "abcdefg"),
        ("ip:[10.0.0.0 TO 10.2.0.9]", "abg"),
        ("ip:[10.0.0.0 TO 10.2.0.9}", "ag"),
        ("ip:>192.0.0.0", "de"),
        ("ip:*", "abcdefg"),
        ("-ip:10.0.0.0/8", "cdefz"),
    ] {
        assert_eq!(sorted(&search(&searchers, "h", json!({"q": q, "size": 20})).await), found, "{q}");
    }
    for q in [
        "ip:10.0.0",
        "ip:10.0.0.0/33",
        "ip:x",
        "ip:10.0*",
        "ip:10.0.0.1~1",
        "ip:[x TO 10.0.0.1]",
        "ip:[9.0.0.1 TO 1.0.0.1]",
    ] {
        let answer = searchers.call("POST", "/h/search", json!({"q": q}).to_string()).await;
        assert_eq!(answer.code(), (400, "bad-search".to_owned()), "{q}");
        assert!(answer.problem().detail.contains("ip") || q.contains("TO 1.0"), "{q}: {}", answer.problem());
    }
    let prefix = searchers.get("/h/suggest?field=ip&prefix=10").await;
    assert_eq!(prefix.code(), (400, "bad-search".to_owned()));
    let loose = json!({"q": "00000000*", "fields": ["ip", "size"]});
    assert_eq!(sorted(&search(&searchers, "h", loose).await), "", "what is indexed is not what is searched");
    searchers.stop().await;
}

#[tokio::test]
async fn addresses_are_sorted_and_counted_as_addresses() {
    let searchers = hosts().await;
    let body = json!({
        "sort": "ip", "size": 3, "facets": {"ip": 1},
        "aggs": {
            "ips": {"terms": {"field": "ip", "order": {"_key": "desc"}, "missing": "::2", "size": 2}},
            "sizes": {"terms": {"field": "size"}, "aggs": {"ips": {"terms": {"field": "ip", "size": 1}}}},
            "different": {"cardinality": {"field": "ip"}},
        },
    });
    let first = search(&searchers, "h", body).await;
    let shown = first.json();
    assert_eq!(shown["facets"]["ip"], json!([{"value": "10.0.0.1", "count": 2}]));
    let keys = |buckets: &Value| -> Vec<Value> {
        buckets["buckets"].as_array().unwrap().iter().map(|bucket| bucket["key"].clone()).collect()
    };
    assert_eq!(keys(&shown["aggs"]["ips"]), [json!("2001:db8::1"), json!("192.168.0.1")]);
    assert_eq!(keys(&shown["aggs"]["sizes"]["buckets"][0]["ips"]), [json!("10.0.0.1")]);
    assert_eq!(shown["aggs"]["different"]["value"], 6.0);
    assert_eq!(shown["hits"][1]["sort"][0], json!({"ip": "9.255.255.255"}));
    assert_eq!(first.ids()[..2], ["f", "c"]);
    let (mut seen, mut next) = (first.ids(), shown["next"].clone());
    while !next.is_null() {
        let page = search(&searchers, "h", json!({"sort": "ip", "size": 3, "search_after": next})).await;
        seen.extend(page.ids());
        next = page.json()["next"].clone();
    }
    assert_eq!((seen.len(), &seen[4..]), (8, &["b", "d", "e", "z"].map(str::to_owned)[..]));
    for aggregation in [
        json!({"avg": {"field": "ip"}}),
        json!({"range": {"field": "ip", "ranges": [{"from": 1}]}}),
        json!({"terms": {"field": "ip", "include": "10.*"}}),
        json!({"terms": {"field": "ip", "missing": "none"}}),
    ] {
        let body = json!({"aggs": {"x": aggregation}}).to_string();
        let answer = searchers.call("POST", "/h/search", body.clone()).await;
        assert_eq!(answer.code(), (400, "bad-search".to_owned()), "{body}");
        assert!(answer.problem().detail.contains("of type ip"), "{}", answer.problem());
    }
    searchers.stop().await;
}

#[tokio::test]
async fn a_bad_address_is_refused_with_its_field_and_a_field_of_addresses_is_no_id() {
    let searchers = hosts().await;
    for (ip, found) in [
        (json!("10.0.0.256"), "found the string `10.0.0.256`"),
        (json!("10.0.0.0/8"), "found the string"),
        (json!("fe80::1%eth0"), "found the string"),
        (json!(""), "found the string"),
        (json!(167_772_161), "found the number 167772161"),
        (json!(["::1", true]), "found true"),
        (json!({"v4": "10.0.0.1"}), "found an object"),
    ] {
        let answer = searchers.call("PUT", "/h/docs/q", json!({"name": "q", "ip": ip}).to_string()).await;
        assert_eq!(answer.code(), (400, "bad-document".to_owned()), "{ip}");
        let detail = answer.problem().detail;
        assert!(detail.contains("field `ip`: an IP address") && detail.contains(found), "{detail}");
    }
    let several = json!({"name": "q", "ip": ["::5", null, "10.9.9.9"]}).to_string();
    assert_eq!(searchers.call("PUT", "/h/docs/q?refresh=true", several).await.status, 201);
    assert_eq!(sorted(&search(&searchers, "h", json!({"q": "ip:10.9.0.0/16"})).await), "q");
    let id = json!({"fields": {"ip": {"type": "ip"}}, "id": "ip"}).to_string();
    let refused = searchers.call("PUT", "/i", id).await;
    assert!(refused.problem().detail.contains("an id is a string or an integer"), "{}", refused.problem());
    searchers.stop().await;
}

#[tokio::test]
async fn a_field_of_addresses_that_is_declared_later_holds_for_later_documents() {
    let searchers = Searchers::start(2, json!({})).await;
    assert_eq!(searchers.call("PUT", "/l", r#"{"id": "name"}"#).await.status, 201);
    fill(&searchers, "l").await;
    assert_eq!(
        sorted(&search(&searchers, "l", json!({"q": "ip:10.0.0.0"})).await),
        "",
        "dynamic text is text"
    );
    let later = json!({"fields": {"ip": {"type": "ip"}}}).to_string();
    assert_eq!(searchers.call("PUT", "/l", later).await.status, 200);
    let shown = search(&searchers, "l", json!({"sort": "ip", "facets": ["ip"]})).await.json();
    assert!(
        shown["facets"]["ip"].to_string().contains("2001:DB8:0::1"),
        "older documents have their texts: {shown}"
    );
    fill(&searchers, "l").await;
    let found = search(&searchers, "l", json!({"q": "ip:10.0.0.0/8", "sort": "ip", "facets": ["ip"]})).await;
    assert_eq!(sorted(&found), "abg");
    assert_eq!(found.json()["facets"]["ip"][0], json!({"value": "10.0.0.1", "count": 2}));
    searchers.stop().await;
}

#[tokio::test]
async fn elasticsearchs_api_has_addresses_too() {
    let searchers = Searchers::start(2, json!({})).await;
    let mappings = json!({"mappings": {"properties": {"ip": {"type": "ip"}, "name": {"type": "keyword"}}}});
    ask(&searchers, "PUT", "/h", &mappings.to_string(), 200).await;
    let shown = ask(&searchers, "GET", "/h/_mapping", "", 200).await;
    assert_eq!(shown["h"]["mappings"]["properties"]["ip"], json!({"type": "ip"}));
    fill(&searchers, "h").await;
    for (query, found) in [
        (json!({"term": {"ip": "10.0.0.1"}}), 2),
        (json!({"term": {"ip": {"value": "10.0.0.0/8"}}}), 3),
        (json!({"terms": {"ip": ["::1", "10.0.0.0/8"]}}), 4),
        (json!({"match": {"ip": "2001:db8::/32"}}), 1),
        (json!({"range": {"ip": {"gte": "10.0.0.0", "lt": "10.2.0.9"}}}), 2),
        (json!({"range": {"ip": {"gt": "192.0.0.0"}}}), 2),
        (json!({"exists": {"field": "ip"}}), 7),
        (json!({"query_string": {"query": "ip:\"10.0.0.0/8\""}}), 3),
        (json!({"query_string": {"query": "ip:00000*", "lenient": true}}), 0),
    ] {
        let body = json!({"query": query}).to_string();
        let answer = ask(&searchers, "POST", "/h/_search", &body, 200).await;
        assert_eq!(answer["hits"]["total"]["value"], found, "{query}: {answer}");
    }
    for (query, words) in [
        (json!({"prefix": {"ip": "10."}}), "can only use prefix queries on keyword and text fields"),
        (json!({"wildcard": {"ip": "10.*"}}), "can only use wildcard queries"),
        (json!({"term": {"ip": "10.0.0"}}), "no value of the field `ip` of type ip"),
        (json!({"term": {"ip": {"value": "::1", "case_insensitive": true}}}), "case insensitive"),
        (json!({"range": {"ip": {"gte": "x"}}}), "no value of the field `ip`"),
    ] {
        let answer = ask(&searchers, "POST", "/h/_search", &json!({"query": query}).to_string(), 400).await;
        assert!(answer.to_string().contains(words), "{query}: {answer}");
    }
    let body = json!({"sort": ["ip"], "size": 2, "aggs": {"ips": {"terms": {"field": "ip", "size": 1}}}});
    let answer = ask(&searchers, "POST", "/h/_search", &body.to_string(), 200).await;
    assert_eq!(answer["aggregations"]["ips"]["buckets"][0]["key"], "10.0.0.1");
    let hits = answer["hits"]["hits"].as_array().unwrap();
    let sorts: Vec<_> = hits.iter().map(|hit| hit["sort"][0].clone()).collect();
    assert_eq!(sorts, [json!("::1"), json!("9.255.255.255")], "{answer}");
    let body = json!({"sort": ["ip"], "size": 1, "search_after": [sorts[1]]});
    let answer = ask(&searchers, "POST", "/h/_search", &body.to_string(), 200).await;
    assert_eq!(answer["hits"]["hits"][0]["_source"]["ip"], "10.0.0.1", "{answer}");
    let refused = json!({"mappings": {"properties": {"r": {"type": "ip_range"}}}}).to_string();
    let refused = ask(&searchers, "PUT", "/r", &refused, 400).await;
    assert!(refused.to_string().contains("[ip_range] is not supported"), "{refused}");
    searchers.stop().await;
}
