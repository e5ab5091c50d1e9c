//! A query whose terms all count as equally frequent.
//!
//! A misspelled word is rare, and rare terms score high; it would outrank the word that was asked for. So the terms that a word
//! was expanded to share the document frequency of the most frequent of them, as in Lucene's `BlendedTermQuery`, and only their
//! boosts tell them apart.

use tantivy::query::{Bm25StatisticsProvider, EnableScoring, Query, Weight};
use tantivy::schema::Field;
use tantivy::{TantivyError, Term};

/// A query over some terms of one field.
#[derive(Debug)]
pub(super) struct Blended {
    pub(super) query: Box<dyn Query>,
    pub(super) terms: Vec<Term>,
}

impl Clone for Blended {
    fn clone(&self) -> Self {
        Self { query: self.query.box_clone(), terms: self.terms.clone() }
    }
}

impl Query for Blended {
    fn weight(&self, scoring: EnableScoring<'_>) -> Result<Box<dyn Weight>, TantivyError> {
        let EnableScoring::Enabled { searcher, statistics_provider } = scoring else {
            return self.query.weight(scoring);
        };
        let mut documents = 0;
        for term in &self.terms {
            documents = documents.max(statistics_provider.doc_freq(term)?);
        }
        let statistics = SameFrequency { inner: statistics_provider, documents };
        self.query.weight(EnableScoring::enabled_from_statistics_provider(&statistics, searcher))
    }

    fn query_terms<'a>(&'a self, visitor: &mut dyn FnMut(&'a Term, bool)) {
        self.query.query_terms(visitor);
    }
}

struct SameFrequency<'a> {
    inner: &'a dyn Bm25StatisticsProvider,
    documents: u64,
}

impl Bm25StatisticsProvider for SameFrequency<'_> {
    fn total_num_tokens(&self, field: Field) -> Result<u64, TantivyError> {
        self.inner.total_num_tokens(field)
    }

    fn total_num_docs(&self) -> Result<u64, TantivyError> {
        self.inner.total_num_docs()
    }

    fn doc_freq(&self, _: &Term) -> Result<u64, TantivyError> {
        Ok(self.documents)
    }
}
