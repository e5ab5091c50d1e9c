//! The checked settings, and the check that reports all mistakes at once.

mod backends;
mod http;
mod seen;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use plugin::access_log::{AccessLogPlan, AccessLogSettings, LogFormat};
use plugin::check::Checking;
use plugin::proxy_protocol::{ProxyVersion, network};
use plugin::{SettingsError, SettingsMistake, absolute_path};
use types::ServiceName;
use types::range::DurationIn;

use crate::eject::Rules;
use crate::settings::{Backend, Balance, Listener, Mode, Settings};
use crate::sni::{Names, Pattern};

pub(crate) use self::backends::{Fixed, Protocol};
pub(crate) use self::http::HttpPlan;

/// The largest number of listeners.
const LISTENERS: usize = 16;
/// The longest name of a listener. Names are gossiped.
const NAME: usize = 20;
/// How long no byte may move, unless given.
const IDLE: Duration = Duration::from_secs(3600);
/// The same for WebSockets in HTTP mode.
const WEBSOCKET_IDLE: Duration = Duration::from_secs(300);
/// The listener of a service's members unless another one is given: that of `api_gateway`.
const GATEWAY: &str = "gateway";

/// A checked balancer.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) listeners: Vec<ListenerPlan>,
    pub(crate) access_log: Option<AccessLogPlan>,
}

/// A checked listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerPlan {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) targets: Vec<TargetPlan>,
    /// By server name; without them there is one target.
    pub(crate) names: Option<Names>,
    /// The networks from which alone connections come, each with a header of the PROXY protocol.
    pub(crate) trust: Option<Vec<IpNet>>,
    pub(crate) limits: LimitsPlan,
    pub(crate) forward: Forward,
    /// In HTTP mode.
    pub(crate) http: Option<HttpPlan>,
}

/// How connections of a listener are forwarded.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    /// The name of the listener.
    pub(crate) listener: Arc<str>,
    pub(crate) balance: Balance,
    pub(crate) send: Option<ProxyVersion>,
    pub(crate) per_backend: Option<u32>,
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
    /// How long a WebSocket may be idle in HTTP mode.
    pub(crate) websocket: Duration,
    pub(crate) drain: Duration,
    pub(crate) check: Option<Checking>,
    pub(crate) ejection: Rules,
    pub(crate) slow_start: Duration,
    /// Long transfers need not be copied.
    pub(crate) splice: bool,
    /// Requests are forwarded, not connections.
    pub(crate) is_http: bool,
}

/// How many connections a listener has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitsPlan {
    pub(crate) connections: usize,
    pub(crate) per_client: Option<u32>,
    pub(crate) queue: usize,
    pub(crate) wait: Duration,
}

/// Where connections go.
#[derive(Debug, Clone)]
pub(crate) struct TargetPlan {
    /// The server names that lead to it, as written.
    pub(crate) hosts: Vec<String>,
    pub(crate) source: Source,
}

/// Where a target's addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The members of a service, at their listener of this name.
    Service { service: ServiceName, listener: String },
    /// Settings.
    Backends(Vec<Fixed>),
}

impl Source {
    /// The service whose members are the backends.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Backends(_) => None,
        }
    }
}

/// Collects mistakes below a place.
struct Mistakes(Vec<SettingsMistake>);

impl Mistakes {
    fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(SettingsMistake::new(pointer, message).hint(hint));
    }
}

