//! Tables of queries with the documents that they find in a small index, and generated ones.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::search::testing;

/// Half past noon on 2024-05-15.
const NOW: i64 = 1_715_776_200_000;

fn refusal(query: &Value) -> String {
    match parse(query, NOW) {
        Ok(ast) => panic!("{query} is not refused: {ast:?}"),
        Err(error) => error.reason,
    }
}

#[test]
fn queries_find_what_they_find_in_elasticsearch() {
    let (definition, documents) = library();
    let index = testing::index(&definition, &documents, 2, 2);
    for (query, wanted) in table() {
        let mut found = testing::ids(&index, &query, NOW);
        found.sort();
        assert_eq!(found.join(" "), wanted, "{query}");
    }
}

fn library() -> (Value, Vec<Value>) {
    let definition = json!({
        "fields": {
            "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
            "body": {"type": "text", "analyzer": "en"},
            "tag": {"type": "keyword"},
            "pages": {"type": "i64"},
            "price": {"type": "f64"},
            "used": {"type": "bool"},
            "at": {"type": "date"},
        },
    });
    let documents = vec![
        json!({"title": "The quick brown fox", "body": "Foxes are running", "tag": ["Red", "animal"], "pages": 10,
            "price": 1.5, "used": true, "at": "2024-05-14T10:00:00Z", "note": "Quick note", "n": {"k": 5, "w": "Deep Blue"}}),
        json!({"title": "A lazy brown dog", "body": "The dog sleeps", "tag": "animal", "pages": 200, "price": 20.0,
            "used": false, "at": "2024-05-15T00:00:00Z", "note": "another note", "n": {"k": 7, "w": "deep"}}),
        json!({"title": "Quick thinking", "body": "How to run quickly", "tag": "mind", "pages": 300,
            "at": "2023-01-01", "n": {"k": 5.5, "d": "2024-01-02"}}),
        json!({"title": "brown quick fox the", "tag": "gold$", "pages": 10, "used": true}),
    ];
    (definition, documents)
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn table() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"match_all": {}}), "d0 d1 d2 d3"),
        (json!({"match_none": {}}), ""),
        (json!({"match": {"title": "quick fox"}}), "d0 d2 d3"),
        (json!({"match": {"title": {"query": "quick fox", "operator": "and"}}}), "d0 d3"),
        (json!({"match": {"title": {"query": "quick brown lazy", "minimum_should_match": 2}}}), "d0 d1 d3"),
        (
            json!({"match": {"title": {"query": "quick brown lazy", "minimum_should_match": "-1"}}}),
            "d0 d1 d3",
        ),
        (json!({"match": {"title": {"query": "quikc", "fuzziness": "AUTO"}}}), "d0 d2 d3"),
        (json!({"match": {"title": {"query": "quikc", "fuzziness": 1, "fuzzy_transpositions": false}}}), ""),
        (json!({"match": {"title": {"query": "guick", "fuzziness": 1, "prefix_length": 1}}}), ""),
        (json!({"match": {"title": {"query": "quixk", "fuzziness": 1, "prefix_length": 3}}}), "d0 d2 d3"),
        (json!({"match": {"title": ", "}}), ""),
        (json!({"match": {"title": {"query": ", ", "zero_terms_query": "all"}}}), "d0 d1 d2 d3"),
        (json!({"match": {"body": "running"}}), "d0 d2"),
        (json!({"match": {"pages": 10}}), "d0 d3"),
        (json!({"match": {"pages": "10"}}), "d0 d3"),
        (json!({"match": {"pages": {"query": "ten", "lenient": true}}}), ""),
        (json!({"match": {"used": true}}), "d0 d3"),
        (json!({"match": {"at": "2024-05-15"}}), "d1"),
        (json!({"match": {"note": "note"}}), "d0 d1"),
        (json!({"match": {"note": "Quick note"}}), "d0 d1"),
        (json!({"match": {"nowhere": "x"}}), ""),
        (json!({"match_phrase": {"title": "quick brown"}}), "d0"),
        (json!({"match_phrase": {"title": {"query": "quick fox", "slop": 1}}}), "d0 d3"),
        (json!({"match_phrase": {"n.w": "deep blue"}}), "d0"),
        (json!({"match_phrase_prefix": {"title": "quick br"}}), "d0"),
        (json!({"match_phrase_prefix": {"title": "qui"}}), "d0 d2 d3"),
        (json!({"match_bool_prefix": {"title": "lazy thin"}}), "d1 d2"),
        (json!({"match_bool_prefix": {"title": {"query": "quick thin", "operator": "and"}}}), "d2"),
        (json!({"multi_match": {"query": "quick", "fields": ["title", "note^2"]}}), "d0 d2 d3"),
        (
            json!({"multi_match": {"query": "dog fox", "fields": ["title", "body"], "type": "most_fields"}}),
            "d0 d1 d3",
        ),
        (
            json!({"multi_match": {"query": "quick brown", "fields": ["title", "body"], "type": "phrase"}}),
            "d0",
        ),
        (json!({"multi_match": {"query": "quick br", "fields": ["title"], "type": "phrase_prefix"}}), "d0"),
        (json!({"multi_match": {"query": "quick sle", "fields": ["body"], "type": "bool_prefix"}}), "d1 d2"),
        (json!({"multi_match": {"query": "lazy"}}), "d1"),
        (json!({"term": {"title": "Quick"}}), ""),
        (json!({"term": {"title": "quick"}}), "d0 d2 d3"),
        (json!({"term": {"title.raw": "Quick thinking"}}), "d2"),
        (json!({"term": {"tag": "red"}}), ""),
        (json!({"term": {"tag": {"value": "red", "case_insensitive": true}}}), "d0"),
        (json!({"term": {"pages": {"value": 10}}}), "d0 d3"),
        (json!({"term": {"price": 20}}), "d1"),
        (json!({"term": {"used": false}}), "d1"),
        (json!({"term": {"at": "2024-05-14"}}), "d0"),
        (json!({"term": {"note.keyword": "another note"}}), "d1"),
        (json!({"term": {"note": "another note"}}), ""),
        (json!({"term": {"n.k": 5}}), "d0"),
        (json!({"term": {"n.k": 5.5}}), "d2"),
        (json!({"term": {"n.d": "2024-01-02"}}), "d2"),
        (json!({"terms": {"tag": ["Red", "mind", "x"]}}), "d0 d2"),
        (json!({"terms": {"pages": [10, "300"]}}), "d0 d2 d3"),
        (json!({"terms": {"tag": []}}), ""),
        (json!({"ids": {"values": ["d1", "d3", "d9"]}}), "d1 d3"),
        (json!({"term": {"_id": "d1"}}), "d1"),
        (json!({"range": {"pages": {"gte": 10, "lt": 300}}}), "d0 d1 d3"),
        (json!({"range": {"pages": {"gt": "10"}}}), "d1 d2"),
        (json!({"range": {"price": {"lte": 1.5}}}), "d0"),
        (json!({"range": {"tag": {"gte": "b", "lt": "n"}}}), "d2 d3"),
        (json!({"range": {"at": {"gte": "now-1d/d", "lt": "now/d"}}}), "d0"),
        (json!({"range": {"at": {"gte": "2024-05-14||/d", "lte": "2024-05-15||/d"}}}), "d0 d1"),
        (json!({"range": {"at": {"lte": "2024"}}}), "d0 d1 d2"),
        (json!({"range": {"at": {"gte": "15/05/2024", "format": "dd/MM/yyyy"}}}), "d1"),
        (json!({"range": {"at": {"gte": "2024-05-15T02:00:00", "time_zone": "+02:00"}}}), "d1"),
        (json!({"range": {"at": {"gt": "0001-01-01"}}}), "d0 d1 d2"),
        (json!({"range": {"at": {"gte": 1_715_731_200_000_i64}}}), "d1"),
        (json!({"range": {"n.k": {"gte": 5.5}}}), "d1 d2"),
        (json!({"range": {"n.d": {"gte": "2024-01-02", "lte": "2024-01-02"}}}), "d2"),
        (json!({"range": {"note.keyword": {"gte": "Q"}}}), "d0 d1"),
        (json!({"range": {"pages": {}}}), "d0 d1 d2 d3"),
        (json!({"exists": {"field": "price"}}), "d0 d1"),
        (json!({"exists": {"field": "n"}}), "d0 d1 d2"),
        (json!({"exists": {"field": "note.keyword"}}), "d0 d1"),
        (json!({"exists": {"field": "nothing"}}), ""),
        (json!({"prefix": {"tag": "an"}}), "d0 d1"),
        (json!({"prefix": {"tag": {"value": "RE", "case_insensitive": true}}}), "d0"),
        (json!({"prefix": {"title": "qui"}}), "d0 d2 d3"),
        (json!({"wildcard": {"tag": "an*l"}}), "d0 d1"),
        (json!({"wildcard": {"title": "f?x"}}), "d0 d3"),
        (json!({"wildcard": {"title": "F?x"}}), ""),
        (json!({"wildcard": {"title": {"wildcard": "F?x", "case_insensitive": true}}}), "d0 d3"),
        (json!({"wildcard": {"note.keyword": "*note"}}), "d0 d1"),
        (json!({"regexp": {"tag": "gold$"}}), "d3"),
        (json!({"regexp": {"tag": "gol."}}), ""),
        (json!({"regexp": {"title": {"value": "QU.*", "case_insensitive": true}}}), "d0 d2 d3"),
        (json!({"fuzzy": {"title": "quik"}}), "d0 d2 d3"),
        (json!({"fuzzy": {"tag": {"value": "anmal", "fuzziness": 1}}}), "d0 d1"),
        (json!({"fuzzy": {"tag": {"value": "anml", "fuzziness": 1}}}), ""),
        (json!({"bool": {}}), "d0 d1 d2 d3"),
        (
            json!({"bool": {"must": {"match": {"title": "quick"}}, "must_not": [{"term": {"tag": "mind"}}]}}),
            "d0 d3",
        ),
        (
            json!({"bool": {"must": [{"match_all": {}}], "should": [{"term": {"tag": "mind"}}]}}),
            "d0 d1 d2 d3",
        ),
        (
            json!({"bool": {"filter": [{"range": {"pages": {"lt": 50}}}], "should": [{"match_none": {}}]}}),
            "d0 d3",
        ),
        (
            json!({"bool": {"should": [{"term": {"pages": 10}}, {"term": {"used": true}}, {"term": {"tag": "Red"}}],
            "minimum_should_match": "75%"}}),
            "d0 d3",
        ),
        (
            json!({"bool": {"must": {"match_all": {}}, "should": {"term": {"pages": 10}}, "minimum_should_match": 2}}),
            "",
        ),
        (json!({"bool": {"must_not": {"exists": {"field": "at"}}}}), "d3"),
        (json!({"bool": {"must": {"match": {"body": "the"}}}}), ""),
        (json!({"constant_score": {"filter": {"term": {"pages": 10}}, "boost": 2}}), "d0 d3"),
        (
            json!({"dis_max": {"queries": [{"term": {"tag": "mind"}}, {"match": {"title": "lazy"}}], "tie_breaker": 0.5}}),
            "d1 d2",
        ),
        (
            json!({"boosting": {"positive": {"match": {"title": "brown"}}, "negative": {"term": {"used": true}}, "negative_boost": 0.2}}),
            "d0 d1 d3",
        ),
        (
            json!({"function_score": {"query": {"match": {"title": "brown"}}, "field_value_factor": {"field": "pages"}}}),
            "d0 d1 d3",
        ),
        (json!({"query_string": {"query": "title:quick AND NOT tag:mind"}}), "d0 d3"),
        (json!({"query_string": {"query": "quick && !thinking", "default_field": "title"}}), "d0 d3"),
        (
            json!({"query_string": {"query": "quick brown", "fields": ["title"], "default_operator": "AND"}}),
            "d0 d3",
        ),
        (
            json!({"query_string": {"query": "quick brown lazy", "fields": ["title"], "minimum_should_match": 2}}),
            "d0 d1 d3",
        ),
        (json!({"query_string": {"query": "\"quick fox\"~1", "default_field": "title"}}), "d0 d3"),
        (json!({"query_string": {"query": "title:/qu.*k/"}}), "d0 d2 d3"),
        (json!({"query_string": {"query": "TITLE:x OR title: LAZ*"}}), "d1"),
        (json!({"query_string": {"query": "_exists_:price"}}), "d0 d1"),
        (json!({"query_string": {"query": "pages:>=200 AND pages:[* TO 200]"}}), "d1"),
        (json!({"query_string": {"query": ">=200", "default_field": "pages"}}), "d1 d2"),
        (json!({"query_string": {"query": "quikc~", "default_field": "title"}}), "d0 d2 d3"),
        (json!({"query_string": {"query": "the AND dog", "default_field": "body"}}), "d1"),
        (json!({"query_string": {"query": "pages:ten OR title:lazy", "lenient": true}}), "d1"),
        (json!({"query_string": {"query": "lazy"}}), "d1"),
        (json!({"query_string": {"query": "*"}}), "d0 d1 d2 d3"),
        (json!({"query_string": {"query": " "}}), ""),
        (json!({"query_string": {"query": "at:[now-1d/d TO now/d}"}}), "d0"),
        (
            json!({"simple_query_string": {"query": "quick +brown -lazy", "fields": ["title"], "default_operator": "and"}}),
            "d0 d3",
        ),
        (json!({"simple_query_string": {"query": "lazy | thinking", "fields": ["title"]}}), "d1 d2"),
        (
            json!({"simple_query_string": {"query": "\"quick brown\" | (lazy + dog)", "fields": ["title"]}}),
            "d0 d1",
        ),
        (
            json!({"simple_query_string": {"query": "thin* quikc~1", "fields": ["title"], "default_operator": "and"}}),
            "d2",
        ),
        (json!({"simple_query_string": {"query": "((lazy \"", "fields": ["title"]}}), "d1"),
        (json!({"simple_query_string": {"query": "lazy"}}), "d1"),
    ]
}

