//! Checks the conditions of a query against an index.

use std::ops::Bound;

use super::{
    MAX_EXPANDED, MAX_PHRASE, MAX_SEARCHES, MAX_WALKS, is_typed, is_vector, kind, not_a_value, shown,
};
use crate::query::condition::{Condition, Like, Scalar, Spot, Test, Words, range_queries, selections, spots};
use crate::query::dates::DateReading;
use crate::query::{Ast, QueryError};
use crate::schema::addresses::Network;
use crate::schema::{IndexSchema, PlaceKind};

pub(super) fn check(ast: &Ast, schema: &IndexSchema) -> Result<(), QueryError> {
    let (mut searches, mut expanded, mut walks) = (0_usize, 0_usize, 0_usize);
    for condition in ast.conditions() {
        if is_vector(schema, &condition.field) && condition.test != Test::Exists && !condition.is_lenient {
            let message = format!(
                "field [{}] of type [dense_vector] does not support such queries: use [knn]",
                condition.field
            );
            return Err(refused(message));
        }
        let spots = spots(&condition.field, schema);
        searches += spots.len();
        let is_expanded = matches!(
            condition.test,
            Test::Like { .. }
                | Test::Words(Words { is_last_prefix: true, .. })
                | Test::Phrase { is_last_prefix: true, .. }
        );
        expanded += usize::from(is_expanded && !spots.is_empty());
        for spot in &spots {
            walks += selections(condition, schema, spot).len();
            words(condition, spot, schema)?;
        }
        if expanded > MAX_EXPANDED {
            return Err(refused(format!("the query has more than {MAX_EXPANDED} prefixes and patterns")));
        }
        if searches > MAX_SEARCHES || walks > MAX_WALKS {
            let limit = if walks > MAX_WALKS { MAX_WALKS } else { MAX_SEARCHES };
            return Err(refused(format!(
                "the words and fields of the query make more than {limit} searches"
            )));
        }
        values(condition, &spots, schema)?;
    }
    for function in ast.functions().into_iter().flat_map(|functions| &functions.functions) {
        if let Some(field) = function.value.field() {
            let places = schema.places(field).unwrap_or_default();
            if !places.iter().any(|place| place.kind == PlaceKind::Values) {
                return Err(refused(format!("unable to find a field mapper for field [{field}]")));
            }
        }
    }
    Ok(())
}

fn words(condition: &Condition, spot: &Spot, schema: &IndexSchema) -> Result<(), QueryError> {
    let (Test::Words(Words { text, .. }) | Test::Phrase { text, .. }) = &condition.test else {
        return Ok(());
    };
    // A word has at least a byte.
    match text.text.len() > MAX_PHRASE && schema.analyze_query(&spot.place, &text.text).len() > MAX_PHRASE {
        true => Err(refused(format!("a text may have {MAX_PHRASE} words"))),
        false => Ok(()),
    }
}

/// Checks that a field can have what is searched in it.
fn values(condition: &Condition, spots: &[Spot], schema: &IndexSchema) -> Result<(), QueryError> {
    let field = &condition.field;
    let kind = kind(schema, field);
    let all: &[Scalar] = match &condition.test {
        Test::Values { any_case: true, .. } if kind == "ip" && !condition.is_lenient => {
            let message = format!("[{field}] of type [ip] does not support case insensitive term queries");
            return Err(refused(message));
        }
        Test::Values { values, .. } => values,
        Test::Words(Words { text, .. }) | Test::Phrase { text, .. } => std::slice::from_ref(text),
        Test::Like { pattern, .. } if is_typed(kind) && !condition.is_lenient => {
            let what = match pattern {
                Like::Prefix(_) => "prefix",
                Like::Wildcard(_) => "wildcard",
                Like::Regexp(_) => "regexp",
                Like::Fuzzy(..) => "fuzzy",
            };
            let message = format!(
                "can only use {what} queries on keyword and text fields, not on [{field}] which is of type [{kind}]"
            );
            return Err(refused(message));
        }
        Test::Range { lower, upper, dates } => return range(condition, spots, schema, (lower, upper, dates)),
        Test::Like { .. } | Test::Exists => return Ok(()),
    };
    if condition.is_lenient || !is_typed(kind) {
        return Ok(());
    }
    match all.iter().find(|value| !is_value(kind, value)) {
        Some(value) => Err(not(field, kind, &shown(&value.text))),
        None => Ok(()),
    }
}

fn is_value(kind: &str, value: &Scalar) -> bool {
    let text = value.text.as_str();
    match kind {
        "i64" => text.parse::<f64>().is_ok_and(f64::is_finite),
        "u64" => text.parse::<u64>().is_ok(),
        "f64" => text.parse::<f64>().is_ok_and(f64::is_finite),
        "bool" => matches!(text, "true" | "false"),
        "ip" => Network::parse(text).is_some(),
        "date" => DateReading::plain(0).read(text).is_some(),
        _ => true,
    }
}

fn range(
    condition: &Condition,
    spots: &[Spot],
    schema: &IndexSchema,
    (lower, upper, dates): (&Bound<Scalar>, &Bound<Scalar>, &DateReading),
) -> Result<(), QueryError> {
    let field = &condition.field;
    let mut values = spots.iter().filter(|spot| spot.place.kind == PlaceKind::Values).peekable();
    if spots.is_empty() || condition.is_lenient {
        return Ok(());
    }
    if values.peek().is_none() {
        return Err(refused(format!(
            "[range] is not supported on the text field [{field}]: use a keyword field"
        )));
    }
    if values.any(|spot| !range_queries(schema, spot, lower, upper, dates).is_empty()) {
        return Ok(());
    }
    let text = |bound: &Bound<Scalar>| match bound {
        Bound::Included(scalar) | Bound::Excluded(scalar) => Some(shown(&scalar.text)),
        Bound::Unbounded => None,
    };
    let shown: Vec<_> = [text(lower), text(upper)].into_iter().flatten().collect();
    Err(not(field, kind(schema, field), &shown.join(" or ")))
}

fn not(field: &str, kind: &'static str, value: &str) -> QueryError {
    let (message, hint) = not_a_value(field, kind, value);
    QueryError {
        message: format!("failed to create query: {message}"),
        at: None,
        hint: Some(hint.to_owned()).filter(|hint| !hint.is_empty()),
    }
}

fn refused(message: String) -> QueryError {
    QueryError { message, at: None, hint: None }
}
