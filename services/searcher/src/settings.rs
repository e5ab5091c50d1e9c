//! The settings, as an operator writes them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use plugin::http::Hosts;
use plugin::{SettingsError, SettingsMistake};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::{DurationIn, NumberIn};

use crate::catalog::{AutoCreate, MAX_INDEXES, NAME_RULE, check_name};
use crate::definition::PartialDefinition;
use crate::shard::{Limits, VISIBLE};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The settings of a searcher. Everything has a default; sizes are in bytes.
///
/// ```yaml
/// indexes:
///   packages:
///     id: name
///     fields:
///       name: {type: keyword}
///       description: {type: text, analyzer: en}
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Indexes that always exist, by name, at most 200. Missing ones are created. When a member starts, it applies these
    /// definitions to those that exist, as a `PUT` of them would: fields are added, and what is left out stays. Requests may
    /// add to them afterwards, but not delete them. An index that was created with another definition degrades the health of
    /// the members.
    pub(crate) indexes: BTreeMap<String, PartialDefinition>,
    /// The pause between two refreshes; a refresh makes what was written visible to searches. `100ms` to `1h`; `1s` unless
    /// given.
    pub(crate) refresh: DurationIn<100, 3_600_000>,
    /// How much may be acknowledged that is not in a manifest on the store yet, per shard: what is not indexed, and what is
    /// indexed and not uploaded. Beyond that writes wait for a second, and are then refused with 429.
    pub(crate) max_behind: MaxBehind,
    /// The largest body of a request with many documents; larger ones are refused with 413. Bodies that are in memory at a time
    /// share twice as much. 1 KiB to 256 MiB; 32 MiB unless given. One document has at most 8 MiB.
    pub(crate) max_body: NumberIn<KIB, { 256 * MIB }>,
    /// The memory with which documents are indexed, at each member. 15 MiB to 4 GiB; 64 MiB unless given.
    pub(crate) heap: NumberIn<{ 15 * MIB }, { 4 * GIB }>,
    /// How much of this node's disk the segments of its shard may take; beyond that writes are refused with 507. 64 MiB to 16
    /// TiB; 20 GiB unless given.
    pub(crate) disk: NumberIn<{ 64 * MIB }, { 16 * 1024 * GIB }>,
    /// How many queries run at a time at each member, each on a thread of its own. 1 to 64; 2 unless given.
    pub(crate) query_threads: NumberIn<1, 64>,
    /// How many more queries may wait at each member; more are refused with 429. 0 to 10000; 200 unless given.
    pub(crate) max_queries: NumberIn<0, 10_000>,
    /// Which indexes a first write creates: `true`, the default; `false`; or a list of patterns such as
    /// `["-logs-private-*", "logs-*"]`, of which the first that matches decides. `_cluster/settings` of Elasticsearch's API can
    /// override it.
    pub(crate) auto_create: AutoCreate,
    /// The address on which each member answers Elasticsearch's API at `/`, for clients that take only a host and a port. None
    /// unless given. Port 0 selects a free port; `ctl members` shows it.
    pub(crate) es_listen: Option<String>,
    /// The hosts under which clients may reach that listener, such as `["search.example", "*.logs.example"]`, or `any`. IP
    /// addresses and names that nobody can register, such as `localhost`, are always allowed.
    #[schemars(schema_with = "hosts")]
    pub(crate) es_hosts: Hosts,
}

/// How much may be acknowledged that is not in a manifest on the store yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MaxBehind {
    /// In bytes of documents, 1 MiB to 1 GiB; 64 MiB unless given.
    pub(crate) bytes: NumberIn<MIB, GIB>,
    /// In operations, 1000 to 10 million; 50000 unless given.
    pub(crate) operations: NumberIn<1_000, 10_000_000>,
}

impl Default for MaxBehind {
    fn default() -> Self {
        Self { bytes: NumberIn::of::<{ 64 * MIB }>(), operations: NumberIn::of::<50_000>() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            indexes: BTreeMap::new(),
            refresh: DurationIn::of_millis::<1_000>(),
            max_behind: MaxBehind::default(),
            max_body: NumberIn::of::<{ 32 * MIB }>(),
            heap: NumberIn::of::<{ 64 * MIB }>(),
            disk: NumberIn::of::<{ 20 * GIB }>(),
            query_threads: NumberIn::of::<2>(),
            max_queries: NumberIn::of::<200>(),
            auto_create: AutoCreate::All,
            es_listen: None,
            es_hosts: Hosts::default(),
        }
    }
}

fn hosts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [{ "const": "any" }, { "type": "array", "items": { "type": "string" } }] })
}

impl Settings {
    /// The address for Elasticsearch's API.
    pub(crate) fn es_address(&self) -> Option<SocketAddr> {
        self.es_listen.as_ref()?.parse().ok()
    }