#[test]
fn scores_follow_the_functions_and_boosts() {
    let (definition, documents) = library();
    let index = testing::index(&definition, &documents, 2, 2);
    let order = |query: &Value| testing::ids(&index, query, NOW).join(" ");
    let by_pages = json!({"function_score": {"query": {"match": {"title": "brown"}}, "field_value_factor": {"field": "pages"},
        "boost_mode": "replace"}});
    assert!(order(&by_pages).starts_with("d1"));
    let near = json!({"function_score": {"query": {"exists": {"field": "at"}},
        "gauss": {"at": {"origin": "2024-05-14", "scale": "2d", "offset": "1h", "decay": 0.4}}}});
    assert_eq!(order(&near), "d0 d1 d2");
    let weights = json!({"function_score": {"functions": [
        {"filter": {"term": {"tag": "mind"}}, "weight": 5},
        {"filter": {"term": {"pages": 200}}, "weight": 3}], "score_mode": "max"}});
    assert!(order(&weights).starts_with("d2 d1"));
    let less = json!({"boosting": {"positive": {"match": {"title": "fox"}}, "negative": {"term": {"tag": "Red"}}, "negative_boost": 0.1}});
    assert_eq!(order(&less), "d3 d0");
    let scores = |query: &Value| testing::scores(&index, query, NOW);
    assert_eq!(
        scores(&json!({"constant_score": {"filter": {"match": {"title": "lazy"}}, "boost": 3}})),
        [3.0]
    );
    assert_eq!(scores(&json!({"terms": {"tag": ["mind"], "boost": 2}})), [2.0]);
    assert_eq!(scores(&json!({"bool": {"filter": {"term": {"tag": "mind"}}}})), [0.0]);
    assert_eq!(scores(&json!({"prefix": {"tag": "mi"}})), [1.0]);
    assert_eq!(scores(&json!({"range": {"pages": {"gt": 200}}})), [1.0]);
}

