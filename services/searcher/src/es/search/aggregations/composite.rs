//! The keys of the pages of `composite`: Elasticsearch's are plain values, native ones are texts with their types. Pure.

use serde_json::{Map, Value, json};

use crate::definition::FieldDefinition;
use crate::schema::IndexSchema;

/// Nanoseconds in a millisecond.
const MILLI: i64 = 1_000_000;
/// A date of a field of which only its values say that it has dates.
const DATE: &str = "date";

/// A source of an aggregation: its name, its kind, and its field.
type Source<'a> = (&'a str, &'a str, &'a str);

fn sources(body: &Map<String, Value>) -> impl Iterator<Item = Source<'_>> {
    let sources = body.get("sources").and_then(Value::as_array).into_iter().flatten();
    let named = sources.filter_map(Value::as_object).flatten();
    named.filter_map(|(name, source)| {
        let (kind, source) = source.as_object()?.iter().next()?;
        Some((name.as_str(), kind.as_str(), source.get("field")?.as_str()?))
    })
}

fn is_date(kind: &str, field: &str, schema: &IndexSchema) -> bool {
    kind == "date_histogram" || matches!(schema.definition.fields.get(field), Some(FieldDefinition::Date {}))
}

/// Replaces the values of `after` by native ones. What they can't be is left for the check that follows.
pub(super) fn with_native_after(body: &mut Map<String, Value>, schema: &IndexSchema) {
    let Some(Value::Object(after)) = body.get("after") else { return };
    let mut native = after.clone();
    for (name, kind, field) in sources(body) {
        let Some(value) = native.get_mut(name) else { continue };
        let text = match &*value {
            Value::Null => Some("null:".to_owned()),
            Value::String(text) => Some(format!("str:{text}")),
            Value::Bool(flag) => Some(format!("bool:{flag}")),
            Value::Object(members) => members.get(DATE).and_then(nanos),
            number @ Value::Number(_) if is_date(kind, field, schema) => nanos(number),
            Value::Number(number) if kind == "histogram" => {
                number.as_f64().map(|number| format!("f64:{number}"))
            }
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Some(format!("i64:{number}")),
                (None, Some(number)) => Some(format!("u64:{number}")),
                (None, None) => Some(format!("f64:{number}")),
            },
            Value::Array(_) => None,
        };
        if let Some(text) = text {
            *value = json!(text);
        }
    }
    body.insert("after".to_owned(), Value::Object(native));
}

fn nanos(millis: &Value) -> Option<String> {
    millis.as_i64()?.checked_mul(MILLI).map(|nanos| format!("dt:{nanos}"))
}

/// The key of a page as Elasticsearch shows it. Dates of some sources are plain numbers.
pub(super) fn shown_after(after: &mut Value, plain_dates: &[String]) {
    let Value::Object(after) = after else { return };
    for (name, value) in after {
        let Some((kind, text)) = value.as_str().and_then(|text| text.split_once(':')) else { continue };
        *value = match kind {
            "null" => Value::Null,
            "bool" => json!(text == "true"),
            "i64" => text.parse::<i64>().map_or(Value::Null, Value::from),
            "u64" => text.parse::<u64>().map_or(Value::Null, Value::from),
            "f64" => text.parse::<f64>().map_or(Value::Null, Value::from),
            "dt" => {
                let millis = text.parse::<i64>().map_or(0, |nanos| nanos / MILLI);
                if plain_dates.contains(name) { json!(millis) } else { json!({ DATE: millis }) }
            }
            _ => json!(text),
        };
    }
}

/// The names of the sources whose dates are plain numbers in `after`, since the request says that they are dates.
pub(super) fn plain_dates(body: &Map<String, Value>, schema: &IndexSchema) -> Vec<String> {
    let dates = sources(body).filter(|(_, kind, field)| is_date(kind, field, schema));
    dates.map(|(name, _, _)| name.to_owned()).collect()
}
