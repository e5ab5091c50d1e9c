//! A route as an operator writes it.

use std::collections::BTreeMap;

use plugin::check::CheckSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::{DurationIn, NumberIn};

use super::balance::{AffinitySettings, BalanceSettings};
use super::retry::RetrySettings;
use super::{Count, Limit, Size};

/// A rule that sends requests to a service or to fixed addresses, or answers them.
///
/// It takes a request that has all it asks for: `hosts`, `path` or `prefix`, `methods`, `headers`. Of several routes that
/// take a request, the first in this order wins: an exact host before a wildcard, a longer wildcard before a shorter one,
/// then routes without `hosts`; `path`, then the longest `prefix`; `methods`; the most `headers`; the first in the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// The name in errors and in `ctl routes`. Unless given, what the route takes.
    pub name: Option<String>,
    /// The hosts: `shop.example`, or `*.shop.example` for all names below it. Case and port do not count. Every host unless
    /// given.
    pub hosts: Vec<String>,
    /// The whole path: `/healthz` matches no other path. Must be given unless `prefix` is; not used unless given.
    pub path: Option<String>,
    /// The beginning of the path. `/files` matches `/files`, `/files/` and every path below it, but not `/filesystem`. `/`
    /// matches every path. Must be given unless `path` is; not used unless given.
    pub prefix: Option<String>,
    /// The methods: `[GET, HEAD]`. Every method unless given.
    pub methods: Vec<String>,
    /// Header fields and their values. All values of a field are compared at once, joined by a comma and a space.
    pub headers: BTreeMap<String, String>,
    /// A service of the cluster, by its name: each request goes to a member that serves it. Exactly one of `service`, `to`,
    /// `backends`, `redirect` and `answer` must be given. The setting `hosts` of the gateway protects it, too; the hosts of
    /// this route are allowed. Not used unless given.
    pub service: Option<String>,
    /// One or more addresses `http://host[:port][/path]`, among which `balance` or `affinity` chooses. With `https://`, HTTP/2
    /// or HTTP/1.1 over TLS, as the server prefers; with `h2c://`, HTTP/2 without TLS. Not used unless given.
    pub to: Option<Vec<String>>,
    /// Addresses with weights; each one gets its share of the requests. Not used unless given.
    pub backends: Option<Vec<Backend>>,
    /// A file of certificates in PEM. The certificate of each `https://` address must be signed by one of them. A path that
    /// is not absolute is relative to the manifest's folder. A changed file is read again for new connections. Unless given,
    /// the certificates that the system trusts.
    pub ca: Option<String>,
    /// Another URL that the client is sent to. Not used unless given.
    pub redirect: Option<RedirectSettings>,
    /// A fixed answer. Not used unless given.
    pub answer: Option<AnswerSettings>,
    /// How the destination of each request is chosen. `two_choices`: the cheaper of two that are drawn at random, by response
    /// time and requests in flight. `round_robin`: in turn. `least_connections`: the one with the fewest requests in flight. All
    /// of them respect the weights of `backends`. Unless given, `backends` get their shares at random, whatever a request
    /// costs, and everything else is chosen by `two_choices`.
    pub balance: Option<BalanceSettings>,
    /// Sends requests that have something in common to the same member or address: `client` for those of one client address
    /// (of one /64 network for IPv6), `{cookie: NAME}` or `{header: NAME}` for those with the same value. If that one is down,
    /// fails too often, or has more than 8 requests in flight and more than 1.25 times its part of all, another one gets them: a
    /// preference, for caches, and no promise. When a member comes or goes, only its own part of the requests moves. A request
    /// without the cookie gets one in its answer, with a random value, for the whole site and the time that the browser is open
    /// (`Path=/; HttpOnly; SameSite=Lax`, and `Secure` over https), so choose a name that the server does not use. Requests
    /// without the header are chosen by `two_choices`. Not used unless given.
    pub affinity: Option<AffinitySettings>,
    /// Checks the addresses at regular intervals: exactly one of `tcp`, `http` and `grpc`. An address whose checks fail gets no
    /// requests. Only for `to` and `backends`: members of a service are known by gossip. Unless given, an idle address is
    /// only tried now and then, and taken for dead if it refuses connections.
    pub check: Option<CheckSettings>,
    /// Whether to remove the prefix from the path: `/files/a` arrives as `/a`, and `X-Forwarded-Prefix` contains the
    /// prefix. With `false` the path arrives unchanged, and so it does on a route with `path`. Answers, including redirects,
    /// are not rewritten either way. Default: `true`.
    pub strip_prefix: bool,
    /// Changes of the path and the host that the server sees.
    pub rewrite: RewriteSettings,
    /// Whether paths with an encoded slash, `%2F`, are passed on as they are or refused with 400. For servers that decode it
    /// before they look at the path. Default: `pass`.
    pub slashes: Slashes,
    /// Changes of the request's header fields.
    pub request_headers: HeaderEdits,
    /// Changes of the answer's header fields. Errors of the gateway stay unchanged.
    pub response_headers: HeaderEdits,
    /// Whether the server gets the client's address, host and scheme as `Forwarded` (RFC 7239) too, besides `X-Forwarded-*`, which
    /// say the same. A `Forwarded` that a trusted proxy sends is extended either way. Default: `false`.
    pub forwarded: bool,
    /// Limits of the requests on this route.
    pub limits: RouteLimits,
    /// The largest number of concurrent requests on this route; the next one waits, at most `wait`. No limit
    /// unless given. For servers that drop connections when many arrive at once: `python3 -m http.server` queues only five.
    /// The same as `limits.in_flight`.
    pub max_in_flight: Option<Count>,
    /// Time limits of this route.
    pub timeouts: TimeoutSettings,
    /// Repetitions of failed requests.
    pub retry: RetrySettings,
    /// The name of an entry of `keys`: requests need one of its API keys, as `Authorization: Bearer KEY` or
    /// `X-Api-Key: KEY`, and get 401 without. The server does not see the key. No key is needed unless given.
    pub keys: Option<String>,
    /// Whether to compress answers with zstd or gzip, as the client's `Accept-Encoding` asks. Each piece of an answer is sent as
    /// soon as the server has sent it. Text, JSON, XML, JavaScript, WebAssembly and SVG are compressed, if they have at least 1
    /// KiB or an unknown length. Event streams, gRPC, answers that are compressed already or have `Cache-Control:
    /// no-transform`, and answers to HEAD, to requests for a range and to HTTP/1.0 stay as they are. A strong `ETag` becomes
    /// weak. Leave it off where answers show secrets beside what a stranger can choose: their lengths would tell about the
    /// secrets (BREACH). Default: `false`.
    pub compress: bool,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: None,
            hosts: Vec::new(),
            path: None,
            prefix: None,
            methods: Vec::new(),
            headers: BTreeMap::new(),
            service: None,
            to: None,
            backends: None,
            ca: None,
            redirect: None,
            answer: None,
            balance: None,
            affinity: None,
            check: None,
            strip_prefix: true,
            rewrite: RewriteSettings::default(),
            slashes: Slashes::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            limits: RouteLimits::default(),
            max_in_flight: None,
            timeouts: TimeoutSettings::default(),
            retry: RetrySettings::default(),
            keys: None,
            compress: false,
            forwarded: false,
        }
    }
}

