//! `agent validate`: checks settings for `ctl`, which contains no plugins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use plugin::{Registry, SettingsMistake};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::StoreUrl;
use types::{ServiceName, ServiceType, Sharding};

use crate::output;

/// The request on standard input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The store of a manifest: a URL or an absolute path.
    #[serde(default)]
    store: Option<String>,
    /// Settings by service.
    #[serde(default)]
    services: BTreeMap<ServiceName, Value>,
    /// The types of services that are not named after their type.
    #[serde(default)]
    types: BTreeMap<ServiceName, ServiceType>,
    /// The folder of the manifest, to which paths in settings are relative.
    #[serde(default)]
    folder: Option<PathBuf>,
}

/// The answer on standard output.
#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    /// The types that this agent can run.
    types: Vec<Known>,
    /// All mistakes in settings.
    mistakes: Vec<Found>,
    /// What would not work with the files that settings name.
    warnings: Vec<Found>,
    /// The mistake in the store's URL.
    store: Option<String>,
    /// The addresses that services with these settings bind; port 0 is any free port.
    listens: BTreeMap<ServiceName, Vec<SocketAddr>>,
    /// Settings in which paths were made absolute.
    resolved: BTreeMap<ServiceName, Value>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Known {
    name: ServiceType,
    sharded: bool,
    /// Whether its shards have an owner, one node at a time.
    owned: bool,
    /// Whether its shards may have replicas on other nodes.
    replicated: bool,
    about: &'static str,
}

#[derive(Debug, PartialEq, Serialize)]
struct Found {
    service: ServiceName,
    #[serde(flatten)]
    mistake: SettingsMistake,
}

/// Prints the JSON Schema of each type's settings.
pub(crate) fn print_schema(registry: &Registry) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&schema(registry))?;
    output::print(&(text + "\n"))
}

fn schema(registry: &Registry) -> BTreeMap<ServiceType, Value> {
    registry.plugins().map(|plugin| (plugin.service_type(), plugin.settings_schema())).collect()
}

/// Reads a request from standard input and answers it on standard output.
pub(crate) fn run(registry: &Registry) -> anyhow::Result<()> {
    let text = output::request()?;
    let request =
        serde_json::from_str(&text).context("standard input is not {\"services\": {TYPE: SETTINGS}}")?;
    output::print(&(serde_json::to_string(&answer(registry, request))? + "\n"))
}

fn answer(registry: &Registry, request: Request) -> Answer {
    let types = registry
        .plugins()
        .map(|plugin| Known {
            name: plugin.service_type(),
            sharded: plugin.sharding() != Sharding::None,
            owned: plugin.sharding() == Sharding::Owned,
            replicated: plugin.replicates(),
            about: plugin.about(),
        })
        .collect();
    let (mut mistakes, mut warnings) = (Vec::new(), Vec::new());
    let (mut listens, mut resolved) = (BTreeMap::new(), BTreeMap::new());
    for (service, mut settings) in request.services {
        let named = request.types.get(&service).cloned();
        let service = registry.normalized(service);
        let service_type = named.or_else(|| service.default_type());
        let Some(plugin) = service_type.and_then(|service_type| registry.plugin(&service_type)) else {
            continue;
        };
        if let Some(folder) = &request.folder {
            let written = settings.clone();
            plugin.resolve_files(&mut settings, folder);
            if settings != written {
                resolved.insert(service.clone(), settings.clone());
            }
        }
        match plugin.prepare(&settings) {
            Ok(prepared) => {
                if request.folder.is_some() {
                    let found = plugin.check_files(&settings).into_iter();
                    warnings.extend(found.map(|mistake| Found { service: service.clone(), mistake }));
                }
                listens.insert(service, prepared.listens());
            }
            Err(error) => mistakes.extend(
                error.mistakes.into_iter().map(|mistake| Found { service: service.clone(), mistake }),
            ),
        }
    }
    let store = request.store.and_then(|text| store_mistake(&text));
    Answer { types, mistakes, warnings, store, listens, resolved }
}

