//! Routes as the table has them, from routes as an operator writes them. Every mistake is reported with its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderValue, Method};
use mesh::MinRate;
use plugin::SettingsMistake;
use plugin::check::Checking;
use types::did_you_mean;

use super::route::{HeaderEdits, RateBy, RateSettings, Route, Slashes};
use super::unreachable::{self, Shape};
use super::{Settings, target};
use crate::host::HostRule;
use crate::keys::KeySet;
use crate::path::{ExactPath, PathError, PathRule, Prefix};
use crate::places::Places;
use crate::rate::{Buckets, By, Rate, RateLimit};
use crate::rule::{Rule, shown_of};
use crate::table::{Rewrite, Target, Timeouts, Way};

/// The longest name of a route.
const LONGEST_NAME: usize = 63;

/// One route with the place for its mistakes.
pub(super) struct Checked<'a> {
    pub(super) at: usize,
    pub(super) route: &'a Route,
    pub(super) settings: &'a Settings,
    pub(super) mistakes: &'a mut Vec<SettingsMistake>,
    buckets: &'a Arc<Buckets>,
}

type Keys = BTreeMap<String, Option<Arc<KeySet>>>;

/// The routes, and all mistakes in them and in the keys.
pub(super) fn ways(settings: &Settings, mistakes: &mut Vec<SettingsMistake>) -> Vec<Way> {
    let keys = keys(settings, mistakes);
    let buckets = Arc::default();
    let mut ways: Vec<Way> = Vec::new();
    let mut shapes: Vec<Shape> = Vec::new();
    for (at, route) in settings.routes.iter().enumerate() {
        let twin =
            settings.routes[..at].iter().position(|other| route.name.is_some() && other.name == route.name);
        let mut checked = Checked { at, route, settings, mistakes: &mut *mistakes, buckets: &buckets };
        if let Some(twin) = twin {
            let message = format!("/routes/{twin} has this name already");
            checked.wrong("name", message, "give each route its own name");
        }
        let (shape, mut way) = checked.way(&keys);
        // Some differ only in values that are not shown. Metrics and pools of addresses need labels that differ.
        if let Some(way) = &mut way
            && ways.iter().any(|other| other.label == way.label)
        {
            way.label += &format!(" (/routes/{at})");
        }
        ways.extend(way);
        let Some(shape) = shape else { continue };
        mistakes.extend(unreachable::find(&shape, &shapes));
        shapes.push(shape);
    }
    ways
}

/// The sets of keys; `None` for one with a mistake.
fn keys(settings: &Settings, mistakes: &mut Vec<SettingsMistake>) -> Keys {
    let hint = "write the output of `printf %s KEY | sha256sum`, without the dash";
    let mut all = Keys::new();
    for (name, keys) in &settings.keys {
        let pointer = format!("/keys/{}", token(name));
        if keys.sha256.is_empty() {
            let message = "there is no key, so no request would pass";
            mistakes.push(SettingsMistake::new(format!("{pointer}/sha256"), message).hint(hint));
        }
        let mut digests = Vec::new();
        for (at, text) in keys.sha256.iter().enumerate() {
            match text.parse() {
                Ok(digest) => digests.push(digest),
                Err(error) => {
                    let error: crate::keys::DigestError = error;
                    let pointer = format!("{pointer}/sha256/{at}");
                    mistakes.push(SettingsMistake::new(pointer, error.to_string()).hint(hint));
                }
            }
        }
        let is_fine = !digests.is_empty() && digests.len() == keys.sha256.len();
        let set = is_fine.then(|| Arc::new(KeySet { name: name.clone(), digests }));
        all.insert(name.clone(), set);
    }
    all
}