#[test]
fn many_values_are_looked_up_together() {
    let (definition, documents) = library();
    let index = testing::index(&definition, &documents, 2, 2);
    let many = |last: Value| (0..200).map(Value::from).chain([last]).collect::<Vec<_>>();
    for (field, last, wanted) in [
        ("tag", json!("mind"), "d2"),
        ("_id", json!("d1"), "d1"),
        ("title", json!("lazy"), "d1"),
        ("pages", json!(300), "d0 d2 d3"),
        ("note.keyword", json!("another note"), "d1"),
    ] {
        let query = json!({ "terms": { field: many(last) } });
        let mut found = testing::ids(&index, &query, NOW);
        found.sort();
        found.retain(|id| field != "pages" || id != "d1");
        assert_eq!(found.join(" "), wanted, "{field}");
    }
}

#[test]
fn three_shards_rank_as_one_index() {
    let (definition, documents) = library();
    let (whole, dealt) =
        (testing::index(&definition, &documents, 1, 1), testing::index(&definition, &documents, 3, 1));
    for (query, _) in table() {
        let sorted = |index| {
            let mut scores = testing::scores(index, &query, NOW);
            scores.sort_by(f64::total_cmp);
            scores
        };
        let (one, three) = (sorted(&whole), sorted(&dealt));
        let is_near = one.iter().zip(&three).all(|(one, three)| (one - three).abs() < 1e-5);
        assert!(one.len() == three.len() && is_near, "{query}: {one:?} {three:?}");
    }
}

