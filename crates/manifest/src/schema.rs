//! The JSON Schema of a manifest, for editors.
//!
//! The structs below are never instantiated: they describe every key once. A test ensures that they have the same keys as
//! the checks.

#![expect(dead_code, reason = "the structs are read by schemars only")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use types::ServiceType;

/// The JSON Schema (draft 2020-12) of a manifest. `settings` has the schemas of the settings of the known service types.
pub fn json_schema(settings: &BTreeMap<ServiceType, Value>) -> Value {
    let mut schema = schemars::schema_for!(RawManifest).to_value();
    let aside = serde_json::json!({
        "description": "Ignored: a place for values that anchors share.",
    });
    schema["patternProperties"] = serde_json::json!({ (format!("^{}", crate::check::ASIDE)): aside });
    // A service with another name has the settings of its `type`.
    let mut of_types = vec![schema["properties"]["services"]["additionalProperties"].clone()];
    for (service, settings) in settings {
        let written = service.as_str();
        // Names may be written with hyphens as well.
        let name = format!("^{}$", service.as_str().replace('_', "[-_]"));
        let service = schema["properties"]["services"]["additionalProperties"].clone();
        let mut settings = settings.clone();
        admit_variables(&mut settings);
        let settings =
            serde_json::json!({ "properties": { "settings": { "anyOf": [settings, { "type": "null" }] } } });
        schema["properties"]["services"]["patternProperties"][name] =
            serde_json::json!({ "allOf": [service, settings] });
        of_types.push(serde_json::json!({
            "if": {
                "type": "object",
                "properties": { "type": { "enum": [written, written.replace('_', "-")] } },
                "required": ["type"],
            },
            "then": settings,
        }));
    }
    if of_types.len() > 1 {
        schema["properties"]["services"]["additionalProperties"] = serde_json::json!({ "allOf": of_types });
    }
    schema
}

/// Allows a variable in place of each value that is not text.
fn admit_variables(schema: &mut Value) {
    let Value::Object(form) = schema else { return };
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = form.get_mut(key) {
            properties.values_mut().for_each(admit_variables);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = form.get_mut(key) {
            admit_variables(inner);
        }
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        if let Some(Value::Array(forms)) = form.get_mut(key) {
            forms.iter_mut().for_each(admit_variables);
        }
    }
    let words = ["description", "title", "default"];
    let is_scalar = match form.get("type") {
        Some(Value::String(name)) => matches!(name.as_str(), "integer" | "number" | "boolean"),
        Some(Value::Array(names)) => {
            names.iter().any(|name| name == "integer" || name == "number" || name == "boolean")
        }
        _ => false,
    };
    if is_scalar || form.contains_key("pattern") {
        let kept: serde_json::Map<_, _> =
            words.iter().filter_map(|key| Some(((*key).to_owned(), form.remove(*key)?))).collect();
        let bare = Value::Object(std::mem::take(form));
        let variable = serde_json::json!({ "type": "string", "pattern": "\\$\\{" });
        *form = kept;
        form.insert("anyOf".to_owned(), Value::Array(vec![bare, variable]));
    }
}

/// A Coterie manifest: the nodes of a cluster and the settings of its services. Values may hold `${VAR}` and
/// `${VAR:-default}`; `$$` is a dollar sign.
#[derive(JsonSchema)]
#[schemars(title = "Coterie manifest", deny_unknown_fields)]
struct RawManifest {
    /// The name of the cluster: letters, digits, `-`, `_` and `.`, at most 48. Gossip from another cluster is
    /// refused.
    cluster: String,
    /// How far apart the nodes are: `local` on one machine (the default), `lan` in one network, `wan` in several
    /// regions. It sets the pace of gossip.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "profile")]
    profile: Option<String>,
    /// Where the object store is: `s3://bucket/prefix`, `gs://…`, `az://…`, or `file:///folder`; a folder on this
    /// machine if absent. Credentials come from the usual environment variables, never from here.
    store: Option<String>,
    /// Whether services may listen on addresses that other machines reach, such as `0.0.0.0:8443`. Nothing is encrypted or
    /// authenticated between nodes yet, so set it only on a network that you trust. Each agent is then started with
    /// `--insecure`; the nodes' own addresses stay on this machine. Default: `false`.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "switch")]
    insecure: Option<bool>,
    /// What all nodes of a service have in common, by the service's name: lower-case letters, digits, `-` and `_`, at
    /// most 40. If the name is not that of its type, give its `type`.
    services: Option<BTreeMap<String, Option<RawService>>>,
    /// The nodes, at most 100 together.
    #[schemars(length(min = 1, max = 100))]
    nodes: Vec<RawNode>,
}

/// What all nodes of a service have in common.
#[derive(JsonSchema)]
#[schemars(rename = "Service", deny_unknown_fields)]
struct RawService {
    /// The service's type, which determines what its nodes run; if absent, the service's name. It can't change once the
    /// cluster has run. Two services of one type have their own nodes, settings, shards and data.
    #[schemars(rename = "type")]
    service_type: Option<String>,
    /// The type's settings. Each service type has its own.
    settings: Option<BTreeMap<String, Value>>,
    /// The number of its shards, for types whose shards have owners; if absent, as many as its nodes need. It can't
    /// change once the cluster has run.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "shards")]
    shards: Option<u32>,
    /// How many replicas each shard has besides its owner, for types that support replicas; if absent, none. They answer
    /// reads that may be stale, and are the first to take over.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "replicas")]
    replicas: Option<u32>,
}

