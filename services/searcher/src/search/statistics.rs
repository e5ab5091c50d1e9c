//! The numbers from which BM25 scores are computed, as sums over shards.
//!
//! They are gathered in the first round. A shard may show its first documents between the rounds, since it was refreshed or as
//! another member answers: Tantivy divides by the numbers, so they are never given to it as zero. The scores would be no
//! numbers, and hits without one are not found.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::Field;
use tantivy::{Searcher, TantivyError, Term};

use super::SearchError;

/// The numbers from which BM25 scores are computed. They count deleted documents until a merge has removed them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Statistics {
    docs: u64,
    /// By the number of the field.
    tokens: BTreeMap<u32, u64>,
    /// How many documents have a term.
    #[serde(with = "super::wire::terms")]
    terms: BTreeMap<Term, u64>,
}

impl Statistics {
    /// The numbers of one shard: for these terms, and for their fields and others.
    pub(super) fn of(
        searcher: &Searcher,
        terms: &BTreeSet<Term>,
        fields: &BTreeSet<Field>,
    ) -> Result<Self, TantivyError> {
        let mut statistics = Self { docs: searcher.total_num_docs()?, ..Self::default() };
        for field in terms.iter().map(Term::field).chain(fields.iter().copied()) {
            if let Entry::Vacant(entry) = statistics.tokens.entry(field.field_id()) {
                entry.insert(searcher.total_num_tokens(field)?);
            }
        }
        for term in terms {
            statistics.terms.insert(term.clone(), searcher.doc_freq(term)?);
        }
        Ok(statistics)
    }

    /// Adds the numbers of another shard.
    pub(super) fn add(&mut self, other: Self) {
        self.docs = self.docs.saturating_add(other.docs);
        for (field, tokens) in other.tokens {
            let sum = self.tokens.entry(field).or_default();
            *sum = sum.saturating_add(tokens);
        }
        for (term, docs) in other.terms {
            let sum = self.terms.entry(term).or_default();
            *sum = sum.saturating_add(docs);
        }
    }

    /// Sets how many documents have a term.
    pub(super) fn insert(&mut self, term: &Term, docs: u64) {
        self.terms.insert(term.clone(), docs);
    }

    /// How many documents have a term.
    pub(super) fn docs_with(&self, term: &Term) -> Option<u64> {
        self.terms.get(term).copied()
    }

    /// Refuses numbers that can't be: Tantivy panics if more documents have a term than there are.
    pub(super) fn check(&self) -> Result<(), SearchError> {
        match self.terms.values().max() {
            Some(&most) if most > self.docs => Err(SearchError::Engine(format!(
                "the statistics are inconsistent: {most} of {} documents have a term",
                self.docs
            ))),
            _ => Ok(()),
        }
    }
}

impl Bm25StatisticsProvider for Statistics {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        let tokens = self.tokens.get(&field.field_id()).ok_or_else(|| {
            TantivyError::InternalError(format!("the plan has no statistics of field {}", field.field_id()))
        })?;
        Ok((*tokens).max(1))
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.docs.max(1))
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        self.docs_with(term)
            .ok_or_else(|| TantivyError::InternalError(format!("the plan has no statistics of {term:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(docs: u64, term: &str, with: u64) -> Statistics {
        let term = Term::from_field_text(Field::from_field_id(1), term);
        Statistics { docs, tokens: BTreeMap::from([(1, 10 * docs)]), terms: BTreeMap::from([(term, with)]) }
    }

    #[test]
    fn the_numbers_of_shards_are_summed_and_survive_the_wire() {
        let mut sum = statistics(3, "a", 1);
        sum.add(statistics(4, "a", 2));
        sum.add(statistics(5, "b", 5));
        let sum: Statistics = serde_json::from_str(&serde_json::to_string(&sum).unwrap()).unwrap();
        let field = Field::from_field_id(1);
        assert_eq!(sum.total_num_docs().unwrap(), 12);
        assert_eq!(sum.total_num_tokens(field).unwrap(), 120);
        assert_eq!(sum.doc_freq(&Term::from_field_text(field, "a")).unwrap(), 3);
        assert_eq!(sum.doc_freq(&Term::from_field_text(field, "b")).unwrap(), 5);
        assert_eq!(sum.check(), Ok(()));
    }

    #[test]
    fn unknown_terms_and_impossible_numbers_are_errors() {
        let sum = statistics(3, "a", 4);
        assert!(matches!(sum.check(), Err(SearchError::Engine(_))));
        assert!(sum.doc_freq(&Term::from_field_text(Field::from_field_id(1), "b")).is_err());
        assert!(sum.total_num_tokens(Field::from_field_id(2)).is_err());
    }
}
