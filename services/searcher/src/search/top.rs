//! The best hits by score, exactly: equal scores are in the order of `_seq`.
//!
//! Tantivy's own collector keeps whichever of several equal documents it meets first, and so the second page of an answer could
//! repeat or skip some. Here a document that ties with the worst one kept is compared by `_seq`. Pruning stays: a block of
//! postings is skipped if its best score is too low. It may even be skipped if that is equal to the worst score kept, namely if
//! no later document of the segment can have a lower `_seq`. That holds in segments whose documents are in the order of `_seq`,
//! as writers make them; it is found out once for each segment.
//!
//! Scores have to be the same on each page, too. Tantivy adds the scores of a document's terms in an order that depends on what
//! it pruned, and the sum of three or more floating-point numbers depends on the order. Where that can happen the scores of
//! candidates are added again, in the order of the query.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{LazyLock, Mutex, PoisonError};

use tantivy::columnar::Column;
use tantivy::fastfield::AliveBitSet;
use tantivy::index::SegmentId;
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, EnableScoring, Occur, Query, Scorer, TermQuery,
    Weight,
};
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader, TantivyError};

use super::Cancel;

/// How Tantivy can find the best hits of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// All scores are equal.
    Constant,
    /// By skipping postings; the number of terms whose scores are added.
    Pruned { terms: usize },
    /// By looking at all matches.
    Full,
}

impl Shape {
    pub(super) fn of(query: &dyn Query) -> Self {
        if let Some(inner) = query.downcast_ref::<Box<dyn Query>>() {
            return Self::of(inner.as_ref());
        }
        if query.is::<AllQuery>() || query.is::<ConstScoreQuery>() {
            return Self::Constant;
        }
        if query.is::<TermQuery>() {
            return Self::Pruned { terms: 1 };
        }
        match query.downcast_ref::<BooleanQuery>() {
            Some(boolean) if !boolean.clauses().is_empty() => {
                let is_term = |(occur, clause): &(Occur, Box<dyn Query>)| {
                    *occur != Occur::MustNot && is_term(clause.as_ref())
                };
                match boolean.clauses().iter().all(is_term) {
                    true => Self::Pruned { terms: boolean.clauses().len() },
                    false => Self::Full,
                }
            }
            _ => Self::Full,
        }
    }
}

/// Whether a clause scores as one term does.
fn is_term(query: &dyn Query) -> bool {
    if let Some(inner) = query.downcast_ref::<Box<dyn Query>>() {
        return is_term(inner.as_ref());
    }
    let mut terms = 0;
    query.query_terms(&mut |_, needs_positions| terms += if needs_positions { 2 } else { 1 });
    terms == 1 && (query.is::<TermQuery>() || query.is::<BoostQuery>())
}

/// The weights whose scores are added for a document, in the order of the query, if the order matters.
pub(super) fn summands(
    query: &dyn Query,
    shape: Shape,
    scoring: EnableScoring<'_>,
) -> Result<Vec<Box<dyn Weight>>, TantivyError> {
    if let Some(inner) = query.downcast_ref::<Box<dyn Query>>() {
        return summands(inner.as_ref(), shape, scoring);
    }
    match (shape, query.downcast_ref::<BooleanQuery>()) {
        (Shape::Pruned { terms: 3.. }, Some(boolean)) => {
            boolean.clauses().iter().map(|(_, clause)| clause.weight(scoring)).collect()
        }
        _ => Ok(Vec::new()),
    }
}

/// A hit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ScoredDoc {
    pub(super) score: Score,
    pub(super) seq: u64,
    pub(super) address: DocAddress,
}

impl Eq for ScoredDoc {}

/// Better hits are greater.
impl Ord for ScoredDoc {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.seq.cmp(&self.seq))
    }
}

impl PartialOrd for ScoredDoc {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best hits so far.
pub(super) struct Top {
    limit: usize,
    /// Only hits after this one count; a hit of an equal score and `_seq` comes after it if its shard does.
    after: Option<(Score, u64, bool)>,
    heap: BinaryHeap<Reverse<ScoredDoc>>,
    best: Option<Score>,
}

impl Top {
    pub(super) fn new(limit: usize, after: Option<(Score, u64, bool)>) -> Self {
        Self { limit, after, heap: BinaryHeap::with_capacity(limit.min(1_024) + 1), best: None }
    }

    /// The best score of all matches, even of those that come before the hits.
    pub(super) fn best(&self) -> Option<Score> {
        self.best
    }

