//! The listeners in the settings of a gateway, and their plans after the check.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use plugin::http_listener::networks;
pub use plugin::http_listener::{Certificate, ClientCertificates, HttpProtocol, ListenerTls};
use plugin::{CertificateFiles, ClientAuth, SettingsMistake, WantedTls};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Count, Limit};

/// The most listeners of a gateway.
const MAX_LISTENERS: usize = 16;
/// The longest name, in letters.
const MAX_NAME: usize = 20;
/// The most bytes that names and addresses may have together: all members gossip them.
const MAX_GOSSIPED: usize = 1024;
/// The longest path of a readiness check, in bytes.
const MAX_READY: usize = 200;

/// The name of the only listener of a gateway without `listeners`.
pub(crate) const ONLY: &str = "gateway";

/// The address of `listen`, and whether it was given or is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    pub(super) text: String,
    pub(super) is_given: bool,
}

impl Default for ListenAddress {
    fn default() -> Self {
        Self { text: "127.0.0.1:0".to_owned(), is_given: false }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { text: String::deserialize(deserializer)?, is_given: true })
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

/// A listener with a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Its name in `ctl members`, metrics and logs: at most 20 lower-case letters, digits and `-`, the first a letter.
    pub name: String,
    /// The address on which it listens. Port 0 selects a free port; `ctl members` shows it.
    pub address: String,
    /// The trusted proxies in front of this listener. Those in `trust` of the gateway unless given.
    #[serde(default)]
    pub trust: Option<Vec<String>>,
    /// How long a connection of this listener may be idle between requests. That in `keep_alive` of the gateway unless given.
    #[serde(default)]
    pub keep_alive: Option<Limit>,
    /// How long a client of this listener may take nothing of an answer that is ready for it. That in `send_timeout` of the gateway
    /// unless given.
    #[serde(default)]
    pub send_timeout: Option<Limit>,
    /// The largest number of client connections of this listener. That in `max_connections` of the gateway unless given.
    #[serde(default)]
    pub max_connections: Option<Count>,
    /// The largest number of connections of this listener that one client address may have. 1000000 is as good as
    /// no limit. That in `max_connections_per_client` of the gateway unless given.
    #[serde(default)]
    pub max_connections_per_client: Option<Count>,
    /// A path for readiness checks of a load balancer, such as `/ready`: it answers 200, and 503 as soon as the gateway
    /// begins to drain. No route and no service is reached under this path. There is none unless given.
    #[serde(default)]
    pub ready: Option<String>,
    /// Whether the proxies in front send the PROXY protocol, as a load_balancer with `send_proxy_protocol` does. Then only the
    /// networks in `trust` may connect, and each connection must begin with a header, within 5 seconds; the client that it
    /// names counts as the other end of the connection.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// TLS. The listener speaks plain HTTP unless given.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// The protocols: `http1`, `http2`. With TLS the client chooses one by ALPN; without TLS, HTTP/2 is for clients that
    /// begin with it (prior knowledge). Default: both.
    #[serde(default = "all_protocols")]
    pub protocols: Vec<HttpProtocol>,
}

fn all_protocols() -> Vec<HttpProtocol> {
    vec![HttpProtocol::Http1, HttpProtocol::Http2]
}

/// A checked listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerPlan {
    /// Its place in `listeners`; none for the one of `listen`.
    pub(crate) place: Option<usize>,
    /// The settings that it has from the gateway.
    pub(crate) inherits: Vec<&'static str>,
    /// Its name, which is also the key of its gossiped endpoint.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) trust: Vec<IpNet>,
    pub(crate) keep_alive: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) max_connections: usize,
    /// No limit unless given.
    pub(crate) max_connections_per_client: Option<u32>,
    pub(crate) ready: Option<String>,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// The certificates; none if it speaks plain HTTP.
    pub(crate) certificates: Vec<CertificateFiles>,
    /// How clients identify themselves, if they do.
    pub(crate) client_auth: Option<ClientAuth>,
    pub(crate) http1: bool,
    pub(crate) http2: bool,
}

