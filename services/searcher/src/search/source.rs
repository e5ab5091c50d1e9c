//! What of a document is returned.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::SearchError;
use super::request::SourceFilter;
use crate::glob;

impl SourceFilter {
    /// The wanted part of a document. A whole one is not parsed into values.
    pub(super) fn apply(&self, source: &str) -> Result<Option<Box<RawValue>>, SearchError> {
        let damaged =
            |error: serde_json::Error| SearchError::Damaged(format!("a stored document is damaged: {error}"));
        match self {
            Self::None => Ok(None),
            Self::All => RawValue::from_string(source.to_owned()).map(Some).map_err(damaged),
            Self::Patterns { includes, excludes } => {
                let document: Value = serde_json::from_str(source).map_err(damaged)?;
                let part = matching(document, "", includes.is_empty(), includes, excludes);
                let part = part.unwrap_or_else(|| Value::Object(Map::new()));
                to_raw_value(&part).map(Some).map_err(damaged)
            }
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

/// The values at paths that match patterns; `is_whole` says that one above does.
fn matching(
    value: Value,
    path: &str,
    is_whole: bool,
    includes: &[String],
    excludes: &[String],
) -> Option<Value> {
    match value {
        Value::Object(members) => {
            let mut selected = Map::new();
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if excludes.iter().any(|pattern| glob::matches(pattern, &path)) {
                    continue;
                }
                let is_whole = is_whole || includes.iter().any(|pattern| glob::matches(pattern, &path));
                if let Some(value) = matching(value, &path, is_whole, includes, excludes) {
                    selected.insert(key, value);
                }
            }
            (is_whole || !selected.is_empty()).then_some(Value::Object(selected))
        }
        Value::Array(elements) => {
            let elements = elements.into_iter();
            let selected: Vec<Value> = elements
                .filter_map(|element| matching(element, path, is_whole, includes, excludes))
                .collect();
            (is_whole || !selected.is_empty()).then_some(Value::Array(selected))
        }
        scalar => is_whole.then_some(scalar),
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
        for (includes, excludes, selected) in [
            (vec!["a*"], vec![], r#"{"a":{"b":1,"c":[{"d":2,"e":3},{"e":4},5]},"a.b":6,"ab":7}"#),
            (vec![], vec!["a"], r#"{"a.b":6,"ab":7,"f":null}"#),
            (vec!["*.d", "ab"], vec![], r#"{"a":{"c":[{"d":2}]},"ab":7}"#),
            (vec!["a"], vec!["*.e", "a.b"], r#"{"a":{"c":[{"d":2},{},5]}}"#),
        ] {
            let texts = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            let filter = SourceFilter::Patterns { includes: texts(&includes), excludes: texts(&excludes) };
            assert_eq!(filter.apply(document).unwrap().unwrap().get(), selected, "{includes:?} {excludes:?}");
        }
        assert_eq!(SourceFilter::All.apply(document).unwrap().unwrap().get(), document);
        assert!(SourceFilter::None.apply(document).unwrap().is_none());
    }
}
