//! Which requests a route takes, and which of several routes takes precedence.
//!
//! Pure. The order is that of the Kubernetes Gateway API (HTTPRoute): an exact host before a wildcard, a longer wildcard
//! before a shorter one, then any host; an exact path, then the longest prefix; a method; most headers; the first in the
//! list.

use std::cmp::Reverse;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::host::HostRule;
use crate::path::PathRule;

/// How a client reached the gateway, or a proxy in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The parts of a request that decide about its route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) scheme: Scheme,
    /// As [`crate::host::name_of`] returns it.
    pub(crate) host: Option<&'a str>,
    /// The raw path, without the query.
    pub(crate) path: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
}

/// What a route demands of a request besides its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) path: PathRule,
    /// Empty for every method.
    pub(crate) methods: Vec<Method>,
    /// Each field's values, joined by `, `.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// A redirect to the same place under a scheme takes requests with any other scheme.
    pub(crate) scheme_other_than: Option<Scheme>,
}

/// The place of a route in the order of precedence, under one of its hosts. The lowest is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    host: Reverse<(u8, usize)>,
    path: Reverse<(u8, usize)>,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    scheme: Reverse<bool>,
    place: usize,
}

impl Rank {
    /// The rank of a rule under a host, at a place in the list of routes.
    pub(crate) fn new(host: &HostRule, rule: &Rule, place: usize) -> Self {
        let path = match &rule.path {
            PathRule::Exact(_) => (1, 0),
            PathRule::Prefix(prefix) => (0, prefix.as_str().len()),
        };
        Self {
            host: Reverse(host.specificity()),
            path: Reverse(path),
            method: Reverse(!rule.methods.is_empty()),
            headers: Reverse(rule.headers.len()),
            scheme: Reverse(rule.scheme_other_than.is_some()),
            place,
        }
    }

    /// Whether only the place in the list tells two ranks apart.
    #[cfg(test)]
    pub(crate) fn ties_with(self, other: Self) -> bool {
        let place = 0;
        Self { place, ..self } == Self { place, ..other }
    }
}

/// Why a route does not take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Host {
        wanted: String,
        found: String,
    },
    Path {
        wanted: String,
        is_exact: bool,
    },
    Method {
        wanted: String,
    },
    Header {
        name: HeaderName,
        wanted: String,
        found: Option<String>,
    },
    /// The header has another value than the secret one.
    Secret(HeaderName),
    Scheme(Scheme),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { wanted, found } => write!(f, "the host is {found}, not {wanted}"),
            Self::Path { wanted, is_exact: true } => write!(f, "the path is not {wanted}"),
            Self::Path { wanted, is_exact: false } => write!(f, "the path is not {wanted} or below it"),
            Self::Method { wanted } => write!(f, "the method is not {wanted}"),
            Self::Header { name, wanted, found: Some(found) } => {
                write!(f, "the header {name} is `{found}`, not `{wanted}`")
            }
            Self::Header { name, wanted, found: None } => {
                write!(f, "there is no header {name}: {wanted}")
            }
            Self::Secret(name) => write!(f, "the header {name} has another value than the route asks for"),
            Self::Scheme(scheme) => write!(f, "the scheme is {} already", scheme.as_str()),
        }
    }
}

impl Rule {
    /// The number of bytes of the path that the rule takes; `None` if it does not take the request.
    pub(crate) fn takes(&self, asked: &Asked<'_>) -> Option<usize> {
        let len = self.path.matched(asked.path)?;
        let is_match = self.takes_method(asked.method)
            && self.headers.iter().all(|(name, value)| has(asked.headers, name, value))
            && self.scheme_other_than != Some(asked.scheme);
        is_match.then_some(len)
    }