impl ListenerPlan {
    pub(crate) fn is_tls(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The TLS that it wants.
    pub(crate) fn tls(&self) -> Option<WantedTls<'_>> {
        self.is_tls().then(|| WantedTls {
            listener: &self.name,
            certificates: &self.certificates,
            client_auth: self.client_auth.as_ref(),
            http1: self.http1,
            http2: self.http2,
        })
    }

    /// The JSON pointer of a setting, where an operator would change it.
    pub(crate) fn pointer(&self, key: &str) -> String {
        match self.place {
            Some(at) if !self.inherits.contains(&key) => format!("/listeners/{at}/{key}"),
            None if key == "address" => "/listen".to_owned(),
            // The one of `listen` has no other settings of its own; when it replaces one of `listeners`, that matters.
            None if !self.inherits.contains(&key) => "/listeners".to_owned(),
            Some(_) | None => format!("/{key}"),
        }
    }

    /// The scheme of its URL.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }
}

/// What listeners have unless they say otherwise.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) trust: Vec<IpNet>,
    pub(super) keep_alive: Duration,
    pub(super) send_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_client: Option<Count>,
}

/// The listeners, either the one of `listen` or those of `listeners`.
pub(super) fn plan(
    listen: &ListenAddress,
    listeners: &[Listener],
    defaults: &Defaults,
    mistakes: &mut Vec<SettingsMistake>,
) -> Vec<ListenerPlan> {
    if listeners.is_empty() {
        let address = address("/listen", &listen.text, mistakes);
        return address.map(|address| only(address, defaults)).into_iter().collect();
    }
    if listen.is_given {
        mistakes.push(SettingsMistake::new("/listen", "`listen` and `listeners` exclude each other").hint(
            "make it one of the listeners: `{ name: gateway, address: ... }`, the name that it has now",
        ));
    }
    if listeners.len() > MAX_LISTENERS {
        let message = format!("there are {} listeners, at most {MAX_LISTENERS} are allowed", listeners.len());
        mistakes
            .push(SettingsMistake::new("/listeners", message).hint("leave some out, or run another gateway"));
    }
    let mut plans: Vec<ListenerPlan> = Vec::new();
    let mut names = BTreeSet::new();
    for (at, listener) in listeners.iter().enumerate() {
        if !names.insert(&listener.name) {
            let mistake = SettingsMistake::new(
                format!("/listeners/{at}/name"),
                format!("`{}` is there twice", listener.name),
            );
            mistakes.push(mistake.hint("give each listener a name of its own"));
        }
        if let Some(plan) = listener.plan(at, defaults, mistakes) {
            let is_taken = |other: &ListenerPlan| other.address == plan.address && plan.address.port() != 0;
            if let Some(other) = plans.iter().find(|other| is_taken(other)) {
                let message = format!("listener `{}` has {}, too", other.name, plan.address);
                let mistake = SettingsMistake::new(format!("/listeners/{at}/address"), message);
                mistakes.push(mistake.hint("choose another port, or 0 for any free one"));
            }
            plans.push(plan);
        }
    }
    let gossiped: usize = plans.iter().map(gossiped).sum();
    if gossiped > MAX_GOSSIPED {
        let message =
            format!("names and addresses have {gossiped} bytes together, at most {MAX_GOSSIPED} are allowed");
        let hint =
            "shorten the names, or leave listeners out: every member of the cluster keeps them in memory";
        mistakes.push(SettingsMistake::new("/listeners", message).hint(hint));
    }
    plans
}

/// The listener of `listen`.
fn only(address: SocketAddr, defaults: &Defaults) -> ListenerPlan {
    ListenerPlan {
        place: None,
        inherits: vec![
            "trust",
            "keep_alive",
            "send_timeout",
            "max_connections",
            "max_connections_per_client",
        ],
        name: ONLY.to_owned(),
        address,
        trust: defaults.trust.clone(),
        keep_alive: defaults.keep_alive,
        send_timeout: defaults.send_timeout,
        max_connections: defaults.max_connections,
        max_connections_per_client: defaults.max_connections_per_client.map(Count::as_u32),
        ready: None,
        proxy_protocol: false,
        certificates: Vec::new(),
        client_auth: None,
        http1: true,
        http2: true,
    }
}

