//! The routes in order of precedence, and which of them takes a request: `GET /routes`.
//!
//! The explanation asks each route for the first condition that a request does not meet, so it can't differ from what the
//! route does.

mod more;
mod tested;

use std::collections::BTreeMap;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use ipnet::IpNet;
use mesh::head::{self, Source};
use plugin::client_addr;
use plugin::http::query::{self, QueryError};
use serde::Serialize;

use crate::affinity::Choice;
use crate::gateway::scheme_of;
use crate::host::{HostRule, MAX_NAME, name_of};
use crate::path::PathRule;
use crate::rate::RateLimit;
use crate::rule::{Asked, Scheme, shown_of};
use crate::table::{Destination, Retries, Rewrite, RouteTable, Target, Way};
use more::{EditsView, RewriteView, TimeoutsView};
use tested::Refusal;

/// The host of an example that names none, which every gateway takes.
const NO_HOST: HeaderValue = HeaderValue::from_static("localhost");

/// A route under one of its hosts.
#[derive(Debug, Serialize)]
pub(crate) struct RouteView {
    /// Its place in the settings: `/routes/3`.
    place: String,
    /// Its name, or else what it takes: as in metrics and logs.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    methods: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// The route takes only requests with another scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    unless_scheme: Option<&'static str>,
    target: TargetView,
    /// The algorithm that chooses among members or addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<&'static str>,
    /// What requests to the same member or address have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity: Option<String>,
    limits: LimitsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
    /// Which failed requests are sent again, where the settings say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryView>,
    /// Whether answers are compressed for clients that accept it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    compress: bool,
    /// Whether its servers get `Forwarded` besides `X-Forwarded-*`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forwarded: bool,
    /// False if the prefix is sent with the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    strip_prefix: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrite: Option<RewriteView>,
    /// `refuse` if a path with `%2F` is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    slashes: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_headers: Option<EditsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_headers: Option<EditsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeouts: Option<TimeoutsView>,
    /// How its addresses are checked, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<String>,
}

/// The destination of a route; one of these.
#[derive(Debug, Default, Serialize)]
struct TargetView {
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backends: Option<Vec<BackendView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<RedirectView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerView>,
}

#[derive(Debug, Serialize)]
struct BackendView {
    url: String,
    weight: u32,
}

#[derive(Debug, Serialize)]
struct RedirectView {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

#[derive(Debug, Serialize)]
struct AnswerView {
    status: u16,
}

/// The limits of a route, where it has any.
#[derive(Debug, Serialize)]
struct LimitsView {
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<u64>,
    /// In bytes per second; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<String>,
}

/// Which failed requests are sent again.
#[derive(Debug, Serialize)]
struct RetryView {
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    on: Vec<&'static str>,
    codes: Vec<u16>,
}

/// A request that is not sent: `GET https://host/path`, with header fields.
#[derive(Debug, Clone)]
pub(crate) struct Example {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Those that are left at the gateway, which decide about routes.
    stripped: HeaderMap,
    /// Who sends it.
    source: Source,
}

/// Which route takes an example, and why those before it do not.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// The routes before it in the order of precedence.
    pub(crate) passed: Vec<Passed>,
    /// The route that takes it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<RouteView>,
    /// The service that gets it, if no route takes it and its path begins with the name of a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// The gateway answers it with the list of its routes, because neither takes it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_index: bool,
    /// Some of its fields count only from the trusted proxies of a listener, as one of which it is explained.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_of_proxy: bool,
    /// Why the gateway refuses it, wherever it would go.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refusal>,
    /// The listeners that answer it themselves, as a readiness check.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ready: Vec<String>,
    /// Whether all listeners do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_ready_everywhere: bool,
}

/// A route that does not take an example.
#[derive(Debug, Serialize)]
pub(crate) struct Passed {
    #[serde(rename = "route")]
    view: RouteView,
    why: String,
}

/// The routes in order of precedence.
pub(crate) fn routes(table: &RouteTable) -> Vec<RouteView> {
    table.entries().map(|(host, way)| RouteView::new(host, way)).collect()
}

