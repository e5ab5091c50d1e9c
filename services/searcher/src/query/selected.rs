//! A query for all terms that an automaton selects, however many they are. All documents score the same.
//!
//! Tantivy's own has no end but the dictionary's: a query of many patterns could keep a thread busy for minutes, out of the reach of
//! a deadline. Here the patterns of a query share a budget, and fail when it is spent.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tantivy::query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, DocSet, Score, SegmentReader, TantivyError};

use super::automaton::{Bounded, Prefixed};

/// What the patterns of a query may still look at: bytes of dictionaries, and documents of terms.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    /// A few seconds on one core.
    const OF_A_QUERY: u64 = 500_000_000;

    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(Self::OF_A_QUERY)))
    }

    #[cfg(test)]
    pub(super) fn spend_all(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[derive(Clone)]
pub(super) struct Selected {
    pub(super) field: Field,
    pub(super) automaton: Arc<Prefixed>,
    pub(super) budget: Budget,
}

impl std::fmt::Debug for Selected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selected").field("field", &self.field).finish_non_exhaustive()
    }
}

impl Query for Selected {
    fn weight(&self, _: EnableScoring<'_>) -> Result<Box<dyn Weight>, TantivyError> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Selected {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> Result<Box<dyn Scorer>, TantivyError> {
        let start = self.budget.0.load(Ordering::Relaxed);
        let left = Cell::new(start);
        let mut documents = BitSet::with_max_value(reader.max_doc());
        let inverted = reader.inverted_index(self.field)?;
        let bounded = Bounded { inner: &*self.automaton, budget: &left };
        let mut stream = inverted.terms().search(bounded).into_stream()?;
        while stream.advance() {
            let term = stream.value();
            left.set(left.get().saturating_sub(u64::from(term.doc_freq)));
            let mut postings = inverted.read_block_postings_from_terminfo(term, IndexRecordOption::Basic)?;
            while !postings.docs().is_empty() {
                for document in postings.docs() {
                    documents.insert(*document);
                }
                postings.advance();
            }
        }
        let spent = start - left.get();
        let before = self
            .budget
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(spent)));
        if left.get() == 0 || before.is_ok_and(|before| before <= spent) {
            return Err(TantivyError::InvalidArgument(
                "the prefixes, wildcards and misspelled words of the query match too much: make them longer"
                    .to_owned(),
            ));
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(documents), boost)))
    }

    fn explain(&self, reader: &SegmentReader, document: DocId) -> Result<Explanation, TantivyError> {
        let mut scorer = self.scorer(reader, 1.0)?;
        if scorer.doc() > document || scorer.seek(document) != document {
            return Err(TantivyError::InvalidArgument(format!("document {document} does not match")));
        }
        Ok(Explanation::new("Selected", 1.0))
    }
}
