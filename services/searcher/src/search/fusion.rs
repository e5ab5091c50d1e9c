//! One order from several rankings, by reciprocal rank fusion: what `q` finds, and what is nearest to each vector.
//!
//! A document has the score `boost / (rank_constant + rank)` from each ranking in which it is one of the first, and these are added
//! up. Each shard returns its part of each ranking; ranks are known where all parts are merged. Of equal scores the document comes
//! first that was written first, as in other orders by score. (Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms
//! Condorcet and individual rank learning methods", SIGIR 2009.)

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tantivy::query::Weight;
use tantivy::{DocAddress, Score, Searcher};

use super::order::SortedDoc;
use super::request::Rrf;
use super::sort::{Cursor, SortValue};
use super::top::ScoredDoc;
use super::{Hit, SearchError, SearchRequest};

/// A hit in a shard's part of a ranking.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Ranked {
    /// The number of the hit among those that were found.
    hit: usize,
    score: Score,
    explanation: Option<Box<RawValue>>,
}

/// The parts of rankings at a shard, and the documents in them, each once.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) docs: Vec<SortedDoc>,
    pub(super) rankings: Vec<Vec<Ranked>>,
    numbers: BTreeMap<DocAddress, usize>,
}

impl Parts {
    /// Adds a ranking. Its weight explains the scores.
    pub(super) fn add(
        &mut self,
        docs: impl IntoIterator<Item = ScoredDoc>,
        position: u32,
        searcher: &Searcher,
        explaining: Option<&dyn Weight>,
    ) -> Result<(), SearchError> {
        let mut ranking = Vec::new();
        for ScoredDoc { score, seq, address } in docs {
            let hit = *self.numbers.entry(address).or_insert_with(|| {
                let cursor = Cursor { values: Vec::new(), seq, shard: position };
                self.docs.push(SortedDoc { cursor, score: 0.0, address });
                self.docs.len() - 1
            });
            let explanation = explaining.map(|weight| explain(weight, searcher, address)).transpose()?;
            ranking.push(Ranked { hit, score, explanation });
        }
        self.rankings.push(ranking);
        Ok(())
    }
}

/// Explains the score of a document.
pub(super) fn explain(
    weight: &dyn Weight,
    searcher: &Searcher,
    address: DocAddress,
) -> Result<Box<RawValue>, SearchError> {
    let explanation = weight.explain(searcher.segment_reader(address.segment_ord), address.doc_id)?;
    to_raw_value(&explanation).map_err(|error| SearchError::Engine(error.to_string()))
}

/// Rankings that are being put together from the parts of shards.
#[derive(Default)]
pub(super) struct Fusing {
    rankings: Vec<Vec<Ranked>>,
}

impl Fusing {
    /// Adds the parts of a shard whose first hit has this number.
    pub(super) fn add(&mut self, parts: Vec<Vec<Ranked>>, first: usize) {
        self.rankings.resize_with(self.rankings.len().max(parts.len()), Vec::new);
        for (all, part) in self.rankings.iter_mut().zip(parts) {
            all.extend(part.into_iter().map(|ranked| Ranked { hit: first + ranked.hit, ..ranked }));
        }
    }

    /// The hits that are among the first of a ranking, with their scores.
    pub(super) fn finish(self, request: &SearchRequest, rrf: Rrf, hits: Vec<Hit>) -> Vec<Hit> {
        let window = request.rank_window(rrf);
        let mut scores: Vec<Option<f64>> = vec![None; hits.len()];
        let mut details: Vec<Vec<serde_json::Value>> = vec![Vec::new(); hits.len()];
        let of_query = request.has_query().then(|| (1.0, "`q`".to_owned()));
        let of_vectors = request.knn.iter().map(|knn| (f64::from(knn.boost), format!("`{}`", knn.field)));
        for (mut ranking, (weight, name)) in
            self.rankings.into_iter().zip(of_query.into_iter().chain(of_vectors))
        {
            // A member that errs must not break the answer.
            ranking.retain(|ranked| ranked.hit < hits.len());
            ranking.sort_by(|left, right| order(left, right, &hits));
            ranking.truncate(window);
            for (rank, ranked) in (1_u32..).zip(ranking) {
                let score = weight / (f64::from(rrf.rank_constant) + f64::from(rank));
                *scores[ranked.hit].get_or_insert(0.0) += score;
                if request.explain {
                    let inner: Vec<_> = ranked.explanation.into_iter().collect();
                    let what = format!("{weight} / ({} + rank {rank} by {name})", rrf.rank_constant);
                    details[ranked.hit]
                        .push(json!({ "value": score, "description": what, "details": inner }));
                }
            }
        }
        let fused = hits.into_iter().zip(scores).zip(details).filter_map(|((hit, score), details)| {
            #[expect(clippy::cast_possible_truncation, reason = "scores have 32 bits")]
            let score = score? as Score;
            let explanation = request.explain.then(|| {
                let what = "reciprocal rank fusion, the sum of:";
                to_raw_value(&json!({ "value": score, "description": what, "details": details }))
            });
            let cursor = Cursor { values: vec![SortValue::F64(score.into())], ..hit.cursor };
            Some(Hit { score: Some(score), cursor, explanation: explanation.and_then(Result::ok), ..hit })
        });
        fused.collect()
    }
}

fn order(left: &Ranked, right: &Ranked, hits: &[Hit]) -> Ordering {
    let place = |ranked: &Ranked| (hits[ranked.hit].cursor.seq, hits[ranked.hit].cursor.shard);
    right.score.total_cmp(&left.score).then_with(|| place(left).cmp(&place(right)))
}