/// Which route takes an example.
pub(crate) fn explain(table: &RouteTable, example: &Example) -> Explanation {
    let mut buffer = [0; MAX_NAME];
    let asked = example.asked(&mut buffer);
    let mut passed = Vec::new();
    let mut route = None;
    for (host, way, mismatch) in table.explain(&asked) {
        let view = RouteView::new(host, way);
        match mismatch {
            Some(mismatch) => passed.push(Passed { view, why: mismatch.to_string() }),
            None => route = Some(view),
        }
    }
    let (service, is_index) = match table.destination(&asked) {
        Destination::Service(service) => (Some(service.to_string()), false),
        Destination::Route(..) => (None, false),
        Destination::Nowhere => (None, asked.path == "/"),
    };
    Explanation {
        passed,
        route,
        service,
        is_index,
        is_of_proxy: example.is_of_proxy(),
        refused: None,
        ready: Vec::new(),
        is_ready_everywhere: false,
    }
}

/// What clients may know of a route: its name, and which hosts, paths and methods it takes. Not where it leads.
pub(crate) fn for_clients(way: &Way) -> serde_json::Value {
    let mut view = serde_json::Map::new();
    let mut add = |key: &str, value: serde_json::Value| view.insert(key.to_owned(), value);
    if let Some(name) = &way.name {
        add("name", name.as_str().into());
    }
    if way.hosts != [HostRule::Any] {
        add("hosts", way.hosts.iter().map(ToString::to_string).collect());
    }
    match &way.rule.path {
        PathRule::Exact(path) => add("path", path.as_str().into()),
        PathRule::Prefix(prefix) => add("prefix", prefix.to_string().into()),
    };
    if !way.rule.methods.is_empty() {
        add("methods", way.rule.methods.iter().map(ToString::to_string).collect());
    }
    view.into()
}

impl RouteView {
    fn new(host: &HostRule, way: &Way) -> Self {
        let rule = &way.rule;
        let (path, prefix) = match &rule.path {
            PathRule::Exact(path) => (Some(path.as_str().to_owned()), None),
            PathRule::Prefix(prefix) => (None, Some(prefix.to_string())),
        };
        let is_sent = matches!(way.target, Target::Service(..) | Target::Addresses { .. });
        Self {
            place: format!("/routes/{}", way.place),
            name: way.label.clone(),
            host: (*host != HostRule::Any).then(|| host.to_string()),
            path,
            prefix,
            methods: rule.methods.iter().map(ToString::to_string).collect(),
            headers: (rule.headers.iter())
                .map(|(name, value)| (name.to_string(), shown_of(name, value)))
                .collect(),
            unless_scheme: rule.scheme_other_than.map(Scheme::as_str),
            target: TargetView::new(&way.target),
            balance: way.choice.as_str().filter(|_| is_sent),
            affinity: match &way.choice {
                Choice::Affinity(affinity) => Some(affinity.to_string()),
                Choice::TwoChoices | Choice::Shares | Choice::RoundRobin(_) | Choice::LeastConnections => {
                    None
                }
            },
            limits: LimitsView {
                body: way.body,
                min_rate: way.min_rate.map(|rate| rate.bytes_per_second),
                in_flight: way.places.as_ref().map(|places| places.limit()),
                rate: way.rate.as_ref().map(RateLimit::shown),
            },
            keys: way.keys.as_ref().map(|keys| keys.name.clone()),
            retry: RetryView::new(&way.retries),
            compress: way.compresses,
            forwarded: way.forwarded,
            strip_prefix: keeps_prefix(way).then_some(false),
            rewrite: RewriteView::new(way),
            slashes: way.refuses_slashes.then_some("refuse"),
            request_headers: EditsView::new(&way.request_headers),
            response_headers: EditsView::new(&way.response_headers),
            timeouts: TimeoutsView::new(&way.timeouts),
            check: way.check.as_ref().map(more::check),
        }
    }
}

/// Whether a prefix, which others remove, is sent with the path.
fn keeps_prefix(way: &Way) -> bool {
    let is_sent = matches!(way.target, Target::Service(..) | Target::Addresses { .. });
    is_sent && way.rewrite == Rewrite::Keep && !way.rule.path.prefix().is_empty()
}

impl RetryView {
    /// `None` for a route that is as every other one.
    fn new(retries: &Retries) -> Option<Self> {
        let on = [("connect", retries.connect), ("reset", retries.reset)];
        let on = on.into_iter().filter(|(_, is_repeated)| *is_repeated).map(|(name, _)| name);
        (*retries != Retries::default()).then(|| Self {
            attempts: retries.attempts,
            on: on.collect(),
            codes: retries.codes.iter().map(StatusCode::as_u16).collect(),
        })
    }
}

