//! What of a document is returned.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::SearchError;
use super::request::SourceFilter;

impl SourceFilter {
    /// The wanted part of a document. A whole one is not parsed into values.
    pub(super) fn apply(&self, source: &str) -> Result<Option<Box<RawValue>>, SearchError> {
        let damaged =
            |error: serde_json::Error| SearchError::Engine(format!("a stored document is damaged: {error}"));
        match self {
            Self::None => Ok(None),
            Self::All => RawValue::from_string(source.to_owned()).map(Some).map_err(damaged),
            Self::Paths(paths) => {
                let document: Value = serde_json::from_str(source).map_err(damaged)?;
                let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                let part = select(&document, &paths).unwrap_or_else(|| Value::Object(Map::new()));
                to_raw_value(&part).map(Some).map_err(damaged)
            }
        }
    }
}

/// The values at some paths and what is below them. A key may have dots. Lists keep the elements that have something.
fn select(value: &Value, paths: &[&str]) -> Option<Value> {
    if paths.contains(&"") {
        return Some(value.clone());
    }
    match value {
        Value::Object(members) => {
            let mut selected = Map::new();
            for (key, value) in members {
                let below: Vec<&str> = paths.iter().filter_map(|path| below(path, key)).collect();
                if let Some(value) = (!below.is_empty()).then(|| select(value, &below)).flatten() {
                    selected.insert(key.clone(), value);
                }
            }
            (!selected.is_empty()).then_some(Value::Object(selected))
        }
        Value::Array(elements) => {
            let selected: Vec<Value> = elements.iter().filter_map(|element| select(element, paths)).collect();
            (!selected.is_empty()).then_some(Value::Array(selected))
        }
        _ => None,
    }
}

/// What is left of a path below a key.
fn below<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(key)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_selects_a_value_and_all_below_it() {
        let document = r#"{"a":{"b":1,"c":[{"d":2,"e":3},{"e":4},5]},"a.b":6,"f":null,"ab":7}"#;
        for (paths, selected) in [
            (vec!["a.b"], r#"{"a":{"b":1},"a.b":6}"#),
            (vec!["a.c.d"], r#"{"a":{"c":[{"d":2}]}}"#),
            (vec!["a.c", "f"], r#"{"a":{"c":[{"d":2,"e":3},{"e":4},5]},"f":null}"#),
            (vec!["x", "a.b.c"], "{}"),
            (vec![], "{}"),
        ] {
            let filter = SourceFilter::Paths(paths.iter().map(|path| (*path).to_owned()).collect());
            assert_eq!(filter.apply(document).unwrap().unwrap().get(), selected, "{paths:?}");
        }
        assert_eq!(SourceFilter::All.apply(document).unwrap().unwrap().get(), document);
        assert!(SourceFilter::None.apply(document).unwrap().is_none());
    }
}
