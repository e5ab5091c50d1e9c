//! `dense_vector` and `knn` as Elasticsearch's clients send them.

use super::*;

async fn with_vectors() -> Searchers {
    let searchers = Searchers::start(2, json!({})).await;
    let mappings = json!({"mappings": {"properties": {
        "v": {"type": "dense_vector", "dims": 2, "index": true, "similarity": "l2_norm",
            "index_options": {"type": "hnsw", "m": 16, "ef_construction": 100}},
        "title": {"type": "text"}, "n": {"type": "long"},
    }}});
    let created = searchers.call("PUT", "/es/books", mappings.to_string()).await;
    assert_eq!(created.status, 200, "{}", created.json());
    assert!(created.headers[WARNING].to_str().unwrap().contains("[index_options] has no effect"));
    let lines: String = (0..20)
        .map(|n| {
            let title = if n % 10 == 0 { "round" } else { "flat" };
            let source = json!({"v": [n, 0.0], "n": n, "title": title});
            format!("{}\n{source}\n", json!({"index": {"_id": n.to_string()}}))
        })
        .collect();
    let done = ask(&searchers, "POST", "/books/_bulk?refresh=true", &lines, 200).await;
    assert_eq!(done["errors"], false, "{done}");
    searchers
}

fn ids(answer: &Value) -> Vec<&str> {
    let hits = answer["hits"]["hits"].as_array().unwrap_or_else(|| panic!("no hits: {answer}"));
    hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_nearest_are_found_beside_a_query_as_a_query_and_ranked_with_one() {
    let searchers = with_vectors().await;
    let search = async |body: Value| ask(&searchers, "POST", "/books/_search", &body.to_string(), 200).await;
    let knn = json!({"field": "v", "query_vector": [4.1, 0], "k": 3, "num_candidates": 50});
    let alone = search(json!({"knn": knn, "aggs": {"n": {"sum": {"field": "n"}}}})).await;
    assert_eq!((ids(&alone), &alone["hits"]["total"]["value"]), (vec!["4", "5", "3"], &json!(3)));
    assert_eq!(alone["aggregations"]["n"]["value"], 12.0, "over the nearest");
    let score = alone["hits"]["hits"][0]["_score"].as_f64().unwrap();
    assert!((score - 1.0 / 1.01).abs() < 1e-5, "{score}");
    assert_eq!(ids(&search(json!({"query": {"knn": knn}})).await), ["4", "5", "3"]);

    let mut filtered = knn.clone();
    filtered["filter"] = json!([{"range": {"n": {"gte": 10}}}, {"match": {"title": "flat"}}]);
    filtered["similarity"] = json!(7.0);
    let aggs = json!({"few": {"filter": {"range": {"n": {"lt": 12}}}}});
    let some = search(json!({"knn": filtered, "aggs": aggs})).await;
    assert_eq!(ids(&some), ["11"], "12 and 13 are further away than 7");
    assert_eq!(some["aggregations"]["few"]["doc_count"], 1, "its filter is not one of the vector");

    let query = json!({"constant_score": {"filter": {"match": {"title": "round"}}, "boost": 2.0}});
    let both = search(json!({"query": query, "knn": [knn], "explain": true})).await;
    assert_eq!((ids(&both)[2], ids(&both).len()), ("4", 5), "the scores are added up");
    assert_eq!(
        (&both["hits"]["hits"][0]["_score"], &both["hits"]["total"]["value"]),
        (&json!(2.0), &json!(5))
    );
    let rank = json!({"rrf": {"rank_constant": 1, "rank_window_size": 50}});
    let ranked = search(json!({"query": query, "knn": knn, "rank": rank})).await;
    assert_eq!(ids(&ranked).len(), 5);
    assert_eq!(ranked["hits"]["hits"][0]["_score"], 0.5);
    let sorted = search(json!({"knn": knn, "sort": [{"n": "asc"}], "_source": false})).await;
    assert_eq!(ids(&sorted), ["3", "4", "5"]);
    let there = search(json!({"query": {"exists": {"field": "v"}}, "size": 0})).await;
    assert_eq!(there["hits"]["total"]["value"], 20);
    searchers.stop().await;
}

#[tokio::test]
async fn mappings_show_vectors_and_what_is_not_supported_is_refused_by_name() {
    let searchers = with_vectors().await;
    let mapping = ask(&searchers, "GET", "/books/_mapping", "", 200).await;
    let field = &mapping["books"]["mappings"]["properties"]["v"];
    assert_eq!(*field, json!({"type": "dense_vector", "dims": 2, "index": true, "similarity": "l2_norm"}));
    let caps = ask(&searchers, "GET", "/books/_field_caps?fields=v", "", 200).await;
    assert_eq!(caps["fields"]["v"]["dense_vector"]["aggregatable"], false);
    for (field, words) in [
        (json!({}), "[dims] of field [v] is needed"),
        (json!({"dims": 5000}), "in the range [1, 4096] but was [5000]"),
        (json!({"dims": 2, "element_type": "byte"}), "[element_type: \\\"byte\\\"]"),
        (json!({"dims": 2, "index": false}), "unsupported parameter [index]"),
        (json!({"dims": 2, "similarity": "manhattan"}), "accepted values are [cosine, dot_product"),
        (json!({"dims": 2, "fields": {}}), "unsupported parameter [fields]"),
    ] {
        let mut field = field;
        field["type"] = json!("dense_vector");
        let body = json!({"mappings": {"properties": {"v": field}}}).to_string();
        let shown = ask(&searchers, "PUT", "/other", &body, 400).await.to_string();
        assert!(shown.contains(words), "{body}: {shown}");
    }
    let knn = || json!({"field": "v", "query_vector": [1, 2], "k": 2});
    let with = |name: &str, value: Value| {
        let mut knn = knn();
        knn[name] = value;
        json!({ "knn": knn })
    };
    for (body, words) in [
        (with("query_vector", json!("00ff")), "invalid type"),
        (with("query_vector", json!([1])), "have 2 numbers, not 1"),
        (with("query_vector_builder", json!({})), "[query_vector_builder] in [knn] is not supported"),
        (with("inner_hits", json!({})), "[inner_hits] in [knn] is not supported"),
        (with("num_candidates", json!(1)), "[num_candidates] cannot be less than [k]"),
        (with("k", json!(0)), "[k] must be greater than 0"),
        (with("filer", json!({})), "did you mean [filter]?"),
        (with("filter", json!({"mach": {}})), "did you mean [match]?"),
        (with("field", json!("title")), "is text, not a vector"),
        (json!({"knn": {"field": "v"}}), "[knn] requires [query_vector]"),
        (json!({"knn": knn(), "rank": {"rrf": {}}}), "minimum of [2] result sets"),
        (json!({"knn": knn(), "rank": {"rff": {}}}), "[rank] is an object with [rrf]"),
        (json!({"query": {"match_all": {}}, "knn": knn(), "rank": {"rrf": {}}, "sort": ["n"]}), "`sort`"),
        (json!({"knn": knn(), "post_filter": {"match_all": {}}}), "[post_filter] together with [knn]"),
        (json!({"query": {"bool": {"must": {"knn": knn()}}}}), "[knn] is not supported within others"),
        (json!({"query": {"match": {"v": 1}}}), "field [v] of type [dense_vector]"),
        (json!({"sort": ["v"]}), "v"),
    ] {
        let shown = ask(&searchers, "POST", "/books/_search", &body.to_string(), 400).await.to_string();
        assert!(shown.contains(words), "{body}: {shown}");
    }
    let scroll = json!({ "knn": knn() }).to_string();
    let shown = ask(&searchers, "POST", "/books/_search?scroll=1m", &scroll, 400).await.to_string();
    assert!(shown.contains("[knn] cannot be used in a scroll"), "{shown}");
    let other = json!({"mappings": {"properties": {"v": {"type": "dense_vector", "dims": 2}}}}).to_string();
    ask(&searchers, "PUT", "/more", &other, 200).await;
    let shown = ask(&searchers, "POST", "/books,more/_search", &scroll, 400).await.to_string();
    assert!(shown.contains("[knn] over several indexes"), "{shown}");
    searchers.stop().await;
}
