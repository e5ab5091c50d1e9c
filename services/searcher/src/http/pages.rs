//! All documents that a search finds at one shard, in pages, in the order of the operations that wrote them.

use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use crate::search::{Answer, AnswerHit, SearchError, SearchRequest};

/// How many documents a page has.
pub(crate) const PAGE: usize = 1_000;

/// The search for a page, after the last hit of the page before it. Its other members were checked.
pub(crate) fn page(members: &Map<String, Value>, after: Option<Value>) -> Result<SearchRequest, Refusal> {
    let mut search = members.clone();
    search.insert("sort".to_owned(), json!("_seq"));
    search.insert("size".to_owned(), json!(PAGE));
    search.insert("source".to_owned(), json!(false));
    search.insert("did_you_mean".to_owned(), json!(false));
    if let Some(after) = after {
        search.insert("search_after".to_owned(), after);
    }
    let search = SearchRequest::from_wire(Value::Object(search).to_string().as_bytes());
    Ok(search.map_err(SearchError::from)?)
}

/// The ids in a page, each with the operation that wrote its document.
pub(crate) fn found(answer: &Answer) -> Result<Vec<(String, u64)>, Refusal> {
    let hit = |hit: &AnswerHit| {
        let seq = hit.sort.first().and_then(Value::as_u64);
        let found = seq.map(|seq| (hit.id.clone(), seq));
        found.ok_or_else(|| SearchError::Engine(format!("the hit `{}` has no number", hit.id)).into())
    };
    answer.hits.iter().map(hit).collect()
}
