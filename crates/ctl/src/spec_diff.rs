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
        (Some(Value::Array(old)), Some(Value::Array(new))) if are_named(old) && are_named(new) => {
            by_name(path, old, new, add);
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
            let (old, new) = (&old[same..], &new[same..]);
            // What follows an item that was inserted or removed has only changed its place.
            let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
            let (old, new) = (&old[..old.len() - behind], &new[..new.len() - behind]);
            for index in 0..old.len().max(new.len()) {
                compare(&format!("{path}[{}]", same + index), old.get(index), new.get(index), add);
            }
        }
        _ if old == new => {}
        _ => add(path.to_owned(), old, new),
    }
}

/// The name of an item of a list.
fn name_of(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// Whether each item has a name of its own.
fn are_named(items: &[Value]) -> bool {
    let names: BTreeSet<_> = items.iter().filter_map(name_of).collect();
    names.len() == items.len()
}

/// Compares items with the same name, wherever they are; then those that are gone, and those that are new. Items that have only
/// changed places are one difference of the list.
fn by_name(path: &str, old: &[Value], new: &[Value], add: Add<'_>) {
    let place = |items: &[Value], name: &str| items.iter().position(|item| name_of(item) == Some(name));
    for (index, item) in old.iter().enumerate() {
        let Some(name) = name_of(item) else { continue };
        let at = place(new, name);
        // Where it is now, as that is what the manifest shows.
        let path = format!("{path}[{}]", at.unwrap_or(index));
        compare(&path, Some(item), at.and_then(|at| new.get(at)), add);
    }
    for (index, item) in new.iter().enumerate() {
        if name_of(item).is_some_and(|name| place(old, name).is_none()) {
            add(format!("{path}[{index}]"), None, Some(item.clone()));
        }
    }
    let order = |items: &[Value], others: &[Value]| -> Vec<Value> {
        let names = items.iter().filter_map(name_of);
        names.filter(|name| place(others, name).is_some()).map(Value::from).collect()
    };
    let (before, after) = (order(old, new), order(new, old));
    if before != after {
        add(format!("{path} (order)"), Some(before.into()), Some(after.into()));
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
        let named = |routes: &[(&str, u32)]| {
            let routes = routes.iter().map(|(name, limit)| json!({"name": name, "limit": limit}));
            spec(json!({"routes": routes.collect::<Vec<_>>()}), 1)
        };
        let lines = |old: &Spec, new: &Spec| -> Vec<String> {
            changes(&service, old, new).iter().map(ToString::to_string).collect()
        };
        let before = named(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(
            lines(&before, &named(&[("a", 1), ("new", 9), ("b", 2), ("c", 4)])),
            [
                "api_gateway settings.routes[3].limit: 3 -> 4",
                "api_gateway settings.routes[1]: (default) -> {\"limit\":9,\"name\":\"new\"}",
            ],
            "one in the middle is one difference"
        );
        assert_eq!(
            lines(&before, &named(&[("c", 3), ("a", 1)])),
            [
                "api_gateway settings.routes[1]: {\"limit\":2,\"name\":\"b\"} -> (default)",
                "api_gateway settings.routes (order): [\"a\",\"c\"] -> [\"c\",\"a\"]",
            ]
        );
        let unnamed = |routes: &[u32]| spec(json!({"routes": routes}), 1);
        assert_eq!(
            lines(&unnamed(&[1, 2, 3]), &unnamed(&[1, 9, 2, 3])),
            ["api_gateway settings.routes[1]: (default) -> 9"]
        );
        assert_eq!(
            lines(&unnamed(&[1, 2, 3]), &unnamed(&[2, 3])),
            ["api_gateway settings.routes[0]: 1 -> (default)"]
        );
        let twice = named(&[("a", 1), ("a", 2)]);
        assert_eq!(lines(&twice, &named(&[("a", 1)])).len(), 1, "without names of their own, by place");
        assert_eq!(changes(&service, &spec(Value::Null, 1), &spec(json!({}), 1)), Vec::new());
    }
}
