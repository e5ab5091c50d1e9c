//! Aggregations in Elasticsearch's form become native ones, and their results become Elasticsearch's. Pure.
//!
//! `filter`, `filters`, `missing` and ranges of dates become native filters, whose queries travel apart. `meta` is put back
//! into the results.

mod composite;
mod dates;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::es::dsl;
use crate::es::error::EsError;
use crate::query::condition::base_of_keyword;
use crate::query::dates::DateReading;
use crate::schema::IndexSchema;
use crate::search::fields_mut;
use dates::DateRange;

/// Keys that choose how a result is computed, and not the result.
const HINTS: [&str; 5] = ["execution_hint", "collect_mode", "precision_threshold", "tdigest", "rewrite"];

/// Aggregations of other aggregations.
const PIPELINES: [&str; 24] = [
    "avg_bucket",
    "bucket_correlation",
    "bucket_count_ks_test",
    "bucket_script",
    "bucket_selector",
    "bucket_sort",
    "change_point",
    "cumulative_cardinality",
    "cumulative_sum",
    "derivative",
    "extended_stats_bucket",
    "inference",
    "max_bucket",
    "min_bucket",
    "moving_avg",
    "moving_fn",
    "moving_percentiles",
    "normalize",
    "percentiles_bucket",
    "serial_diff",
    "stats_bucket",
    "sum_bucket",
    "random_sampler",
    "frequent_item_sets",
];

/// The deepest nesting that is translated; native searches allow less.
const MAX_DEPTH: usize = 16;

/// Translated aggregations.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Aggregations {
    native: Map<String, Value>,
    /// The queries in them, as JSON texts.
    pub(super) filters: Vec<String>,
    shapes: Shapes,
}

type Shapes = BTreeMap<String, Shape>;

/// What becomes of a result.
#[derive(Debug, Clone, PartialEq, Default)]
struct Shape {
    kind: String,
    meta: Option<Value>,
    /// The buckets of what was translated to several filters.
    buckets: Option<Buckets>,
    /// The fields whose values are in the result.
    fields: Vec<String>,
    /// How dates are written, if not in the default format in UTC.
    dates: Option<DateReading>,
    /// The request of a `composite`.
    composite: Option<Map<String, Value>>,
    below: Shapes,
}

/// Buckets of which each is a filter.
#[derive(Debug, Clone, PartialEq)]
enum Buckets {
    Named(Vec<String>),
    Listed(usize),
    Ranges { ranges: Vec<DateRange>, is_keyed: bool },
}

impl Aggregations {
    pub(super) fn read(aggregations: &Value, now: i64) -> Result<Self, EsError> {
        let mut found = Self::default();
        let (native, shapes) = all(aggregations, 1, now, &mut found.filters)?;
        (found.native, found.shapes) = (native, shapes);
        Ok(found)
    }

    /// In the form of native searches, with the names of an index's fields.
    pub(super) fn native(&self, schema: &IndexSchema) -> Value {
        let mut native = Value::Object(self.native.clone());
        with_fields(&mut native, schema);
        native
    }

    /// Results as Elasticsearch shows them. `dates` are the fields in which only dates were found.
    pub(super) fn shown(
        &self,
        results: Map<String, Value>,
        schema: &IndexSchema,
        dates: &BTreeSet<String>,
    ) -> Result<Map<String, Value>, EsError> {
        shown::Shown { schema, dates }.all(&self.shapes, results)
    }
}

fn all(
    aggregations: &Value,
    depth: usize,
    now: i64,
    filters: &mut Vec<String>,
) -> Result<(Map<String, Value>, Shapes), EsError> {
    let Value::Object(members) = aggregations else {
        return Err(EsError::parsing("[aggs] is an object of aggregations by name"));
    };
    if depth > MAX_DEPTH {
        return Err(EsError::illegal("[aggs] are nested too deep"));
    }
    let (mut native, mut shapes) = (Map::new(), Shapes::new());
    for (name, aggregation) in members {
        if name.is_empty() || name.contains(['[', ']', '>']) {
            let reason = format!(
                "Invalid aggregation name [{name}]. Aggregation names can't contain '[', ']' and '>'"
            );
            return Err(EsError::parsing(reason));
        }
        let shape = one(name, aggregation, depth, now, filters, &mut native)?;
        shapes.insert(name.clone(), shape);
    }
    Ok((native, shapes))
}