/// Why a manifest can't have this store.
fn store_mistake(text: &str) -> Option<String> {
    match text.parse::<StoreUrl>() {
        Ok(url) if url.is_memory() => {
            Some("a store in memory serves one agent only, and ends with it".to_owned())
        }
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_has_its_service_and_pointer() {
        let request =
            serde_json::from_str(r#"{"services": {"api-gateway": {"no_such": 1}, "unknown": {}}}"#).unwrap();
        let answer = answer(&crate::builtin(), request);
        assert_eq!(answer.mistakes.len(), 1);
        assert_eq!(answer.mistakes[0].service.as_str(), "api_gateway");
        assert!(answer.types.iter().any(|known| known.name.as_str() == "api_gateway" && !known.sharded));
    }

    #[test]
    fn a_service_with_another_name_is_checked_as_its_type_and_its_addresses_are_reported() {
        let request = serde_json::from_str(
            r#"{"services": {"edge": {"listen": "127.0.0.1:8080"}, "internal": {"no_such": 1}},
                "types": {"edge": "api_gateway", "internal": "api_gateway"}}"#,
        );
        let answer = answer(&crate::builtin(), request.unwrap());
        let edge: ServiceName = "edge".parse().unwrap();
        assert_eq!(answer.listens[&edge], ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(answer.mistakes.len(), 1);
        assert_eq!(answer.mistakes[0].service.as_str(), "internal");
    }

    #[test]
    fn files_in_settings_are_relative_to_the_manifest() {
        let request = r#"{"services": {"api-gateway": {"access_log": {"to": "logs/access"}},
            "storage": {}}, "folder": "/srv/shop"}"#;
        let answer = answer(&crate::builtin(), serde_json::from_str(request).unwrap());
        assert_eq!(answer.mistakes, []);
        let expected = r#"{"api_gateway": {"access_log": {"to": "/srv/shop/logs/access"}}}"#;
        assert_eq!(answer.resolved, serde_json::from_str(expected).unwrap());
    }

    #[test]
    fn certificates_are_read_where_the_manifest_is() {
        let folder = tempfile::tempdir().unwrap();
        let request = serde_json::json!({
            "services": {"edge": {"listeners": [{"name": "web", "address": "127.0.0.1:0",
                "tls": {"certificates": [{"cert": "tls/shop.crt", "key": "tls/shop.key"}]}}]}},
            "types": {"edge": "api_gateway"},
            "folder": folder.path(),
        });
        let answer = answer(&crate::builtin(), serde_json::from_value(request).unwrap());
        assert_eq!(answer.mistakes, [], "it may be made later");
        assert_eq!(answer.warnings.len(), 1);
        assert_eq!(answer.warnings[0].mistake.pointer, "/listeners/0/tls/certificates/0");
        let file = folder.path().join("tls/shop.crt").display().to_string();
        assert!(answer.warnings[0].mistake.message.contains(&file), "{:?}", answer.warnings);
    }

    /// Values outside every range, as they may be written in YAML.
    fn extremes() -> Vec<Value> {
        use serde_json::json;
        let texts =
            ["18446744073709551615s", "366d", "99999999999999999999999y", "-1s", "1e400", "", "\0", "soon"];
        let numbers =
            [json!(u64::MAX), json!(i64::MIN), json!(-1), json!(1e300), json!(1.5), json!(1_u64 << 53)];
        let others = [json!(true), json!([]), json!([[]]), json!({}), json!([{"prefix": 7, "to": u64::MAX}])];
        texts.map(Value::from).into_iter().chain(numbers).chain(others).collect()
    }

    /// How many numbers and durations there are in a form, at any depth. Each number must have a range.
    fn ranges(form: &Value) -> usize {
        let is_number = form["type"] == "integer" || form["type"][0] == "integer";
        assert!(!is_number || form["minimum"].is_u64() && form["maximum"].is_u64(), "{form}");
        let is_duration = form["title"].as_str().is_some_and(|title| title.starts_with("a duration"));
        let below = form["properties"].as_object().into_iter().flat_map(|properties| properties.values());
        let below = below.chain([&form["items"]]).filter(|form| form.is_object());
        usize::from(is_number || is_duration) + below.map(ranges).sum::<usize>()
    }

    #[test]
    fn every_number_and_duration_of_every_setting_has_a_range() {
        for (service, schema) in schema(&crate::builtin()) {
            let plugin = crate::builtin().plugin(&service).cloned().unwrap();
            let prepare = |key: &str, value: &Value| {
                plugin.prepare(&Value::Object([(key.to_owned(), value.clone())].into_iter().collect()))
            };
            let numbers = ranges(&schema);
            for (key, form) in schema["properties"].as_object().unwrap() {
                assert!(form["description"].is_string(), "{service}: {key} has no description");
                let range = form["title"].as_str().unwrap_or_default();
                let is_number = form["type"] == "integer" || form["type"][0] == "integer";
                if is_number {
                    assert!(form["minimum"].is_u64() && form["maximum"].is_u64(), "{service}: {key}");
                }
                for value in extremes() {
                    // Settings of other types may accept some of them; none may panic.
                    let Err(error) = prepare(key, &value).map(|_| ()) else {
                        assert!(range.is_empty(), "{service}: {key} accepts {value}");
                        continue;
                    };
                    let message = error.to_string();
                    assert!(message.contains(range), "{service}: {key}: {value}: {message}");
                }
                for bound in [&form["minimum"], &form["maximum"]].into_iter().filter(|bound| bound.is_u64()) {
                    // A bound may be refused because of another setting's value, but never because of its own range.
                    let message =
                        prepare(key, bound).err().map(|error| error.to_string()).unwrap_or_default();
                    assert!(!message.contains(range), "{service}: {key}: {bound}: {message}");
                }
            }
            assert!(numbers >= 4, "{service}");
        }
    }
}
