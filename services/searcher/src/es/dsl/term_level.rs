//! Queries for values that are not analyzed.

use std::ops::Bound;

use serde_json::Value;

use super::DslError;
use super::keys::{Keys, checked_field, scalar, shortened};
use super::words::{AUTO, MAX_EXPANSIONS, condition, distance};
use crate::query::condition::{Fuzzy, Like, Scalar, Test};
use crate::query::dates::{DateReading, Formats, zone};
use crate::query::regexp::Regexp;
use crate::query::{MAX_PATTERN, Node, Piece};

/// The most values of a `terms` query.
const MAX_TERMS: usize = 65_536;

pub(super) fn exists(body: &Value) -> Result<Node, DslError> {
    let keys = Keys::of("exists", body, &["field", "boost"])?;
    let field = checked_field("exists", keys.needed("field", keys.text("field")?)?)?;
    keys.boosted(condition(field, false, Test::Exists))
}

pub(super) fn ids(body: &Value) -> Result<Node, DslError> {
    let keys = Keys::of("ids", body, &["values", "boost"])?;
    let values = match keys.needed("values", keys.raw("values"))? {
        Value::Array(values) => of_list("ids", values)?,
        value => vec![scalar("ids", value)?],
    };
    keys.boosted(condition("_id".to_owned(), false, one_of(values)))
}

/// Several values, or none, score 1.
fn one_of(mut values: Vec<Scalar>) -> Test {
    // One value alone would score by its frequency.
    if let [only] = values.as_slice() {
        values.push(only.clone());
    }
    Test::Values { values, any_case: false }
}

fn of_list(name: &str, values: &[Value]) -> Result<Vec<Scalar>, DslError> {
    if values.len() > MAX_TERMS {
        let reason = format!("the number of terms [{}] is above the limit of [{MAX_TERMS}]", values.len());
        return Err(DslError::illegal(reason));
    }
    values.iter().map(|value| scalar(name, value)).collect()
}

pub(super) fn term(body: &Value) -> Result<Node, DslError> {
    let (field, body) = Keys::of_field("term", body, &["value", "case_insensitive", "boost"])?;
    let (value, keys) = body.value("term", "value")?;
    let any_case = keys.map(|keys| keys.flag("case_insensitive")).transpose()?.flatten().unwrap_or(false);
    let node = condition(field, false, Test::Values { values: vec![value], any_case });
    keys.map_or(Ok(node.clone()), |keys| keys.boosted(node))
}

pub(super) fn terms(body: &Value) -> Result<Node, DslError> {
    let Value::Object(members) = body else {
        return Err(DslError::parsing("[terms] query malformed, no start_object after query name"));
    };
    let mut fields = members.iter().filter(|(key, _)| *key != "boost");
    let (Some((field, values)), None) = (fields.next(), fields.next()) else {
        return Err(DslError::parsing("[terms] query wants exactly one field"));
    };
    let field = checked_field("terms", field)?;
    let values = match values {
        Value::Array(values) => of_list("terms", values)?,
        Value::Object(_) => {
            return Err(DslError::parsing("[terms] query does not support a lookup of terms"));
        }
        _ => return Err(DslError::parsing(format!("[terms] query wants an array of values for [{field}]"))),
    };
    let keys = Keys::of("terms", body, &members.keys().map(String::as_str).collect::<Vec<_>>())?;
    keys.boosted(condition(field, false, one_of(values)))
}

pub(super) fn range(body: &Value, now: i64) -> Result<Node, DslError> {
    let known = ["gt", "gte", "lt", "lte", "format", "time_zone", "boost"];
    let (field, body) = Keys::of_field("range", body, &known)?;
    let super::keys::Field::Keys(keys) = body else {
        return Err(DslError::parsing("[range] query wants an object with bounds"));
    };
    let bound = |open: &str, closed: &str| match (keys.scalar(open)?, keys.scalar(closed)?) {
        (None, None) => Ok(Bound::Unbounded),
        (Some(value), None) => Ok(Bound::Excluded(value)),
        (None, Some(value)) => Ok(Bound::Included(value)),
        (Some(_), Some(_)) => {
            Err(DslError::parsing(format!("[range] query has both [{open}] and [{closed}]")))
        }
    };
    let (lower, upper) = (bound("gt", "gte")?, bound("lt", "lte")?);
    let mut dates = DateReading::plain(now);
    if let Some(format) = keys.text("format")? {
        dates.formats = Formats::parse(format).map_err(|error| {
            DslError::illegal(format!("Invalid format: [{}]: {error}", shortened(format)))
        })?;
    }
    if let Some(text) = keys.text("time_zone")? {
        dates.zone = zone(text).ok_or_else(|| keys.wrong("time_zone", "an offset such as +01:00, or UTC"))?;
    }
    let test = match (&lower, &upper) {
        (Bound::Unbounded, Bound::Unbounded) => Test::Exists,
        _ => Test::Range { lower, upper, dates },
    };
    keys.boosted(condition(field, false, test))
}

