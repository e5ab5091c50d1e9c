//! Ranges of values.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Query, RangeQuery};
use tantivy::schema::{Type, ValueBytes};

use super::compile::constant;
use crate::schema::{IndexSchema, Place};

/// The queries for a range, one for each type that its bounds can have. Each scores 1.
pub(super) fn queries(
    schema: &IndexSchema,
    place: &Place,
    lower: Bound<&str>,
    upper: Bound<&str>,
) -> Vec<Box<dyn Query>> {
    let ranges = schema.range_bounds(place, lower, upper).into_iter();
    ranges.flat_map(|(lower, upper)| range(schema, place, lower, upper)).collect()
}

/// As [`queries`], but only for some types of bounds.
pub(super) fn of_types(
    schema: &IndexSchema,
    place: &Place,
    lower: Bound<&str>,
    upper: Bound<&str>,
    is_wanted: impl Fn(Type) -> bool,
) -> Vec<Box<dyn Query>> {
    let ranges = schema.range_bounds(place, lower, upper).into_iter();
    let wanted =
        ranges.filter(|(lower, upper)| value_type(lower).or(value_type(upper)).is_some_and(&is_wanted));
    wanted.flat_map(|(lower, upper)| range(schema, place, lower, upper)).collect()
}

/// As [`queries`], but for dates only.
pub(super) fn dates(
    schema: &IndexSchema,
    place: &Place,
    lower: Bound<&str>,
    upper: Bound<&str>,
) -> Vec<Box<dyn Query>> {
    of_types(schema, place, lower, upper, |kind| kind == Type::Date)
}

/// The query for all addresses of a network such as `10.0.0.0/8`, if the place has addresses.
pub(super) fn network(schema: &IndexSchema, place: &Place, text: &str) -> Vec<Box<dyn Query>> {
    if !text.contains('/') || !schema.has_addresses(place) {
        return Vec::new();
    }
    queries(schema, place, Bound::Included(text), Bound::Included(text))
}

fn range(schema: &IndexSchema, place: &Place, lower: Bound<Term>, upper: Bound<Term>) -> Vec<Box<dyn Query>> {
    let parts = match (value_type(&lower), value_type(&upper)) {
        // Tantivy has no ranges of booleans in JSON fields.
        (Some(Type::Bool), _) | (_, Some(Type::Bool)) => return booleans(schema, place, &lower, &upper),
        // Tantivy wants bounds of one type. A wider range of floats is needed for paths with several values: one value must be within
        // both bounds.
        (Some(a), Some(b)) if a != b => vec![
            (
                included(&lower, |term| float(term, f64::next_down)),
                included(&upper, |term| float(term, f64::next_up)),
            ),
            (lower, Bound::Unbounded),
            (Bound::Unbounded, upper),
        ],
        _ => vec![(lower, upper)],
    };
    let within: Vec<_> = parts.iter().filter_map(|(lower, upper)| within(lower, upper)).collect();
    let ranges = parts.into_iter().chain(within).map(|(lower, upper)| RangeQuery::new(lower, upper));
    let mut ranges: Vec<_> = ranges.map(|range| Box::new(range) as Box<dyn Query>).collect();
    let query = match ranges.len() {
        1 => ranges.remove(0),
        _ => Box::new(BooleanQuery::intersection(ranges)),
    };
    vec![Box::new(ConstScoreQuery::new(query, 1.0))]
}

/// A range that contains another one, and keeps it from matching what is not in it: Tantivy 0.27.0 takes a bound that no value of
/// a column can reach for none, if it is an integer above all `i64` and the column is of `i64`, or a negative float below all values
/// that a column of `u64` or `i64` can have. The column's type depends on the values of a segment.
fn within(lower: &Bound<Term>, upper: &Bound<Term>) -> Option<(Bound<Term>, Bound<Term>)> {
    if value_type(lower) == Some(Type::U64) {
        return Some((included(lower, |term| integer(term, i64::MAX)), Bound::Unbounded));
    }
    let (Bound::Included(term) | Bound::Excluded(term)) = upper else {
        return None;
    };
    let number = json_value(term).and_then(|(_, value)| value.as_f64()).filter(|number| *number < 0.0)?;
    #[expect(clippy::cast_possible_truncation, reason = "what is below all integers becomes the first one")]
    let above = number.ceil() as i64;
    Some((Bound::Unbounded, included(upper, |term| integer(term, above))))
}

fn included(bound: &Bound<Term>, change: impl Fn(&Term) -> Term) -> Bound<Term> {
    match bound {
        Bound::Included(term) | Bound::Excluded(term) => Bound::Included(change(term)),
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn booleans(
    schema: &IndexSchema,
    place: &Place,
    lower: &Bound<Term>,
    upper: &Bound<Term>,
) -> Vec<Box<dyn Query>> {
    let range = (lower.as_ref().map(is_true), upper.as_ref().map(is_true));
    ["false", "true"]
        .into_iter()
        .flat_map(|text| schema.value_terms(place, text))
        .filter(|term| type_of(term) == Type::Bool && std::ops::RangeBounds::contains(&range, &is_true(term)))
        .map(|term| Box::new(constant(term)) as Box<dyn Query>)
        .collect()
}

fn is_true(term: &Term) -> bool {
    json_value(term).and_then(|(_, value)| value.as_bool()).unwrap_or(false)
}

/// The type of a bound's value.
pub(super) fn value_type(bound: &Bound<Term>) -> Option<Type> {
    match bound {
        Bound::Included(term) | Bound::Excluded(term) => Some(type_of(term)),
        Bound::Unbounded => None,
    }
}

fn type_of(term: &Term) -> Type {
    json_value(term).map_or(term.typ(), |(_, value)| value.typ())
}

/// The value of a term of a JSON field, and the length of the path before it.
fn json_value(term: &Term) -> Option<(usize, ValueBytes<&[u8]>)> {
    if term.typ() != Type::Json {
        return None;
    }
    let key = term.serialized_value_bytes();
    let path = key.iter().position(|byte| *byte == 0)? + 1;
    Some((path, ValueBytes::wrap(&key[path..])))
}

/// A number as a float, at the same path, not nearer than it.
#[expect(clippy::cast_precision_loss, reason = "the next float is taken")]
fn float(term: &Term, next: fn(f64) -> f64) -> Term {
    let number = json_value(term).and_then(|(_, value)| match value.typ() {
        Type::I64 => value.as_i64().map(|number| next(number as f64)),
        Type::U64 => value.as_u64().map(|number| next(number as f64)),
        _ => value.as_f64(),
    });
    match number {
        Some(number) => with_value(term, |term| term.append_type_and_fast_value(number)),
        None => term.clone(),
    }
}

fn integer(term: &Term, number: i64) -> Term {
    with_value(term, |term| term.append_type_and_fast_value(number))
}

/// A term with another value at the same path.
fn with_value(term: &Term, append: impl FnOnce(&mut Term)) -> Term {
    let mut term = term.clone();
    if let Some((path, _)) = json_value(&term) {
        term.truncate_value_bytes(path);
        append(&mut term);
    }
    term
}
