//! Aggregations of dates: intervals with a time zone, and ranges with date math. Pure.

use chrono::FixedOffset;
use serde_json::{Map, Value, json};

use crate::es::error::EsError;
use crate::query::dates::{DateReading, Formats, written, zone};

/// The most ranges of an aggregation.
const MAX_RANGES: usize = 100;

/// A range of dates, in milliseconds since 1970, and the query that finds them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DateRange {
    pub(super) key: Option<String>,
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
    pub(super) query: Value,
}

#[derive(Debug)]
pub(super) struct DateRanges {
    /// In the order of their bounds.
    pub(super) ranges: Vec<DateRange>,
    pub(super) is_keyed: bool,
    pub(super) dates: DateReading,
}

/// Whether a `range` has bounds that are dates and no numbers.
pub(super) fn has_dates(body: &Value) -> bool {
    let ranges = body.get("ranges").and_then(Value::as_array).into_iter().flatten();
    let mut bounds = ranges.flat_map(|range| [range.get("from"), range.get("to")]).flatten();
    bounds.any(|bound| bound.as_str().is_some_and(|text| text.parse::<f64>().is_err()))
}

/// How dates are read and written: takes `format` and `time_zone` out of a body.
fn reading(name: &str, body: &mut Map<String, Value>, now: i64) -> Result<DateReading, EsError> {
    let mut dates = DateReading::plain(now);
    let bad = |key: &str, value: &Value, what: &str| {
        EsError::illegal(format!("aggregation [{name}]: [{key}] of [{value}] is not supported: {what}"))
    };
    if let Some(value) = body.remove("format").filter(|value| !value.is_null()) {
        let format = value.as_str().filter(|text| is_written_in_full(text));
        let format = format.ok_or_else(|| bad("format", &value, "use a pattern such as yyyy-MM-dd"))?;
        dates.formats = Formats::parse(format).map_err(|error| bad("format", &value, &error))?;
    }
    if let Some(value) = body.remove("time_zone").filter(|value| !value.is_null()) {
        let found = value.as_str().and_then(|text| zone(text).or_else(|| zone(&text.to_ascii_uppercase())));
        dates.zone = found.ok_or_else(|| bad("time_zone", &value, "use an offset such as +01:00, or UTC"))?;
    }
    Ok(dates)
}

/// Whether a pattern writes every number with all its digits, which is how they are written here.
fn is_written_in_full(format: &str) -> bool {
    let first = format.split("||").next().unwrap_or_default();
    let outside: String = first.split('\'').step_by(2).collect::<Vec<_>>().join("'");
    let is_pattern = outside.contains("yy") || outside.contains("uu") || outside.contains("HH");
    let letters: Vec<char> = outside.chars().collect();
    let is_single = |at: usize| {
        let letter = letters[at];
        "yuMdHms".contains(letter)
            && letters.get(at + 1) != Some(&letter)
            && (at == 0 || letters[at - 1] != letter)
    };
    let is_two_digit_year = outside.contains("yy") && !outside.contains("yyyy");
    !is_pattern || !(is_two_digit_year || (0..letters.len()).any(is_single))
}

/// Makes the body of a `date_histogram` native. Returns how its keys are written.
pub(super) fn histogram(name: &str, body: &mut Map<String, Value>, now: i64) -> Result<DateReading, EsError> {
    let dates = reading(name, body, now)?;
    for bounds in ["extended_bounds", "hard_bounds"] {
        for end in ["min", "max"] {
            let Some(bound) = body.get_mut(bounds).and_then(|bounds| bounds.get_mut(end)) else { continue };
            let Some(text) = bound.as_str() else { continue };
            let read = dates
                .read(text)
                .or_else(|| DateReading { formats: Formats::default(), ..dates.clone() }.read(text));
            let read = read.ok_or_else(|| bad_date(name, bounds, text))?;
            *bound = json!(read.first);
        }
    }
    if body.get("order") == Some(&json!({ "_key": "asc" })) {
        body.remove("order");
    }
    let shift = zone_shift(dates.zone);
    if shift != 0 {
        let interval = body.get("fixed_interval").and_then(Value::as_str).and_then(millis);
        let offset = match body.get("offset") {
            None => Some(0),
            Some(offset) => offset.as_str().and_then(millis),
        };
        // What is wrong with them is said later.
        if let (Some(interval @ 1..), Some(offset)) = (interval, offset) {
            body.insert(
                "offset".to_owned(),
                json!(format!("{}ms", offset.saturating_sub(shift).rem_euclid(interval))),
            );
        }
    }
    Ok(dates)
}

