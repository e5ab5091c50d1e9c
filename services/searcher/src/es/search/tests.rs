//! Aggregations that were made to break things.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::aggregations::Aggregations;
use crate::definition::Definition;
use crate::schema::IndexSchema;

/// The requests of each kind of aggregation, of which a part is replaced.
fn requests() -> Vec<Value> {
    vec![
        json!({"terms": {"field": "a", "size": "10", "order": [{"_count": "desc"}, {"_key": "asc"}]}, "aggs": {"b": {"min": {"field": "c"}}}}),
        json!({"multi_terms": {"terms": [{"field": "a"}, {"field": "b"}]}}),
        json!({"composite": {"sources": [{"x": {"terms": {"field": "a"}}}, {"y": {"date_histogram": {"field": "at", "fixed_interval": "1d"}}}],
            "after": {"x": "v", "y": 5}, "size": 3}}),
        json!({"date_histogram": {"field": "at", "fixed_interval": "1d", "time_zone": "+01:00", "format": "yyyy-MM-dd",
            "extended_bounds": {"min": "now-1d/d", "max": 5}, "offset": "-3h"}}),
        json!({"date_range": {"field": "at", "ranges": [{"from": "now-1d/d", "to": 5, "key": "k"}], "time_zone": "UTC", "keyed": true}}),
        json!({"range": {"field": "a", "ranges": [{"from": 1, "to": "2024-01-01"}]}}),
        json!({"filters": {"filters": {"a": {"match_all": {}}, "b": {"term": {"a": 1}}}}, "aggs": {"m": {"missing": {"field": "x"}}}}),
        json!({"filter": {"term": {"a": 1}}, "meta": {"x": 1}}),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9:+/' .-]{0,10}".prop_map(Value::from),
        "now[+-][0-9]{1,20}[yMwdhms](/[yMwdhms])?".prop_map(Value::from),
        Just(json!({"date": i64::MAX})),
        Just(json!([{"field": "a"}])),
    ]
}

fn replace(json: &mut Value, left: &mut usize, value: &Value) {
    if *left == 0 {
        *json = value.clone();
        *left = usize::MAX;
        return;
    }
    *left = left.saturating_sub(1);
    match json {
        Value::Object(members) => members.values_mut().for_each(|inner| replace(inner, left, value)),
        Value::Array(list) => list.iter_mut().for_each(|inner| replace(inner, left, value)),
        _ => {}
    }
}

proptest! {
    /// Results that do not fit, which a member of another version could send, break nothing either.
    #[test]
    fn aggregations_are_translated_or_refused_and_any_result_is_shown(
        request in proptest::sample::select(requests()), at in 1..25_usize, part in value(), result in value(), is_date: bool,
    ) {
        let mut request = request;
        replace(&mut request, &mut { at }, &part);
        let Ok(read) = Aggregations::read(&json!({ "a": request }), i64::MAX / 2) else { return Ok(()) };
        let definition: Definition = serde_json::from_value(json!({"fields": {"at": {"type": "date"}}})).unwrap();
        let schema = IndexSchema::new(&definition, Arc::new(definition.clone()));
        let _ = read.native(&schema);
        let dates = if is_date { BTreeSet::from(["a".to_owned()]) } else { BTreeSet::new() };
        let bucket = json!({"key": result, "doc_count": 1, "from": result, "value": result, "b": {"value": result}});
        for shown in [result.clone(), json!({"value": result, "min": result}), json!({"buckets": [bucket], "after_key": {"x": result, "y": "dt:5"}}),
            json!({"buckets": {"k": bucket}, "after_key": result}), json!({"values": {"1.0": result}})] {
            let results = [("a".to_owned(), shown.clone()), ("a[0]".to_owned(), shown)];
            let _ = read.shown(results.into_iter().collect(), &schema, &dates);
        }
    }
}
