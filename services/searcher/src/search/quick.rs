//! Which searches are over so soon that handing them to another thread and back would take longer.

use super::SearchRequest;
use super::request::SourceFilter;
use crate::query;
use crate::shard::Snapshot;

/// The most postings that such a search looks at, which takes less than a millisecond.
const MAX_POSTINGS: u64 = 1 << 16;
/// The most documents that it reads.
const MAX_HITS: usize = 100;

/// Whether a search, or a round of it, is over within a fraction of a millisecond at a shard: it looks for some words, and
/// reads a few documents.
pub(crate) fn is_quick(snapshot: &Snapshot, request: &SearchRequest) -> bool {
    let is_plain = request.is_by_score()
        && request.window() <= MAX_HITS
        && request.filters.is_empty()
        && request.knn.is_empty()
        && !request.has_aggregations()
        && request.highlight.is_none()
        && !request.explain
        && matches!(request.source, SourceFilter::All | SourceFilter::None);
    if !is_plain {
        return false;
    }
    let postings = query::postings(&request.ast, &snapshot.index.schema, &snapshot.searcher);
    // An error shows again in the search itself.
    postings.is_ok_and(|postings| postings.is_some_and(|postings| postings <= MAX_POSTINGS))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::search::tests::TestIndex;

    #[test]
    fn only_a_search_for_a_few_known_words_is_quick() {
        let definition =
            json!({"fields": {"title": {"type": "text"}, "tag": {"type": "keyword"}, "n": {"type": "i64"}}});
        let documents: Vec<_> =
            (0..20).map(|n| json!({"title": format!("http server {n}"), "tag": "a", "n": n})).collect();
        let index = TestIndex::dealt(&definition, &documents, 1, 2);
        let is_quick = |request: &Value| {
            let request = SearchRequest::from_wire(request.to_string().as_bytes()).unwrap();
            is_quick(&index.shards[0], &request)
        };
        let of = |query: &Value| {
            let mut request = crate::search::testing::request(query, 0);
            request["size"] = json!(10);
            request
        };
        for request in [
            json!({"q": "http"}),
            json!({"q": "title:server^2", "size": 100, "source": false}),
            json!({"q": "+http server \"http server\"", "sort": "_score"}),
            of(&json!({"match": {"title": "http server"}})),
            of(&json!({"bool": {"must": [{"match_phrase": {"title": "http server"}}]}})),
            of(&json!({"multi_match": {"query": "http", "fields": ["title"]}})),
        ] {
            assert!(is_quick(&request), "{request}");
        }
        for request in [
            json!({}),
            json!({"q": "unknown"}),
            json!({"q": "http*"}),
            json!({"q": "http~1"}),
            json!({"q": "http", "typos": "auto"}),
            json!({"q": "http -server"}),
            json!({"q": "tag:a"}),
            json!({"q": "title:[a TO z]"}),
            json!({"q": "http", "filter": "n:1"}),
            json!({"q": "http", "sort": "n"}),
            json!({"q": "http", "size": 101}),
            json!({"q": "http", "facets": ["tag"]}),
            json!({"q": "http", "aggs": {"n": {"avg": {"field": "n"}}}}),
            json!({"q": "http", "highlight": true}),
            json!({"q": "http", "explain": true}),
            json!({"q": "http", "source": ["n"]}),
            of(&json!({"match": {"title": {"query": "http", "fuzziness": "AUTO"}}})),
            of(&json!({"bool": {"must": [{"match": {"title": "http"}}], "filter": [{"term": {"n": 1}}]}})),
            of(&json!({"match_all": {}})),
        ] {
            assert!(!is_quick(&request), "{request}");
        }
    }
}