/// A key of a mapping as part of a JSON pointer.
pub(super) fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Checked<'_> {
    /// Records a mistake at a key of the route.
    pub(super) fn wrong(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let slash = if key.is_empty() { "" } else { "/" };
        let pointer = format!("/routes/{}{slash}{key}", self.at);
        self.mistakes.push(SettingsMistake::new(pointer, message).hint(hint));
    }

    /// What the route takes and the whole route, as far as they have no mistakes.
    fn way(&mut self, keys: &Keys) -> (Option<Shape>, Option<Way>) {
        let before = self.mistakes.len();
        let route = self.route;
        self.name();
        let target = self.target();
        let before_shape = self.mistakes.len();
        let path = self.path();
        let hosts = self.hosts();
        let methods = self.methods();
        let headers = self.asked_headers();
        let scheme_other_than = match &target {
            Some(Target::Redirect(redirect)) if redirect.is_of_scheme() => redirect.scheme,
            _ => None,
        };
        // A redirect with a mistake may be meant to take only some schemes.
        let is_clear = target.is_some() || route.redirect.is_none();
        let shape = path.filter(|_| is_clear && self.mistakes.len() == before_shape).map(|path| Shape {
            place: self.at,
            hosts,
            rule: Rule { path, methods, headers, scheme_other_than },
        });
        let rewrite = self.rewrite();
        let host = self.host_header();
        let request_headers = self.edits("request_headers", &route.request_headers);
        let response_headers = self.edits("response_headers", &route.response_headers);
        let rate = route.limits.rate.as_ref().and_then(|rate| self.rate(rate));
        let keys = self.keys(keys);
        let choice = self.choice();
        let check = self.active_check();
        let places = match (route.max_in_flight, route.limits.in_flight) {
            (Some(_), Some(_)) => {
                let hint = "leave `max_in_flight` out";
                self.wrong("max_in_flight", "it means the same as `limits.in_flight`", hint);
                None
            }
            (one, other) => one.or(other),
        };
        self.effects();
        let retries = self.retries();
        let whole = target.zip(shape.clone()).filter(|_| self.mistakes.len() == before);
        let way = whole.map(|(target, Shape { place, hosts, rule })| Way {
            label: route.name.clone().unwrap_or_else(|| label(&hosts, &rule)),
            name: route.name.clone(),
            place,
            hosts,
            rule,
            target,
            rewrite,
            host,
            refuses_slashes: route.slashes == Slashes::Refuse,
            request_headers,
            response_headers,
            body: route.limits.body.map(super::Size::get),
            min_rate: route.limits.min_rate.map(|rate| MinRate::new(rate.get())),
            places: places.map(|limit| Arc::new(Places::new(limit.as_usize()))),
            rate,
            timeouts: Timeouts {
                answer: route.timeouts.answer.map(super::Limit::get),
                idle: route.timeouts.idle.map(super::Limit::get),
                total: route
                    .timeouts
                    .total
                    .map(types::range::DurationIn::get)
                    .filter(|total| !total.is_zero()),
                websocket: route.timeouts.websocket.map(super::Limit::get),
            },
            retries,
            choice,
            check,
            keys,
            compresses: route.compress,
            forwarded: route.forwarded,
        });
        (shape, way)
    }

    fn name(&mut self) {
        let Some(name) = &self.route.name else { return };
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_fine) {
            let message =
                format!("`{name}` is no name: it has up to {LONGEST_NAME} letters, digits, `.`, `_` and `-`");
            self.wrong("name", message, "write it like `shop-api`");
        }
    }

    fn path(&mut self) -> Option<PathRule> {
        let parsed = |result: Result<PathRule, PathError>, key: &str, hint: &str, own: &mut Self| match result
        {
            Ok(path) => Some(path),
            Err(error) => {
                own.wrong(key, error.to_string(), hint);
                None
            }
        };
        match (&self.route.path, &self.route.prefix) {
            (Some(_), Some(_)) => {
                self.wrong("path", "it excludes `prefix`", "leave one of them out");
                None
            }
            (None, None) => {
                let hint = "write `prefix: /` for every path";
                self.wrong("", "neither `path` nor `prefix` is given", hint);
                None
            }
            (Some(path), None) => parsed(
                path.parse::<ExactPath>().map(PathRule::Exact),
                "path",
                "write it like `/healthz`",
                self,
            ),
            (None, Some(prefix)) => parsed(
                prefix.parse::<Prefix>().map(PathRule::Prefix),
                "prefix",
                "write it like `/files`",
                self,
            ),
        }
    }

    fn hosts(&mut self) -> Vec<HostRule> {
        let mut hosts = Vec::new();
        for (at, text) in self.route.hosts.iter().enumerate() {
            let key = format!("hosts/{at}");
            match text.parse::<HostRule>() {
                Ok(host) if hosts.contains(&host) => {
                    self.wrong(&key, format!("`{text}` is there twice"), "leave one of them out");
                }
                Ok(host) => hosts.push(host),
                Err(error) => {
                    let hint = if text == "*" {
                        "leave `hosts` out for every host"
                    } else {
                        "write it like `shop.example` or `*.shop.example`, without a port"
                    };
                    self.wrong(&key, error.to_string(), hint);
                }
            }
        }
        if hosts.is_empty() { vec![HostRule::Any] } else { hosts }
    }

    fn methods(&mut self) -> Vec<Method> {
        let mut methods: Vec<Method> = Vec::new();
        for (at, text) in self.route.methods.iter().enumerate() {
            let key = format!("methods/{at}");
            match text.parse::<Method>() {
                Ok(method) if methods.contains(&method) => {
                    self.wrong(&key, format!("`{text}` is there twice"), "leave one of them out");
                }
                Ok(Method::CONNECT | Method::TRACE) => {
                    self.wrong(&key, format!("the gateway refuses every {text} request"), "leave it out");
                }
                Ok(_) if text.to_ascii_uppercase() != *text => {
                    let hint = format!("write `{}`", text.to_ascii_uppercase());
                    self.wrong(&key, format!("`{text}` is no method that clients send: case counts"), hint);
                }
                Ok(method) => methods.push(method),
                Err(_) => self.wrong(&key, format!("`{text}` is no method"), "write it like `GET`"),
            }
        }
        methods
    }

    fn rewrite(&mut self) -> Rewrite {
        let route = self.route;
        let Some(text) = &route.rewrite.prefix else {
            return if route.strip_prefix && route.prefix.is_some() { Rewrite::Strip } else { Rewrite::Keep };
        };
        if route.prefix.is_none() {
            self.wrong("rewrite/prefix", "the route has no `prefix` to replace", "give the route a `prefix`");
        }
        if !route.strip_prefix {
            let message = "it keeps the prefix, and `rewrite.prefix` replaces it";
            self.wrong("strip_prefix", message, "leave one of them out");
        }
        match text.parse::<Prefix>() {
            Ok(prefix) => Rewrite::Replace(prefix.as_str().to_owned()),
            Err(error) => {
                self.wrong("rewrite/prefix", error.to_string(), "write it like `/v2`");
                Rewrite::Keep
            }
        }
    }

    fn host_header(&mut self) -> Option<HeaderValue> {
        let text = self.route.rewrite.host.as_ref()?;
        if self.route.service.is_some() {
            let hint = "leave it out";
            self.wrong("rewrite/host", "members of the cluster are sent their own host", hint);
            return None;
        }
        let parsed = text.parse::<http::uri::Authority>().ok();
        let is_fine = |host: &http::uri::Authority| !host.host().is_empty() && !host.as_str().contains('@');
        let host = parsed.filter(is_fine).and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        if host.is_none() {
            let message = format!("`{text}` is no host");
            self.wrong("rewrite/host", message, "write it like `shop.example` or `shop.example:8080`");
        }
        host
    }

    fn rate(&mut self, rate: &RateSettings) -> Option<RateLimit> {
        let burst = rate.burst.unwrap_or(rate.requests);
        let (by, shown_by) = match &rate.by {
            RateBy::Client => (By::Client, "client".to_owned()),
            RateBy::Route => (By::Route, "route".to_owned()),
            RateBy::Key => (By::Key, "key".to_owned()),
            RateBy::Header(name) => {
                let key = "limits/rate/by/header";
                let header = self.header_name(key, name)?;
                (By::Header(header), format!("header {name}"))
            }
        };
        if by == By::Key && self.route.keys.is_none() {
            let message = "the requests of this route have no API keys";
            self.wrong("limits/rate/by", message, "give the route `keys`, or write `by: client`");
        }
        let shown = format!("{} per {}, burst {burst}, by {shown_by}", rate.requests, rate.per);
        let limit = Rate::new(rate.requests.get(), rate.per.get(), burst.get());
        let limit = RateLimit::new(limit, by, shown, self.buckets);
        Some(if rate.shared { limit.shared() } else { limit })
    }

    fn keys(&mut self, keys: &Keys) -> Option<Arc<KeySet>> {
        let name = self.route.keys.as_ref()?;
        match keys.get(name) {
            Some(set) => set.clone(),
            None => {
                let hint = match did_you_mean(name, keys.keys().map(String::as_str)) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("add `{name}` to `keys` of the gateway"),
                };
                self.wrong("keys", format!("there are no keys `{name}`"), hint);
                None
            }
        }
    }

    fn active_check(&mut self) -> Option<Checking> {
        let check = self.route.check.as_ref()?;
        if self.route.service.is_some() {
            let message = "the members of a service are not checked: gossip knows them";
            self.wrong("check", message, "leave it out, or use `to` or `backends`");
        }
        let to = self.route.to.iter().flatten();
        let of_backends = self.route.backends.iter().flatten().map(|backend| &backend.url);
        let has_tls = to.chain(of_backends).any(|url| url.starts_with("https:"));
        if has_tls && check.tcp.is_none() {
            let message = "checks by `http` and `grpc` are made without TLS, and an address is `https://`";
            self.wrong("check", message, "write `check: { tcp: {} }`");
        }
        check.plan(&format!("/routes/{}/check", self.at), self.mistakes)
    }

    /// Reports settings without an effect on the route.
    fn effects(&mut self) {
        let route = self.route;
        let is_own = route.redirect.is_some() || route.answer.is_some();
        let given = [
            ("rewrite", route.rewrite != super::RewriteSettings::default()),
            ("timeouts", route.timeouts != super::TimeoutSettings::default()),
            ("limits/min_rate", route.limits.min_rate.is_some()),
            ("balance", route.balance.is_some()),
            ("affinity", route.affinity.is_some()),
            ("check", route.check.is_some()),
            ("retry", route.retry != super::RetrySettings::default()),
            ("request_headers", route.request_headers != HeaderEdits::default()),
            ("forwarded", route.forwarded),
        ];
        if route.ca.is_some() && route.to.is_none() && route.backends.is_none() {
            let message = "it has no effect: the route has no address";
            self.wrong("ca", message, "leave it out");
        }
        if route.compress && route.redirect.is_some() {
            let message = "it has no effect: the answers of this route have no body";
            self.wrong("compress", message, "leave it out");
        }
        for (key, is_given) in given {
            if is_own && is_given {
                let message = "it has no effect: the gateway answers the requests of this route itself";
                self.wrong(key, message, "leave it out");
            }
        }
    }

    /// The destination of the route.
    fn target(&mut self) -> Option<Target> {
        let route = self.route;
        let given = [
            ("service", route.service.is_some()),
            ("to", route.to.is_some()),
            ("backends", route.backends.is_some()),
            ("redirect", route.redirect.is_some()),
            ("answer", route.answer.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key);
        let Some(first) = given.next() else {
            let hint = "give one of `service`, `to`, `backends`, `redirect` and `answer`";
            self.wrong("", "the route leads nowhere", hint);
            return None;
        };
        let more: Vec<_> = given.collect();
        for second in &more {
            self.wrong(second, format!("it excludes `{first}`"), "leave one of them out");
        }
        let target = target::check(self);
        target.filter(|_| more.is_empty())
    }
}

/// What a route takes, in short: `GET shop.example/api`.
fn label(hosts: &[HostRule], rule: &Rule) -> String {
    let mut label = String::new();
    if !rule.methods.is_empty() {
        label += &rule.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(",");
        label.push(' ');
    }
    if hosts != [HostRule::Any] {
        label += &hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    }
    label += &rule.path.to_string();
    for (name, value) in &rule.headers {
        label += &format!(" {name}: {}", shown_of(name, value));
    }
    if let Some(scheme) = rule.scheme_other_than {
        label += &format!(" unless {}", scheme.as_str());
    }
    label
}
