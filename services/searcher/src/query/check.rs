//! Checks the fields and values of a query against an index, before anything is searched.

mod condition;

use std::ops::Bound;

use tantivy::Term;

use super::ast::{Ast, Leaf, Matches};
use super::parse::MAX_BOOST;
use super::place::places;
use super::{QueryError, range};
use crate::definition::{FieldDefinition, SubField};
use crate::schema::addresses::Network;
use crate::schema::{IndexSchema, Place, PlaceKind, UnknownField};

/// The most pairs of words and places: a query searches each word in each of them.
const MAX_SEARCHES: usize = 10_000;
/// The most prefixes, wildcards and misspelled words: each walks over dictionaries. Where any word may be misspelled, those after
/// the first 64 are taken as they are.
pub(super) const MAX_EXPANDED: usize = 64;
/// The most pairs of these and places.
pub(super) const MAX_WALKS: usize = 1000;
/// The most words of a phrase.
const MAX_PHRASE: usize = 1024;

pub(super) fn check(ast: &Ast, schema: &IndexSchema) -> Result<(), QueryError> {
    condition::check(ast, schema)?;
    for (field, boost) in &ast.options.fields {
        if !(0.0..=MAX_BOOST).contains(boost) {
            let message = format!("the boost of the field `{field}` is not a number from 0 to {MAX_BOOST}");
            return Err(QueryError { message, at: None, hint: None });
        }
        schema.places(field).map_err(|error| QueryError {
            message: error.to_string(),
            at: None,
            hint: error.similar.map(|similar| format!("did you mean `{similar}`?")),
        })?;
    }
    let leaves = ast.leaves();
    let is_expanded = |leaf: &Leaf| {
        matches!(leaf.matches, Matches::Prefix(_) | Matches::Wildcard(_) | Matches::Fuzzy { .. })
    };
    if let Some(leaf) = leaves.iter().filter(|leaf| is_expanded(leaf)).nth(MAX_EXPANDED) {
        let message =
            format!("the query has more than {MAX_EXPANDED} prefixes, wildcards and misspelled words");
        return Err(refused(leaf, message, ""));
    }
    let (mut searches, mut walks) = (0, 0);
    for leaf in leaves {
        if leaf.matches == Matches::Exists
            && leaf.field.as_deref().is_some_and(|field| is_vector(schema, field))
        {
            continue;
        }
        let places = places(leaf, &ast.options, schema).map_err(|error| unknown(leaf, &error))?;
        searches += places.len();
        walks += if is_expanded(leaf) { places.len() } else { 0 };
        if searches > MAX_SEARCHES || walks > MAX_WALKS {
            let limit = if walks > MAX_WALKS { MAX_WALKS } else { MAX_SEARCHES };
            let message = format!("the words and fields of the query make more than {limit} searches");
            return Err(refused(leaf, message, "search fewer fields, or fewer words"));
        }
        check_phrase(leaf, &places, schema)?;
        if let Some(field) = &leaf.field {
            check_values(leaf, field, &places, schema)?;
        }
    }
    Ok(())
}

fn check_phrase(leaf: &Leaf, places: &[(Place, f32)], schema: &IndexSchema) -> Result<(), QueryError> {
    let (Matches::Word(text) | Matches::Phrase { text, .. }) = &leaf.matches else {
        return Ok(());
    };
    // A word has at least a byte.
    let is_long = text.len() > MAX_PHRASE
        && places.iter().any(|(place, _)| schema.analyze_query(place, text).len() > MAX_PHRASE);
    match is_long {
        true => Err(refused(leaf, format!("a phrase may have {MAX_PHRASE} words"), "")),
        false => Ok(()),
    }
}

/// Checks that a field can have what is searched in it.
fn check_values(
    leaf: &Leaf,
    field: &str,
    places: &[(Place, f32)],
    schema: &IndexSchema,
) -> Result<(), QueryError> {
    let values = || places.iter().map(|(place, _)| place).find(|place| place.kind == PlaceKind::Values);
    let kind = kind(schema, field);
    match &leaf.matches {
        Matches::Range { lower, upper } => {
            let Some(place) = values() else {
                let message = format!("`{field}` is text, which has no ranges");
                return Err(refused(
                    leaf,
                    message,
                    "declare a field of type keyword, i64, f64 or date for ranges",
                ));
            };
            let (lower, upper) = (lower.as_ref().map(String::as_str), upper.as_ref().map(String::as_str));
            let ranges = schema.range_bounds(place, lower, upper);
            if ranges.is_empty() {
                let (message, hint) = not_a_value(field, kind, &either(lower, upper));
                return Err(refused(leaf, message, hint));
            }
            // With several types, another one may have values in it.
            if let [(lower, upper)] = ranges.as_slice()
                && is_reversed(lower, upper)
            {
                return Err(refused(leaf, "the range is empty: it ends before it begins".to_owned(), ""));
            }
            Ok(())
        }
        Matches::Word(text) | Matches::Phrase { text, .. } => {
            let Some(place) = values().filter(|_| places.len() == 1) else {
                return Ok(());
            };
            let same = Bound::Included(text.as_str());
            let is_value = match kind {
                // The schema takes other numbers as well, for ranges.
                "i64" => text.parse::<i64>().is_ok(),
                "ip" => Network::parse(text).is_some(),
                "date" => !range::dates(schema, place, same, same).is_empty(),
                _ => !schema.value_terms(place, text).is_empty(),
            };
            if !is_value {
                let (message, hint) = not_a_value(field, kind, &shown(text));
                return Err(refused(leaf, message, hint));
            }
            Ok(())
        }
        Matches::Prefix(_) | Matches::Wildcard(_) | Matches::Fuzzy { .. } if is_typed(kind) => {
            let message =
                format!("`{field}` is of type {kind}, which has no prefixes, wildcards or misspellings");
            let hint = match kind {
                "ip" => "search for an address, a network such as `10.0.0.0/8`, or a range",
                _ => "search for a value, or for a range such as `[1 TO 10]`",
            };
            Err(refused(leaf, message, hint))
        }
        Matches::Prefix(_)
        | Matches::Wildcard(_)
        | Matches::Fuzzy { .. }
        | Matches::Regexp(_)
        | Matches::Exists => Ok(()),
    }
}