    fn takes_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Why it does not take a request under a host; `None` if it does.
    pub(crate) fn mismatch(&self, host: &HostRule, asked: &Asked<'_>) -> Option<Mismatch> {
        if !host.takes(asked.host) {
            let found = asked.host.map_or_else(|| "not given".to_owned(), ToOwned::to_owned);
            return Some(Mismatch::Host { wanted: host.to_string(), found });
        }
        if self.path.matched(asked.path).is_none() {
            let is_exact = matches!(self.path, PathRule::Exact(_));
            return Some(Mismatch::Path { wanted: self.path.to_string(), is_exact });
        }
        if !self.takes_method(asked.method) {
            return Some(Mismatch::Method { wanted: self.methods_shown() });
        }
        if let Some((name, value)) =
            self.headers.iter().find(|(name, value)| !has(asked.headers, name, value))
        {
            let found: Vec<_> = asked.headers.get_all(name).iter().map(shown).collect();
            if !found.is_empty() && is_secret(name) {
                return Some(Mismatch::Secret(name.clone()));
            }
            let found = (!found.is_empty()).then(|| found.join(", "));
            return Some(Mismatch::Header { name: name.clone(), wanted: shown_of(name, value), found });
        }
        self.scheme_other_than.filter(|scheme| *scheme == asked.scheme).map(Mismatch::Scheme)
    }

    /// `GET or POST`.
    fn methods_shown(&self) -> String {
        self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" or ")
    }

    /// Whether a rule earlier in the order takes every request that `later` takes, apart from its methods. Both are under
    /// the same host.
    pub(crate) fn covers_all_but_methods(&self, later: &Self) -> bool {
        let same_headers = self.headers.len() == later.headers.len()
            && self.headers.iter().all(|header| later.headers.contains(header));
        self.path == later.path && same_headers && self.scheme_other_than == later.scheme_other_than
    }
}

/// What stands for a value that may be a secret.
const SECRET: &str = "(not shown)";
/// Words in the names of fields whose values may be secrets: `authorization`, `x-api-key`, `set-cookie`.
const SECRETS: [&str; 9] =
    ["auth", "cookie", "credential", "key", "passw", "secret", "session", "signature", "token"];

fn is_secret(name: &HeaderName) -> bool {
    SECRETS.iter().any(|word| name.as_str().contains(word))
}

/// The value of a field in settings, as operators and logs see it: not what may be a secret.
pub(crate) fn shown_of(name: &HeaderName, value: &HeaderValue) -> String {
    if is_secret(name) { SECRET.to_owned() } else { shown(value) }
}

