//! Aggregations: the request in Tantivy's JSON, checked key by key, since Tantivy takes unknown keys in silence.
//!
//! `top_hits` and calendar intervals are refused. A `filter` is a query as in `filter` of the search.

mod addresses;
mod keys;
mod run;
mod several;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use types::did_you_mean;

pub(crate) use self::run::Intermediate;
pub(super) use self::run::{Collecting, collect, results};
pub(crate) use self::several::fields_mut;
use super::request::{Dsl, parse_filter, shortened, values_place};
use crate::query::{Ast, QueryError};
use crate::schema::IndexSchema;

/// The deepest nesting of aggregations.
const MAX_DEPTH: usize = 8;
/// The most aggregations in a request.
const MAX_AGGREGATIONS: usize = 100;
/// The most buckets in an answer, and the most values that a `terms` aggregation may want.
pub(super) const MAX_BUCKETS: u32 = 65_536;

/// The aggregations of a request, checked; the filters in them are parsed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Aggregations {
    request: Map<String, Value>,
    /// In the order in which they are visited.
    filters: Vec<Ast>,
    /// The fields that are used, with the aggregation that does.
    fields: Vec<(String, String)>,
}

impl Aggregations {
    /// Reads `aggs`.
    pub(super) fn read(aggs: &Value, dsl: Option<&Dsl>) -> Result<Self, QueryError> {
        let Value::Object(request) = aggs else {
            return Err(mistake("", "it is an object of aggregations by name".to_owned(), None));
        };
        let mut found = Self { request: request.clone(), ..Self::default() };
        let mut count = 0;
        check_all("", request, 1, &mut count, &mut found, dsl)?;
        Ok(found)
    }

    pub(super) fn to_json(&self) -> Value {
        Value::Object(self.request.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.request.is_empty()
    }

    /// The queries of `filter` aggregations.
    pub(super) fn filters(&self) -> impl Iterator<Item = &Ast> {
        self.filters.iter()
    }

    /// Checks the fields against an index. The queries are checked with those of the search.
    pub(super) fn check(&self, schema: &IndexSchema) -> Result<(), QueryError> {
        for (name, field) in &self.fields {
            values_place(schema, field, &format!("`aggs`: `{name}`"))?;
        }
        addresses::check("", &self.request, schema)
    }
}

fn check_all(
    above: &str,
    aggs: &Map<String, Value>,
    depth: usize,
    count: &mut usize,
    found: &mut Aggregations,
    dsl: Option<&Dsl>,
) -> Result<(), QueryError> {
    *count += aggs.len();
    if depth > MAX_DEPTH || *count > MAX_AGGREGATIONS {
        let message = format!("there are at most {MAX_AGGREGATIONS}, nested {MAX_DEPTH} deep");
        return Err(mistake(above, message, None));
    }
    for (name, aggregation) in aggs {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        check_one(&path, aggregation, depth, found, dsl)?;
        if let Some(Value::Object(below)) = aggregation.get("aggs") {
            check_all(&path, below, depth + 1, count, found, dsl)?;
        }
    }
    Ok(())
}

fn check_one(
    path: &str,
    aggregation: &Value,
    depth: usize,
    found: &mut Aggregations,
    dsl: Option<&Dsl>,
) -> Result<(), QueryError> {
    let Value::Object(members) = aggregation else {
        return Err(mistake(path, "it is an object with the kind of aggregation".to_owned(), None));
    };
    let mut kinds = members.iter().filter(|(name, _)| *name != "aggs");
    let (Some((kind, body)), None) = (kinds.next(), kinds.next()) else {
        let hint = "write for example {\"terms\": {\"field\": \"section\"}}".to_owned();
        return Err(mistake(path, "it has exactly one kind".to_owned(), Some(hint)));
    };
    if members.get("aggs").is_some_and(|below| !below.is_object()) {
        return Err(mistake(path, "`aggs` is an object of aggregations by name".to_owned(), None));
    }
    let Some(keys) = keys::of(kind) else {
        return Err(unknown_kind(path, kind));
    };
    if members.contains_key("aggs") && !keys.has_buckets {
        return Err(mistake(path, format!("`{kind}` has no buckets, so it can't have `aggs`"), None));
    }
    if let ("filter", Some(dsl), Some(number)) = (kind.as_str(), dsl, body.as_u64()) {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        found.filters.push(dsl.filter(number)?);
        return Ok(());
    }
    if kind == "filter" {
        let text =
            body.as_str().ok_or_else(|| mistake(path, "`filter` is the text of a query".to_owned(), None))?;
        let filter = parse_filter(text);
        found.filters.push(filter.map_err(|error| mistake(path, error.message, error.hint))?);
        return Ok(());
    }
    let Value::Object(body) = body else {
        return Err(mistake(path, format!("`{kind}` is an object"), None));
    };
    for (key, value) in body {
        check_key(path, kind, key, value, &keys)?;
    }
    if kind == "composite" && depth > 1 {
        return Err(mistake(path, "`composite` can't be below another aggregation".to_owned(), None));
    }
    if several::is_several(kind) {
        several::check(kind, body).map_err(|message| mistake(path, message, None))?;
    } else if !body.get("field").is_some_and(Value::is_string) {
        return Err(mistake(path, format!("`{kind}` needs a `field`, which is text"), None));
    }
    let mut of_fields = body.clone();
    let fields = fields_mut(kind, &mut of_fields).into_iter();
    found.fields.extend(fields.map(|field| (path.to_owned(), std::mem::take(field))));
    // Values that Tantivy can't read are refused here, too, and not at each shard.
    run::parse(kind, body).map(drop).map_err(|message| mistake(path, message, None))
}

fn check_key(path: &str, kind: &str, key: &str, value: &Value, keys: &keys::Keys) -> Result<(), QueryError> {
    if let Some((_, instead)) = keys::REFUSED_KEYS.iter().find(|(refused, _)| *refused == key) {
        return Err(mistake(path, format!("`{key}` is not supported"), Some((*instead).to_owned())));
    }
    let Some(known) = keys.known.iter().find(|known| known.name == key) else {
        let names = || keys.known.iter().map(|known| known.name);
        let near = did_you_mean(key, names()).map(|near| format!("did you mean `{near}`?"));
        let hint = near.unwrap_or_else(|| format!("there are {}", names().collect::<Vec<_>>().join(", ")));
        return Err(mistake(path, format!("`{kind}` has no key {}", shortened(key)), Some(hint)));
    };
    if !known.takes.accepts(value) {
        let (what, value) = (known.takes.what(), shortened(&value.to_string()));
        return Err(mistake(path, format!("`{key}` is {what}, not {value}"), None));
    }
    Ok(())
}

fn unknown_kind(path: &str, kind: &str) -> QueryError {
    if keys::REFUSED_KINDS.contains(&kind) {
        return mistake(path, format!("`{kind}` is not supported"), None);
    }
    let near = did_you_mean(kind, keys::KINDS).map(|near| format!("did you mean `{near}`?"));
    let hint = near.unwrap_or_else(|| format!("there are {}", keys::KINDS.join(", ")));
    mistake(path, format!("there is no aggregation {}", shortened(kind)), Some(hint))
}

fn mistake(path: &str, mut message: String, hint: Option<String>) -> QueryError {
    if !path.is_empty() {
        message.insert_str(0, &format!("`{path}`: "));
    }
    message.insert_str(0, "`aggs`: ");
    QueryError { message, at: None, hint }
}
