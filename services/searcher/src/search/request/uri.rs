//! The query string of `GET /{index}/search`: the same members with simple values.

use plugin::http::query::{bytes, parameters};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::SearchRequest;
use super::members::Members;
use super::read::MEMBERS;
use crate::query::QueryError;

impl SearchRequest {
    /// A request in a query string, as in `GET /{index}/search?q=`. `filter` may be repeated; lists are separated by commas;
    /// `search_after` is JSON; `aggs`, `knn` and `rrf` need a body.
    pub(crate) fn from_query(query: &str) -> Result<Self, QueryError> {
        let known: Vec<&'static str> =
            MEMBERS.into_iter().filter(|name| !matches!(*name, "filter" | "aggs" | "knn" | "rrf")).collect();
        let is_filter = |pair: &&str| pair.split('=').next() == Some("filter");
        let (filters, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_filter);
        let mut members = Vec::new();
        for (name, value) in parameters(&others.join("&"), &known)? {
            members.push((name.to_owned(), member(name, &decoded(name, value)?)?));
        }
        if !filters.is_empty() {
            let values = filters.iter().map(|pair| pair.split_once('=').map_or("", |(_, value)| value));
            let values: Vec<String> =
                values.map(|value| decoded("filter", value)).collect::<Result<_, _>>()?;
            members.push(("filter".to_owned(), raw(&values)));
        }
        Self::from_members(&Members::new(members))
    }
}

fn decoded(name: &str, value: &str) -> Result<String, QueryError> {
    String::from_utf8(bytes(name, value)?).map_err(|_| QueryError {
        message: format!("`{name}` is not UTF-8"),
        at: None,
        hint: None,
    })
}

/// The JSON of a member whose value is written simply.
fn member(name: &str, value: &str) -> Result<Box<RawValue>, QueryError> {
    let list = || -> Vec<&str> { value.split(',').filter(|part| !part.is_empty()).collect() };
    Ok(match (name, value) {
        (
            "explain" | "did_you_mean" | "allow_partial" | "highlight" | "source",
            flag @ ("true" | "false"),
        ) => raw(&(flag == "true")),
        ("size" | "from", number) if number.parse::<u64>().is_ok() => raw(&number.parse::<u64>().ok()),
        ("sort" | "facets" | "fields" | "source", _) => raw(&list()),
        ("highlight", _) => raw(&serde_json::json!({ "fields": list() })),
        ("search_after", json) => serde_json::from_str(json).map_err(|error| QueryError {
            message: format!("`search_after` is not JSON: {error}"),
            at: None,
            hint: Some("send the `next` of the last answer, percent-encoded".to_owned()),
        })?,
        (_, text) => raw(&text),
    })
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("texts, numbers and lists of them are JSON")
}

impl From<plugin::http::query::QueryError> for QueryError {
    fn from(error: plugin::http::query::QueryError) -> Self {
        Self { message: error.to_string(), at: None, hint: error.hint }
    }
}