/// Checks settings whose form is right.
pub(crate) fn check(settings: Settings) -> Result<Plan, SettingsError> {
    let Settings { listeners: given, access_log } = settings;
    let mut mistakes = Mistakes(Vec::new());
    match given.len() {
        0 => mistakes.add(
            "/listeners",
            "there is no listener",
            "write at least one, with `name` and `address`",
        ),
        1..=LISTENERS => {}
        more => mistakes.add(
            "/listeners",
            format!("there are {more} listeners, at most {LISTENERS} are possible"),
            "run a second load balancer, as a service with another name",
        ),
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut listeners = Vec::new();
    for (at, listener) in given.iter().enumerate() {
        let place = format!("/listeners/{at}");
        check_name(&place, &listener.name, &mut mistakes);
        if let Some(first) = names.insert(&listener.name, at) {
            let message = format!("listener {first} has the name `{}`, too", listener.name);
            mistakes.add(format!("{place}/name"), message, "give each listener a name of its own");
        }
        if let Some(address) = socket(&place, &listener.address, &addresses, &mut mistakes) {
            addresses.push(address);
            listeners.extend(planned(&place, listener, address, &mut mistakes));
        } else {
            // For its other mistakes.
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let _ = planned(&place, listener, any, &mut mistakes);
        }
    }
    let access_log = access_log.map(|log| log_plan(&log, &given, &mut mistakes));
    if mistakes.0.is_empty() {
        Ok(Plan { listeners, access_log })
    } else {
        Err(SettingsError { mistakes: mistakes.0 })
    }
}

fn check_name(place: &str, name: &str, mistakes: &mut Mistakes) {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins_well = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    if !begins_well || name.len() > NAME || !name.bytes().all(is_allowed) {
        let hint = format!("use at most {NAME} lower-case letters, digits and `-`, the first a letter");
        mistakes.add(format!("{place}/name"), format!("`{name}` is no name of a listener"), hint);
    }
}

/// The address of a listener, if no other one has it.
fn socket(place: &str, text: &str, others: &[SocketAddr], mistakes: &mut Mistakes) -> Option<SocketAddr> {
    let pointer = format!("{place}/address");
    let Ok(address) = text.parse::<SocketAddr>() else {
        let hint = "write `127.0.0.1:8080`, or `127.0.0.1:0` for any free port";
        mistakes.add(pointer, format!("`{text}` is no address and port"), hint);
        return None;
    };
    let overlaps = |other: &&SocketAddr| {
        let is_any = other.ip().is_unspecified() || address.ip().is_unspecified();
        address.port() != 0 && other.port() == address.port() && (other.ip() == address.ip() || is_any)
    };
    if let Some(other) = others.iter().find(overlaps) {
        mistakes.add(pointer, format!("another listener has `{other}`"), "choose another port");
    }
    Some(address)
}

fn planned(
    place: &str,
    listener: &Listener,
    address: SocketAddr,
    mistakes: &mut Mistakes,
) -> Option<ListenerPlan> {
    let before = mistakes.0.len();
    let (targets, names) = targets(place, listener, mistakes);
    ca(place, listener, mistakes);
    let trust = trust(place, listener, mistakes);
    let http = http::plan(place, listener, &trust, mistakes);
    let has_backends = listener.backends.is_some()
        || listener.sni.iter().flatten().any(|by_name| by_name.backends.is_some());
    let check = listener.check.as_ref().and_then(|check| {
        let place = format!("{place}/check");
        if !has_backends && (listener.service.is_some() || listener.sni.is_some()) {
            let message = "the members of a service are not checked: gossip knows them";
            mistakes.add(&place, message, "leave it out, or use `backends`");
        }
        if backends::has_tls(listener) && check.tcp.is_none() {
            let message = "checks by `http` and `grpc` are made without TLS, and a backend is `https://`";
            mistakes.add(&place, message, "write `check: { tcp: {} }`");
        }
        let checking = check.plan(&place, &mut mistakes.0)?;
        Some(Checking { send: listener.send_proxy_protocol, ..checking })
    });
    (mistakes.0.len() == before).then(|| ListenerPlan {
        name: listener.name.clone(),
        address,
        targets,
        names,
        trust: listener.proxy_protocol.then_some(trust),
        limits: LimitsPlan {
            connections: listener.limits.connections.as_usize(),
            per_client: listener.limits.per_client.map(types::range::NumberIn::as_u32),
            queue: listener.limits.queue.as_usize(),
            wait: listener.limits.wait.get(),
        },
        forward: Forward {
            listener: listener.name.as_str().into(),
            balance: listener.balance,
            send: listener.send_proxy_protocol,
            per_backend: listener.limits.per_backend.map(types::range::NumberIn::as_u32),
            connect: listener.timeouts.connect.get(),
            idle: listener.timeouts.idle.map_or(IDLE, DurationIn::get),
            websocket: listener.timeouts.websocket.map_or(WEBSOCKET_IDLE, DurationIn::get),
            drain: listener.timeouts.drain.get(),
            check,
            ejection: Rules {
                failures: listener.ejection.failures.as_u32(),
                success: listener.ejection.success.get(),
                most: listener.ejection.most.get(),
                time: listener.ejection.r#for.get(),
            },
            slow_start: listener.slow_start.get(),
            splice: listener.splice,
            is_http: listener.mode == Mode::Http,
        },
        http,
    })
}

/// The file of trusted certificates has to be of use.
fn ca(place: &str, listener: &Listener, mistakes: &mut Mistakes) {
    let Some(ca) = listener.ca.as_deref().filter(|_| listener.mode == Mode::Http) else { return };
    let pointer = format!("{place}/ca");
    if !backends::has_tls(listener) {
        let message = "it has no effect: no backend of this listener begins with `https://`";
        mistakes.add(&pointer, message, "leave it out, or write `https://`");
    }
    let _ = absolute_path(&pointer, ca, &mut mistakes.0);
}

/// The log; its format has to have a form for all that the listeners log.
fn log_plan(log: &AccessLogSettings, listeners: &[Listener], mistakes: &mut Mistakes) -> AccessLogPlan {
    let tcp = listeners.iter().find(|listener| listener.mode == Mode::Tcp);
    if let (LogFormat::Combined, Some(tcp)) = (log.format, tcp) {
        let message =
            format!("`combined` has no form for connections, which listener `{}` balances", tcp.name);
        let hint =
            "write `json`, or balance connections by a second load balancer, a service with another name";
        mistakes.add("/access_log/format", message, hint);
    }
    log.plan(&mut mistakes.0)
}

fn trust(place: &str, listener: &Listener, mistakes: &mut Mistakes) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (at, text) in listener.trust.iter().enumerate() {
        match network(text) {
            Some(network) => networks.push(network),
            None => mistakes.add(
                format!("{place}/trust/{at}"),
                format!("`{text}` is no address and no network"),
                "write it like `10.0.0.7` or `10.0.0.0/8`",
            ),
        }
    }
    match (listener.proxy_protocol, listener.trust.is_empty()) {
        (true, true) => mistakes.add(
            format!("{place}/trust"),
            "with `proxy_protocol` no proxy is trusted, so nobody could connect",
            "write the addresses of the proxies in front, like `trust: [10.0.0.0/8]`",
        ),
        (false, false) if listener.mode == Mode::Tcp => mistakes.add(
            format!("{place}/trust"),
            "`trust` has no effect without `proxy_protocol`",
            "write `proxy_protocol: true`, or leave it out",
        ),
        _ => {}
    }
    networks
}

