//! The aggregations that there are, and their keys.

use serde_json::Value;

use super::MAX_BUCKETS;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Text,
    Flag,
    /// A number, perhaps as text.
    Number,
    /// A number above 0, perhaps as text.
    Positive,
    /// How many buckets are wanted.
    Buckets,
    Whole,
    Order,
    /// A text (a regular expression) or texts.
    Texts,
    Value,
    Ranges,
    Bounds,
    Percents,
    List,
    Object,
    OneOf(&'static [&'static str]),
}

impl Takes {
    pub(super) fn accepts(self, value: &Value) -> bool {
        let number = |value: &Value| match value {
            Value::String(text) => text.parse::<f64>().ok().filter(|number| number.is_finite()),
            value => value.as_f64(),
        };
        let has_only = |value: &Value, keys: &[&str]| {
            value.as_object().is_some_and(|object| object.keys().all(|key| keys.contains(&key.as_str())))
        };
        match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Number => number(value).is_some(),
            Self::Positive => number(value).is_some_and(|number| number > 0.0),
            Self::Buckets => value.as_u64().is_some_and(|count| (1..=MAX_BUCKETS.into()).contains(&count)),
            Self::Whole => value.as_u64().is_some(),
            Self::Order => value.as_object().is_some_and(|order| {
                order.len() == 1
                    && order.values().all(|direction| matches!(direction.as_str(), Some("asc" | "desc")))
            }),
            Self::Texts => {
                value.is_string() || value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string))
            }
            Self::Value => value.is_string() || value.is_number(),
            Self::Ranges => value.as_array().is_some_and(|ranges| {
                let is_range = |range: &Value| {
                    has_only(range, &["key", "from", "to"])
                        && range.get("key").is_none_or(Value::is_string)
                        && ["from", "to"]
                            .iter()
                            .all(|end| range.get(end).is_none_or(|end| number(end).is_some()))
                };
                (1..=1_000).contains(&ranges.len()) && ranges.iter().all(is_range)
            }),
            Self::Bounds => {
                has_only(value, &["min", "max"])
                    && ["min", "max"]
                        .iter()
                        .all(|end| value.get(end).is_some_and(|end| end.is_number() || end.is_string()))
            }
            Self::Percents => value.as_array().is_some_and(|percents| {
                let is_percent =
                    |value: &Value| value.as_f64().is_some_and(|value| (0.0..=100.0).contains(&value));
                (1..=100).contains(&percents.len()) && percents.iter().all(is_percent)
            }),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
            Self::OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
        }
    }

    pub(super) fn what(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Positive => "a number above 0".to_owned(),
            Self::Buckets => format!("a whole number from 1 to {MAX_BUCKETS}"),
            Self::Whole => "a whole number".to_owned(),
            Self::Order => "an object such as {\"_count\": \"desc\"} or {\"_key\": \"asc\"}".to_owned(),
            Self::Texts => "a regular expression or a list of texts".to_owned(),
            Self::Value => "text or a number".to_owned(),
            Self::Ranges => "a list of 1 to 1000 objects with `from`, `to` and `key`".to_owned(),
            Self::Bounds => "an object with `min` and `max`".to_owned(),
            Self::Percents => "a list of 1 to 100 numbers from 0 to 100".to_owned(),
            Self::List => "a list".to_owned(),
            Self::Object => "an object".to_owned(),
            Self::OneOf(texts) => format!("one of {}", texts.join(", ")),
        }
    }
}

/// A key of an aggregation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
}

/// The keys of an aggregation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) known: &'static [Key],
    pub(super) has_buckets: bool,
}

/// The aggregations that there are.
pub(super) const KINDS: [&str; 16] = [
    "terms",
    "multi_terms",
    "composite",
    "range",
    "histogram",
    "date_histogram",
    "filter",
    "avg",
    "min",
    "max",
    "sum",
    "stats",
    "extended_stats",
    "value_count",
    "cardinality",
    "percentiles",
];

