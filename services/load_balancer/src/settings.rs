//! The settings as an operator writes them. [`plan`](crate::plan) checks what their types can't express.

mod http;
mod percent;

use plugin::Size;
use plugin::access_log::AccessLogSettings;
use plugin::check::CheckSettings;
use plugin::http::Hosts;
use plugin::http_listener::{HttpProtocol, ListenerTls};
use plugin::proxy_protocol::ProxyVersion;
use plugin::retry::RetrySettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::{DurationIn, NumberIn};

pub(crate) use self::percent::Percent;

/// A time limit: 1 ms to 365 days.
pub(crate) type Limit = DurationIn<1>;
/// A number of connections.
pub(crate) type Count = NumberIn<1, 1_000_000>;
/// A share of the connections, relative to the other backends'.
pub(crate) type Weight = NumberIn<1, 1000>;
/// A number of results in a row.
pub(crate) type InRow = NumberIn<1, 1000>;

/// The settings of a load balancer. Durations are written as `1s`, `500ms`, `2m`.
///
/// ```yaml
/// listeners:
///   - name: front
///     address: 127.0.0.1:8080
///     service: api_gateway
///   - name: db
///     address: 127.0.0.1:5432
///     backends: [{ address: "10.1.0.7:5432" }, { address: "10.1.0.8:5432", backup: true }]
///     check: { tcp: {} }
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The addresses on which the balancer listens, each with its target: 1 to 16. By default one, `front`, on a free port of
    /// the loopback interface, which leads to the members of `api_gateway`.
    pub listeners: Vec<Listener>,
    /// The log of connections, and in HTTP mode of requests. `format: combined` is possible if all listeners are in HTTP mode:
    /// it has no form for connections. There is no log unless given.
    pub access_log: Option<AccessLogSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        let front = serde_json::json!({"name": "front", "address": "127.0.0.1:0", "service": "api_gateway"});
        Self {
            listeners: vec![serde_json::from_value(front).expect("the other keys have defaults")],
            access_log: None,
        }
    }
}

