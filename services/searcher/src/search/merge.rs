//! The answer from what the shards found. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use types::ShardId;

use super::aggregations;
use super::fusion::Fusing;
use super::sort::{Cursor, SortKey};
use super::{Found, Hit, SearchError, SearchRequest};
use crate::schema::IndexSchema;

/// The answer to a search. Documents are written as they were stored.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Answer {
    /// Set by the caller.
    pub(crate) took_ms: u64,
    /// Whether the time of a shard was up; set by the caller.
    pub(crate) timed_out: bool,
    pub(crate) total: u64,
    /// The best score of all matches, if hits have scores.
    pub(crate) max_score: Option<f32>,
    /// Set by the caller.
    pub(crate) shards: Shards,
    pub(crate) hits: Vec<AnswerHit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) facets: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aggs: Option<Map<String, Value>>,
    /// The fields of aggregations that have dates.
    #[serde(skip)]
    pub(crate) dates: BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) did_you_mean: Option<String>,
    /// The `search_after` of the next page, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Vec<Value>>,
}

/// The shards that took part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Shards {
    pub(crate) total: usize,
    pub(crate) ok: usize,
    pub(crate) failed: Vec<ShardFailure>,
}

impl Shards {
    /// Adds those of another index.
    pub(crate) fn add(&mut self, more: Self) {
        self.total += more.total;
        self.ok += more.ok;
        self.failed.extend(more.failed);
    }
}

/// A shard whose hits are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ShardFailure {
    pub(crate) shard: ShardId,
    pub(crate) reason: String,
}

/// A hit in an answer.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerHit {
    /// The index that has it; set by the caller, if several may have been searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<String>,
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) score: Option<f32>,
    pub(crate) sort: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) highlight: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explanation: Option<Box<RawValue>>,
    /// Its term and version.
    #[serde(skip)]
    pub(crate) numbers: Option<[u64; 2]>,
}

/// The answer from what the shards found, each with its [position](SearchRequest::position); the caller adds `took_ms`, `timed_out` and `shards`.
pub(crate) fn merge(
    request: &SearchRequest,
    schema: &IndexSchema,
    found: Vec<(u32, Found)>,
) -> Result<Answer, SearchError> {
    let mut answer = Answer::default();
    let mut hits = Vec::new();
    let mut aggregations = Vec::new();
    let mut fusing = Fusing::default();
    let mut skipped = 0_usize;
    for (position, found) in found {
        answer.total = answer.total.saturating_add(found.total);
        answer.max_score = match (answer.max_score, found.max_score) {
            (Some(left), Some(right)) => Some(left.max(right)),
            (left, right) => left.or(right),
        };
        answer.did_you_mean = answer.did_you_mean.take().or(found.did_you_mean);
        aggregations.extend(found.aggregations);
        skipped += found.skipped;
        fusing.add(found.rankings, hits.len());
        // A member that errs about its number must not break the order of pages.
        hits.extend(
            found.hits.into_iter().map(|hit| Hit { cursor: Cursor { shard: position, ..hit.cursor }, ..hit }),
        );
    }
    if answer.total > 0 {
        answer.did_you_mean = None;
    }
    let fusion = request.fusion();
    if let Some(rrf) = fusion {
        hits = fusing.finish(request, rrf, hits);
        answer.max_score = hits.iter().filter_map(|hit| hit.score).reduce(f32::max);
    }
    let keys = if request.sort.is_empty() { &[SortKey::BY_SCORE][..] } else { &request.sort };
    let by_place = |left: &Hit, right: &Hit| -> Ordering { left.cursor.order(&right.cursor, keys) };
    // Each shard's hits are in order already, which a stable sort makes use of.
    hits.sort_by(by_place);
    let available = skipped + hits.len();
    let page: Vec<Hit> =
        hits.into_iter().skip(request.from.saturating_sub(skipped)).take(request.size).collect();
    let is_full = request.size > 0 && page.len() == request.size;
    let has_more = match request.search_after {
        // Hits before the cursor are in the total, too, so the total does not tell.
        Some(_) => true,
        None => answer.total > u64::try_from(request.window().min(available)).unwrap_or(u64::MAX),
    };
    // Ranks are those of one moment, so the next page can't begin behind a score.
    let has_next = is_full && has_more && fusion.is_none();
    answer.next = page.last().filter(|_| has_next).map(|hit| hit.cursor.to_json());
    answer.hits = page.into_iter().map(AnswerHit::from).collect();
    if request.has_aggregations() {
        let results = aggregations::results(request, schema, aggregations)?;
        (answer.aggs, answer.facets, answer.dates) = (results.aggs, results.facets, results.dates);
    }
    Ok(answer)
}

impl From<Hit> for AnswerHit {
    fn from(hit: Hit) -> Self {
        Self {
            index: None,
            id: hit.id,
            score: hit.score,
            sort: hit.cursor.to_json(),
            source: hit.source,
            highlight: hit.highlight,
            explanation: hit.explanation,
            numbers: hit.numbers,
        }
    }
}
