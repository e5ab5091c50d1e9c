//! Aggregations in Elasticsearch's form become native ones, and their results become Elasticsearch's. Pure.
//!
//! `filter`, `filters` and `missing` become native filters, whose queries travel apart. `meta` is put back into the results.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::definition::FieldDefinition;
use crate::es::dsl;
use crate::es::error::EsError;
use crate::query::condition::base_of_keyword;
use crate::query::dates::written;
use crate::schema::IndexSchema;

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
    meta: Option<Value>,
    /// The keys of the buckets of `filters`, which have none in a list.
    filters: Option<Vec<Option<String>>>,
    /// The kind and the field of a number that may be a date.
    number: Option<(String, String)>,
    below: Shapes,
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

    /// Results as Elasticsearch shows them.
    pub(super) fn shown(&self, results: Map<String, Value>, schema: &IndexSchema) -> Map<String, Value> {
        shown(&self.shapes, results, schema)
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
    let mut shape = Shape { meta: members.get("meta").cloned(), ..Shape::default() };
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
            for (at, (key, query)) in queries.into_iter().enumerate() {
                let number = filter(query, filters)?;
                put(format!("{name}[{at}]"), "filter", number, filters)?;
                keys.push(key);
            }
            shape.filters = Some(keys);
        }
        kind => put(name.to_owned(), kind, plain(name, body)?, filters)?,
    }
    if matches!(kind.as_str(), "min" | "max" | "avg" | "stats") {
        let field = body.get("field").and_then(Value::as_str);
        shape.number = field.map(|field| (kind.clone(), field.to_owned()));
    }
    Ok(shape)
}

/// A body without hints, and with the order in one form.
fn plain(name: &str, body: &Value) -> Result<Value, EsError> {
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
    if plain
        .get("time_zone")
        .and_then(Value::as_str)
        .is_some_and(|zone| matches!(zone, "UTC" | "Z" | "+00:00"))
    {
        plain.remove("time_zone");
    }
    Ok(Value::Object(plain))
}

/// Replaces the names of fields by those that the index has.
fn with_fields(aggregations: &mut Value, schema: &IndexSchema) {
    let Value::Object(members) = aggregations else { return };
    for aggregation in members.values_mut() {
        let Value::Object(parts) = aggregation else { continue };
        for (part, body) in parts {
            if part == "aggs" {
                with_fields(body, schema);
            } else if let Some(Value::String(field)) = body.get_mut("field") {
                if let Some(base) = base_of_keyword(field, schema) {
                    *field = base.to_owned();
                } else if field == "_seq_no" {
                    "_seq".clone_into(field);
                }
            }
        }
    }
}

fn shown(shapes: &Shapes, mut results: Map<String, Value>, schema: &IndexSchema) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, shape) in shapes {
        let mut result = match &shape.filters {
            None => match results.remove(name) {
                Some(result) => inner(shape, result, schema),
                None => continue,
            },
            Some(keys) => {
                let buckets = keys.iter().enumerate().map(|(at, key)| {
                    let result =
                        results.remove(&format!("{name}[{at}]")).unwrap_or_else(|| json!({ "doc_count": 0 }));
                    (key.clone(), inner(shape, result, schema))
                });
                let buckets: Vec<_> = buckets.collect();
                match buckets.first() {
                    Some((None, _)) => {
                        json!({ "buckets": buckets.into_iter().map(|(_, bucket)| bucket).collect::<Vec<_>>() })
                    }
                    _ => {
                        let named = buckets.into_iter().filter_map(|(key, bucket)| Some((key?, bucket)));
                        json!({ "buckets": named.collect::<Map<_, _>>() })
                    }
                }
            }
        };
        if let (Some(meta), Value::Object(result)) = (&shape.meta, &mut result) {
            result.insert("meta".to_owned(), meta.clone());
        }
        all.insert(name.clone(), result);
    }
    all
}

/// Dates are in nanoseconds in native results, and in milliseconds with a text beside them in Elasticsearch's.
fn in_millis(result: &mut Value) {
    let Value::Object(members) = result else { return };
    for name in ["value", "min", "max", "avg", "sum"] {
        let Some(nanos) = members.get(name).and_then(Value::as_f64) else { continue };
        let millis = nanos / 1e6;
        members.insert(name.to_owned(), json!(millis));
        #[expect(clippy::cast_possible_truncation, reason = "it was the date of a document")]
        if let Some(text) = written(millis as i64).filter(|_| name != "sum") {
            members.insert(format!("{name}_as_string"), json!(text));
        }
    }
}

/// A result whose buckets have results.
fn inner(shape: &Shape, mut result: Value, schema: &IndexSchema) -> Value {
    if let Some((_, field)) = &shape.number
        && matches!(schema.definition.fields.get(field), Some(FieldDefinition::Date {}))
    {
        in_millis(&mut result);
    }
    if shape.below.is_empty() {
        return result;
    }
    let Value::Object(mut members) = result else { return result };
    match members.get_mut("buckets") {
        Some(Value::Array(buckets)) => buckets.iter_mut().for_each(|bucket| in_bucket(shape, bucket, schema)),
        Some(Value::Object(buckets)) => {
            buckets.values_mut().for_each(|bucket| in_bucket(shape, bucket, schema));
        }
        _ => {
            let mut bucket = Value::Object(members);
            in_bucket(shape, &mut bucket, schema);
            return bucket;
        }
    }
    Value::Object(members)
}

fn in_bucket(shape: &Shape, bucket: &mut Value, schema: &IndexSchema) {
    let Value::Object(members) = bucket else { return };
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
    let results: Map<String, Value> = members.clone();
    let below = shown(&shape.below, results, schema);
    members.retain(|key, _| is_own(key) && !below.contains_key(key));
    members.extend(below);
}