/// Translates one aggregation, which may become several.
fn one(
    name: &str,
    aggregation: &Value,
    depth: usize,
    now: i64,
    filters: &mut Vec<String>,
    native: &mut Map<String, Value>,
) -> Result<Shape, EsError> {
    let Value::Object(members) = aggregation else {
        return Err(EsError::parsing(format!("aggregation [{name}] is an object")));
    };
    let is_kind = |key: &str| !matches!(key, "aggs" | "aggregations" | "meta");
    let mut kinds = members.iter().filter(|(key, _)| is_kind(key));
    let (Some((kind, body)), None) = (kinds.next(), kinds.next()) else {
        return Err(EsError::parsing(format!("aggregation [{name}] has exactly one type")));
    };
    if PIPELINES.contains(&kind.as_str()) {
        return Err(EsError::illegal(format!(
            "aggregation [{name}]: [{kind}] is not supported: there are no pipeline aggregations"
        )));
    }
    let below = match (members.get("aggs"), members.get("aggregations")) {
        (Some(_), Some(_)) => return Err(EsError::parsing(format!("aggregation [{name}] has [aggs] twice"))),
        (below, other) => below.or(other),
    };
    let mut shape = Shape { kind: kind.clone(), meta: members.get("meta").cloned(), ..Shape::default() };
    let mut put = |name: String, kind: &str, body: Value, filters: &mut Vec<String>| {
        let mut translated = Map::from_iter([(kind.to_owned(), body)]);
        if let Some(below) = below {
            let (below, shapes) = all(below, depth + 1, now, filters)?;
            shape.below = shapes;
            translated.insert("aggs".to_owned(), Value::Object(below));
        }
        native.insert(name, Value::Object(translated));
        Ok::<_, EsError>(())
    };
    let filter = |query: &Value, filters: &mut Vec<String>| {
        dsl::parse(query, now)
            .map_err(|error| dsl::DslError { reason: format!("aggregation [{name}]: {error}"), ..error })?;
        filters.push(query.to_string());
        Ok::<_, EsError>(json!(filters.len() - 1))
    };
    match kind.as_str() {
        "filter" => {
            let number = filter(body, filters)?;
            put(name.to_owned(), "filter", number, filters)?;
        }
        "missing" => {
            let query = json!({ "bool": { "must_not": { "exists": body } } });
            let number = filter(&query, filters)?;
            put(name.to_owned(), "filter", number, filters)?;
        }
        "filters" => {
            let queries: Vec<(Option<String>, &Value)> = match body.get("filters") {
                Some(Value::Object(named)) => {
                    named.iter().map(|(key, query)| (Some(key.clone()), query)).collect()
                }
                Some(Value::Array(list)) => list.iter().map(|query| (None, query)).collect(),
                _ => return Err(EsError::parsing(format!("aggregation [{name}] needs [filters]"))),
            };
            if let Some(key) = body.as_object().and_then(|body| body.keys().find(|key| *key != "filters")) {
                return Err(EsError::illegal(format!("aggregation [{name}]: [{key}] is not supported")));
            }
            let mut keys = Vec::new();
            for (at, (key, query)) in queries.iter().enumerate() {
                let number = filter(query, filters)?;
                put(format!("{name}[{at}]"), "filter", number, filters)?;
                keys.extend(key.clone());
            }
            let is_named = keys.len() == queries.len() && !keys.is_empty();
            shape.buckets =
                Some(if is_named { Buckets::Named(keys) } else { Buckets::Listed(queries.len()) });
        }
        "date_range" | "range" if kind == "date_range" || dates::has_dates(body) => {
            let ranges = dates::ranges(name, body, now)?;
            for (at, range) in ranges.ranges.iter().enumerate() {
                let number = filter(&range.query, filters)?;
                put(format!("{name}[{at}]"), "filter", number, filters)?;
            }
            shape.dates = Some(ranges.dates);
            shape.buckets = Some(Buckets::Ranges { ranges: ranges.ranges, is_keyed: ranges.is_keyed });
        }
        "date_histogram" => {
            let mut body = plain(name, body)?;
            shape.dates = Some(dates::histogram(name, &mut body, now)?);
            put(name.to_owned(), kind, Value::Object(body), filters)?;
        }
        kind => put(name.to_owned(), kind, Value::Object(plain(name, body)?), filters)?,
    }
    let mut body = body.as_object().cloned().unwrap_or_default();
    shape.composite = (kind == "composite").then(|| body.clone());
    shape.fields = fields_mut(kind, &mut body).into_iter().map(std::mem::take).collect();
    Ok(shape)
}

/// A body without hints, and with the order in one form.
fn plain(name: &str, body: &Value) -> Result<Map<String, Value>, EsError> {
    let Value::Object(members) = body else {
        return Err(EsError::parsing(format!(
            "aggregation [{name}] is an object with a type that is one, too"
        )));
    };
    let mut plain = members.clone();
    plain.retain(|key, value| !HINTS.contains(&key.as_str()) && !value.is_null());
    if let Some(Value::Array(orders)) = plain.get("order").cloned() {
        match orders.as_slice() {
            // What comes second is always the key, ascending.
            [order] => plain.insert("order".to_owned(), order.clone()),
            [order, last] if *last == json!({ "_key": "asc" }) => {
                plain.insert("order".to_owned(), order.clone())
            }
            _ => return Err(EsError::illegal(format!("aggregation [{name}]: [order] is one key"))),
        };
    }
    // Some clients send numbers as texts.
    for count in ["size", "shard_size", "min_doc_count"] {
        let number = plain.get(count).and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
        if let Some(number) = number {
            plain.insert(count.to_owned(), json!(number));
        }
    }
    Ok(plain)
}

/// Replaces the names of fields by those that the index has, and keys of pages by native ones.
fn with_fields(aggregations: &mut Value, schema: &IndexSchema) {
    let Value::Object(members) = aggregations else { return };
    for aggregation in members.values_mut() {
        let Value::Object(parts) = aggregation else { continue };
        for (part, body) in parts {
            if part == "aggs" {
                with_fields(body, schema);
            } else if let Value::Object(body) = body {
                if part == "composite" {
                    composite::with_native_after(body, schema);
                }
                for field in fields_mut(part, body) {
                    if let Some(base) = base_of_keyword(field, schema) {
                        *field = base.to_owned();
                    } else if field == "_seq_no" {
                        "_seq".clone_into(field);
                    }
                }
            }
        }
    }
}