/// A query for terms like a text.
fn like(
    name: &'static str,
    body: &Value,
    more: &[&str],
    pattern: impl Fn(&str, bool) -> Result<Like, DslError>,
) -> Result<Node, DslError> {
    let known = [&["value", "case_insensitive", "boost"][..], more].concat();
    let (field, body) = Keys::of_field(name, body, &known)?;
    let key = match &body {
        super::keys::Field::Keys(keys) if name == "wildcard" && keys.raw("wildcard").is_some() => "wildcard",
        _ => "value",
    };
    let (value, keys) = body.value(name, key)?;
    let any_case = keys.map(|keys| keys.flag("case_insensitive")).transpose()?.flatten().unwrap_or(false);
    if let Some(keys) = keys {
        keys.only("flags", &["ALL"])?;
    }
    let test = Test::Like { pattern: pattern(&value.text, any_case)?, any_case, is_normalized: false };
    let node = condition(field, false, test);
    keys.map_or(Ok(node.clone()), |keys| keys.boosted(node))
}

fn limited(name: &str, text: &str) -> Result<(), DslError> {
    match text.len() > MAX_PATTERN {
        true => Err(DslError::illegal(format!("[{name}] query: a pattern may have {MAX_PATTERN} bytes"))),
        false => Ok(()),
    }
}

pub(super) fn prefix(body: &Value) -> Result<Node, DslError> {
    like("prefix", body, &[], |text, _| {
        limited("prefix", text)?;
        Ok(Like::Prefix(text.to_owned()))
    })
}

pub(super) fn wildcard(body: &Value) -> Result<Node, DslError> {
    like("wildcard", body, &["wildcard"], |text, _| {
        limited("wildcard", text)?;
        Ok(Like::Wildcard(pieces(text)))
    })
}

/// The pieces of a pattern; a backslash makes the next character one that stands for itself.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '*' => {
                if pieces.last() != Some(&Piece::Many) {
                    pieces.push(Piece::Many);
                }
                continue;
            }
            '?' => {
                pieces.push(Piece::One);
                continue;
            }
            '\\' => rest.next().unwrap_or('\\'),
            c => c,
        };
        match pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => pieces.push(Piece::Text(c.to_string())),
        }
    }
    pieces
}

pub(super) fn regexp(body: &Value) -> Result<Node, DslError> {
    like("regexp", body, &["flags", "max_determinized_states"], |text, any_case| {
        let compiled = Regexp::new(text, any_case);
        compiled
            .map_err(|error| DslError::illegal(format!("[regexp] query: [{}]: {error}", shortened(text))))?;
        Ok(Like::Regexp(text.to_owned()))
    })
}

pub(super) fn fuzzy(body: &Value) -> Result<Node, DslError> {
    let known = ["value", "fuzziness", "prefix_length", "max_expansions", "transpositions", "boost"];
    let (field, body) = Keys::of_field("fuzzy", body, &known)?;
    let (value, keys) = body.value("fuzzy", "value")?;
    limited("fuzzy", &value.text)?;
    let mut fuzzy = Fuzzy { distance: AUTO, prefix: 0, transpositions: true, most: MAX_EXPANSIONS };
    if let Some(keys) = keys {
        fuzzy.distance = distance(keys, "fuzziness")?.unwrap_or(AUTO);
        fuzzy.prefix = keys.whole("prefix_length", 1_000)?.unwrap_or(0);
        fuzzy.transpositions = keys.flag("transpositions")?.unwrap_or(true);
        fuzzy.most = keys.whole("max_expansions", usize::MAX)?.unwrap_or(MAX_EXPANSIONS).min(MAX_EXPANSIONS);
    }
    let test = Test::Like { pattern: Like::Fuzzy(value.text, fuzzy), any_case: false, is_normalized: false };
    let node = condition(field, false, test);
    keys.map_or(Ok(node.clone()), |keys| keys.boosted(node))
}