/// A header's value as text.
pub(crate) fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Whether the values of a field, joined by `, `, are exactly these.
fn has(headers: &HeaderMap, name: &HeaderName, wanted: &HeaderValue) -> bool {
    let mut rest = Some(wanted.as_bytes());
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return false;
    }
    while let Some(value) = values.next() {
        rest = rest.and_then(|rest| rest.strip_prefix(value.as_bytes()));
        if values.peek().is_some() {
            rest = rest.and_then(|rest| rest.strip_prefix(b", ".as_slice()));
        }
    }
    rest.is_some_and(<[u8]>::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value): (HeaderName, HeaderValue)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn a_header_is_compared_with_all_values_joined() {
        let found = headers(&[("x-a", "1"), ("x-a", "2"), ("x-b", "")]);
        for (name, value, expected) in [
            ("x-a", "1, 2", true),
            ("x-a", "1", false),
            ("x-a", "2", false),
            ("x-a", "1,2", false),
            ("x-a", "1, 2, 3", false),
            ("x-b", "", true),
            ("x-c", "", false),
        ] {
            let has = has(&found, &HeaderName::from_static(name), &value.parse().unwrap());
            assert_eq!(has, expected, "{name}: {value}");
        }
    }

    fn rule(path: &str, is_exact: bool, methods: &[&str], headers: usize) -> Rule {
        let path = if is_exact {
            PathRule::Exact(path.parse().unwrap())
        } else {
            PathRule::Prefix(path.parse().unwrap())
        };
        let names = ["x-a", "x-b", "x-c"];
        Rule {
            path,
            methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
            headers: names[..headers]
                .iter()
                .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1")))
                .collect(),
            scheme_other_than: None,
        }
    }

    #[test]
    fn the_order_of_precedence_is_that_of_the_gateway_api() {
        let host = |text: &str| text.parse::<HostRule>().unwrap();
        // Each takes precedence over the next one, whatever their places in the list.
        let ordered = [
            (host("a.b.example"), rule("/", false, &[], 0)),
            (host("*.a.b.example"), rule("/x", true, &["GET"], 3)),
            (host("*.b.example"), rule("/x", true, &[], 0)),
            (host("*.b.example"), rule("/x/y/z", false, &["GET"], 1)),
            (host("*.b.example"), rule("/x/y", false, &["GET"], 1)),
            (host("*.b.example"), rule("/x/y", false, &["GET", "PUT"], 0)),
            (host("*.b.example"), rule("/x/y", false, &[], 3)),
            (host("*.b.example"), rule("/x/y", false, &[], 2)),
            (host("*.b.example"), rule("/x/y", false, &[], 0)),
            (HostRule::Any, rule("/x", true, &["GET"], 2)),
            (HostRule::Any, rule("/x", false, &["GET"], 3)),
            (HostRule::Any, rule("/", false, &["GET"], 0)),
            (HostRule::Any, rule("/", false, &[], 0)),
        ];
        for (first, (host, rule)) in ordered.iter().enumerate() {
            for (second, (later_host, later)) in ordered.iter().enumerate().skip(first + 1) {
                for (place, other) in [(0, 1), (1, 0)] {
                    let rank = Rank::new(host, rule, place);
                    let later = Rank::new(later_host, later, other);
                    assert!(rank < later, "{first} {second}");
                }
            }
        }
        let (host, rule) = &ordered[0];
        assert!(Rank::new(host, rule, 0) < Rank::new(host, rule, 1), "the first in the list");
    }

    #[test]
    fn values_that_may_be_secrets_are_not_explained() {
        for (name, expected) in [
            ("authorization", "(not shown)"),
            ("x-api-key", "(not shown)"),
            ("x-auth", "(not shown)"),
            ("x-password", "(not shown)"),
            ("x-credentials", "(not shown)"),
            ("set-cookie", "(not shown)"),
            ("x-hub-signature-256", "(not shown)"),
            ("x-session", "(not shown)"),
            ("x-version", "s3cret"),
        ] {
            let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static("s3cret"));
            assert_eq!(shown_of(&name, &value), expected, "{name}");
        }
        let name = HeaderName::from_static("x-api-key");
        let wanted =
            Rule { headers: vec![(name, HeaderValue::from_static("s3cret"))], ..rule("/", false, &[], 0) };
        let other = headers(&[("x-api-key", "other")]);
        for (headers, words) in [
            (&other, "the header x-api-key has another value than the route asks for"),
            (&HeaderMap::new(), "there is no header x-api-key: (not shown)"),
        ] {
            let asked = Asked { scheme: Scheme::Http, host: None, path: "/", method: &Method::GET, headers };
            let mismatch = wanted.mismatch(&HostRule::Any, &asked).map(|mismatch| mismatch.to_string());
            assert_eq!(mismatch.as_deref(), Some(words));
        }
    }

    #[test]
    fn each_condition_that_fails_is_explained() {
        let wanted = Rule { scheme_other_than: Some(Scheme::Https), ..rule("/x", false, &["GET", "PUT"], 1) };
        let host: HostRule = "*.shop.example".parse().unwrap();
        let good = headers(&[("x-a", "1")]);
        let bad = headers(&[("x-a", "2")]);
        let none = HeaderMap::new();
        let fine = Asked {
            scheme: Scheme::Http,
            host: Some("www.shop.example"),
            path: "/x/y",
            method: &Method::GET,
            headers: &good,
        };
        assert_eq!(wanted.mismatch(&host, &fine), None);
        for (asked, words) in [
            (Asked { host: Some("a"), ..fine }, "the host is a, not *.shop.example"),
            (Asked { host: None, ..fine }, "the host is not given, not *.shop.example"),
            (Asked { path: "/y", ..fine }, "the path is not /x or below it"),
            (Asked { method: &Method::POST, ..fine }, "the method is not GET or PUT"),
            (Asked { headers: &bad, ..fine }, "the header x-a is `2`, not `1`"),
            (Asked { headers: &none, ..fine }, "there is no header x-a: 1"),
            (Asked { scheme: Scheme::Https, ..fine }, "the scheme is https already"),
        ] {
            let mismatch = wanted.mismatch(&host, &asked).map(|mismatch| mismatch.to_string());
            assert_eq!(mismatch.as_deref(), Some(words));
            assert!(!host.takes(asked.host) || wanted.takes(&asked).is_none(), "{words}");
        }
    }
}