/// How many bytes of gossip a listener needs at most: `"name":"https://address:12345",`.
fn gossiped(plan: &ListenerPlan) -> usize {
    let host = match plan.address.ip() {
        // Another address of the node is gossiped then.
        ip if ip.is_unspecified() => 41,
        IpAddr::V4(ip) => ip.to_string().len(),
        IpAddr::V6(ip) => ip.to_string().len() + 2,
    };
    plan.name.len() + plan.scheme().len() + host + "\"\":\"://:12345\",".len()
}

fn address(pointer: &str, text: &str, mistakes: &mut Vec<SettingsMistake>) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        mistakes.push(
            SettingsMistake::new(pointer, format!("`{text}` is no address and port"))
                .hint("write `127.0.0.1:8080`, or `127.0.0.1:0` for any free port"),
        );
    }
    address
}

impl Listener {
    fn plan(
        &self,
        at: usize,
        defaults: &Defaults,
        mistakes: &mut Vec<SettingsMistake>,
    ) -> Option<ListenerPlan> {
        let pointer = |key: &str| format!("/listeners/{at}/{key}");
        if !is_name(&self.name) {
            let message = format!("`{}` is no name of a listener", self.name);
            let hint = "write at most 20 lower-case letters, digits and `-`, the first a letter, like `web`";
            mistakes.push(SettingsMistake::new(pointer("name"), message).hint(hint));
        }
        let address = address(&pointer("address"), &self.address, mistakes);
        let trust = match &self.trust {
            Some(texts) => networks(&pointer("trust"), texts, mistakes),
            None => defaults.trust.clone(),
        };
        if let Some(path) = self.ready.as_ref().filter(|path| !is_path(path)) {
            let message = format!("`{path}` is no path");
            let hint = "write it like `/ready`, without a query";
            mistakes.push(SettingsMistake::new(pointer("ready"), message).hint(hint));
        }
        if self.proxy_protocol && trust.is_empty() && self.trust.as_ref().is_none_or(Vec::is_empty) {
            let message = "no proxy may connect, as `trust` is empty";
            let hint = "name the proxies in front that send the PROXY protocol, like `trust: [10.0.0.0/8]`";
            mistakes.push(SettingsMistake::new(pointer("proxy_protocol"), message).hint(hint));
        }
        if self.protocols.is_empty() {
            let mistake = SettingsMistake::new(pointer("protocols"), "there is no protocol");
            mistakes.push(mistake.hint("write `[http1, http2]`, or leave it out"));
        }
        let certificates = match &self.tls {
            Some(tls) => tls.files(&pointer("tls/certificates"), mistakes),
            None => Vec::new(),
        };
        let client_auth = self.tls.as_ref().and_then(|tls| tls.client_auth(&pointer("tls"), mistakes));
        let per_client = self.max_connections_per_client;
        let inherited = [
            ("trust", self.trust.is_none()),
            ("keep_alive", self.keep_alive.is_none()),
            ("send_timeout", self.send_timeout.is_none()),
            ("max_connections", self.max_connections.is_none()),
            ("max_connections_per_client", per_client.is_none()),
        ];
        Some(ListenerPlan {
            place: Some(at),
            inherits: inherited.into_iter().filter(|(_, is_it)| *is_it).map(|(key, _)| key).collect(),
            name: self.name.clone(),
            address: address?,
            trust,
            keep_alive: self.keep_alive.map_or(defaults.keep_alive, Limit::get),
            send_timeout: self.send_timeout.map_or(defaults.send_timeout, Limit::get),
            max_connections: self.max_connections.map_or(defaults.max_connections, Count::as_usize),
            max_connections_per_client: per_client.or(defaults.max_connections_per_client).map(Count::as_u32),
            ready: self.ready.clone(),
            proxy_protocol: self.proxy_protocol,
            certificates,
            client_auth,
            http1: self.protocols.contains(&HttpProtocol::Http1),
            http2: self.protocols.contains(&HttpProtocol::Http2),
        })
    }
}

fn is_name(text: &str) -> bool {
    let is_rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_NAME
        && text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text.bytes().all(is_rest)
}

fn is_path(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
    text.starts_with('/') && text.len() <= MAX_READY && text.bytes().all(is_fine)
}

#[cfg(test)]
mod tests;