/// The targets, and the names that lead to them.
fn targets(place: &str, listener: &Listener, mistakes: &mut Mistakes) -> (Vec<TargetPlan>, Option<Names>) {
    let given = [listener.service.is_some(), listener.backends.is_some(), listener.sni.is_some()];
    if given.iter().filter(|is_given| **is_given).count() != 1 {
        let message = match given {
            [false, false, false] => "the listener has no target",
            _ => "the listener has more than one target",
        };
        mistakes.add(place, message, "write exactly one of `service`, `backends` and `sni`");
    }
    if http::service(listener).is_some() {
        // Its members are found by the mesh.
        return (Vec::new(), None);
    }
    let Some(sni) = &listener.sni else {
        let (service, backends) = (listener.service.as_deref(), listener.backends.as_deref());
        let source = source(place, listener, service, listener.listener.as_deref(), backends, mistakes);
        return (source.map(|source| TargetPlan { hosts: Vec::new(), source }).into_iter().collect(), None);
    };
    if listener.listener.is_some() {
        let message = "`listener` has no effect here";
        mistakes.add(format!("{place}/listener"), message, "write it beside the `service` in `sni`");
    }
    if sni.is_empty() {
        mistakes.add(format!("{place}/sni"), "there is no target", "write at least one, with its `hosts`");
    }
    let mut patterns: Vec<(Pattern, usize)> = Vec::new();
    let mut targets = Vec::new();
    for (at, by_name) in sni.iter().enumerate() {
        let place = format!("{place}/sni/{at}");
        if by_name.hosts.is_empty() {
            mistakes.add(format!("{place}/hosts"), "there is no server name", "write at least one");
        }
        for (number, text) in by_name.hosts.iter().enumerate() {
            let pointer = format!("{place}/hosts/{number}");
            match text.parse::<Pattern>() {
                Ok(pattern) if patterns.iter().any(|(known, _)| *known == pattern) => {
                    mistakes.add(pointer, format!("`{pattern}` is there twice"), "leave one of them out");
                }
                Ok(pattern) => patterns.push((pattern, at)),
                Err(error) => {
                    let hint = "write it like `shop.example`, or `*.shop.example` for all names below it";
                    mistakes.add(pointer, error.to_string(), hint);
                }
            }
        }
        if by_name.service.is_some() == by_name.backends.is_some() {
            let message = match by_name.service {
                Some(_) => "there is more than one target",
                None => "there is no target",
            };
            mistakes.add(&place, message, "write exactly one of `service` and `backends`");
        }
        let (service, backends) = (by_name.service.as_deref(), by_name.backends.as_deref());
        let source = source(&place, listener, service, by_name.listener.as_deref(), backends, mistakes);
        targets.extend(source.map(|source| TargetPlan { hosts: by_name.hosts.clone(), source }));
    }
    (targets, Some(Names::new(patterns)))
}

/// `listener` is the one of the balancer, `named` that of the service's members.
fn source(
    place: &str,
    listener: &Listener,
    service: Option<&str>,
    named: Option<&str>,
    backends: Option<&[Backend]>,
    mistakes: &mut Mistakes,
) -> Option<Source> {
    if let (None, Some(_)) = (service, named) {
        let message = "`listener` has no effect without `service`";
        mistakes.add(format!("{place}/listener"), message, "write the `service` whose listener it is");
    }
    if let Some(backends) = backends {
        let fixed = backends::plan(&format!("{place}/backends"), backends, listener, mistakes);
        return service.is_none().then_some(Source::Backends(fixed));
    }
    match service?.parse::<ServiceName>() {
        Ok(service) => Some(Source::Service { service, listener: named.unwrap_or(GATEWAY).to_owned() }),
        Err(error) => {
            mistakes.add(format!("{place}/service"), error.to_string(), "write it like `api_gateway`");
            None
        }
    }
}

#[cfg(test)]
mod tests;
