//! The settings as an operator writes them, and the plan that they become after the check.

use std::net::{IpAddr, SocketAddr};
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

/// A time limit: 1 ms to 365 days.
type Limit = DurationIn<1>;
/// A number of concurrent connections or requests.
type Count = NumberIn<1, 1_000_000>;

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
    pub listen: String,
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
    /// The largest number of client connections; the next one waits in the operating system's queue. Default: 10000.
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
            listen: "127.0.0.1:0".to_owned(),
            routes: Vec::new(),
            connect_timeout: DurationIn::of_millis::<4_000>(),
            response_timeout: DurationIn::of_millis::<60_000>(),
            idle_timeout: DurationIn::of_millis::<60_000>(),
            wait: DurationIn::of_millis::<10_000>(),
            max_connections: NumberIn::of::<10_000>(),
            trust: Vec::new(),
            hosts: Hosts::default(),
        }
    }
}

/// The checked settings.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) listen: SocketAddr,
    pub(crate) table: RouteTable,
    pub(crate) limits: Limits,
    pub(crate) max_connections: usize,
    pub(crate) trust: Vec<IpNet>,
    pub(crate) hosts: Hosts,
}

impl Settings {
    /// Checks everything, and reports all mistakes at once.
    pub(crate) fn check(self) -> Result<Plan, SettingsError> {
        let mut mistakes = Vec::new();
        let listen = self.listen.parse().map_err(|_| {
            SettingsMistake::new("/listen", format!("`{}` is no address and port", self.listen))
                .hint("write `127.0.0.1:8080`, or `127.0.0.1:0` for any free port")
        });
        let limits = Limits {
            connect: self.connect_timeout.get(),
            head: self.response_timeout.get(),
            idle: self.idle_timeout.get(),
            wait: self.wait.get(),
            ..Limits::default()
        };
        let ways = self.ways(&mut mistakes);
        let trust = self.networks(&mut mistakes);
        match listen {
            Ok(listen) if mistakes.is_empty() => Ok(Plan {
                listen,
                table: RouteTable::new(ways),
                limits,
                max_connections: self.max_connections.as_usize(),
                trust,
                hosts: self.hosts.clone(),
            }),
            listen => {
                mistakes.extend(listen.err());
                Err(SettingsError { mistakes })
            }
        }
    }

    fn networks(&self, mistakes: &mut Vec<SettingsMistake>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (at, text) in self.trust.iter().enumerate() {
            match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network),
                Err(_) => {
                    let message = format!("`{text}` is no address and no network");
                    let mistake = SettingsMistake::new(format!("/trust/{at}"), message);
                    mistakes.push(mistake.hint("write it like `10.0.0.7` or `10.0.0.0/8`"));
                }
            }
        }
        networks
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
        assert_eq!(plan.listen.to_string(), "127.0.0.1:0");
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
