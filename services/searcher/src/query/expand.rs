//! Expands prefixes, wildcards and misspelled words against the dictionaries of a shard.

use std::cell::Cell;
use std::collections::BTreeMap;

use tantivy::schema::Field;
use tantivy::{Searcher, TantivyError};

use super::ast::Ast;
use super::automaton::{Bounded, Prefixed};
use super::check::{MAX_EXPANDED, MAX_WALKS};
use super::condition::{selections, spots};
use super::expansions::{Expansions, encode};
use super::place::{Selection, places, selection};
use crate::schema::{IndexSchema, Place};

/// The most terms of a segment that are looked at for a leaf in a place.
const MAX_LOOKED_AT: usize = 10_000;
/// The most bytes of a segment's dictionary that are looked at for a leaf in a place.
const MAX_STEPS: u64 = 2_000_000;

pub(super) fn expand(
    ast: &Ast,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<Expansions, TantivyError> {
    let mut expansions = Expansions::default();
    let mut walks = 0;
    for condition in ast.conditions() {
        let mut selected: BTreeMap<u32, Vec<(Place, Selection)>> = BTreeMap::new();
        for spot in spots(&condition.field, schema) {
            for picked in selections(condition, schema, &spot) {
                let all = selected.entry(picked.number).or_default();
                all.push((spot.place.clone(), picked.selection));
            }
        }
        for (number, selections) in selected {
            walks += selections.len();
            if walks > MAX_WALKS || expansions.leaves.len() == MAX_EXPANDED {
                break;
            }
            let selections = selections.iter().map(|(place, selection)| (place, selection));
            expand_one(number, selections, searcher, &mut expansions)?;
        }
    }
    for leaf in ast.leaves() {
        // A field that is unknown is an error of the check.
        let places = places(leaf, &ast.options, schema).unwrap_or_default();
        let selections: Vec<_> = places
            .iter()
            .filter_map(|(place, _)| Some((place, selection(leaf, &ast.options, schema, place)?)))
            .collect();
        if selections.is_empty() {
            continue;
        }
        walks += selections.len();
        if walks > MAX_WALKS || expansions.leaves.len() == MAX_EXPANDED {
            break;
        }
        let selections = selections.iter().map(|(place, selection)| (*place, selection));
        expand_one(leaf.number, selections, searcher, &mut expansions)?;
    }
    Ok(expansions)
}

fn expand_one<'a>(
    number: u32,
    selections: impl Iterator<Item = (&'a Place, &'a Selection)>,
    searcher: &Searcher,
    expansions: &mut Expansions,
) -> Result<(), TantivyError> {
    let mut terms: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut is_incomplete = false;
    for (place, selection) in selections {
        is_incomplete |= walk(searcher, place.field, &selection.automaton()?, |key, documents| {
            *terms.entry(encode(place.field, selection.kind, key)).or_default() += documents;
        })?;
    }
    expansions.add(number, terms, is_incomplete);
    Ok(())
}

/// Looks at the terms that an automaton selects, with the number of documents that have them; a term comes once for each segment.
/// Whether it stopped before the end of a dictionary.
pub(super) fn walk(
    searcher: &Searcher,
    field: Field,
    automaton: &Prefixed,
    mut each: impl FnMut(&[u8], u64),
) -> Result<bool, TantivyError> {
    let mut has_stopped = false;
    for segment in searcher.segment_readers() {
        let inverted = segment.inverted_index(field)?;
        let budget = Cell::new(MAX_STEPS);
        let bounded = Bounded { inner: automaton, budget: &budget };
        let mut stream = inverted.terms().search(bounded).into_stream()?;
        let mut looked_at = 0;
        while stream.advance() {
            if looked_at == MAX_LOOKED_AT {
                has_stopped = true;
                break;
            }
            looked_at += 1;
            each(stream.key(), u64::from(stream.value().doc_freq));
        }
        has_stopped |= budget.get() == 0;
    }
    Ok(has_stopped)
}