/// A node, or several nodes that differ only in their ids and shards.
#[derive(JsonSchema)]
#[schemars(rename = "Node", deny_unknown_fields)]
struct RawNode {
    /// The name of the node, unique in the cluster: letters, digits, `-`, `_` and `.`, at most 48. Without it the
    /// node is named after its service: `standby-1`.
    id: Option<String>,
    /// The node's first role: the name of a service, or `standby` to wait until it is needed.
    service: String,
    /// The number of the shard, for sharded service types only. If absent, it is 0, and with a `count` 0, 1, 2 and so on;
    /// for services with replicas, 0 follows the last shard.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "shard")]
    shard: Option<u32>,
    /// Where the HTTP API listens, such as `127.0.0.1:8080`; if absent, a free port.
    listen: Option<String>,
    /// Where the node gossips (UDP), such as `127.0.0.1:7946`; if absent, a free port.
    gossip: Option<String>,
    /// Labels that the other nodes see.
    labels: Option<BTreeMap<String, String>>,
    /// The only services that the node takes over on its own while it is a standby; if absent, all that it can run.
    runs: Option<Vec<String>>,
    /// When the node's process is restarted: `on-failure` (when it failed or was killed, at most five times in ten
    /// minutes), `always` (the same without that limit) or `no`. A node that left or was stopped is never restarted.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "restart")]
    restart: Option<String>,
    /// Creates several nodes from this entry, named `{id}-1`, `{id}-2` and so on.
    #[schemars(default, skip_serializing_if = "Option::is_none", schema_with = "count")]
    count: Option<u32>,
}

fn switch(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "type": "boolean", "default": false }))
}

fn profile(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "enum": ["local", "lan", "wan"] }))
}

fn restart(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "enum": types::supervision::RestartPolicy::NAMES, "default": "on-failure" }))
}

fn shard(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "type": "integer", "minimum": 0, "maximum": types::ShardId::MAX }))
}

fn shards(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "type": "integer", "minimum": 1, "maximum": types::ShardId::MAX + 1 }))
}

fn replicas(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "type": "integer", "minimum": 0, "maximum": types::Spec::MAX_REPLICAS }))
}

fn count(_: &mut SchemaGenerator) -> Schema {
    or_variable(&json_schema!({ "type": "integer", "minimum": 1, "maximum": 100 }))
}

/// Accepts what the schema accepts, or text with a variable in it.
fn or_variable(schema: &Schema) -> Schema {
    json_schema!({ "anyOf": [schema, { "type": "string", "pattern": "\\$\\{" }] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    /// The keys of an object in the schema, sorted.
    fn keys(object: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> =
            object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    fn sorted(keys: &[&'static str]) -> Vec<&'static str> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn the_schema_and_the_checks_know_the_same_keys() {
        let schema = json_schema(&BTreeMap::new());
        assert_eq!(keys(&schema), sorted(check::MANIFEST_KEYS));
        assert_eq!(keys(&schema["$defs"]["Service"]), sorted(check::SERVICE_KEYS));
        assert_eq!(keys(&schema["$defs"]["Node"]), sorted(check::NODE_KEYS));
    }

    #[test]
    fn the_settings_of_each_type_are_described_and_may_be_variables() {
        let limit = serde_json::json!({ "type": ["integer", "null"], "maximum": 7, "description": "most" });
        let route = serde_json::json!({ "type": "array", "items": { "properties": { "limit": limit } } });
        let settings =
            serde_json::json!({ "type": "object", "properties": { "wait": limit, "routes": route } });
        let schema = json_schema(&[("api_gateway".parse().unwrap(), settings)].into());
        let service = &schema["properties"]["services"]["patternProperties"]["^api[-_]gateway$"]["allOf"];
        let of_types = &schema["properties"]["services"]["additionalProperties"]["allOf"];
        assert_eq!(service[0], of_types[0]);
        assert_eq!(of_types[1]["if"]["properties"]["type"]["enum"][1], "api-gateway");
        assert_eq!(of_types[1]["then"], service[1]);
        let found = &service[1]["properties"]["settings"]["anyOf"][0]["properties"];
        let expected = serde_json::json!({
            "description": "most",
            "anyOf": [{ "type": ["integer", "null"], "maximum": 7 }, { "type": "string", "pattern": "\\$\\{" }],
        });
        assert_eq!(found["wait"], expected);
        assert_eq!(found["routes"]["items"]["properties"]["limit"], expected);
    }

    #[test]
    fn every_key_is_described_and_others_are_refused() {
        let schema = json_schema(&BTreeMap::new());
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        for object in [&schema, &schema["$defs"]["Service"], &schema["$defs"]["Node"]] {
            assert_eq!(object["additionalProperties"], false);
            for (key, property) in object["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{key} has no description");
            }
        }
        assert_eq!(schema["required"], serde_json::json!(["cluster", "nodes"]));
        assert_eq!(schema["$defs"]["Node"]["required"], serde_json::json!(["service"]));
    }
}
