//! The route table: a request goes along the first route that takes it, else to the service in the first segment of its
//! path.
//!
//! Pure. Routes are indexed by host, and under each host sorted by precedence, so matching allocates nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use mesh::{BaseUrl, MinRate};
use plugin::check::Checking;
use plugin::http::Guard;
pub(crate) use plugin::retry::Retries;
use types::ServiceName;

use crate::affinity::Choice;
use crate::edits::Edits;
use crate::host::HostRule;
use crate::keys::KeySet;
use crate::path::first_segment;
use crate::places::Places;
use crate::rate::RateLimit;
use crate::redirect::Redirect;
use crate::rule::{Asked, Mismatch, Rank, Rule};

/// A route.
#[derive(Debug)]
pub(crate) struct Way {
    /// What errors and tables call it: its name, or what it matches.
    pub(crate) label: String,
    pub(crate) name: Option<String>,
    /// Its place in the settings.
    pub(crate) place: usize,
    /// At least one.
    pub(crate) hosts: Vec<HostRule>,
    pub(crate) rule: Rule,
    pub(crate) target: Target,
    pub(crate) rewrite: Rewrite,
    /// The `Host` header that the address gets, if not its own.
    pub(crate) host: Option<HeaderValue>,
    /// Whether a path with `%2F` is refused.
    pub(crate) refuses_slashes: bool,
    pub(crate) request_headers: Edits,
    pub(crate) response_headers: Edits,
    /// The largest body of a request, in bytes.
    pub(crate) body: Option<u64>,
    /// The least rate of a request's body, where it differs from the gateway's.
    pub(crate) min_rate: Option<MinRate>,
    /// One permit for each request that may be in flight on the route; `None` means no limit.
    pub(crate) places: Option<Arc<Places>>,
    pub(crate) rate: Option<RateLimit>,
    pub(crate) timeouts: Timeouts,
    pub(crate) retries: Retries,
    /// How one of the members or addresses is chosen.
    pub(crate) choice: Choice,
    /// How its addresses are checked, if they are.
    pub(crate) check: Option<Checking>,
    pub(crate) keys: Option<Arc<KeySet>>,
    /// Whether answers are compressed for clients that accept it.
    pub(crate) compresses: bool,
    /// Whether its servers get `Forwarded` besides `X-Forwarded-*`.
    pub(crate) forwarded: bool,
}

/// The usual limit for idle WebSockets.
pub(crate) const WEBSOCKET_IDLE: Duration = Duration::from_secs(300);

/// The destination of a route.
#[derive(Debug)]
pub(crate) enum Target {
    /// The members of a service, and who may reach them.
    Service(ServiceName, Guard),
    /// Fixed addresses, and their weights if they have any.
    Addresses { urls: Vec<BaseUrl>, weights: Vec<u32> },
    /// Another URL.
    Redirect(Redirect),
    /// The gateway's own answer.
    Answer { status: StatusCode, body: Bytes, content_type: HeaderValue },
}

/// What happens to the part of the path that the route matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rewrite {
    /// It is removed.
    Strip,
    /// It stays.
    Keep,
    /// It is replaced with this, which has no trailing slash.
    Replace(String),
}

/// Time limits of a route, where they differ from the gateway's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) answer: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    /// For the whole exchange; never 0.
    pub(crate) total: Option<Duration>,
    /// How long a WebSocket may be idle.
    pub(crate) websocket: Option<Duration>,
}

/// All routes.
#[derive(Debug)]
pub(crate) struct RouteTable {
    ways: Vec<Way>,
    /// Each route under each of its hosts, in order of precedence.
    entries: Vec<Entry>,
    /// The routes of each host in order of precedence.
    exact: BTreeMap<String, Vec<usize>>,
    /// The routes of each wildcard, by its suffix `.shop.example`.
    below: BTreeMap<String, Vec<usize>>,
    /// The routes without a host.
    any: Vec<usize>,
    /// Whether each service has a path of its own.
    has_services: bool,
    /// How long a WebSocket may be idle on a route without a limit of its own, and to a service under its path.
    websocket_idle: Duration,
}

/// A route under one of its hosts.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) host: HostRule,
    way: usize,
}

/// The destination of a request.
#[derive(Debug)]
pub(crate) enum Destination<'a> {
    /// A route, and the number of bytes of the path that it matched.
    Route(&'a Way, usize),
    /// A service.
    Service(ServiceName),
    /// No route and no service matches.
    Nowhere,
}

impl Way {
    /// The addresses that it sends requests to; none for a service.
    pub(crate) fn addresses(&self) -> &[BaseUrl] {
        match &self.target {
            Target::Addresses { urls, .. } => urls,
            Target::Service(..) | Target::Redirect(_) | Target::Answer { .. } => &[],
        }
    }
}