    /// Checks what the range of each setting does not ensure: the names and definitions of indexes.
    pub(crate) fn check(self) -> Result<Self, SettingsError> {
        let mut mistakes = Vec::new();
        if self.indexes.len() > MAX_INDEXES {
            let message =
                format!("there are {} indexes; at most {MAX_INDEXES} are allowed", self.indexes.len());
            mistakes.push(SettingsMistake::new("/indexes", message).hint("take some of them out"));
        }
        for (name, definition) in &self.indexes {
            let pointer = format!("/indexes/{}", name.replace('~', "~0").replace('/', "~1"));
            if let Err(error) = definition.check() {
                let below = |mistake: SettingsMistake| SettingsMistake {
                    pointer: format!("{pointer}{}", mistake.pointer),
                    ..mistake
                };
                mistakes.extend(error.mistakes.into_iter().map(below));
            }
            if definition.delete_after.is_some_and(|delete_after| !delete_after.is_never()) {
                let message = "an index that the settings declare is never deleted";
                let mistake = SettingsMistake::new(format!("{pointer}/delete_after"), message);
                mistakes.push(mistake.hint("leave it out, or create the index by a request or a template"));
            }
            if let Err(error) = check_name(name) {
                let mistake = SettingsMistake::new(pointer, error.to_string()).hint(NAME_RULE);
                mistakes.push(SettingsMistake { at_key: true, ..mistake });
            }
        }
        if let Some(address) = self.es_listen.as_ref().filter(|_| self.es_address().is_none()) {
            let mistake = SettingsMistake::new("/es_listen", format!("`{address}` is no address and port"));
            mistakes.push(mistake.hint("write for example `127.0.0.1:9200`"));
        }
        if mistakes.is_empty() { Ok(self) } else { Err(SettingsError { mistakes }) }
    }

    /// The limits of the shard.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            refresh: self.refresh.get(),
            max_behind: (self.max_behind.bytes.as_usize(), self.max_behind.operations.as_usize()),
            visible: VISIBLE,
            heap: self.heap.as_usize(),
            disk: self.disk.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(settings: &Value) -> Vec<(String, String)> {
        let error = plugin::check_settings::<Settings, _>(settings, Settings::check).unwrap_err();
        error.mistakes.into_iter().map(|mistake| (mistake.pointer, mistake.message)).collect()
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(Settings::default().check(), Ok(Settings::default()));
        assert_eq!(plugin::parse_settings(&json!({})), Ok(Settings::default()));
        let limits = Settings::default().limits();
        assert_eq!((limits.max_behind.1, limits.heap), (50_000, 64 * 1024 * 1024));
    }

    #[test]
    fn what_is_out_of_range_is_refused_at_its_place() {
        for (settings, pointer) in [
            (json!({"refresh": "99ms"}), "/refresh"),
            (json!({"refresh": "2h"}), "/refresh"),
            (json!({"max_body": 1023}), "/max_body"),
            (json!({"max_body": 268_435_457}), "/max_body"),
            (json!({"heap": 15_728_639}), "/heap"),
            (json!({"disk": 1}), "/disk"),
            (json!({"query_threads": 0}), "/query_threads"),
            (json!({"max_queries": 10_001}), "/max_queries"),
            (json!({"auto_create": "a*"}), "/auto_create"),
            (json!({"es_listen": "localhost"}), "/es_listen"),
            (json!({"es_hosts": ["a/b"]}), "/es_hosts"),
            (json!({"max_behind": {"bytes": 1}}), "/max_behind/bytes"),
            (json!({"max_behind": {"operation": 1}}), "/max_behind/operation"),
            (json!({"indexes": {"x": {"fields": {"a": {"type": "txt"}}}}}), "/indexes/x/fields/a"),
            (json!({"indexes": {"x": {"fields": {"_a": {"type": "text"}}}}}), "/indexes/x/fields/_a"),
            (json!({"indexes": {"x": {"delete_after": "1d"}}}), "/indexes/x/delete_after"),
            (json!({"indexes": {"x": {"delete_after": "1"}}}), "/indexes/x/delete_after"),
        ] {
            let mistakes = found(&settings);
            assert!(mistakes[0].0.starts_with(pointer), "{settings}: {mistakes:?}");
        }
    }

    #[test]
    fn names_of_declared_indexes_follow_the_rule() {
        let mistakes = found(&json!({"indexes": {"X": {}, "../y": {}, "ok": {}, "es": {}}}));
        let places: Vec<_> = mistakes.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["/indexes/..~1y", "/indexes/X", "/indexes/es"]);
        let many: BTreeMap<_, _> = (0..201).map(|number| (format!("x{number}"), json!({}))).collect();
        assert_eq!(found(&json!({ "indexes": many }))[0].0, "/indexes");
    }
}
