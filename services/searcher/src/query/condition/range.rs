//! Ranges of values whose types the index may not know.

use std::ops::Bound;

use tantivy::query::Query;
use tantivy::schema::Type;

use super::super::dates::{DateReading, written};
use super::super::range;
use super::{Scalar, Spot, Takes};
use crate::definition::FieldDefinition;
use crate::schema::IndexSchema;

/// The milliseconds since 1970 that can be indexed.
const FIRST: i64 = -9_223_372_036_000;
const LAST: i64 = 9_223_372_036_000;

/// The queries for a range, one for each type that its bounds can have; none if the field can't have such a value.
pub(crate) fn queries(
    schema: &IndexSchema,
    spot: &Spot,
    lower: &Bound<Scalar>,
    upper: &Bound<Scalar>,
    reading: &DateReading,
) -> Vec<Box<dyn Query>> {
    let place = &spot.place;
    let declared = place.path.as_ref().and_then(|path| schema.definition.fields.get(path));
    let dates = dates(lower, upper, reading).map(|_| date_queries(schema, spot, lower, upper, reading));
    if matches!(declared, Some(FieldDefinition::Date {})) {
        return dates.unwrap_or_default();
    }
    let text = |bound: &'_ Bound<Scalar>| bound.as_ref().map(|scalar| scalar.text.clone());
    let (from, to) = (text(lower), text(upper));
    let (from, to) = (from.as_ref().map(String::as_str), to.as_ref().map(String::as_str));
    let is_text = |bound: &Bound<Scalar>| match bound {
        Bound::Included(scalar) | Bound::Excluded(scalar) => scalar.is_text,
        Bound::Unbounded => true,
    };
    // A text that is a time is compared as one, since it is indexed as one, too. A day is not, unless its field is declared.
    let has_texts =
        is_text(lower) && is_text(upper) && (dates.is_none() || (may_be_day(lower) && may_be_day(upper)));
    let mut all = range::of_types(schema, place, from, to, |kind| match spot.takes {
        Takes::All => true,
        Takes::Texts => kind == Type::Str,
        Takes::Others => kind != Type::Date && (kind != Type::Str || has_texts),
    });
    if spot.takes == Takes::Others {
        all.extend(dates.unwrap_or_default());
    }
    all
}

fn may_be_day(bound: &Bound<Scalar>) -> bool {
    match bound {
        Bound::Included(scalar) | Bound::Excluded(scalar) => is_day(&scalar.text),
        Bound::Unbounded => true,
    }
}

/// Whether a text is a date without a time.
pub(crate) fn is_day(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// The queries for a range of dates.
pub(crate) fn date_queries(
    schema: &IndexSchema,
    spot: &Spot,
    lower: &Bound<Scalar>,
    upper: &Bound<Scalar>,
    reading: &DateReading,
) -> Vec<Box<dyn Query>> {
    let Some((lower, upper)) = dates(lower, upper, reading) else { return Vec::new() };
    let (lower, upper) = (lower.as_ref().map(String::as_str), upper.as_ref().map(String::as_str));
    range::dates(schema, &spot.place, lower, upper)
}

/// Bounds as the index's own dates; `None` if one is no date.
fn dates(
    lower: &Bound<Scalar>,
    upper: &Bound<Scalar>,
    reading: &DateReading,
) -> Option<(Bound<String>, Bound<String>)> {
    let date = |millis: i64| written(millis.clamp(FIRST, LAST));
    let lower = match lower {
        Bound::Included(scalar) => Bound::Included(date(reading.read(&scalar.text)?.first)?),
        Bound::Excluded(scalar) => Bound::Excluded(date(reading.read(&scalar.text)?.last)?),
        Bound::Unbounded => Bound::Unbounded,
    };
    let upper = match upper {
        Bound::Included(scalar) => Bound::Included(date(reading.read(&scalar.text)?.last)?),
        Bound::Excluded(scalar) => Bound::Excluded(date(reading.read(&scalar.text)?.first)?),
        Bound::Unbounded => Bound::Unbounded,
    };
    Some((lower, upper))
}
