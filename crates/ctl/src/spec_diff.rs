//! What changed between two specs, setting by setting. Pure.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use types::{ServiceName, Spec};

/// One setting that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Changed {
    pub(crate) service: ServiceName,
    /// `settings.routes[0].prefix`, `replicas`.
    pub(crate) setting: String,
    /// Absent if it was not set, so the default was in force.
    pub(crate) old: Option<Value>,
    /// Absent if it is no longer set.
    pub(crate) new: Option<Value>,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("(default)".to_owned(), Value::to_string);
        write!(f, "{} {}: {} -> {}", self.service, self.setting, shown(&self.old), shown(&self.new))
    }
}

/// Every difference, in the order of the settings' names.
pub(crate) fn changes(service: &ServiceName, old: &Spec, new: &Spec) -> Vec<Changed> {
    let mut found = Vec::new();
    let mut add = |setting: String, old: Option<Value>, new: Option<Value>| {
        found.push(Changed { service: service.clone(), setting, old, new });
    };
    compare("settings", Some(&old.settings), Some(&new.settings), &mut add);
    let number = |number: Option<u32>| number.map(Value::from);
    if old.shards != new.shards {
        add("shards".to_owned(), number(old.shards), number(new.shards));
    }
    if old.replicas != new.replicas {
        add("replicas".to_owned(), Some(old.replicas.into()), Some(new.replicas.into()));
    }
    found
}

type Add<'a> = &'a mut dyn FnMut(String, Option<Value>, Option<Value>);

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, add: Add<'_>) {
    // An absent mapping and an empty one both mean the defaults.
    let empty = Value::Object(serde_json::Map::new());
    let is_root = path == "settings";
    let filled = |value: Option<&Value>| match value {
        None | Some(Value::Null) if is_root => Some(empty.clone()),
        value => value.cloned(),
    };
    let (old, new) = (filled(old), filled(new));
    match (&old, &new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                compare(&format!("{path}.{key}"), old.get(key), new.get(key), add);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                compare(&format!("{path}[{index}]"), old.get(index), new.get(index), add);
            }
        }
        _ if old == new => {}
        _ => add(path.to_owned(), old, new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_setting_that_changed_is_named_with_its_old_and_new_value() {
        let service: ServiceName = "api_gateway".parse().unwrap();
        let spec =
            |settings: Value, replicas| Spec { settings, shards: Some(2), replicas, ..Spec::default() };
        let old = spec(json!({"a": 1, "routes": [{"prefix": "/a"}, {"prefix": "/b"}], "gone": true}), 1);
        let new = spec(json!({"a": 2, "routes": [{"prefix": "/c"}], "b": {"c": "x"}}), 0);
        let lines: Vec<_> = changes(&service, &old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "api_gateway settings.a: 1 -> 2",
                "api_gateway settings.b: (default) -> {\"c\":\"x\"}",
                "api_gateway settings.gone: true -> (default)",
                "api_gateway settings.routes[0].prefix: \"/a\" -> \"/c\"",
                "api_gateway settings.routes[1]: {\"prefix\":\"/b\"} -> (default)",
                "api_gateway replicas: 1 -> 0",
            ]
        );
        assert_eq!(changes(&service, &spec(Value::Null, 1), &spec(json!({}), 1)), Vec::new());
    }
}