#[test]
fn what_is_unknown_or_not_supported_is_refused_by_name() {
    for (query, words) in [
        (json!([]), "must start with start_object"),
        (json!({}), "exactly one member"),
        (json!({"match": {"a": 1}, "term": {"a": 1}}), "exactly one member"),
        (json!({"mach": {"a": 1}}), "unknown query [mach] did you mean [match]?"),
        (json!({"nested": {"path": "a"}}), "[nested] is not supported"),
        (json!({"more_like_this": {}}), "[more_like_this] is not supported"),
        (json!({"geo_distance": {}}), "[geo_distance] is not supported"),
        (json!({"span_first": {}}), "[span_first] is not supported"),
        (json!({"knn": {}}), "[knn] is not supported"),
        (json!({"percolate": {}}), "[percolate] is not supported"),
        (json!({"script_score": {}}), "[script_score] is not supported"),
        (
            json!({"match": {"a": {"query": "x", "opertor": "and"}}}),
            "does not support [opertor] did you mean [operator]?",
        ),
        (json!({"match": {"a": {"query": "x", "analyzer": "en"}}}), "[analyzer]"),
        (json!({"match": {"a": {"query": "x", "operator": "xor"}}}), "[operator] is one of or, and"),
        (json!({"match": {"a": {"operator": "and"}}}), "needs [query]"),
        (json!({"match": {"a": ["x"]}}), "array of values"),
        (json!({"match": {"a": 1, "b": 2}}), "exactly one field"),
        (json!({"match": {"a*": 1}}), "pattern"),
        (json!({"match": {"_index": "x"}}), "[_index]"),
        (json!({"match": {"a": {"query": "x", "fuzziness": 3}}}), "[fuzziness]"),
        (json!({"match": {"a": {"query": "x", "minimum_should_match": "x"}}}), "[minimum_should_match]"),
        (json!({"match": {"a": {"query": "x", "boost": -1}}}), "[boost]"),
        (json!({"multi_match": {"query": "x", "fields": ["a"], "type": "cross_fields"}}), "[cross_fields]"),
        (json!({"exists": "a"}), "no start_object"),
        (json!({"exists": {}}), "needs [field]"),
        (json!({"terms": {"a": {"index": "x"}}}), "lookup"),
        (json!({"terms": {"a": "x"}}), "array"),
        (json!({"terms": {"a": [null]}}), "wants a value"),
        (json!({"range": {"a": {"from": 1}}}), "does not support [from]"),
        (json!({"range": {"a": {"gt": 1, "gte": 1}}}), "both [gt] and [gte]"),
        (json!({"range": {"a": {"gt": 1, "time_zone": "Europe/Paris"}}}), "[time_zone]"),
        (json!({"range": {"a": {"gt": 1, "format": "YYYY"}}}), "`Y` is not supported"),
        (json!({"regexp": {"a": "("}}), "not closed"),
        (json!({"regexp": {"a": {"value": "a", "flags": "NONE"}}}), "[flags]"),
        (json!({"wildcard": {"a": "x".repeat(101)}}), "100 bytes"),
        (json!({"term": {"a": {"value": "x", "_name": "n"}}}), "named queries"),
        (json!({"bool": {"must": [{"script": {}}]}}), "[script] is not supported"),
        (json!({"function_score": {"random_score": {}}}), "[random_score]"),
        (json!({"function_score": {"script_score": {}}}), "[script_score]"),
        (json!({"function_score": {"min_score": 1}}), "[min_score]"),
        (json!({"function_score": {"gauss": {"a": {"origin": 1}}}}), "needs [scale]"),
        (json!({"dis_max": {"queries": []}}), "at least one clause"),
        (json!({"query_string": {"query": "a OR"}}), "Failed to parse query [a OR]"),
        (json!({"query_string": {"query": "a", "fields": "b"}}), "[fields] is an array"),
        (json!({"query_string": {"query": "a", "fields": ["b"], "default_field": "c"}}), "in conjunction"),
        (json!({"query_string": {"query": "a:/(/"}}), "regular expression"),
    ] {
        let reason = refusal(&query);
        assert!(reason.contains(words), "{query}: {reason}");
    }
    let mut deep = json!({"match_all": {}});
    for _ in 0..40 {
        deep = json!({"bool": {"must": deep}});
    }
    assert!(refusal(&deep).contains("30 deep"));
    let many: Vec<Value> = (0..5_000).map(|_| json!({"match_all": {}})).collect();
    assert!(refusal(&json!({"bool": {"should": many}})).contains("4096 clauses"));
}