/// An address with a weight.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The address: `http://host[:port][/path]`, or with `https://` or `h2c://`.
    pub url: String,
    /// Its share of the requests, relative to the weights of the others. While it accepts no connections, they share its
    /// part. Default: 1.
    #[serde(default = "one")]
    pub weight: NumberIn<1, 1000>,
}

fn one() -> NumberIn<1, 1000> {
    NumberIn::of::<1>()
}

/// A redirect. At least one of `scheme`, `host`, `port` and `to` must be given; the rest of the URL stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedirectSettings {
    /// The scheme. Without `host` and `to`, the route takes only requests with another scheme, so a redirect to `https` never
    /// leads to itself. The scheme stays unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SchemeSettings>,
    /// The host. It stays unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port. Unless given, the usual one of the scheme if `scheme` or `host` is given, else that of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NumberIn<1, 65535>>,
    /// The path, and the query if there is to be one. `{rest}` stands for the part of the path that follows the prefix, with
    /// the query: `/new{rest}`. Path and query stay unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The status: 301, 302, 303, 307 or 308. Clients repeat the method and body only for 307 and 308, and remember 301 and
    /// 308. Unless given, 302.
    #[schemars(schema_with = "redirect_status")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

fn redirect_status(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "anyOf": [
        { "const": 301 }, { "const": 302 }, { "const": 303 }, { "const": 307 }, { "const": 308 }, { "type": "null" },
    ] })
}

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchemeSettings {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerSettings {
    /// The status. Default: 200.
    pub status: NumberIn<200, 599>,
    /// The body, at most 64 KiB. Empty unless given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// The body's type. Default: `text/plain; charset=utf-8`.
    pub content_type: String,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self {
            status: NumberIn::of::<200>(),
            body: String::new(),
            content_type: "text/plain; charset=utf-8".to_owned(),
        }
    }
}

