//! Aggregations over fields of IP addresses: which there are, and the addresses in their buckets.
//!
//! Addresses are indexed as text, so Tantivy counts them as text; other aggregations would find nothing.

use serde_json::{Map, Value};

use super::{fields_mut, mistake};
use crate::query::QueryError;
use crate::schema::IndexSchema;
use crate::schema::addresses::Address;
use crate::search::request::values_place;

/// The kinds of aggregations over addresses.
const KINDS: [&str; 3] = ["terms", "cardinality", "value_count"];

fn has_addresses(field: &str, schema: &IndexSchema) -> bool {
    values_place(schema, field, "`aggs`").is_ok_and(|place| schema.has_addresses(&place))
}

/// The kind of an aggregation, and the members of its body if one of its fields has addresses.
fn over_addresses<'a>(
    aggregation: &'a Value,
    schema: &IndexSchema,
) -> Option<(&'a str, &'a Map<String, Value>)> {
    let (kind, body) = aggregation.as_object()?.iter().find(|(name, _)| *name != "aggs")?;
    let body = body.as_object()?;
    let has_some = fields_mut(kind, &mut body.clone()).iter().any(|field| has_addresses(field, schema));
    has_some.then_some((kind, body))
}

fn below(aggregation: &Value) -> Option<&Map<String, Value>> {
    aggregation.get("aggs").and_then(Value::as_object)
}

/// Refuses what can't be done with addresses.
pub(super) fn check(above: &str, aggs: &Map<String, Value>, schema: &IndexSchema) -> Result<(), QueryError> {
    for (name, aggregation) in aggs {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        if let Some((kind, body)) = over_addresses(aggregation, schema) {
            if !KINDS.contains(&kind) {
                let hint = format!("over addresses there are {}, and `filter`", KINDS.join(", "));
                let message = format!("`{kind}` is not supported over a field of type ip");
                return Err(mistake(&path, message, Some(hint)));
            }
            if let Some(key) = ["include", "exclude"].into_iter().find(|key| body.contains_key(*key)) {
                let hint = "use a `filter` with a network such as `10.0.0.0/8`".to_owned();
                let message = format!("`{key}` is not supported over a field of type ip");
                return Err(mistake(&path, message, Some(hint)));
            }
            let missing = body.get("missing");
            if missing.is_some_and(|missing| missing.as_str().and_then(Address::parse).is_none()) {
                return Err(mistake(
                    &path,
                    "`missing` is an IP address over a field of type ip".to_owned(),
                    None,
                ));
            }
            if kind == "value_count" && missing.is_some() {
                let message = "`missing` is not supported over a field of type ip".to_owned();
                return Err(mistake(&path, message, None));
            }
        }
        if let Some(below) = below(aggregation) {
            check(&path, below, schema)?;
        }
    }
    Ok(())
}

/// Writes an address in a request as it is indexed.
pub(super) fn to_terms(body: &mut Map<String, Value>) {
    let missing = body.get("missing").and_then(Value::as_str).and_then(Address::parse);
    if let Some(address) = missing {
        body.insert("missing".to_owned(), address.to_term().into());
    }
}

/// Shows the addresses in results, which have them as they are indexed.
pub(super) fn show(aggs: &Map<String, Value>, results: &mut Map<String, Value>, schema: &IndexSchema) {
    for (name, aggregation) in aggs {
        let Some(result) = results.get_mut(name) else { continue };
        let is_counted = over_addresses(aggregation, schema).is_some_and(|(kind, _)| kind == "terms");
        let below = below(aggregation);
        if !is_counted && below.is_none() {
            continue;
        }
        let in_bucket = |bucket: &mut Value| {
            let Value::Object(bucket) = bucket else { return };
            if is_counted && let Some(key) = bucket.get_mut("key") {
                show_one(key);
            }
            if let Some(below) = below {
                show(below, bucket, schema);
            }
        };
        match result.get_mut("buckets") {
            Some(Value::Array(buckets)) => buckets.iter_mut().for_each(in_bucket),
            Some(Value::Object(buckets)) => buckets.values_mut().for_each(in_bucket),
            _ => in_bucket(result),
        }
    }
}

/// Shows the addresses among the values of a facet.
pub(super) fn show_facet(field: &str, values: &mut Value, schema: &IndexSchema) {
    if has_addresses(field, schema) {
        for value in values.as_array_mut().into_iter().flatten() {
            if let Some(value) = value.get_mut("value") {
                show_one(value);
            }
        }
    }
}

/// Documents that are older than the declaration of their field may have other texts there.
fn show_one(key: &mut Value) {
    if let Some(address) = key.as_str().and_then(Address::of_term) {
        *key = address.to_string().into();
    }
}
