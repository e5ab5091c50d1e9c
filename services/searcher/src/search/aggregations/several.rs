//! Aggregations over several fields: `multi_terms` and `composite`. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::keys::{MISSING_ORDERS, Takes};
use super::run::milliseconds;

/// The most fields of one aggregation.
const MAX_FIELDS: usize = 16;
/// How many buckets a `composite` returns unless it says so, as in Elasticsearch.
const SIZE: u64 = 10;

/// Whether an aggregation is over several fields.
pub(super) fn is_several(kind: &str) -> bool {
    matches!(kind, "multi_terms" | "composite")
}

/// The fields in the body of an aggregation, in order. There are none where its form is wrong.
pub(crate) fn fields_mut<'a>(kind: &str, body: &'a mut Map<String, Value>) -> Vec<&'a mut String> {
    let text = |value: &'a mut Value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    let field = |value: &'a mut Value| value.get_mut("field").and_then(text);
    let list = |value: Option<&'a mut Value>| value.and_then(Value::as_array_mut).into_iter().flatten();
    match kind {
        "multi_terms" => list(body.get_mut("terms")).filter_map(field).collect(),
        "composite" => list(body.get_mut("sources"))
            .filter_map(Value::as_object_mut)
            .flat_map(Map::values_mut)
            .filter_map(Value::as_object_mut)
            .flat_map(Map::values_mut)
            .filter_map(field)
            .collect(),
        _ => body.get_mut("field").and_then(text).into_iter().collect(),
    }
}

/// Checks what the table of keys does not: each field, and what belongs to it.
pub(super) fn check(kind: &str, body: &Map<String, Value>) -> Result<(), String> {
    match kind {
        "multi_terms" => check_terms(body.get("terms")),
        _ => check_composite(body),
    }
}

/// The body as Tantivy takes it.
pub(super) fn completed(kind: &str, body: &Map<String, Value>) -> Map<String, Value> {
    let mut body = body.clone();
    if kind == "composite" {
        body.entry("size").or_insert_with(|| json!(SIZE));
    }
    body
}

fn check_terms(terms: Option<&Value>) -> Result<(), String> {
    let terms = terms.and_then(Value::as_array).filter(|terms| (2..=MAX_FIELDS).contains(&terms.len()));
    let terms =
        terms.ok_or_else(|| format!("`multi_terms` needs `terms`, a list of 2 to {MAX_FIELDS} fields"))?;
    for term in terms {
        let term = term.as_object().ok_or("`terms` is a list of objects with a `field`")?;
        has_field(term, "terms")?;
        known(term, "terms", &[("missing", Takes::Value)])?;
    }
    Ok(())
}

fn check_composite(body: &Map<String, Value>) -> Result<(), String> {
    let sources = body.get("sources").and_then(Value::as_array);
    let sources = sources.filter(|sources| (1..=MAX_FIELDS).contains(&sources.len()));
    let sources =
        sources.ok_or_else(|| format!("`composite` needs `sources`, a list of 1 to {MAX_FIELDS} sources"))?;
    let mut names = BTreeSet::new();
    for source in sources {
        let one = "each of `sources` is an object with a name, and below it a kind such as `terms`";
        let (name, source) = only(source).ok_or(one)?;
        if !names.insert(name) {
            return Err(format!("two of `sources` have the name `{name}`"));
        }
        let (kind, source) = only(source).ok_or(one)?;
        let source = source.as_object().ok_or(one)?;
        has_field(source, name)?;
        let common = [
            ("order", Takes::OneOf(&["asc", "desc"])),
            ("missing_bucket", Takes::Flag),
            ("missing_order", Takes::OneOf(&MISSING_ORDERS)),
        ];
        let own: &[(&str, Takes)] = match kind.as_str() {
            "terms" => &[],
            "histogram" => &[("interval", Takes::Positive)],
            "date_histogram" => &[("fixed_interval", Takes::Text)],
            _ => {
                return Err(format!(
                    "`{name}`: a source is `terms`, `histogram` or `date_histogram`, not `{kind}`"
                ));
            }
        };
        known(source, name, &[&common[..], own].concat())?;
        check_missing(kind, source).map_err(|what| format!("`{name}`: {what}"))?;
        if let Some((needed, _)) = own.iter().find(|(needed, _)| !source.contains_key(*needed)) {
            return Err(format!("`{name}`: `{kind}` needs `{needed}`"));
        }
        if let Some(interval) = source.get("fixed_interval").and_then(Value::as_str)
            && milliseconds(interval).is_none_or(|interval| interval <= 0)
        {
            return Err(format!(
                "`{name}`: `fixed_interval` is a number with ms, s, m, h or d, not `{interval}`"
            ));
        }
    }
    if let Some(after) = body.get("after").and_then(Value::as_object)
        && (after.len() != names.len() || after.keys().any(|name| !names.contains(name)))
    {
        return Err(
            "`after` has a value for each of `sources`: send the `after_key` of the last answer".to_owned()
        );
    }
    Ok(())
}

/// Tantivy 0.27.0 reads pages of histograms wrongly if documents without a value come last.
fn check_missing(kind: &str, source: &Map<String, Value>) -> Result<(), &'static str> {
    let is = |key: &str, value: &str| source.get(key).and_then(Value::as_str) == Some(value);
    let has_bucket = source.get("missing_bucket") == Some(&Value::Bool(true));
    match kind {
        "terms" => Ok(()),
        _ if is("missing_order", "last") => Err("`missing_order` is `first` for histograms"),
        _ if has_bucket && is("order", "desc") && !is("missing_order", "first") => {
            Err("with the order `desc`, `missing_bucket` needs a `missing_order` of `first` for histograms")
        }
        _ => Ok(()),
    }
}

/// The only member of an object.
fn only(value: &Value) -> Option<(&String, &Value)> {
    let mut members = value.as_object()?.iter();
    let first = members.next()?;
    members.next().is_none().then_some(first)
}

fn has_field(members: &Map<String, Value>, name: &str) -> Result<(), String> {
    let has = members.get("field").is_some_and(Value::is_string);
    if has { Ok(()) } else { Err(format!("`{name}` needs a `field`, which is text")) }
}

/// Refuses keys beside the field that are not known, or have the wrong type.
fn known(members: &Map<String, Value>, name: &str, known: &[(&str, Takes)]) -> Result<(), String> {
    for (key, value) in members.iter().filter(|(key, _)| *key != "field") {
        let Some((_, takes)) = known.iter().find(|(known, _)| known == key) else {
            let near = types::did_you_mean(key, known.iter().map(|(known, _)| *known));
            let near = near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
            return Err(format!("`{name}`: `{key}` is not supported{near}"));
        };
        if !takes.accepts(value) {
            return Err(format!("`{name}`: `{key}` is {}", takes.what()));
        }
    }
    Ok(())
}
