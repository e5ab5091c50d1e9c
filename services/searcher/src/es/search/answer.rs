//! The answer to a search in Elasticsearch's form.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::request::EsSearch;
use crate::catalog::Index;
use crate::es::error::EsError;
use crate::search::{Answer, AnswerHit, ShardFailure};

/// The answer to a search. Documents are written as they were stored.
#[derive(Debug, Serialize)]
pub(crate) struct EsAnswer {
    #[serde(rename = "_scroll_id", skip_serializing_if = "Option::is_none")]
    pub(super) scroll_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pit_id: Option<String>,
    pub(super) took: u64,
    pub(super) timed_out: bool,
    #[serde(rename = "_shards")]
    pub(super) shards: EsShards,
    pub(super) hits: Hits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aggregations: Option<Map<String, Value>>,
    /// Only within the answer to several searches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
}

/// The shards of all indexes that were searched.
#[derive(Debug, Default, Serialize)]
pub(crate) struct EsShards {
    pub(super) total: usize,
    pub(super) successful: usize,
    pub(super) skipped: usize,
    pub(super) failed: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failures: Vec<Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Hits {
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<Value>,
    max_score: Option<f32>,
    pub(super) hits: Vec<EsHit>,
}

#[derive(Debug, Serialize)]
pub(crate) struct EsHit {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_score")]
    score: Option<f32>,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(rename = "_seq_no", skip_serializing_if = "Option::is_none")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term", skip_serializing_if = "Option::is_none")]
    primary_term: Option<u64>,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    highlight: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<Vec<Value>>,
    #[serde(rename = "_explanation", skip_serializing_if = "Option::is_none")]
    explanation: Option<Box<RawValue>>,
    /// Its place in the order, as native searches have it.
    #[serde(skip)]
    pub(super) place: Vec<Value>,
}

impl EsShards {
    /// Adds the shards of an index.
    pub(super) fn add(&mut self, index: &str, total: usize, failed: &[ShardFailure]) {
        self.total += total;
        self.failed += failed.len();
        self.successful += total.saturating_sub(failed.len());
        self.failures.extend(failed.iter().map(|failure| {
            let reason = json!({ "type": "unavailable_shards_exception", "reason": failure.reason });
            json!({ "shard": failure.shard, "index": index, "reason": reason })
        }));
    }
}

impl EsAnswer {
    /// What was found in some indexes.
    pub(super) fn new(
        search: &EsSearch,
        indexes: &[Arc<Index>],
        answer: Answer,
        shards: EsShards,
    ) -> Result<Self, EsError> {
        let total = match search.is_total_number {
            true => json!(answer.total),
            false => json!({ "value": answer.total, "relation": "eq" }),
        };
        let hits = answer.hits.into_iter().filter_map(|hit| EsHit::new(search, indexes, hit)).collect();
        let aggregations = match (&search.aggregations, answer.aggs, indexes.first()) {
            (Some(aggregations), Some(results), Some(index)) => {
                Some(aggregations.shown(results, &index.schema, &answer.dates)?)
            }
            _ => None,
        };
        Ok(Self {
            scroll_id: None,
            pit_id: None,
            took: answer.took_ms,
            timed_out: answer.timed_out,
            shards,
            hits: Hits {
                total: search.has_total.then_some(total),
                max_score: answer.max_score.filter(|_| search.has_score()),
                hits,
            },
            aggregations,
            status: None,
        })
    }
}

impl EsHit {
    /// `None` if a member sent a place that can't be.
    fn new(search: &EsSearch, indexes: &[Arc<Index>], hit: AnswerHit) -> Option<Self> {
        let [values @ .., seq, position] = hit.sort.as_slice() else { return None };
        let (seq, position) = (seq.as_u64()?, position.as_u64()?);
        let index = indexes.get(usize::try_from(position >> 16).ok()?)?;
        let keys = values.iter().zip(&search.sort);
        let mut sort: Vec<Value> = keys.map(|(value, key)| key.shown(value.clone(), &index.schema)).collect();
        if search.pit.is_some() {
            sort.push(json!(format!("{seq}.{position}")));
        }
        Some(Self {
            index: index.name.clone(),
            id: hit.id,
            score: hit.score,
            version: hit.numbers.filter(|_| search.has_version).map(|[_, version]| version),
            seq_no: search.has_seq_no.then_some(seq),
            primary_term: hit.numbers.filter(|_| search.has_seq_no).map(|[term, _]| term),
            source: hit.source,
            highlight: hit.highlight,
            sort: (!search.sort.is_empty()).then_some(sort),
            explanation: hit.explanation,
            place: hit.sort,
        })
    }
}