/// A listener and its target: exactly one of `service`, `backends` and `sni`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name, under which its address is gossiped and measured: at most 20 lower-case letters, digits and `-`.
    pub name: String,
    /// The address on which it listens. Port 0 selects a free port; `ctl members` shows it.
    pub address: String,
    /// What is balanced. `tcp`: connections, whatever their protocol. `http`: requests; each one gets a backend of its own, is
    /// sent again if that fails before it answers, and carries the client's address in `X-Forwarded-For`.
    #[serde(default)]
    pub mode: Mode,
    /// Connections go to the members of this service, at their own `listener`. In HTTP mode without `listener`, requests go to
    /// the service's API: `/x` becomes `/svc/NAME/x` at a member, and nothing else of the node is reached. No service
    /// unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The name of the listener of the service's members. Unless given, `gateway`, the `listen` of an api_gateway; in HTTP mode
    /// the service's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Connections go to these addresses. No addresses unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<Backend>>,
    /// TLS connections go to the target that has the server name in the client's hello (SNI), and are not decrypted. A
    /// connection without a name, or with an unknown one, is closed. Not used unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<Vec<ByName>>,
    /// How a backend is chosen, by the connections that it has in relation to its weight, unless the word says otherwise.
    /// `two_choices`: the better of two that are drawn at random. `round_robin`: in turn. `least_connections`: the best of
    /// all. `source`: the same one for each client address (IPv6: for each /64 network), unless it has more than 1.25 times
    /// its share of the connections.
    #[serde(default)]
    pub balance: Balance,
    /// Sends a header of the PROXY protocol to the backends, with the client's address: text (`v1`) or binary (`v2`). Not
    /// sent unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_proxy_protocol: Option<ProxyVersion>,
    /// The file with the certificates (PEM) that sign those of `https://` backends. A path that is not absolute is relative to
    /// the manifest. Those that the system trusts unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// TLS, in HTTP mode. Plain HTTP unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// The protocols, in HTTP mode: `http1`, `http2`. With TLS the client chooses one by ALPN; without TLS, HTTP/2 is for clients
    /// that begin with it (prior knowledge). Both unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<HttpProtocol>>,
    /// The host names under which a service's API may be requested in HTTP mode, in addition to IP addresses, names without a
    /// dot, and names below `.localhost`, `.local` and `.internal`: `[shop.example]`. Requests for any other host, and from web
    /// pages of other sites, are refused with 403. `any` disables the check. Only for a `service` without
    /// `listener`. No further hosts unless given.
    #[schemars(schema_with = "http::hosts")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Hosts>,
    /// Repetitions of failed requests, in HTTP mode. At most 3 attempts unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySettings>,
    /// Whether the proxies in front send the PROXY protocol. Then only the networks in `trust` may connect, and each
    /// connection must begin with a header, within 5 seconds.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The proxies whose PROXY protocol headers are believed, and in HTTP mode their `Forwarded`, `X-Forwarded-*` and
    /// `X-Request-Id`, as addresses or networks: `[10.0.0.0/8]`. A `Forwarded` that does not say the same as `X-Forwarded-*` is
    /// removed: a proxy that writes only one of the two must remove the other.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Whether the system moves the bytes of long transfers from one connection to the other by itself (`splice`, Linux), which
    /// saves CPU time, but makes the slowest of many transfers slower. A direction is copied until 64 KiB were moved, and
    /// always where the system refuses it. Each direction in use needs two descriptors more: at most 512 for each core, and 32
    /// that are kept to be used again. Not in HTTP mode. Default: `false`.
    #[serde(default)]
    pub splice: bool,
    /// How many connections there may be, and how long further ones wait.
    #[serde(default)]
    pub limits: Limits,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Checks the backends at regular intervals: exactly one of `tcp`, `http` and `grpc`. Only for `backends`: members of a service
    /// are known by gossip. No checks unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSettings>,
    /// Takes a backend out that does not accept connections, and never the last one. In HTTP mode
    /// it can't be changed: a backend is taken out after 5 failed requests in a row, or if less than 80% of at least 20
    /// requests in 10 seconds succeed.
    #[serde(default)]
    pub ejection: Ejection,
    /// How long a backend that is new or returns beside others takes to get its whole share of the connections; it begins
    /// with a tenth of it. `0s` disables it. In HTTP mode it can't be changed. Default: `10s`.
    #[serde(default = "slow_start")]
    pub slow_start: DurationIn<0>,
}

/// What is balanced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Connections.
    #[default]
    Tcp,
    /// HTTP requests.
    Http,
}

impl Mode {
    /// The word for it in settings.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        }
    }
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The better of two that are drawn at random.
    #[default]
    TwoChoices,
    /// In turn, in proportion to the weights.
    RoundRobin,
    /// The one with the fewest connections in relation to its weight.
    LeastConnections,
    /// The same one for each client address.
    Source,
}

impl Balance {
    /// The word for it in settings.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TwoChoices => "two_choices",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Source => "source",
        }
    }
}

/// A fixed address.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// `host:port`. All addresses of a host name are used. In HTTP mode it may begin with the protocol: `http://`, `h2c://`
    /// (HTTP/2 without TLS) or `https://` (HTTP/2 or HTTP/1.1 over TLS, with a certificate for this host); the port may then
    /// be that of the protocol.
    pub address: String,
    /// Its share of the connections, relative to the other backends'. Default: 1.
    #[serde(default = "weight")]
    pub weight: Weight,
    /// Whether it gets connections only while no backend without `backup` is up.
    #[serde(default)]
    pub backup: bool,
}

/// A target of a listener with `sni`: exactly one of `service` and `backends`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// The server names: `shop.example`, or `*.shop.example` for all names below it. An exact name takes precedence over a
    /// wildcard, a longer wildcard over a shorter one.
    pub hosts: Vec<String>,
    /// Connections go to the members of this service. No service unless given.
    #[serde(default)]
    pub service: Option<String>,
    /// The name of the listener of the service's members. `gateway` unless given.
    #[serde(default)]
    pub listener: Option<String>,
    /// Connections go to these addresses. No addresses unless given.
    #[serde(default)]
    pub backends: Option<Vec<Backend>>,
}

