//! The settings as an operator writes them, and the plan that they become after the check.

mod access_log;
mod files;
mod listener;

use std::sync::Arc;

use ipnet::IpNet;
use mesh::{BaseUrl, Limits};
use plugin::http::Hosts;
use plugin::{SettingsError, SettingsMistake};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use types::range::{DurationIn, NumberIn};

use crate::table::{Prefix, RouteTable, Way};

pub(crate) use access_log::AccessLogPlan;
pub use access_log::{AccessLogSettings, LogFormat, QueryLog};
pub(crate) use files::resolve_files;
pub(crate) use listener::ListenerPlan;
pub use listener::{Certificate, HttpProtocol, ListenAddress, Listener, ListenerTls};

/// A time limit: 1 ms to 365 days.
type Limit = DurationIn<1>;
/// A number of concurrent connections or requests.
pub(crate) type Count = NumberIn<1, 1_000_000>;

/// The settings of a gateway. Everything has a default; durations are written as `1s`, `500ms`, `2m`.
///
/// ```yaml
/// # `python3 -m http.server 8000` is shown under GATEWAY/files/, every service under GATEWAY/{service}/.
/// listen: 127.0.0.1:8080
/// routes:
///   - prefix: /files
///     to: [http://127.0.0.1:8000]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The address on which the gateway listens. Port 0 selects a free port; `ctl members` shows it.
    #[schemars(with = "String")]
    pub listen: ListenAddress,
    /// Several listeners instead of `listen`, at most 16, each with a name, an address and settings of its own.
    pub listeners: Vec<Listener>,
    /// Path prefixes that go to fixed addresses. Routes take precedence over service types; among routes, the longest
    /// matching prefix wins.
    pub routes: Vec<Route>,
    /// How long opening a connection to a member or an address may take. A busy server may drop the first two attempts,
    /// which takes three seconds. Default: `4s`.
    pub connect_timeout: Limit,
    /// How long the head of an answer may take, counted from the last piece of the request's body. Default: `60s`.
    pub response_timeout: Limit,
    /// How long a body may make no progress before the request fails. Default: `60s`.
    pub idle_timeout: Limit,
    /// How long a request may wait for a serving member, for example while a role moves. `0s` disables waiting.
    /// Default: `10s`.
    pub wait: DurationIn<0>,
    /// The largest number of client connections of each listener; the next one waits in the operating system's queue. Default: 10000.
    pub max_connections: Count,
    /// The trusted proxies in front of the gateway, as addresses or networks: `[10.0.0.0/8]`. Their `Forwarded`,
    /// `X-Forwarded-*` and `X-Request-Id` headers are kept and extended; those of any other client are replaced.
    pub trust: Vec<String>,
    /// Host names under which services may be requested, in addition to IP addresses, names without a dot, and names
    /// below `.localhost`, `.local` and `.internal`: `[shop.example, "*.shop.example"]`. Requests for any other host,
    /// and requests from web pages of other sites, are refused with 403, so that no web page reaches the cluster's data
    /// through a visitor's browser. `any` disables the check. Routes are reached under every host.
    #[schemars(schema_with = "hosts")]
    pub hosts: Hosts,
    /// The log of requests. There is none unless it is given.
    pub access_log: Option<AccessLogSettings>,
}

/// A path prefix that goes to fixed addresses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The prefix. `/files` matches `/files`, `/files/` and every path below it, but not `/filesystem`. `/` matches
    /// every path.
    pub prefix: String,
    /// One or more addresses `http://host[:port][/path]`; each request goes to the less loaded of two of them.
    pub to: Vec<String>,
    /// Whether to remove the prefix from the path: `/files/a` arrives as `/a`, and `X-Forwarded-Prefix` contains the
    /// prefix. With `false` the path arrives unchanged. Answers, including redirects, are not rewritten either way.
    /// Default: `true`.
    #[serde(default = "yes")]
    pub strip_prefix: bool,
    /// The largest number of concurrent requests on this route; the next one waits, at most `wait`. No limit
    /// unless given. For servers that drop connections when many arrive at once: `python3 -m http.server` queues only five.
    #[serde(default)]
    pub max_in_flight: Option<Count>,
}

fn yes() -> bool {
    true
}

fn hosts(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [{ "const": "any" }, { "type": "array", "items": { "type": "string" } }] })
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: ListenAddress::default(),
            listeners: Vec::new(),
            routes: Vec::new(),
            connect_timeout: DurationIn::of_millis::<4_000>(),
            response_timeout: DurationIn::of_millis::<60_000>(),
            idle_timeout: DurationIn::of_millis::<60_000>(),
            wait: DurationIn::of_millis::<10_000>(),
            max_connections: NumberIn::of::<10_000>(),
            trust: Vec::new(),
            hosts: Hosts::default(),
            access_log: None,
        }
    }
}

/// The checked settings.
#[derive(Debug)]
pub(crate) struct Plan {
    /// At least one.
    pub(crate) listeners: Vec<ListenerPlan>,
    pub(crate) table: RouteTable,
    pub(crate) limits: Limits,
    /// The trusted proxies of requests that arrive through the agent's listener.
    pub(crate) trust: Vec<IpNet>,
    pub(crate) hosts: Hosts,
    pub(crate) access_log: Option<AccessLogPlan>,
}

