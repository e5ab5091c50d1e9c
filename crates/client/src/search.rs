//! Searches of the service type `searcher`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::call::Client;
use crate::error::ClientError;

/// A search. What is not given is left to the service.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Search {
    /// The query; `None` finds every document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    /// Queries that must match too, and don't count for the score.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<String>,
    /// The fields to search instead of the default ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// `and` if all words must match, `or` if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_operator: Option<&'static str>,
    /// `auto` if words may be misspelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typos: Option<&'static str>,
    /// What to sort by, `-` before a field for descending; by score if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sort: Vec<String>,
    /// At most this many hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Without this many first hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Only hits after these sort values: the `next` of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_after: Option<Vec<Value>>,
    /// Whether and how to show the words that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highlight: Option<Highlight>,
    /// The fields whose values are counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facets: Vec<String>,
    /// Whether to explain each score.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
    /// Whether hits have their documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<bool>,
    /// The read level: `any`, `primary` or `strong`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
    /// Whether to answer although shards are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_partial: Option<bool>,
    /// Whether another spelling of the query is wanted if it has no hits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did_you_mean: Option<bool>,
}

/// How to show the words that matched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Highlight {
    /// What stands before each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre: Option<String>,
    /// What stands after each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<String>,
    /// The length of a fragment, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment_size: Option<usize>,
    /// At most this many fragments of each field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_fragments: Option<usize>,
}

/// The answer to a search.
#[derive(Debug, Clone, Deserialize)]
pub struct SearchAnswer {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether the time was up before all documents were looked at.
    #[serde(default)]
    pub timed_out: bool,
    /// How many documents match.
    pub total: u64,
    /// The best score.
    #[serde(default)]
    pub max_score: Option<f64>,
    /// Which shards answered.
    pub shards: SearchedShards,
    /// The best documents.
    pub hits: Vec<Hit>,
    /// For each field that was asked for, its most frequent values.
    #[serde(default)]
    pub facets: BTreeMap<String, Vec<FacetValue>>,
    /// Another spelling of the query that would have hits.
    #[serde(default)]
    pub did_you_mean: Option<String>,
    /// The `search_after` of the next page.
    #[serde(default)]
    pub next: Option<Vec<Value>>,
}

/// Which shards answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedShards {
    /// How many there are.
    pub total: u64,
    /// How many answered.
    pub ok: u64,
    /// The others, with the reason.
    #[serde(default)]
    pub failed: Vec<FailedShard>,
}

/// A shard that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedShard {
    /// Its number.
    pub shard: u64,
    /// The reason.
    pub reason: String,
}

/// A document that was found.
#[derive(Debug, Clone, Deserialize)]
pub struct Hit {
    /// Its id.
    pub id: String,
    /// Its score; `None` if the hits are sorted by something else.
    #[serde(default)]
    pub score: Option<f64>,
    /// The values that it is sorted by.
    #[serde(default)]
    pub sort: Vec<Value>,
    /// The document, as it was sent.
    #[serde(default)]
    pub source: Option<Box<RawValue>>,
    /// Fragments of its fields with the words that matched.
    #[serde(default)]
    pub highlight: BTreeMap<String, Vec<String>>,
    /// Why it has this score.
    #[serde(default)]
    pub explanation: Option<Value>,
}

/// A value of a field, and how many of the documents that match have it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct FacetValue {
    /// The value.
    pub value: Value,
    /// The number of documents.
    pub count: u64,
}

impl Client {
    /// Searches an index. Any member of the service can answer.
    pub async fn search(&self, index: &str, search: &Search) -> Result<SearchAnswer, ClientError> {
        let body: Box<RawValue> = self.search_json(index, search).await?;
        self.parsed(200, body.get().as_bytes())
    }

    /// The same, with the answer as it was sent.
    pub async fn search_json(&self, index: &str, search: &Search) -> Result<Box<RawValue>, ClientError> {
        self.json(self.http().post(self.url(&self.index_path(index, "/search"))).json(search)).await
    }
}

#[cfg(test)]
mod tests {
    use mesh::testing::Upstream;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_search_has_only_what_was_given() {
        let shown = |search: &Search| serde_json::to_value(search).unwrap();
        assert_eq!(shown(&Search::default()), json!({}));
        let (pre, post) = (Some("<".to_owned()), Some(">".to_owned()));
        let search = Search {
            q: Some("http proxy".to_owned()),
            typos: Some("auto"),
            sort: vec!["-size".to_owned()],
            search_after: Some(vec![json!(7), json!(0)]),
            highlight: Some(Highlight { pre, post, fragment_size: None, number_of_fragments: Some(1) }),
            source: Some(true),
            ..Search::default()
        };
        assert_eq!(
            shown(&search),
            json!({ "q": "http proxy", "typos": "auto", "sort": ["-size"], "search_after": [7, 0],
                    "highlight": { "pre": "<", "post": ">", "number_of_fragments": 1 }, "source": true })
        );
    }

    #[tokio::test]
    async fn an_answer_keeps_each_document_as_it_was_sent() {
        let body = r#"{"took_ms":3,"timed_out":false,"total":123,"max_score":3.2,
            "shards":{"total":2,"ok":1,"failed":[{"shard":1,"reason":"no owner"}]},
            "hits":[{"id":"nginx","score":3.2,"source":{"z":1.0,"a":[]},"highlight":{"d":["a <em>b</em>"]}}],
            "facets":{"section":[{"value":"net","count":12}]},"next":[3.2,5,0],"aggs":{}}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let server = Upstream::writing(answer).await;
        let client = Client::new(&server.url().to_string()).unwrap();
        let client = client.with_service("searcher".parse().unwrap());
        let found = client.search("packages", &Search::default()).await.unwrap();
        assert!(server.heads()[0].starts_with("POST /svc/searcher/packages/search HTTP/1.1\r\n"));
        assert_eq!((found.took_ms, found.total, found.hits.len()), (3, 123, 1));
        let hit = &found.hits[0];
        assert_eq!(hit.source.as_ref().map(|source| source.get()), Some(r#"{"z":1.0,"a":[]}"#));
        assert_eq!(hit.highlight["d"], ["a <em>b</em>"]);
        assert_eq!(found.shards.failed, [FailedShard { shard: 1, reason: "no owner".to_owned() }]);
        assert_eq!(found.facets["section"], [FacetValue { value: json!("net"), count: 12 }]);
        assert_eq!((found.next.map(|next| next.len()), found.did_you_mean), (Some(3), None));
    }
}
