//! The settings as an operator writes them, and the plan that they become after the check.

mod balance;
mod certificates;
mod check;
mod files;
mod headers;
mod listener;
mod loops;
mod retry;
mod route;
mod target;
mod unreachable;

use std::collections::BTreeMap;

use mesh::{Limits, MinRate};
use plugin::SettingsError;
pub(crate) use plugin::access_log::AccessLogPlan;
pub use plugin::access_log::{AccessLogSettings, LogFormat, QueryLog};
use plugin::http::Hosts;
pub use plugin::{Size, SizeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::{DurationIn, NumberIn};

pub use self::balance::{AffinitySettings, BalanceSettings};
pub(crate) use self::certificates::warnings as certificate_warnings;
pub(crate) use self::files::resolve_files;
pub(crate) use self::listener::ListenerPlan;
pub use self::listener::{
    Certificate, ClientCertificates, HttpProtocol, ListenAddress, Listener, ListenerTls,
};
pub use self::retry::{RetryOn, RetrySettings};
pub use self::route::{
    AnswerSettings, Backend, HeaderEdits, RateBy, RateSettings, RedirectSettings, RewriteSettings, Route,
    RouteLimits, SchemeSettings, Slashes, TimeoutSettings,
};
use crate::table::RouteTable;

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
///   - hosts: [shop.example]
///     prefix: /api
///     service: storage
///     limits: { body: 10MiB, rate: { requests: 100, per: 1s } }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The address on which the gateway listens. Port 0 selects a free port; `ctl members` shows it. It is the address of a listener
    /// named `gateway`.
    #[schemars(with = "String")]
    pub listen: ListenAddress,
    /// Several listeners instead of `listen`, at most 16, each with a name, an address and settings of its own.
    pub listeners: Vec<Listener>,
    /// Rules that send requests to services or to fixed addresses, redirect them or answer them, by host, path, method and
    /// headers. Routes take precedence over the paths of services; among routes, the most specific one wins: an exact host
    /// before a wildcard, then a whole path before the longest prefix. `ctl routes` shows their order.
    pub routes: Vec<Route>,
    /// Whether each service can be requested under `/{service}/`, besides the routes to it: `all` or `none`. Default: `all`.
    pub services: Services,
    /// API keys that open routes, by a name that routes refer to.
    pub keys: BTreeMap<String, KeySettings>,
    /// How long opening a connection to a member or an address may take. A busy server may drop the first two attempts,
    /// which takes three seconds. Default: `4s`.
    pub connect_timeout: Limit,
    /// How long the head of an answer may take, counted from the last piece of the request's body. Default: `60s`.
    pub response_timeout: Limit,
    /// How long a body may make no progress before the request fails. Default: `60s`.
    pub idle_timeout: Limit,
    /// The least number of bytes per second, such as `100B`, that a client has to send of a request's body, on average over 30
    /// seconds; a request below it is answered with 408. Only the time that the gateway waits for the client counts, not the time
    /// that the server takes to read, and only until the answer begins. WebSockets have none. Streams of gRPC have: write
    /// `limits: { min_rate: 0 }` on routes whose clients send little at a time. No minimum unless given.
    pub min_rate: Option<Size>,
    /// How long no byte may move over a WebSocket, in either direction, before it is closed: pings count. Default: `5m`.
    pub websocket_timeout: Limit,
    /// How long a request may wait for a serving member, for example while a role moves. `0s` disables waiting.
    /// Default: `10s`.
    pub wait: DurationIn<0>,
    /// How long the connection of a client may be idle between requests before it is closed; with HTTP/2, how long it may have
    /// no request open. Default: `60s`.
    pub keep_alive: Limit,
    /// How long a client may take nothing of an answer that is ready for it. Then its connection is closed; with HTTP/2, its
    /// request is reset. Default: `60s`.
    pub send_timeout: Limit,
    /// The largest number of client connections of each listener. For one more, the connection that has been idle longest is
    /// closed; if none is idle, the new one waits. Default: 10000.
    pub max_connections: Count,
    /// The largest number of connections of each listener that one client address (IPv6: one /64 network) may have; further
    /// ones are closed at once. The proxies in `trust` have no such limit, as they bring many clients; behind the PROXY protocol
    /// the client is the one in its header. Connections that were opened while there was no limit do not count.
    /// No limit unless given.
    pub max_connections_per_client: Option<Count>,
    /// The trusted proxies in front of the gateway, as addresses or networks: `[10.0.0.0/8]`. Their `Forwarded`,
    /// `X-Forwarded-*` and `X-Request-Id` headers are kept and extended; those of any other client are replaced. The client is
    /// the rightmost address in `X-Forwarded-For`, or else in `Forwarded`, that is not in this list. A `Forwarded` that does not
    /// say the same as `X-Forwarded-*` is removed: a proxy that writes only one of the two must remove the other.
    pub trust: Vec<String>,
    /// Host names under which services may be requested, in addition to IP addresses, names without a dot, and names
    /// below `.localhost`, `.local` and `.internal`: `[shop.example, "*.shop.example"]`. Requests for any other host,
    /// and requests from web pages of other sites, are refused with 403, so that no web page reaches the cluster's data
    /// through a visitor's browser. `any` disables the check. Routes are reached under every host.
    #[schemars(schema_with = "hosts")]
    pub hosts: Hosts,
    /// The log of requests. There is none unless given.
    pub access_log: Option<AccessLogSettings>,
}

/// API keys that open routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// The SHA-256 of each key, in hexadecimal digits: `printf %s KEY | sha256sum`. The keys themselves are not stored.
    pub sha256: Vec<String>,
}

/// Whether services have paths of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Services {
    /// Every service does.
    #[default]
    All,
    /// None does.
    None,
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
            services: Services::default(),
            keys: BTreeMap::new(),
            connect_timeout: DurationIn::of_millis::<4_000>(),
            response_timeout: DurationIn::of_millis::<60_000>(),
            idle_timeout: DurationIn::of_millis::<60_000>(),
            min_rate: None,
            websocket_timeout: DurationIn::of_millis::<300_000>(),
            wait: DurationIn::of_millis::<10_000>(),
            keep_alive: DurationIn::of_millis::<60_000>(),
            send_timeout: DurationIn::of_millis::<60_000>(),
            max_connections: NumberIn::of::<10_000>(),
            max_connections_per_client: None,
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
            min_rate: MinRate::new(self.min_rate.map_or(0, Size::get)),
            wait: self.wait.get(),
            ..Limits::default()
        };
        let ways = check::ways(&self, &mut mistakes);
        let trust = plugin::http_listener::networks("/trust", &self.trust, &mut mistakes);
        let access_log = self.access_log.as_ref().map(|log| log.plan(&mut mistakes));
        let defaults = listener::Defaults {
            trust,
            keep_alive: self.keep_alive.get(),
            send_timeout: self.send_timeout.get(),
            max_connections: self.max_connections.as_usize(),
            max_connections_per_client: self.max_connections_per_client,
        };
        let listeners = listener::plan(&self.listen, &self.listeners, &defaults, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(SettingsError { mistakes });
        }
        let table = RouteTable::new(ways)
            .with_services(self.services == Services::All)
            .with_websocket_idle(self.websocket_timeout.get());
        let mistakes = loops::find(&table, &listeners);
        if !mistakes.is_empty() {
            return Err(SettingsError { mistakes });
        }
        Ok(Plan { listeners, table, limits, hosts: self.hosts.clone(), access_log })
    }
}

#[cfg(test)]
mod tests;