impl Settings {
    /// Checks everything, and reports all mistakes at once.
    pub(crate) fn check(self) -> Result<Plan, SettingsError> {
        let mut mistakes = Vec::new();
        let limits = Limits {
            connect: self.connect_timeout.get(),
            head: self.response_timeout.get(),
            idle: self.idle_timeout.get(),
            wait: self.wait.get(),
            ..Limits::default()
        };
        let ways = self.ways(&mut mistakes);
        let trust = listener::networks("/trust", &self.trust, &mut mistakes);
        let access_log = self.access_log.as_ref().map(|log| log.plan(&mut mistakes));
        let defaults =
            listener::Defaults { trust: trust.clone(), max_connections: self.max_connections.as_usize() };
        let listeners = listener::plan(&self.listen, &self.listeners, &defaults, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(SettingsError { mistakes });
        }
        let table = RouteTable::new(ways);
        Ok(Plan { listeners, table, limits, trust, hosts: self.hosts.clone(), access_log })
    }

    fn ways(&self, mistakes: &mut Vec<SettingsMistake>) -> Vec<Way> {
        let mut ways: Vec<Way> = Vec::new();
        for (at, route) in self.routes.iter().enumerate() {
            let to = route.addresses(at, mistakes);
            let places = route.max_in_flight.map(|limit| Arc::new(Semaphore::new(limit.as_usize())));
            let pointer = format!("/routes/{at}/prefix");
            match route.prefix.parse::<Prefix>() {
                Ok(prefix) if ways.iter().any(|way| way.prefix == prefix) => {
                    let mistake = SettingsMistake::new(pointer, format!("`{prefix}` is routed twice"));
                    mistakes.push(mistake.hint("write one route with all of its addresses"));
                }
                Ok(prefix) => ways.push(Way { prefix, to, strip_prefix: route.strip_prefix, places }),
                Err(error) => mistakes
                    .push(SettingsMistake::new(pointer, error.to_string()).hint("write it like `/files`")),
            }
        }
        ways
    }
}

impl Route {
    fn addresses(&self, at: usize, mistakes: &mut Vec<SettingsMistake>) -> Vec<BaseUrl> {
        if self.to.is_empty() {
            let mistake = SettingsMistake::new(format!("/routes/{at}/to"), "there is no address");
            mistakes.push(mistake.hint("write at least one, like `http://127.0.0.1:8000`"));
        }
        let mut addresses: Vec<BaseUrl> = Vec::new();
        for (number, text) in self.to.iter().enumerate() {
            let pointer = format!("/routes/{at}/to/{number}");
            match text.parse::<BaseUrl>() {
                Ok(url) if addresses.contains(&url) => {
                    let mistake = SettingsMistake::new(pointer, format!("`{url}` is there twice"));
                    mistakes.push(mistake.hint("leave one of them out"));
                }
                Ok(url) => addresses.push(url),
                Err(error) => mistakes.push(
                    SettingsMistake::new(pointer, error.to_string())
                        .hint("write it like `http://127.0.0.1:8000`"),
                ),
            }
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mistakes(settings: &Value) -> Vec<(String, String)> {
        plugin::check_settings(settings, Settings::check)
            .expect_err("these settings are wrong")
            .mistakes
            .into_iter()
            .map(|mistake| (mistake.pointer, mistake.message))
            .collect()
    }

    #[test]
    fn the_defaults_are_right() {
        let plan = Settings::default().check().unwrap();
        assert_eq!(plan.listeners[0].address.to_string(), "127.0.0.1:0");
        assert_eq!(plan.limits, Limits::default(), "the documented defaults are those of the mesh");
        assert_eq!(plugin::parse_settings(&json!({})), Ok(Settings::default()));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_each_with_its_place() {
        let found = mistakes(&json!({
            "listen": "localhost",
            "routes": [
                {"prefix": "files", "to": ["http://127.0.0.1:1"]},
                {"prefix": "/a/../b", "to": []},
                {"prefix": "/c", "to": ["https://example.org", "127.0.0.1:8000", "http://a:1", "http://a:1/"]},
                {"prefix": "/c/", "to": ["http://127.0.0.1:1"], "max_in_flight": 0},
            ],
            "connect_timeout": "0s",
            "wait": "soon",
            "max_connections": 0,
            "trust": ["10.0.0.7", "10.0.0.0/33", "proxy"],
        }));
        let places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            places,
            [
                "/connect_timeout",
                "/max_connections",
                "/routes/3/max_in_flight",
                "/wait",
                "/routes/0/prefix",
                "/routes/1/to",
                "/routes/1/prefix",
                "/routes/2/to/0",
                "/routes/2/to/1",
                "/routes/2/to/3",
                "/routes/3/prefix",
                "/trust/1",
                "/trust/2",
                "/listen",
            ]
        );
        let message = |place: &str| &found.iter().find(|(pointer, _)| pointer == place).unwrap().1;
        assert_eq!(
            message("/wait"),
            "a duration from 0s to 365d (like `10s`) is wanted, found the text `soon`"
        );
        assert!(message("/routes/2/to/0").contains("TLS"));
        assert!(message("/routes/3/prefix").contains("routed twice"));
        assert!(message("/routes/1/prefix").contains(".."));
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_place() {
        let found = mistakes(&json!({"routes": [{"prefix": "/a", "to": [], "strip": true}]}));
        assert_eq!(found[0], ("/routes/0/strip".to_owned(), "unknown key `strip`".to_owned()));
        let found = mistakes(&json!({"wait": 10}));
        assert_eq!(found[0].0, "/wait");
    }
}