    /// The hits, the best first.
    pub(super) fn into_hits(self) -> Vec<ScoredDoc> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(hit)| hit).collect()
    }

    fn is_after(&self, score: Score, seq: u64) -> bool {
        self.after.is_none_or(|(last, last_seq, is_later_shard)| match score.total_cmp(&last) {
            Ordering::Less => true,
            Ordering::Equal => seq > last_seq || (seq == last_seq && is_later_shard),
            Ordering::Greater => false,
        })
    }

    fn offer(&mut self, hit: ScoredDoc) {
        if self.best.is_none_or(|best| hit.score > best) {
            self.best = Some(hit.score);
        }
        if !self.is_after(hit.score, hit.seq) {
            return;
        }
        if self.heap.len() < self.limit {
            self.heap.push(Reverse(hit));
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit > worst.0
        {
            *worst = Reverse(hit);
        }
    }

    /// The score that a document must exceed to be looked at, if its `_seq` is not below `lowest` and its score has at most
    /// this relative error.
    fn threshold(&self, lowest: u64, error: Score) -> Score {
        match self.heap.peek() {
            Some(Reverse(worst)) if self.heap.len() >= self.limit => {
                if error > 0.0 {
                    worst.score - worst.score.abs() * error
                } else if worst.seq <= lowest {
                    worst.score
                } else {
                    worst.score.next_down()
                }
            }
            _ => Score::MIN,
        }
    }
}

/// A segment whose hits are offered.
pub(super) struct SegmentTop<'a> {
    pub(super) top: &'a mut Top,
    ordinal: SegmentOrdinal,
    alive: Option<&'a AliveBitSet>,
    seqs: Column<u64>,
    is_in_order: bool,
    summands: Vec<Box<dyn Scorer>>,
    /// The relative error of scores that are not added again.
    error: Score,
    threshold: Score,
}

impl<'a> SegmentTop<'a> {
    pub(super) fn open(
        top: &'a mut Top,
        summands: &[Box<dyn Weight>],
        ordinal: SegmentOrdinal,
        reader: &'a SegmentReader,
        seqs: Column<u64>,
    ) -> Result<Self, TantivyError> {
        let summands: Vec<_> =
            summands.iter().map(|weight| weight.scorer(reader, 1.0)).collect::<Result<_, _>>()?;
        // Each addition errs by half a unit in the last place at most; twice that, for the bounds of blocks err, too.
        #[expect(clippy::cast_precision_loss, reason = "clauses are few")]
        let error = summands.len() as Score * 2.0 * Score::EPSILON;
        let threshold = top.threshold(seqs.min_value(), error);
        let is_in_order = is_in_order(reader, &seqs);
        Ok(Self { top, ordinal, alive: reader.alive_bitset(), seqs, is_in_order, summands, error, threshold })
    }

    /// Offers a document that exceeds the threshold; documents must come in order. The next threshold.
    pub(super) fn offer(&mut self, doc: DocId, score: Score) -> Score {
        if self.alive.is_some_and(|alive| alive.is_deleted(doc)) {
            return self.threshold;
        }
        let score = if self.summands.is_empty() { score } else { sum(&mut self.summands, doc) };
        let seq = self.seqs.first(doc).unwrap_or(u64::MAX);
        self.top.offer(ScoredDoc { score, seq, address: DocAddress::new(self.ordinal, doc) });
        let lowest = if self.is_in_order { seq } else { self.seqs.min_value() };
        self.threshold = self.top.threshold(lowest, self.error);
        self.threshold
    }

    pub(super) fn threshold(&self) -> Score {
        self.threshold
    }

    /// Finds the best hits by skipping postings. Once cancelled, everything is skipped.
    pub(super) fn prune(
        &mut self,
        weight: &dyn Weight,
        reader: &SegmentReader,
        cancel: &Cancel,
    ) -> Result<(), TantivyError> {
        const EVERY: u32 = 1_024;
        let mut seen = 0_u32;
        weight.for_each_pruning(self.threshold, reader, &mut |doc, score| {
            seen += 1;
            if seen.is_multiple_of(EVERY) && cancel.is_set() {
                return Score::MAX;
            }
            self.offer(doc, score)
        })
    }
}

fn sum(summands: &mut [Box<dyn Scorer>], doc: DocId) -> Score {
    let mut sum = 0.0;
    for scorer in summands {
        if scorer.doc() < doc {
            scorer.seek(doc);
        }
        if scorer.doc() == doc {
            sum += scorer.score();
        }
    }
    sum
}

/// Whether the documents of a segment are in the order of `_seq`. Segments never change, so the answer is kept.
fn is_in_order(reader: &SegmentReader, seqs: &Column<u64>) -> bool {
    const MOST: usize = 16_384;
    static KNOWN: LazyLock<Mutex<BTreeMap<SegmentId, bool>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&is_in_order) = known().get(&reader.segment_id()) {
        return is_in_order;
    }
    let all = (0..reader.max_doc()).map(|doc| seqs.first(doc));
    let is_in_order = all.is_sorted();
    let mut known = known();
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(reader.segment_id(), is_in_order);
    is_in_order
}