impl RouteTable {
    /// A table of routes, in the order of the settings.
    pub(crate) fn new(ways: Vec<Way>) -> Self {
        let mut entries: Vec<_> = ways
            .iter()
            .enumerate()
            .flat_map(|(way, route)| route.hosts.iter().map(move |host| Entry { host: host.clone(), way }))
            .collect();
        entries.sort_by_key(|entry| {
            let way = &ways[entry.way];
            Rank::new(&entry.host, &way.rule, way.place)
        });
        let mut table = Self {
            ways,
            entries: Vec::new(),
            exact: BTreeMap::new(),
            below: BTreeMap::new(),
            any: Vec::new(),
            has_services: true,
            websocket_idle: WEBSOCKET_IDLE,
        };
        for Entry { host, way } in &entries {
            match host {
                HostRule::Exact(host) => table.exact.entry(host.clone()).or_default().push(*way),
                HostRule::Below(suffix) => table.below.entry(suffix.clone()).or_default().push(*way),
                HostRule::Any => table.any.push(*way),
            }
        }
        table.entries = entries;
        table
    }

    /// The same table, in which services have paths of their own or have none.
    #[must_use]
    pub(crate) fn with_services(self, has_services: bool) -> Self {
        Self { has_services, ..self }
    }

    /// The same table with another limit for idle WebSockets.
    #[must_use]
    pub(crate) fn with_websocket_idle(self, websocket_idle: Duration) -> Self {
        Self { websocket_idle, ..self }
    }

    /// Whether each service has a path of its own.
    pub(crate) fn has_services(&self) -> bool {
        self.has_services
    }

    /// How long a WebSocket may be idle on a route, or to a service under its path.
    pub(crate) fn websocket_idle(&self, way: Option<&Way>) -> Duration {
        way.and_then(|way| way.timeouts.websocket).unwrap_or(self.websocket_idle)
    }

    /// The destination of a request.
    pub(crate) fn destination(&self, asked: &Asked<'_>) -> Destination<'_> {
        if let Some((way, len)) = self.route(asked) {
            return Destination::Route(way, len);
        }
        match first_segment(asked.path).parse() {
            Ok(service) if self.has_services => Destination::Service(service),
            _ => Destination::Nowhere,
        }
    }

    fn route(&self, asked: &Asked<'_>) -> Option<(&Way, usize)> {
        let first = |ways: &[usize]| {
            ways.iter().map(|way| &self.ways[*way]).find_map(|way| Some((way, way.rule.takes(asked)?)))
        };
        if let Some(host) = asked.host {
            if let Some(found) = self.exact.get(host).and_then(|ways| first(ways)) {
                return Some(found);
            }
            // The longest suffix first. A name that begins with a dot is below nothing.
            let dots = host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
            let dots = dots.take(if self.below.is_empty() { 0 } else { usize::MAX });
            for at in dots {
                if let Some(found) = self.below.get(&host[at..]).and_then(|ways| first(ways)) {
                    return Some(found);
                }
            }
        }
        first(&self.any)
    }

    /// The routes in the order of the settings.
    pub(crate) fn ways(&self) -> &[Way] {
        &self.ways
    }

    pub(crate) fn ways_mut(&mut self) -> &mut [Way] {
        &mut self.ways
    }

    /// Each route under each of its hosts, in order of precedence.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&HostRule, &Way)> {
        self.entries.iter().map(|entry| (&entry.host, &self.ways[entry.way]))
    }

    /// The same up to the first that takes the request, each with the reason why it does not.
    pub(crate) fn explain<'a>(&'a self, asked: &Asked<'_>) -> Vec<(&'a HostRule, &'a Way, Option<Mismatch>)> {
        let mut considered = Vec::new();
        for (host, way) in self.entries() {
            let mismatch = way.rule.mismatch(host, asked);
            let is_match = mismatch.is_none();
            considered.push((host, way, mismatch));
            if is_match {
                break;
            }
        }
        considered
    }
}

#[cfg(test)]
impl Way {
    /// A route of a prefix to addresses, as settings with these two alone make it.
    pub(crate) fn to_addresses(prefix: &str, urls: Vec<BaseUrl>) -> Self {
        let path = crate::path::PathRule::Prefix(prefix.parse().unwrap());
        Self {
            label: path.to_string(),
            name: None,
            place: 0,
            hosts: vec![HostRule::Any],
            rule: Rule { path, methods: Vec::new(), headers: Vec::new(), scheme_other_than: None },
            target: Target::Addresses { urls, weights: Vec::new() },
            rewrite: Rewrite::Strip,
            host: None,
            refuses_slashes: false,
            request_headers: Edits::default(),
            response_headers: Edits::default(),
            body: None,
            min_rate: None,
            places: None,
            rate: None,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            choice: Choice::default(),
            check: None,
            keys: None,
            compresses: false,
            forwarded: false,
        }
    }
}

#[cfg(test)]
mod tests;
