//! Results of aggregations as Elasticsearch shows them. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Buckets, Shape, Shapes, composite};
use crate::definition::FieldDefinition;
use crate::es::error::EsError;
use crate::query::dates::DateReading;
use crate::schema::IndexSchema;

/// Nanoseconds in a millisecond.
const MILLI: f64 = 1e6;

/// What is known about fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) schema: &'a IndexSchema,
    /// The fields in which only dates were found.
    pub(super) dates: &'a BTreeSet<String>,
}

type Results = Map<String, Value>;

impl Shown<'_> {
    pub(super) fn all(&self, shapes: &Shapes, mut results: Results) -> Result<Results, EsError> {
        let mut all = Map::new();
        for (name, shape) in shapes {
            let mut result = match &shape.buckets {
                None => match results.remove(name) {
                    Some(result) => self.one(name, shape, result)?,
                    None => continue,
                },
                Some(buckets) => self.filters(name, shape, buckets, &mut results)?,
            };
            if let (Some(meta), Value::Object(result)) = (&shape.meta, &mut result) {
                result.insert("meta".to_owned(), meta.clone());
            }
            all.insert(name.clone(), result);
        }
        Ok(all)
    }

    /// Several filters as the buckets of one aggregation.
    fn filters(
        &self,
        name: &str,
        shape: &Shape,
        buckets: &Buckets,
        results: &mut Results,
    ) -> Result<Value, EsError> {
        let mut bucket = |at: usize| -> Result<Results, EsError> {
            let result = results.remove(&format!("{name}[{at}]"));
            let mut bucket = result.unwrap_or_else(|| json!({ "doc_count": 0 }));
            self.bucket(shape, &mut bucket)?;
            Ok(match bucket {
                Value::Object(members) => members,
                _ => Map::new(),
            })
        };
        Ok(match buckets {
            Buckets::Named(names) => {
                let mut named = Map::new();
                for (at, name) in names.iter().enumerate() {
                    named.insert(name.clone(), Value::Object(bucket(at)?));
                }
                json!({ "buckets": named })
            }
            Buckets::Listed(count) => {
                json!({ "buckets": (0..*count).map(&mut bucket).collect::<Result<Vec<_>, _>>()? })
            }
            Buckets::Ranges { ranges, is_keyed } => {
                let (mut named, mut listed) = (Map::new(), Vec::new());
                for (at, range) in ranges.iter().enumerate() {
                    let (key, mut members) = range.shown(&self.reading(shape));
                    members.extend(bucket(at)?);
                    if *is_keyed {
                        named.insert(key, Value::Object(members));
                    } else {
                        members.insert("key".to_owned(), json!(key));
                        listed.push(Value::Object(members));
                    }
                }
                json!({ "buckets": if *is_keyed { Value::Object(named) } else { Value::Array(listed) } })
            }
        })
    }

    fn reading(&self, shape: &Shape) -> DateReading {
        shape.dates.clone().unwrap_or_else(|| DateReading::plain(0))
    }

    fn is_date(&self, field: &str) -> bool {
        matches!(self.schema.definition.fields.get(field), Some(FieldDefinition::Date {}))
            || self.dates.contains(field)
    }

    fn one(&self, name: &str, shape: &Shape, mut result: Value) -> Result<Value, EsError> {
        let field = shape.fields.first().map_or("", String::as_str);
        let is_date = self.is_date(field);
        match shape.kind.as_str() {
            "cardinality" | "value_count" => whole(&mut result, "value"),
            "min" | "max" | "avg" | "sum" | "stats" | "extended_stats" if is_date => {
                self.dates_of(shape, &mut result);
            }
            "percentiles" if is_date => self.percentiles(shape, &mut result),
            "range" if is_date => {
                return Err(EsError::illegal(format!(
                    "aggregation [{name}]: [range] of numbers is not supported for the dates in [{field}]: use [date_range]"
                )));
            }
            "terms" => {
                if let Value::Object(members) = &mut result {
                    members.entry("doc_count_error_upper_bound").or_insert(json!(0));
                }
                let is_float =
                    matches!(self.schema.definition.fields.get(field), Some(FieldDefinition::F64 {}));
                self.each_bucket(&mut result, |bucket| {
                    if is_date {
                        self.date_term(shape, bucket);
                    } else if let Some(number) =
                        bucket.get("key").and_then(Value::as_f64).filter(|_| is_float)
                    {
                        bucket.insert("key".to_owned(), json!(number));
                    }
                });
            }
            "histogram" | "date_histogram" if is_date || shape.kind == "date_histogram" => {
                self.date_buckets(shape, &mut result);
            }
            "multi_terms" => {
                self.each_bucket(&mut result, |bucket| self.several_terms(shape, bucket));
            }
            "composite" => {
                if let (Some(after), Some(body)) = (result.get_mut("after_key"), &shape.composite) {
                    let dates = composite::plain_dates(body, self.schema);
                    composite::shown_after(after, &dates);
                }
            }
            _ => {}
        }
        if shape.below.is_empty() {
            return Ok(result);
        }
        match result.get_mut("buckets") {
            Some(Value::Array(buckets)) => {
                buckets.iter_mut().try_for_each(|bucket| self.bucket(shape, bucket))?;
            }
            Some(Value::Object(buckets)) => {
                buckets.values_mut().try_for_each(|bucket| self.bucket(shape, bucket))?;
            }
            _ => self.bucket(shape, &mut result)?,
        }
        Ok(result)
    }

    /// The results within a bucket.
    fn bucket(&self, shape: &Shape, bucket: &mut Value) -> Result<(), EsError> {
        if shape.below.is_empty() {
            return Ok(());
        }
        let Value::Object(members) = bucket else { return Ok(()) };
        let is_own = |key: &str| {
            matches!(
                key,
                "key"
                    | "key_as_string"
                    | "doc_count"
                    | "from"
                    | "to"
                    | "from_as_string"
                    | "to_as_string"
                    | "doc_count_error_upper_bound"
            )
        };
        let below = self.all(&shape.below, members.clone())?;
        members.retain(|key, _| is_own(key) && !below.contains_key(key));
        members.extend(below);
        Ok(())
    }

    fn each_bucket(&self, result: &mut Value, change: impl Fn(&mut Results)) {
        match result.get_mut("buckets") {
            Some(Value::Array(buckets)) => {
                buckets.iter_mut().filter_map(Value::as_object_mut).for_each(change);
            }
            Some(Value::Object(buckets)) => {
                buckets.values_mut().filter_map(Value::as_object_mut).for_each(change);
            }
            _ => {}
        }
    }

    /// Dates are in nanoseconds in native results, and in milliseconds with a text beside them in Elasticsearch's.
    fn dates_of(&self, shape: &Shape, result: &mut Value) {
        let Value::Object(members) = result else { return };
        let squares = ["sum_of_squares", "variance", "variance_population", "variance_sampling"];
        let widths = ["std_deviation", "std_deviation_population", "std_deviation_sampling"];
        for (names, unit) in [(&squares[..], MILLI * MILLI), (&widths[..], MILLI)] {
            for name in names {
                if let Some(number) = members.get(*name).and_then(Value::as_f64) {
                    members.insert((*name).to_owned(), json!(number / unit));
                }
            }
        }
        if let Some(Value::Object(bounds)) = members.get_mut("std_deviation_bounds") {
            for bound in bounds.values_mut() {
                *bound = bound.as_f64().map_or(Value::Null, |number| json!(number / MILLI));
            }
        }
        for name in ["value", "min", "max", "avg", "sum"] {
            let Some(nanos) = members.get(name).and_then(Value::as_f64) else { continue };
            let is_exact = matches!((name, shape.kind.as_str()), ("min" | "max", _) | (_, "min" | "max"));
            // Nanoseconds have lost digits as floating-point numbers.
            let millis = if is_exact { (nanos / MILLI).round() } else { nanos / MILLI };
            members.insert(name.to_owned(), json!(millis));
            if let Some(text) = self.written(shape, millis) {
                members.insert(format!("{name}_as_string"), json!(text));
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a number that is no date is not written")]
    fn written(&self, shape: &Shape, millis: f64) -> Option<String> {
        self.reading(shape).write(millis.round() as i64)
    }

    fn percentiles(&self, shape: &Shape, result: &mut Value) {
        match result.get_mut("values") {
            Some(Value::Object(values)) => {
                for (name, value) in std::mem::take(values) {
                    let millis = value.as_f64().map(|nanos| (nanos / MILLI).round());
                    let text = millis.and_then(|millis| self.written(shape, millis));
                    values.insert(name.clone(), millis.map_or(value, |millis| json!(millis)));
                    values.extend(text.map(|text| (format!("{name}_as_string"), json!(text))));
                }
            }
            Some(Value::Array(values)) => {
                for value in values.iter_mut().filter_map(Value::as_object_mut) {
                    let millis =
                        value.get("value").and_then(Value::as_f64).map(|nanos| (nanos / MILLI).round());
                    let Some(millis) = millis else { continue };
                    value.insert("value".to_owned(), json!(millis));
                    let text = self.written(shape, millis);
                    value.extend(text.map(|text| ("value_as_string".to_owned(), json!(text))));
                }
            }
            _ => {}
        }
    }

    /// A bucket of `terms` whose key is the text of a date.
    fn date_term(&self, shape: &Shape, bucket: &mut Results) {
        let read = |text: &str| DateReading::plain(0).read(text);
        let Some(span) = bucket.get("key").and_then(Value::as_str).and_then(read) else { return };
        bucket.insert("key".to_owned(), json!(span.first));
        let text = self.reading(shape).write(span.first);
        bucket.extend(text.map(|text| ("key_as_string".to_owned(), json!(text))));
    }

    /// The buckets of a histogram of dates, whose keys are milliseconds.
    fn date_buckets(&self, shape: &Shape, result: &mut Value) {
        self.each_bucket(result, |bucket| {
            let Some(millis) = bucket.get("key").and_then(Value::as_f64) else { return };
            let text = self.written(shape, millis);
            if shape.kind == "date_histogram" {
                #[expect(clippy::cast_possible_truncation, reason = "milliseconds are whole numbers")]
                bucket.insert("key".to_owned(), json!(millis as i64));
            }
            bucket.extend(text.map(|text| ("key_as_string".to_owned(), json!(text))));
        });
        if let Some(Value::Object(buckets)) = result.get_mut("buckets") {
            let named = std::mem::take(buckets).into_iter().map(|(name, bucket)| {
                let key = bucket.get("key_as_string").and_then(Value::as_str).map(str::to_owned);
                (key.unwrap_or(name), bucket)
            });
            buckets.extend(named);
        }
    }

    /// A bucket of `multi_terms`: dates are texts.
    fn several_terms(&self, shape: &Shape, bucket: &mut Results) {
        let Some(Value::Array(keys)) = bucket.get_mut("key") else { return };
        let mut has_dates = false;
        for (key, _) in keys.iter_mut().zip(&shape.fields).filter(|(_, field)| self.is_date(field)) {
            let span = key.as_str().and_then(|text| DateReading::plain(0).read(text));
            let Some(text) = span.and_then(|span| self.reading(shape).write(span.first)) else { continue };
            *key = json!(text);
            has_dates = true;
        }
        if has_dates {
            let texts = keys.iter().map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned));
            let joined = texts.collect::<Vec<_>>().join("|");
            bucket.insert("key_as_string".to_owned(), json!(joined));
        }
    }
}

/// Makes a number that counts a whole one.
fn whole(result: &mut Value, name: &str) {
    if let Some(number) = result.get(name).and_then(Value::as_f64).filter(|number| *number >= 0.0) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a count")]
        let number = number.round() as u64;
        result[name] = json!(number);
    }
}