/// Changes of the path and the host that the server sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RewriteSettings {
    /// What replaces the prefix: with the prefix `/v1` and `/v2` here, `/v1/a` arrives as `/v2/a`. Nothing
    /// replaces it unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The value of the `Host` header. Unless given, the host and port of the address. Only with `to` and `backends`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// What happens to a path with an encoded slash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Slashes {
    /// It is passed on unchanged.
    #[default]
    Pass,
    /// It is refused.
    Refuse,
}

/// Changes of header fields. Fields that the gateway writes itself, such as `X-Forwarded-For`, and those that frame a
/// message, such as `Content-Length`, can't be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Fields that get this value, whatever they had before. None unless given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields that get this value in addition to those that they have. None unless given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
    /// Fields that are removed. None unless given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Limits of the requests on a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// The largest body of a request, such as `10MiB`; a larger one is refused with 413. No limit unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Size>,
    /// The least number of bytes per second that a client has to send of a request's body, such as `100B`; 0 is no minimum.
    /// Unless given, `min_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<Size>,
    /// The largest number of concurrent requests; the next one waits, at most `wait`. No limit unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<Count>,
    /// The largest rate of requests; further ones are refused with 429. No limit unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSettings>,
}

/// A rate of requests. Each gateway counts alone, so a client that is spread over several gateways may have several times the
/// rate, unless it is `shared`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSettings {
    /// The number of requests in each `per`.
    pub requests: Count,
    /// The time that they are spread over. Default: `1s`.
    #[serde(default = "second")]
    pub per: Limit,
    /// The number of requests that may come at once. Unless given, `requests`.
    #[serde(default)]
    pub burst: Option<Count>,
    /// Which requests share the rate: `client` for those of one address (of one /64 network for IPv6), `route` for all of
    /// the route, `key` for those with the same API key of the route's `keys`, or `{header: NAME}` for those with the same
    /// value of a header. Behind the proxies of `trust`, the client is the one that they name. Default: `client`.
    #[serde(default)]
    pub by: RateBy,
    /// Whether the rate is for all gateways of the service together: each allows its part, `requests` and `burst` divided by
    /// the number of gateways that serve, and at least one request at once. They still count alone, so a client gets
    /// the whole rate only if its requests are spread evenly. Default: `false`.
    #[serde(default)]
    pub shared: bool,
}

fn second() -> Limit {
    DurationIn::of_millis::<1_000>()
}

/// Which requests share a rate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateBy {
    /// Those of one client address.
    #[default]
    Client,
    /// All of the route.
    Route,
    /// Those with the same API key.
    Key,
    /// Those with the same value of this header.
    Header(String),
}

/// Time limits of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutSettings {
    /// How long the head of an answer may take, counted from the last piece of the request's body. Unless given,
    /// `response_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Limit>,
    /// How long a body may make no progress before the request fails. Unless given, `idle_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Limit>,
    /// How long a request and its answer may take in all, however steadily they move; a WebSocket only until it is
    /// established. `0s` is no limit. No limit unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<DurationIn<0>>,
    /// How long no byte may move over a WebSocket, in either direction, before it is closed. Unless given,
    /// `websocket_timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Limit>,
}