fn is_reversed(lower: &Bound<Term>, upper: &Bound<Term>) -> bool {
    let (Bound::Included(first) | Bound::Excluded(first), Bound::Included(last) | Bound::Excluded(last)) =
        (lower, upper)
    else {
        return false;
    };
    let is_closed = matches!((lower, upper), (Bound::Included(_), Bound::Included(_)));
    // The bytes of terms are in the order of the values, if these have the same type. Of numbers, only integers and floats are
    // mixed: then nothing is known.
    let key = |term: &Term| term.serialized_value_bytes().iter().position(|byte| *byte == 0);
    let types_differ = range::value_type(lower) != range::value_type(upper);
    !types_differ && key(first) == key(last) && (first > last || (first == last && !is_closed))
}

fn either(lower: Bound<&str>, upper: Bound<&str>) -> String {
    match (lower, upper) {
        (Bound::Unbounded, Bound::Included(text) | Bound::Excluded(text))
        | (Bound::Included(text) | Bound::Excluded(text), Bound::Unbounded) => shown(text),
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
            format!("{} or {}", shown(a), shown(b))
        }
        (Bound::Unbounded, Bound::Unbounded) => "`*`".to_owned(),
    }
}

/// A value in a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("`{}...`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn is_vector(schema: &IndexSchema, field: &str) -> bool {
    matches!(schema.definition.fields.get(field), Some(FieldDefinition::Vector { .. }))
}

/// The name of a field's type.
fn kind(schema: &IndexSchema, field: &str) -> &'static str {
    match schema.definition.fields.get(field) {
        Some(FieldDefinition::Text { .. }) => "text",
        Some(FieldDefinition::Keyword { .. }) => "keyword",
        Some(FieldDefinition::I64 {}) => "i64",
        Some(FieldDefinition::F64 {}) => "f64",
        Some(FieldDefinition::Bool {}) => "bool",
        Some(FieldDefinition::Date {}) => "date",
        Some(FieldDefinition::Vector { .. }) => "vector",
        Some(FieldDefinition::Ip {}) => "ip",
        Some(FieldDefinition::Json {}) | None if field == "_seq" => "u64",
        None if let Some(sub) = schema.definition.sub_field(field) => match sub {
            SubField::Text { .. } => "text",
            SubField::Keyword { .. } => "keyword",
        },
        Some(FieldDefinition::Json {}) | None => "json",
    }
}

fn is_typed(kind: &str) -> bool {
    matches!(kind, "i64" | "f64" | "bool" | "date" | "ip" | "u64")
}

fn not_a_value(field: &str, kind: &str, text: &str) -> (String, &'static str) {
    let hint = match kind {
        "date" => "a date is written 2024-05-31, 2024-05-31T12:00:00Z, or in milliseconds since 1970",
        "ip" => "an address is written 10.0.0.1 or 2001:db8::1, a network 10.0.0.0/8",
        "bool" => "write true or false",
        "i64" | "u64" => "write an integer",
        "f64" => "write a number",
        _ => "",
    };
    (format!("{text} is no value of the field `{field}` of type {kind}"), hint)
}

fn refused(leaf: &Leaf, message: String, hint: &str) -> QueryError {
    QueryError { message, at: Some(leaf.span.start), hint: (!hint.is_empty()).then(|| hint.to_owned()) }
}

/// The error for a field that is unknown.
pub(super) fn unknown(leaf: &Leaf, error: &UnknownField) -> QueryError {
    let hint = match &error.similar {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if error.is_vector => "send a vector in the member `knn` of a search".to_owned(),
        None => "to search for text with a colon, put it in quotes".to_owned(),
    };
    refused(leaf, error.to_string(), &hint)
}
