//! Where a condition looks, and which terms of a dictionary it selects there.

use std::sync::Arc;

use tantivy::Term;
use tantivy::schema::Type;

use super::super::Piece;
use super::super::automaton::Pattern;
use super::super::place::{How, Selection, term_text};
use super::super::regexp::Regexp;
use super::{Condition, Fuzzy, Like, Test, Words};
use crate::schema::{IndexSchema, Place, PlaceKind};

/// Where a condition looks, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) place: Place,
    pub(crate) takes: Takes,
}

/// The values of a place that belong to the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    All,
    /// Whole texts of a field that was not declared: its name ends with `.keyword`.
    Texts,
    /// Everything but whole texts.
    Others,
}

/// Where a field is; nowhere, if the index does not have it.
pub(crate) fn spots(field: &str, schema: &IndexSchema) -> Vec<Spot> {
    let places = schema.places(field).unwrap_or_default();
    let is_dynamic = places.len() > 1;
    let takes = |place: &Place| match place.kind {
        PlaceKind::Values if is_dynamic => Takes::Others,
        PlaceKind::Values | PlaceKind::Text(_) => Takes::All,
    };
    let mut spots: Vec<_> = places.into_iter().map(|place| Spot { takes: takes(&place), place }).collect();
    if let Some(base) = base_of_keyword(field, schema) {
        let places = schema.places(base).unwrap_or_default();
        let values = places.into_iter().find(|place| place.kind == PlaceKind::Values);
        spots.extend(values.map(|place| Spot { place, takes: Takes::Texts }));
    }
    spots
}

/// The field whose whole texts are meant by its name with `.keyword`.
pub(crate) fn base_of_keyword<'a>(field: &'a str, schema: &IndexSchema) -> Option<&'a str> {
    let is_declared =
        schema.definition.fields.contains_key(field) || schema.definition.sub_field(field).is_some();
    let base = field.strip_suffix(".keyword").filter(|_| !is_declared)?;
    // A text that was not declared is in two places.
    (schema.places(base).unwrap_or_default().len() > 1).then_some(base)
}

/// Terms that a condition selects in a place, and the number of their expansion.
pub(crate) struct Picked {
    pub(crate) number: u32,
    /// The position among the words.
    pub(crate) word: usize,
    pub(crate) selection: Selection,
}

/// What a condition selects in a place.
pub(crate) fn selections(condition: &Condition, schema: &IndexSchema, spot: &Spot) -> Vec<Picked> {
    let place = &spot.place;
    let is_text = matches!(place.kind, PlaceKind::Text(_));
    let kind = schema.schema.get_field_entry(place.field).field_type().value_type();
    if spot.takes == Takes::Others || schema.has_addresses(place) || !matches!(kind, Type::Str | Type::Json) {
        return Vec::new();
    }
    let most = match &condition.test {
        Test::Like { pattern: Like::Fuzzy(_, fuzzy), .. } | Test::Words(Words { fuzzy: Some(fuzzy), .. }) => {
            Some(fuzzy.most)
        }
        _ => None,
    };
    let at = |word: usize, (how, exact): (How, Option<Term>)| {
        let prefix = schema.text_term(place, "").serialized_value_bytes().to_vec();
        let offset = u32::try_from(word).unwrap_or(u32::MAX).min(condition.numbers() - 1);
        let selection = Selection { prefix, how, kind, exact, before: None, most };
        Picked { number: condition.number + offset, word, selection }
    };
    match &condition.test {
        Test::Like { pattern, any_case, is_normalized } => {
            let normalized = |text: &str| match is_text && !is_normalized {
                true => text.to_owned(),
                false => schema.normalized(place, text),
            };
            let how = match pattern {
                Like::Prefix(text) => {
                    pieces(&[Piece::Text(normalized(text)), Piece::Many], *any_case).map(|how| (how, None))
                }
                Like::Wildcard(all) => {
                    let normalized = |piece: &Piece| match piece {
                        Piece::Text(text) => Piece::Text(normalized(text)),
                        piece @ (Piece::One | Piece::Many) => piece.clone(),
                    };
                    pieces(&all.iter().map(normalized).collect::<Vec<_>>(), *any_case).map(|how| (how, None))
                }
                Like::Regexp(text) => {
                    Regexp::new(text, *any_case).ok().map(|regexp| (How::Regexp(Arc::new(regexp)), None))
                }
                Like::Fuzzy(word, fuzzy) => misspelled(schema.text_term(place, &normalized(word)), *fuzzy),
            };
            how.map(|how| at(0, how)).into_iter().collect()
        }
        Test::Words(words) if is_text => {
            of_words(words, condition, schema, place).into_iter().map(|(word, how)| at(word, how)).collect()
        }
        Test::Words(Words { text, fuzzy: Some(fuzzy), .. }) => {
            let text = schema.normalized(place, &text.text);
            misspelled(schema.text_term(place, &text), *fuzzy).map(|how| at(0, how)).into_iter().collect()
        }
        Test::Phrase { text, is_last_prefix: true, .. } if is_text => {
            let last = schema.analyze_query(place, &text.text).pop();
            let term = last.and_then(|token| token.alternatives.into_iter().next()?.pop());
            let how = term.and_then(|(_, term)| Some((prefix_of(&term)?, Some(term))));
            how.map(|how| at(0, how)).into_iter().collect()
        }
        Test::Words(_) | Test::Phrase { .. } | Test::Values { .. } | Test::Range { .. } | Test::Exists => {
            Vec::new()
        }
    }
}

fn of_words(
    words: &Words,
    condition: &Condition,
    schema: &IndexSchema,
    place: &Place,
) -> Vec<(usize, (How, Option<Term>))> {
    if words.fuzzy.is_none() && !words.is_last_prefix {
        return Vec::new();
    }
    let tokens = schema.analyze_query(place, &words.text.text);
    let last = tokens.len().saturating_sub(1);
    let most = usize::try_from(condition.numbers() - 1).unwrap_or(usize::MAX);
    let how = |(at, token): (usize, &crate::schema::query_text::QueryToken)| {
        let [alternative] = token.alternatives.as_slice() else { return None };
        let [(_, term)] = alternative.as_slice() else { return None };
        if words.is_last_prefix && at == last {
            return Some((at, (prefix_of(term)?, Some(term.clone()))));
        }
        let fuzzy = words.fuzzy.filter(|_| at < most)?;
        Some((at, misspelled(term.clone(), fuzzy)?))
    };
    tokens.iter().enumerate().filter_map(how).collect()
}

fn pieces(pieces: &[Piece], any_case: bool) -> Option<How> {
    match any_case {
        true => Regexp::of_pieces(pieces).ok().map(|regexp| How::Regexp(Arc::new(regexp))),
        false => Pattern::new(pieces).map(How::Pattern),
    }
}

fn prefix_of(term: &Term) -> Option<How> {
    let text = term_text(term)?.to_owned();
    Pattern::new(&[Piece::Text(text), Piece::Many]).map(How::Pattern)
}

/// Words like another one; `None` if it must be right.
fn misspelled(exact: Term, fuzzy: Fuzzy) -> Option<(How, Option<Term>)> {
    let text = term_text(&exact)?;
    let distance = fuzzy.distance.of(text);
    let fixed = text.char_indices().nth(fuzzy.prefix).map_or(text.len(), |(at, _)| at);
    let how = How::Fuzzy { distance, fixed, transpositions: fuzzy.transpositions };
    (distance > 0 && fixed < text.len()).then_some((how, Some(exact)))
}