impl TargetView {
    fn new(target: &Target) -> Self {
        let none = Self::default();
        match target {
            Target::Service(service, _) => Self { service: Some(service.to_string()), ..none },
            Target::Addresses { urls, weights } if weights.is_empty() => {
                Self { to: Some(urls.iter().map(ToString::to_string).collect()), ..none }
            }
            Target::Addresses { urls, weights } => {
                let backends = urls
                    .iter()
                    .zip(weights)
                    .map(|(url, weight)| BackendView { url: url.to_string(), weight: *weight });
                Self { backends: Some(backends.collect()), ..none }
            }
            Target::Redirect(redirect) => {
                let view = RedirectView {
                    status: redirect.status.as_u16(),
                    scheme: redirect.scheme.map(Scheme::as_str),
                    host: redirect.host.clone(),
                    port: redirect.port,
                    to: redirect.to.as_ref().map(ToString::to_string),
                };
                Self { redirect: Some(view), ..none }
            }
            Target::Answer { status, .. } => {
                Self { answer: Some(AnswerView { status: status.as_u16() }), ..none }
            }
        }
    }
}

impl Example {
    /// Reads `test=GET https://host/path` and any number of `header=name: value`, each percent-encoded. `None` without a
    /// test.
    pub(crate) fn of_query(text: &str) -> Result<Option<Self>, QueryError> {
        let mut test = None;
        let mut headers = HeaderMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "test" if test.is_some() => return Err(QueryError::new("`test` is given twice")),
                "test" => test = Some(value),
                "header" => {
                    let (name, value) = header(&value).ok_or_else(|| {
                        QueryError::new(format!("`{value}` is no header"))
                            .hint("write it like `x-version: 2`")
                    })?;
                    headers.append(name, value);
                }
                other => {
                    let error = QueryError::new(format!("there is no parameter `{other}`"));
                    return Err(error.hint("the parameters are `test` and `header`"));
                }
            }
        }
        match test {
            Some(test) => Self::new(&test, headers).map(Some),
            None if headers.is_empty() => Ok(None),
            None => Err(QueryError::new("`header` is given without `test`")),
        }
    }

    fn new(test: &str, headers: HeaderMap) -> Result<Self, QueryError> {
        let hint = "write it like `GET https://shop.example/path`; `GET` may be left out";
        let wrong = |message: String| QueryError::new(message).hint(hint);
        let words: Vec<_> = test.split_ascii_whitespace().collect();
        let (method, url) = match words[..] {
            [url] => ("GET", url),
            [method, url] => (method, url),
            _ => return Err(wrong(format!("`{test}` is no method and URL"))),
        };
        let method = method.parse().map_err(|_| wrong(format!("`{method}` is no method")))?;
        let uri: Uri = url.parse().map_err(|error| wrong(format!("`{url}` is no URL: {error}")))?;
        let is_http = uri.scheme_str().is_none_or(|scheme| matches!(scheme, "http" | "https"));
        if !is_http || !uri.path().starts_with('/') || uri.authority().is_some() != uri.scheme().is_some() {
            return Err(wrong(format!("`{url}` is neither an http URL nor a path")));
        }
        let stripped = stripped(&headers, Source::Untrusted);
        Ok(Self { method, uri, headers, stripped, source: Source::Untrusted })
    }

    /// The same as a listener with these trusted proxies gets it from one of them.
    pub(crate) fn sent_by_proxy(self, trust: &[IpNet]) -> Self {
        let mut stripped = stripped(&self.headers, Source::Trusted);
        client_addr::settle(&mut stripped, trust.first().map(IpNet::addr), trust);
        Self { stripped, source: Source::Trusted, ..self }
    }

    /// Whether some of its fields count only because a trusted proxy sends them.
    fn is_of_proxy(&self) -> bool {
        let untrusted = stripped(&self.headers, Source::Untrusted);
        self.stripped.keys().any(|name| !untrusted.contains_key(name))
    }

    /// The head of the request that an HTTP/1.1 client would send for it.
    fn head(&self) -> Parts {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = self.method.clone();
        parts.headers = self.headers.clone();
        // A client names the host in a field, unless this example has another one there.
        let is_given = parts.headers.contains_key(HOST);
        parts.uri = match self.uri.path_and_query() {
            Some(path) if !is_given => Uri::from(path.clone()),
            _ => self.uri.clone(),
        };
        if !is_given {
            let host = self.uri.authority().map(Authority::as_str);
            let host = host.and_then(|host| HeaderValue::from_str(host).ok()).unwrap_or(NO_HOST);
            parts.headers.insert(HOST, host);
        }
        parts
    }

    /// The host and port that it asks for, if it names any.
    fn host(&self) -> Option<String> {
        let of_url = self.uri.authority().map(Authority::as_str);
        let of_field = || self.headers.get(HOST).and_then(|host| host.to_str().ok());
        of_url.or_else(of_field).map(ToOwned::to_owned)
    }

    /// The scheme of its client, as [`crate::gateway::scheme_of`] finds it.
    fn scheme(&self) -> Scheme {
        scheme_of(&self.stripped, self.uri.scheme_str() == Some("https"))
    }

    fn asked<'a>(&'a self, buffer: &'a mut [u8; MAX_NAME]) -> Asked<'a> {
        let of_url = self.uri.authority().map(Authority::as_str);
        let host = of_url.or_else(|| self.headers.get(HOST).and_then(|host| host.to_str().ok()));
        Asked {
            scheme: self.scheme(),
            host: host.and_then(|host| name_of(host, buffer)),
            path: self.uri.path(),
            method: &self.method,
            headers: &self.stripped,
        }
    }
}