/// Aggregations of Tantivy or Elasticsearch that are not offered.
pub(super) const REFUSED_KINDS: [&str; 43] = [
    "adjacency_matrix",
    "auto_date_histogram",
    "boxplot",
    "bucket_sort",
    "categorize_text",
    "children",
    "date_range",
    "diversified_sampler",
    "filters",
    "geo_bounds",
    "geo_centroid",
    "geo_distance",
    "geo_line",
    "geohash_grid",
    "geohex_grid",
    "geotile_grid",
    "cartesian_bounds",
    "cartesian_centroid",
    "frequent_item_sets",
    "global",
    "ip_prefix",
    "ip_range",
    "matrix_stats",
    "median_absolute_deviation",
    "missing",
    "nested",
    "parent",
    "percentile_ranks",
    "random_sampler",
    "rare_terms",
    "rate",
    "reverse_nested",
    "sampler",
    "scripted_metric",
    "significant_terms",
    "significant_text",
    "string_stats",
    "t_test",
    "time_series",
    "top_hits",
    "top_metrics",
    "variable_width_histogram",
    "weighted_avg",
];

/// Where documents without a value are in the order of a source.
pub(super) const MISSING_ORDERS: [&str; 3] = ["first", "last", "default"];

/// Keys that are refused by name, with what to use instead.
pub(super) const REFUSED_KEYS: [(&str, &str); 5] = [
    ("calendar_interval", "use `fixed_interval`, such as \"30d\""),
    ("interval_unit", "use `fixed_interval`, such as \"30d\""),
    ("script", "leave it out"),
    ("format", "leave it out: dates are RFC 3339"),
    ("time_zone", "leave it out: dates are UTC; `offset` shifts the buckets"),
];

const fn key(name: &'static str, takes: Takes) -> Key {
    Key { name, takes }
}

const FIELD: Key = key("field", Takes::Text);
const KEYED: Key = key("keyed", Takes::Flag);
const MISSING: Key = key("missing", Takes::Number);

const TERMS: &[Key] = &[
    FIELD,
    key("size", Takes::Buckets),
    key("segment_size", Takes::Buckets),
    key("shard_size", Takes::Buckets),
    key("show_term_doc_count_error", Takes::Flag),
    key("min_doc_count", Takes::Whole),
    key("order", Takes::Order),
    key("missing", Takes::Value),
    key("include", Takes::Texts),
    key("exclude", Takes::Texts),
];
const MULTI_TERMS: &[Key] = &[
    key("terms", Takes::List),
    key("size", Takes::Buckets),
    key("segment_size", Takes::Buckets),
    key("shard_size", Takes::Buckets),
    key("show_term_doc_count_error", Takes::Flag),
    key("min_doc_count", Takes::Whole),
    key("order", Takes::Order),
];
const COMPOSITE: &[Key] =
    &[key("sources", Takes::List), key("size", Takes::Buckets), key("after", Takes::Object)];
const RANGE: &[Key] = &[FIELD, key("ranges", Takes::Ranges), KEYED];
const HISTOGRAM: &[Key] = &[
    FIELD,
    key("interval", Takes::Positive),
    key("offset", Takes::Number),
    key("min_doc_count", Takes::Whole),
    key("hard_bounds", Takes::Bounds),
    key("extended_bounds", Takes::Bounds),
    KEYED,
];
const DATE_HISTOGRAM: &[Key] = &[
    FIELD,
    key("fixed_interval", Takes::Text),
    key("offset", Takes::Text),
    key("min_doc_count", Takes::Whole),
    key("hard_bounds", Takes::Bounds),
    key("extended_bounds", Takes::Bounds),
    KEYED,
];
const METRIC: &[Key] = &[FIELD, MISSING];
const EXTENDED_STATS: &[Key] = &[FIELD, MISSING, key("sigma", Takes::Number)];
const CARDINALITY: &[Key] = &[FIELD, key("missing", Takes::Value)];
const PERCENTILES: &[Key] = &[FIELD, MISSING, key("percents", Takes::Percents), KEYED];

/// The keys of an aggregation, if there is such a one.
pub(super) fn of(kind: &str) -> Option<Keys> {
    let (known, has_buckets) = match kind {
        "terms" => (TERMS, true),
        "multi_terms" => (MULTI_TERMS, true),
        "composite" => (COMPOSITE, true),
        "range" => (RANGE, true),
        "histogram" => (HISTOGRAM, true),
        "date_histogram" => (DATE_HISTOGRAM, true),
        "filter" => (&[][..], true),
        "avg" | "min" | "max" | "sum" | "stats" | "value_count" => (METRIC, false),
        "extended_stats" => (EXTENDED_STATS, false),
        "cardinality" => (CARDINALITY, false),
        "percentiles" => (PERCENTILES, false),
        _ => return None,
    };
    Some(Keys { known, has_buckets })
}
