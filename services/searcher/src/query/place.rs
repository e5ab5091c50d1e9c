//! Where a leaf searches, and which terms of a dictionary it selects there.

use std::sync::Arc;

use tantivy::schema::Type;
use tantivy::{TantivyError, Term};
use unicode_normalization::char::is_combining_mark;

use super::ParseOptions;
use super::ast::{Leaf, Matches, Piece};
use super::automaton::{Pattern, Prefixed, Select};
use super::parse::MAX_PATTERN;
use super::regexp::Regexp;
use crate::definition::Analyzer;
use crate::schema::{IndexSchema, Place, PlaceKind, UnknownField};

/// The places in which a leaf searches, with their boosts: those of its field, of the given fields, or of the default fields.
pub(super) fn places(
    leaf: &Leaf,
    options: &ParseOptions,
    schema: &IndexSchema,
) -> Result<Vec<(Place, f32)>, UnknownField> {
    if let Some(field) = &leaf.field {
        return Ok(schema.places(field)?.into_iter().map(|place| (place, 1.0)).collect());
    }
    if options.fields.is_empty() {
        return Ok(schema.default_places());
    }
    let mut all = Vec::new();
    for (field, boost) in &options.fields {
        let mut places = schema.places(field)?;
        // As for default fields: what has text is searched as text.
        if places.iter().any(|place| place.kind != PlaceKind::Values) {
            places.retain(|place| place.kind != PlaceKind::Values);
        }
        all.extend(places.into_iter().map(|place| (place, *boost)));
    }
    Ok(all)
}

/// How a leaf selects terms of a dictionary.
pub(super) struct Selection {
    /// What is at the start of the place's terms: the path and type in a JSON field.
    pub(super) prefix: Vec<u8>,
    pub(super) how: How,
    /// The type of terms in the place's field.
    pub(super) kind: Type,
    /// The word that was asked for, if there is one, as a term.
    pub(super) exact: Option<Term>,
    /// Words before the selected one that must be there, too: `wi` in `wi-fi*`.
    pub(super) before: Option<String>,
    /// The most terms that are used: the most frequent ones.
    pub(super) most: Option<usize>,
}

pub(super) enum How {
    Pattern(Pattern),
    /// Words within some edits of the exact one, of which the first bytes must be right.
    Fuzzy {
        distance: u8,
        fixed: usize,
        transpositions: bool,
    },
    Regexp(Arc<Regexp>),
}

impl Selection {
    /// The automaton that selects the terms. Expensive for misspelled words: up to a millisecond.
    pub(super) fn automaton(&self) -> Result<Prefixed, TantivyError> {
        let mut prefix = self.prefix.clone();
        let select = match &self.how {
            How::Pattern(pattern) => Select::Pattern(pattern.clone()),
            How::Regexp(regexp) => Select::Regexp(Arc::clone(regexp)),
            How::Fuzzy { distance, fixed, transpositions } => {
                let exact = self.exact.as_ref().and_then(term_text).unwrap_or_default();
                let (right, rest) = exact.split_at_checked(*fixed).unwrap_or(("", exact));
                prefix.extend_from_slice(right.as_bytes());
                Select::fuzzy(rest, *distance, *transpositions)?
            }
        };
        Ok(Prefixed { prefix, select })
    }
}

/// How a leaf selects terms in a place; `None` if it has terms of its own there, or can't match.
///
/// Prefixes and patterns are compared with the terms of the dictionary, which are stems where the analyzer stems: `running*` does not
/// find `running` there, as in Elasticsearch.
pub(super) fn selection(
    leaf: &Leaf,
    options: &ParseOptions,
    schema: &IndexSchema,
    place: &Place,
) -> Option<Selection> {
    if place.kind == PlaceKind::Text(Analyzer::Ngram) || schema.has_addresses(place) {
        return None;
    }
    let is_text = matches!(place.kind, PlaceKind::Text(_));
    let normalized = |text: &str| schema.normalized(place, text);
    let mut before = None;
    let (how, exact) = match &leaf.matches {
        Matches::Prefix(text) => {
            let last = if is_text { last_word(text) } else { text };
            if last.is_empty() {
                return None;
            }
            before = text.strip_suffix(last).filter(|before| !before.is_empty()).map(str::to_owned);
            let last = normalized(last);
            let pattern = Pattern::new(&[Piece::Text(last.clone()), Piece::Many])?;
            (How::Pattern(pattern), Some(schema.text_term(place, &last)))
        }
        Matches::Wildcard(pieces) => {
            let normalized = |piece: &Piece| match piece {
                Piece::Text(text) => Piece::Text(normalized(text)),
                piece @ (Piece::One | Piece::Many) => piece.clone(),
            };
            let pieces: Vec<_> = pieces.iter().map(normalized).collect();
            (How::Pattern(Pattern::new(&pieces)?), None)
        }
        Matches::Fuzzy { word, distance } => {
            let distance = distance.unwrap_or_else(|| distance_by_length(word).max(1));
            (fuzzy(distance), Some(one_term(schema, place, word)?))
        }
        Matches::Word(word) if options.typos && is_text => {
            let distance = distance_by_length(word);
            if distance == 0 || word.chars().count() > MAX_PATTERN {
                return None;
            }
            (fuzzy(distance), Some(one_term(schema, place, word)?))
        }
        Matches::Word(_)
        | Matches::Phrase { .. }
        | Matches::Range { .. }
        | Matches::Regexp(_)
        | Matches::Exists => return None,
    };
    let kind = schema.schema.get_field_entry(place.field).field_type().value_type();
    let prefix = match kind {
        Type::Str | Type::Json => schema.text_term(place, "").serialized_value_bytes().to_vec(),
        _ => return None,
    };
    Some(Selection { prefix, how, kind, exact, before, most: None })
}

fn fuzzy(distance: u8) -> How {
    How::Fuzzy { distance, fixed: 0, transpositions: true }
}

/// The word at the end of a text, with its combining marks; empty if the text ends otherwise.
fn last_word(text: &str) -> &str {
    text.rsplit(|c: char| !c.is_alphanumeric() && !is_combining_mark(c)).next().unwrap_or_default()
}

/// How many edits a misspelled word may have: one from 4 letters on, two from 8 on. Numbers are taken as they are.
pub(super) fn distance_by_length(word: &str) -> u8 {
    match word.chars().count() {
        _ if !word.contains(char::is_alphabetic) => 0,
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    }
}

/// The term of a word that is one string in a place, without its synonyms.
pub(super) fn one_term(schema: &IndexSchema, place: &Place, word: &str) -> Option<Term> {
    if place.kind == PlaceKind::Values {
        return Some(schema.text_term(place, &schema.normalized(place, word)));
    }
    match schema.analyze_query(place, word).as_slice() {
        [token] => match token.alternatives.as_slice() {
            [alternative] => match alternative.as_slice() {
                [(_, term)] => Some(term.clone()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

/// The text of a term, without the path of a JSON field; `None` if it is no text.
pub(super) fn term_text(term: &Term) -> Option<&str> {
    let key = term.serialized_value_bytes();
    let text = match term.typ() {
        Type::Str => key,
        Type::Json => {
            let end = key.iter().position(|byte| *byte == 0)?;
            let (kind, text) = key[end + 1..].split_first()?;
            (*kind == Type::Str.to_code()).then_some(text)?
        }
        _ => return None,
    };
    std::str::from_utf8(text).ok()
}