/// The fields that are left of a head.
fn stripped(headers: &HeaderMap, source: Source) -> HeaderMap {
    let mut stripped = headers.clone();
    head::strip(&mut stripped, source);
    stripped
}

/// A percent-encoded text.
fn decoded(text: &str) -> Result<String, QueryError> {
    let bytes = query::percent_decode(text).map_err(|error| QueryError::new(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| QueryError::new("the text is not in UTF-8"))
}

/// The field in `name: value`.
fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_read_from_a_query() {
        let example = Example::of_query("test=PUT%20https://Shop.example:8443/a%252F?b&header=x-a:%201")
            .unwrap()
            .unwrap();
        let mut buffer = [0; MAX_NAME];
        let asked = example.asked(&mut buffer);
        assert_eq!(
            (asked.scheme, asked.host, asked.path, asked.method.as_str(), asked.headers.len()),
            (Scheme::Https, Some("shop.example"), "/a%2F", "PUT", 1)
        );
        let example = Example::of_query("test=/x").unwrap().unwrap();
        let mut buffer = [0; MAX_NAME];
        assert_eq!(example.asked(&mut buffer).host, None);
        assert!(Example::of_query("").unwrap().is_none());
    }

    #[test]
    fn fields_of_proxies_count_where_a_listener_trusts_one() {
        let trust = ["10.0.0.0/8".parse().unwrap()];
        let example = |headers: &[&str]| {
            let headers: String = headers.iter().map(|header| format!("&header={header}")).collect();
            Example::of_query(&format!("test=http://a/{headers}")).unwrap().unwrap()
        };
        let seen = |example: &Example| {
            let mut buffer = [0; MAX_NAME];
            let asked = example.asked(&mut buffer);
            (asked.scheme, asked.headers.len(), example.is_of_proxy())
        };
        for (headers, of_client, of_proxy) in [
            (&["x-a: 1"][..], (Scheme::Http, 1, false), (Scheme::Http, 1, false)),
            (&["x-forwarded-proto: https"], (Scheme::Http, 0, false), (Scheme::Https, 1, true)),
            (&["x-real-ip: 1", "x-request-id: 1"], (Scheme::Http, 0, false), (Scheme::Http, 2, true)),
            // `X-Forwarded-For` and `X-Forwarded-Proto` follow.
            (&["forwarded: for=192.0.2.1;proto=https"], (Scheme::Http, 0, false), (Scheme::Https, 3, true)),
            (&["coterie-hops: 1"], (Scheme::Http, 0, false), (Scheme::Http, 1, true)),
        ] {
            let example = example(headers);
            assert_eq!(seen(&example), of_client, "{headers:?}");
            assert_eq!(seen(&example.sent_by_proxy(&trust)), of_proxy, "{headers:?}");
        }
    }

    #[test]
    fn a_query_that_is_no_example_is_refused() {
        for (text, words) in [
            ("tset=/x", "no parameter `tset`"),
            ("test=", "no method and URL"),
            ("test=GET%20/a%20b", "no method and URL"),
            ("test=G%28T%20/a", "no method"),
            ("test=ftp://a/", "neither"),
            ("test=a/b", "no URL"),
            ("test=shop.example", "neither"),
            ("test=/a&test=/b", "twice"),
            ("test=%zz", "%"),
            ("test=/a&header=x", "no header"),
            ("header=x:%201", "without `test`"),
        ] {
            let error = Example::of_query(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
