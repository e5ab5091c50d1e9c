//! Values of a keyword field that begin with a prefix, the most frequent first.
//!
//! Counts include deleted documents until a merge has removed them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SearchError;
use super::request::values_place;
use crate::query::QueryError;
use crate::shard::Snapshot;

/// The most suggestions of one request.
pub(crate) const MAX_SUGGESTIONS: usize = 1_000;
/// How many times as many values a shard reports as are wanted: a value may be frequent only over all shards.
const SPARE: usize = 10;
/// How many terms of a segment are looked at; those after them in the alphabet are left out.
const MAX_TERMS: usize = 1_000_000;

/// A value, and how many documents have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suggestion {
    pub(crate) value: String,
    pub(crate) count: u64,
}

/// The most frequent values at a shard. Blocking.
pub(crate) fn suggest(
    snapshot: &Snapshot,
    field: &str,
    prefix: &str,
    size: usize,
) -> Result<Vec<Suggestion>, SearchError> {
    if !(1..=MAX_SUGGESTIONS).contains(&size) {
        let message = format!("`size` is a whole number from 1 to {MAX_SUGGESTIONS}");
        return Err(SearchError::Query(QueryError { message, at: None, hint: None }));
    }
    let schema = &snapshot.index.schema;
    let place = values_place(schema, field, "`field`")?;
    if schema.has_addresses(&place) {
        let message = format!("`field`: `{field}` is of type ip, which has no prefixes");
        let hint = Some("search for a network such as `10.0.0.0/8`, or use `facets`".to_owned());
        return Err(SearchError::Query(QueryError { message, at: None, hint }));
    }
    if place.path.is_none() {
        // `_seq`: numbers have no prefixes.
        return Ok(Vec::new());
    }
    let first = schema.text_term(&place, prefix);
    let first = first.serialized_value_bytes();
    let start = first.len() - prefix.len();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for reader in snapshot.searcher.segment_readers() {
        let index = reader.inverted_index(place.field)?;
        let engine = |error: std::io::Error| SearchError::Damaged(error.to_string());
        let mut terms = index.terms().range().ge(first).into_stream().map_err(engine)?;
        let mut seen = 0;
        while seen < MAX_TERMS && terms.advance() && terms.key().starts_with(first) {
            seen += 1;
            if let Ok(value) = std::str::from_utf8(&terms.key()[start..]) {
                *counts.entry(value.to_owned()).or_default() += u64::from(terms.value().doc_freq);
            }
        }
    }
    Ok(most_frequent(counts, size * SPARE))
}

/// The most frequent values over all shards.
pub(crate) fn merge_suggestions(
    shards: impl IntoIterator<Item = Vec<Suggestion>>,
    size: usize,
) -> Vec<Suggestion> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for suggestion in shards.into_iter().flatten() {
        let count = counts.entry(suggestion.value).or_default();
        *count = count.saturating_add(suggestion.count);
    }
    most_frequent(counts, size)
}

/// Equally frequent values are in the order of the alphabet.
fn most_frequent(counts: BTreeMap<String, u64>, size: usize) -> Vec<Suggestion> {
    let mut suggestions: Vec<_> =
        counts.into_iter().map(|(value, count)| Suggestion { value, count }).collect();
    suggestions.sort_by_key(|suggestion| std::cmp::Reverse(suggestion.count));
    suggestions.truncate(size);
    suggestions
}
