//! `agent validate`: checks settings for `ctl`, which contains no plugins.

mod mismatch;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use plugin::{ListenSetting, Registry, SettingsMistake};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::StoreUrl;
use types::{Loopback, ServiceName, ServiceType, Sharding};

use self::targets::{Known as KnownTarget, Services, Verdict};
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
    /// Whether services may listen on addresses that other machines reach; absent if that is not known.
    #[serde(default)]
    insecure: Option<bool>,
    /// The services that the nodes of the manifest run; absent if there is no manifest, so that targets may be anywhere.
    #[serde(default)]
    roles: Option<Vec<ServiceName>>,
    /// Whether nodes of the manifest are standbys, which any service can be given to.
    #[serde(default)]
    has_standbys: bool,
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
    let (mut names, mut forwards) = (Services::new(), Vec::new());
    let mut services = request.services;
    let roles: Option<BTreeSet<_>> =
        request.roles.map(|roles| roles.into_iter().map(|role| registry.normalized(role)).collect());
    let declared: BTreeSet<_> = services.keys().map(|service| registry.normalized(service.clone())).collect();
    for role in roles.iter().flatten().filter(|role| !declared.contains(*role)) {
        // With the settings that all services of its type have by default.
        services.insert(role.clone(), Value::Null);
    }
    for (service, mut settings) in services {
        let named = request.types.get(&service).cloned();
        let service = registry.normalized(service);
        let service_type = named.or_else(|| service.default_type());
        let is_run = request.has_standbys || roles.as_ref().is_none_or(|roles| roles.contains(&service));
        let target = KnownTarget { service_type: service_type.clone(), listeners: None, is_run };
        names.insert(service.clone(), target);
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
                let bound = prepared.listens();
                let exposed = bound.iter().filter(|setting| !allows(request.insecure, setting)).map(exposed);
                mistakes.extend(exposed.map(|mistake| Found { service: service.clone(), mistake }));
                forwards.push((service.clone(), prepared.targets()));
                if let Some(known) = names.get_mut(&service) {
                    known.listeners = Some(bound.clone());
                }
                listens.insert(service, bound.into_iter().map(|setting| setting.address).collect());
            }
            // Without an entry of its own, its settings may be on the store.
            Err(_) if !declared.contains(&service) => {}
            Err(error) => mistakes.extend(
                error.mistakes.into_iter().map(|mistake| Found { service: service.clone(), mistake }),
            ),
        }
    }
    if roles.is_some() {
        for (service, mut target) in
            forwards.into_iter().flat_map(|(of, all)| all.into_iter().map(move |target| (of.clone(), target)))
        {
            target.service = registry.normalized(target.service);
            for verdict in targets::judge(&service, &target, &names, request.insecure == Some(false)) {
                let (found, mistake) = match verdict {
                    Verdict::Mistake(mistake) => (&mut mistakes, mistake),
                    Verdict::Warning(mistake) => (&mut warnings, mistake),
                };
                found.push(Found { service: service.clone(), mistake });
            }
        }
    }
    let store = request.store.and_then(|text| store_mistake(&text));
    Answer { types, mistakes, warnings, store, listens, resolved }
}

/// Whether the agents would open a listener.
fn allows(insecure: Option<bool>, setting: &ListenSetting) -> bool {
    insecure.is_none_or(|insecure| Loopback::unless_insecure(insecure).allows(setting.address.ip()))
}