/// How far local time is ahead of UTC, in milliseconds.
fn zone_shift(zone: FixedOffset) -> i64 {
    i64::from(zone.local_minus_utc()) * 1_000
}

/// A duration, perhaps with a sign.
fn millis(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    Some(crate::query::dates::duration(text)? * sign)
}

fn bad_date(name: &str, key: &str, text: &str) -> EsError {
    let text: String = text.chars().take(100).collect();
    EsError::parsing(format!("aggregation [{name}]: failed to parse the date [{text}] of [{key}]"))
}

/// Reads a `date_range`, or a `range` of dates.
pub(super) fn ranges(name: &str, body: &Value, now: i64) -> Result<DateRanges, EsError> {
    let bad = |what: &str| EsError::parsing(format!("aggregation [{name}]: {what}"));
    let mut body =
        body.as_object().cloned().ok_or_else(|| bad("it is an object with [field] and [ranges]"))?;
    let dates = reading(name, &mut body, now)?;
    let known = ["field", "ranges", "keyed"];
    if let Some(key) = body.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(EsError::illegal(format!("aggregation [{name}]: [{key}] is not supported")));
    }
    let field = body.get("field").and_then(Value::as_str).ok_or_else(|| bad("it needs a [field]"))?;
    let is_keyed = match body.get("keyed") {
        None => false,
        Some(keyed) => keyed.as_bool().ok_or_else(|| bad("[keyed] is true or false"))?,
    };
    let ranges = body.get("ranges").and_then(Value::as_array);
    let ranges = ranges.filter(|ranges| (1..=MAX_RANGES).contains(&ranges.len()));
    let ranges =
        ranges.ok_or_else(|| bad("[ranges] is a list of 1 to 100 ranges with [from], [to] and [key]"))?;
    let mut read = Vec::new();
    for range in ranges {
        let range = range.as_object().ok_or_else(|| bad("each of [ranges] is an object"))?;
        if let Some(key) = range.keys().find(|key| !matches!(key.as_str(), "from" | "to" | "key")) {
            return Err(bad(&format!("[ranges] has no [{key}]")));
        }
        let bound = |key: &str| match range.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => {
                let found = dates.read(text).ok_or_else(|| bad_date(name, key, text))?;
                Ok(Some(found.first))
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a float is cut to a whole number of milliseconds"
            )]
            Some(Value::Number(number)) => Ok(number.as_i64().or_else(|| number.as_f64().map(|f| f as i64))),
            Some(_) => Err(bad(&format!("[{key}] is a date"))),
        };
        let (from, to) = (bound("from")?, bound("to")?);
        let key = match range.get("key") {
            None | Some(Value::Null) => None,
            Some(key) => Some(key.as_str().ok_or_else(|| bad("[key] is a text"))?.to_owned()),
        };
        let mut members = Map::new();
        // Formats and date math have been applied.
        for (key, bound) in [("gte", from), ("lt", to)] {
            let Some(bound) = bound else { continue };
            let text = written(bound).ok_or_else(|| bad_date(name, "ranges", &bound.to_string()))?;
            members.insert(key.to_owned(), json!(text));
        }
        let query = match members.is_empty() {
            true => json!({ "exists": { "field": field } }),
            false => json!({ "range": { field: members } }),
        };
        read.push(DateRange { key, from, to, query });
    }
    read.sort_by_key(|range| (range.from.unwrap_or(i64::MIN), range.to.unwrap_or(i64::MAX)));
    Ok(DateRanges { ranges: read, is_keyed, dates })
}

impl DateRange {
    /// Its bounds as a bucket has them, and its key.
    pub(super) fn shown(&self, dates: &DateReading) -> (String, Map<String, Value>) {
        let mut members = Map::new();
        let mut ends = Vec::new();
        for (name, bound) in [("from", self.from), ("to", self.to)] {
            let text = bound.and_then(|bound| dates.write(bound));
            if let Some(bound) = bound {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "Elasticsearch has floating-point numbers here"
                )]
                members.insert(name.to_owned(), json!(bound as f64));
            }
            if let Some(text) = &text {
                members.insert(format!("{name}_as_string"), json!(text));
            }
            ends.push(text.unwrap_or_else(|| "*".to_owned()));
        }
        (self.key.clone().unwrap_or_else(|| ends.join("-")), members)
    }
}