/// How many connections there may be. In HTTP mode, requests count as connections: those of a client, those that are forwarded,
/// and those that are queued; one beyond the limits is answered with 429 or 503. The listener then accepts as many client
/// connections as requests may be forwarded and queued, and 1024 more.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How many connections the listener forwards at once; further ones are queued. Default: 10000.
    pub connections: Count,
    /// How many connections one client address (IPv6: one /64 network) may have; further ones are closed. In HTTP mode, how many
    /// requests it may have in flight; further ones are answered with 429. Proxies in `trust` are no exception.
    /// No limit unless given.
    pub per_client: Option<Count>,
    /// How many connections each backend gets; when all have so many, further ones are queued. Not in HTTP mode. No limit
    /// unless given.
    pub per_backend: Option<Count>,
    /// How many connections may be queued, first in, first out; further ones are closed. Default: 1000.
    pub queue: NumberIn<0, 1_000_000>,
    /// How long a connection may be queued before it is closed. Default: `5s`.
    pub wait: Limit,
    /// The least number of bytes per second, such as `100B`, that a client has to send of a request's body in HTTP mode, on average
    /// over 30 seconds; a request below it is answered with 408. Only the time that the balancer waits for the client counts,
    /// not the time that the backend takes to read, and only until the answer begins. WebSockets have none. Streams of gRPC have:
    /// leave it out where clients send little at a time. No minimum unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<Size>,
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// How long connecting to a backend may take, all attempts together. Default: `4s`.
    pub connect: Limit,
    /// How long no byte may move in either direction before a connection is closed; in HTTP mode, how long a body may make no
    /// progress. Unless given, `1h`; in HTTP mode `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Limit>,
    /// How long the head of an answer may take in HTTP mode, counted from the last piece of the request's body. Unless given,
    /// `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Limit>,
    /// How long no byte may move over a WebSocket in HTTP mode, in either direction, before it is closed. Unless given, `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Limit>,
    /// How long the connection of a client may be idle between requests in HTTP mode before it is closed; with HTTP/2, how long it
    /// may have no request open. Unless given, `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Limit>,
    /// How long a client may take nothing of an answer that is ready for it in HTTP mode. Then its connection is closed; with
    /// HTTP/2, its request is reset. Unless given, `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<Limit>,
    /// How long connections continue after the drain of the member that they lead to has begun, or that of the balancer
    /// itself, which takes 10 seconds at most. Default: `30s`.
    pub drain: DurationIn<0>,
}

/// Takes out backends that do not accept connections.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// After how many failed connects in a row a backend is taken out. Default: 5.
    pub failures: InRow,
    /// It is also taken out if less than this part of its connects succeed, of at least 20 in 10 seconds. Default: `80%`.
    pub success: Percent,
    /// How long it stays out the first time; each further time one `for` longer, up to 300 seconds. Default: `10s`.
    pub r#for: Limit,
    /// The largest part of the backends that is out at a time. One may be out even if it is a larger part of few; the last one
    /// never is. Default: `50%`.
    pub most: Percent,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: NumberIn::of::<10_000>(),
            per_client: None,
            per_backend: None,
            queue: NumberIn::of::<1000>(),
            wait: DurationIn::of_millis::<5_000>(),
            min_rate: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: DurationIn::of_millis::<4_000>(),
            idle: None,
            answer: None,
            websocket: None,
            keep_alive: None,
            send: None,
            drain: DurationIn::of_millis::<30_000>(),
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: NumberIn::of::<5>(),
            success: Percent::of::<80>(),
            r#for: DurationIn::of_millis::<10_000>(),
            most: Percent::of::<50>(),
        }
    }
}

fn weight() -> Weight {
    NumberIn::of::<1>()
}

pub(crate) fn slow_start() -> DurationIn<0> {
    DurationIn::of_millis::<10_000>()
}