/// The mistake that the agents would not open a listener.
fn exposed(setting: &ListenSetting) -> SettingsMistake {
    let ListenSetting { pointer, address, .. } = setting;
    let message = format!(
        "{address} is open to the network, and nothing is encrypted or authenticated between nodes yet"
    );
    let loopback = if address.is_ipv4() { "127.0.0.1" } else { "[::1]" };
    SettingsMistake::new(pointer, message).hint(format!(
        "write `{loopback}:{}`; or, on a network that you trust, `insecure: true` beside `cluster`",
        address.port()
    ))
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
    use serde_json::json;

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
    fn a_listener_that_is_open_to_the_network_is_a_mistake_unless_the_manifest_says_insecure() {
        for (insecure, expected) in [(json!(false), 2), (json!(true), 0), (Value::Null, 0)] {
            let request = json!({
                "services": {
                    "edge": {"listeners": [
                        {"name": "inner", "address": "127.0.0.1:0"},
                        {"name": "web", "address": "0.0.0.0:8080"},
                    ]},
                    "searcher": {"es_listen": "[::]:9200"},
                    "load-balancer": {"listeners": [{"name": "web", "address": "127.0.0.2:0", "service": "edge"}]},
                },
                "types": {"edge": "api_gateway"},
                "insecure": insecure,
            });
            let answer = answer(&crate::builtin(), serde_json::from_value(request).unwrap());
            let places: Vec<_> = answer.mistakes.iter().map(|found| found.mistake.pointer.as_str()).collect();
            assert_eq!(places, ["/listeners/1/address", "/es_listen"][..expected]);
            for (found, hint) in answer.mistakes.iter().zip(["`127.0.0.1:8080`", "`[::1]:9200`"]) {
                let given = found.mistake.hint.as_deref().unwrap();
                assert!(given.contains(hint) && given.contains("`insecure: true`"), "{given}");
            }
        }
    }

    #[test]
    fn targets_are_looked_up_in_the_manifest_with_its_nodes() {
        let balancer = json!({"listeners": [
            {"name": "fine", "address": "127.0.0.1:0", "service": "edge", "listener": "web"},
            {"name": "default", "address": "127.0.0.1:0", "service": "edge"},
            {"name": "api", "address": "127.0.0.1:0", "mode": "http", "service": "storage"},
            {"name": "no-listener", "address": "127.0.0.1:0", "service": "storage"},
            {"name": "nope", "address": "127.0.0.1:0", "service": "nope"},
            {"name": "own", "address": "127.0.0.1:0", "service": "load-balancer", "listener": "fine"},
            {"name": "by-name", "address": "127.0.0.1:0", "sni": [
                {"hosts": ["a.example"], "backends": [{"address": "127.0.0.1:1"}]},
                {"hosts": ["b.example"], "service": "edge", "listener": "wbe"},
            ]},
            {"name": "other", "address": "127.0.0.1:0", "service": "api_gateway"},
            {"name": "operators", "address": "127.0.0.1:0", "mode": "http", "service": "edge"},
        ]});
        let mut request = json!({
            "services": {
                "load-balancer": balancer,
                "edge": {
                    "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
                    "routes": [
                        {"prefix": "/a", "service": "storage"},
                        {"prefix": "/b", "answer": {}},
                        {"prefix": "/c", "service": "storge"},
                        {"prefix": "/d", "service": "edge"},
                        {"prefix": "/e", "service": "sessions"},
                    ],
                },
                "sessions": {},
            },
            "types": {"edge": "api_gateway", "sessions": "storage"},
            "roles": ["storage", "load-balancer", "edge"],
        });
        let found = answer(&crate::builtin(), serde_json::from_value(request.clone()).unwrap());
        let places = |found: &[Found]| -> Vec<String> {
            found.iter().map(|found| found.mistake.pointer.clone()).collect()
        };
        assert_eq!(
            places(&found.mistakes),
            [
                "/routes/3/service",
                "/listeners/1/service",
                "/listeners/3/service",
                "/listeners/5/service",
                "/listeners/6/sni/1/listener",
                "/listeners/8/service",
            ]
        );
        let in_balancer = ["/listeners/4/service", "/listeners/7/service"];
        let warnings = |found: &Answer| places(&found.warnings);
        assert_eq!(
            warnings(&found),
            [&["/routes/2/service", "/routes/4/service"][..], &in_balancer].concat()
        );
        request["has_standbys"] = json!(true);
        let found = answer(&crate::builtin(), serde_json::from_value(request.clone()).unwrap());
        assert_eq!(warnings(&found), [&["/routes/2/service"][..], &in_balancer].concat(), "they may run it");
        request["roles"] = Value::Null;
        let found = answer(&crate::builtin(), serde_json::from_value(request).unwrap());
        assert_eq!((found.mistakes, found.warnings), (vec![], vec![]), "they may be anywhere");
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
