//! Searches in Elasticsearch's form over indexes in memory, for the tests of its queries.

use serde_json::{Value, json};

pub(crate) use super::tests::TestIndex;

/// An index with documents `d0`, `d1`, ... dealt out to shards and segments.
pub(crate) fn index(definition: &Value, documents: &[Value], shards: usize, segments: usize) -> TestIndex {
    TestIndex::dealt(definition, documents, shards, segments)
}

/// The members of a request for a query.
pub(crate) fn request(query: &Value, now: i64) -> Value {
    let dsl =
        json!({ "query": query.to_string(), "filters": [], "now": now, "index": 0, "has_numbers": false });
    json!({ "dsl": dsl, "size": 100 })
}

pub(crate) fn ids(index: &TestIndex, query: &Value, now: i64) -> Vec<String> {
    let answer = index.try_search(&request(query, now)).unwrap_or_else(|error| panic!("{query}: {error}"));
    let hits = answer["hits"].as_array().unwrap();
    assert_eq!(answer["total"], hits.len(), "{query}");
    hits.iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn scores(index: &TestIndex, query: &Value, now: i64) -> Vec<f64> {
    let answer = index.search(&request(query, now));
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
}

pub(crate) fn refusal(index: &TestIndex, query: &Value, now: i64) -> String {
    index.try_search(&request(query, now)).unwrap_err().to_string()
}

/// Whether a query is answered, or how it is refused.
pub(crate) fn outcome(index: &TestIndex, query: &Value, now: i64) -> Result<(), String> {
    index.try_search(&request(query, now)).map(drop).map_err(|error| format!("{error:?}"))
}