#[test]
fn what_a_field_can_not_have_is_refused_by_the_index() {
    let (definition, documents) = library();
    let index = testing::index(&definition, &documents, 1, 1);
    for (query, words) in [
        (json!({"match": {"pages": "ten"}}), "failed to create query: `ten`"),
        (json!({"term": {"used": "maybe"}}), "`maybe`"),
        (json!({"range": {"at": {"gte": "someday"}}}), "`someday`"),
        (json!({"range": {"title": {"gte": "a"}}}), "text field [title]"),
        (json!({"prefix": {"pages": "1"}}), "prefix queries"),
        (json!({"query_string": {"query": "pages:ten"}}), "`ten`"),
        (json!({"function_score": {"field_value_factor": {"field": "title"}}}), "[title]"),
    ] {
        let error = testing::refusal(&index, &query, NOW);
        assert!(error.contains(words), "{query}: {error}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let names = QUERIES.to_vec();
    let keys = vec![
        "query",
        "value",
        "boost",
        "fields",
        "must",
        "should",
        "filter",
        "functions",
        "gte",
        "lt",
        "a",
        "fuzziness",
        "minimum_should_match",
        "field",
        "gauss",
        "scale",
        "origin",
        "format",
        "values",
        "queries",
        "type",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z*?~:\"()\\[\\]/\\\\<>=+| -]{0,12}".prop_map(Value::from),
        Just(json!("AUTO:3,6")),
        Just(json!("now-1d/d")),
        Just(json!("2<75%")),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let key =
            prop_oneof![proptest::sample::select(names.clone()), proptest::sample::select(keys.clone())];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key, inner), 1..3).prop_map(|members| {
                Value::Object(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// The queries of `table`, in which some values and keys are replaced: most are nearly right.
fn near_miss() -> impl Strategy<Value = Value> {
    let queries: Vec<Value> = table().into_iter().map(|(query, _)| query).collect();
    let fields =
        ["title", "body", "tag", "pages", "price", "used", "at", "note", "n.k", "n.d", "_id", "nowhere"];
    (proptest::sample::select(queries), value(), 0..30_usize, proptest::sample::select(fields.to_vec()))
        .prop_map(|(mut query, value, at, field)| {
            let mut left = at;
            replace(&mut query, &mut left, &value, field);
            query
        })
}

/// Replaces the value at a place, and the name of a field at another one.
fn replace(query: &mut Value, left: &mut usize, value: &Value, field: &str) {
    if *left == 0 {
        *query = value.clone();
        *left = usize::MAX;
        return;
    }
    *left = left.saturating_sub(1);
    match query {
        Value::Object(members) => {
            let fields = ["title", "body", "tag", "pages", "price", "used", "at", "note"];
            let found = members.keys().find(|key| fields.contains(&key.as_str())).cloned();
            if let Some(value) = found.filter(|_| left.is_multiple_of(2)).and_then(|key| members.remove(&key))
            {
                members.insert(field.to_owned(), value);
            }
            members.values_mut().for_each(|inner| replace(inner, left, value, field));
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| replace(inner, left, value, field)),
        _ => {}
    }
}

#[test]
fn parentheses_may_be_nested_deeper_than_they_are_read() {
    for count in [29, 30, 31, 32, 33, 1_000] {
        for text in ["(".repeat(count), format!("{}fox{}", "(".repeat(count), ")".repeat(count))] {
            let ast = parse(&json!({"simple_query_string": {"query": text}}), NOW);
            assert!(ast.is_ok(), "{count}");
        }
    }
}

proptest! {
    #[test]
    fn any_json_is_parsed_or_refused(value in value(), name in proptest::sample::select(QUERIES.to_vec()), field: bool) {
        let _ = parse(&value, NOW);
        let body = if field { json!({ "a": value }) } else { value };
        let _ = parse(&json!({ name: body }), NOW);
    }

    #[test]
    fn what_is_parsed_finds_something_or_is_refused_in_short(query in near_miss()) {
        use std::sync::LazyLock;
        static INDEX: LazyLock<testing::TestIndex> = LazyLock::new(|| {
            let (definition, documents) = library();
            testing::index(&definition, &documents, 2, 2)
        });
        match parse(&query, NOW) {
            Err(error) => prop_assert!(error.reason.len() < 1_000, "{}: {}", query, error.reason),
            Ok(_) => {
                if let Err(error) = testing::outcome(&INDEX, &query, NOW) {
                    prop_assert!(error.len() < 2_000 && !error.contains("Engine"), "{}: {}", query, error);
                }
            }
        }
    }
}
