//! Prevents pages of other sites from reading and changing a cluster's data through a visitor's browser.
//!
//! A page of another site can make a browser send requests to any address it reaches (cross-site request forgery). It
//! can also point its own host name at such an address (DNS rebinding), and then read the answers too. So a request that
//! reaches data must name a host that nobody can register in public DNS, and must not come from a page of another site.
//! Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::header::{HeaderMap, HeaderName, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Uri};
use mesh::head::asked_host;
use serde::{Deserialize, Serialize};
use types::{ErrorKind, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Nobody can register names below these: RFC 6761, RFC 6762, and the name that ICANN reserved in 2024.
const PRIVATE: [&str; 3] = [".localhost", ".local", ".internal"];

/// How many characters of a refused text are shown.
const SHOWN: usize = 80;

/// The hosts under which a listener's data may be requested, besides those that nobody can register in public DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Any host, and from pages of any site.
    Any,
    /// These hosts.
    Listed(Vec<HostPattern>),
}

/// A host name, or all names below one: `shop.example`, `*.shop.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

/// The text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name{hint}", hint = if .0.is_ascii() { "" } else { ": write it in Punycode, as `xn--...`" })]
pub struct HostError(String);

impl Default for Hosts {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl FromStr for HostPattern {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(ip) = unbracketed(text).parse::<Ipv6Addr>() {
            return Ok(Self(ip.to_string()));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_fine = name.len() <= 253 && name.split('.').all(is_label) || name.parse::<IpAddr>().is_ok();
        if is_fine { Ok(Self(text.to_ascii_lowercase())) } else { Err(HostError(text.to_owned())) }
    }
}

/// An IPv6 address without the brackets that it has in URLs.
fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

impl HostPattern {
    /// The pattern in lower case: `shop.example`, `*.shop.example`, `::1`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(below) => name.len() > below.len() && name.ends_with(below),
            None => name == self.0,
        }
    }
}

/// Parses `any`, or names separated by commas.
impl FromStr for Hosts {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        if text == "any" {
            return Ok(Self::Any);
        }
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::parse).collect::<Result<_, _>>().map(Self::Listed)
    }
}

/// Writes the form that settings have.
impl Serialize for Hosts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("any"),
            Self::Listed(names) => serializer.collect_seq(names.iter().map(|HostPattern(name)| name)),
        }
    }
}

/// Reads `any`, or a list of names.
impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Hosts;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`any` or a list of host names, like `[shop.example]`")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hosts, E> {
                match text {
                    "any" => Ok(Hosts::Any),
                    name => Err(E::custom(format!("`{name}` is neither `any` nor a list; write `[{name}]`"))),
                }
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut names: A) -> Result<Hosts, A::Error> {
                let mut hosts = Vec::new();
                while let Some(name) = names.next_element::<String>()? {
                    hosts.push(name.parse().map_err(|error: HostError| {
                        serde::de::Error::custom(format!(
                            "{error}; write it like `shop.example` or `*.shop.example`"
                        ))
                    })?);
                }
                Ok(Hosts::Listed(hosts))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Decides which requests to a listener may reach data.
#[derive(Debug, Clone)]
pub struct Guard {
    hosts: Hosts,
    /// How to allow another host, as the beginning of a hint: `add it to `hosts` in the settings of api_gateway`.
    setting: &'static str,
}

impl Guard {
    /// A guard that allows these hosts. `setting` begins the hint of a refusal, which ends with the host's name:
    /// `add it to `hosts` in the settings of api_gateway`.
    pub fn new(hosts: Hosts, setting: &'static str) -> Self {
        Self { hosts, setting }
    }

    /// Refuses a request that may come from a page of another site.
    pub fn check(&self, head: &Parts) -> Result<(), Problem> {
        self.check_host(head)?;
        self.check_page(head)
    }

    /// Refuses a request for a host name that anyone may register.
    pub fn check_host(&self, head: &Parts) -> Result<(), Problem> {
        // Only HTTP/1.0 requests have no host, and no browser sends those.
        let Some(host) = asked_host(head) else { return Ok(()) };
        if self.allows(host) {
            return Ok(());
        }
        let shown: String = host.chars().take(SHOWN).collect();
        let detail = format!("the request is for the host `{shown}`, a name that anyone may register");
        Err(Problem::new(ErrorKind::Forbidden, "foreign-host", detail).hint(format!(
            "{}: `{}`, or `any` for every host",
            self.setting,
            name_of(&shown)
        )))
    }

    fn allows(&self, host: &str) -> bool {
        let name = name_of(host);
        match &self.hosts {
            Hosts::Any => true,
            Hosts::Listed(listed) => {
                is_unregistrable(&name) || listed.iter().any(|pattern| pattern.matches(&name))
            }
        }
    }

    fn check_page(&self, head: &Parts) -> Result<(), Problem> {
        if self.hosts == Hosts::Any {
            return Ok(());
        }
        let text = |name: &HeaderName| head.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if let Some(origin) = text(&ORIGIN)
            && !self.is_own_page(origin, asked_host(head).unwrap_or_default())
        {
            let shown: String = origin.chars().take(SHOWN).collect();
            return Err(self.foreign(format!("the request comes from a page of `{shown}`")));
        }
        if let Some(site) = text(&SEC_FETCH_SITE)
            && !matches!(site, "same-origin" | "none")
            && !is_followed_link(&head.method, &head.headers)
        {
            let shown: String = site.chars().take(SHOWN).collect();
            return Err(self.foreign(format!("a browser marked the request as {shown}")));
        }
        Ok(())
    }

    /// Whether a page has the same origin as its request. For listed hosts, a proxy may have added TLS.
    fn is_own_page(&self, origin: &str, host: &str) -> bool {
        let Ok(page) = origin.parse::<Uri>() else { return false };
        let Some(authority) = page.authority().map(Authority::as_str) else { return false };
        let is_listed = match &self.hosts {
            Hosts::Any => true,
            Hosts::Listed(listed) => listed.iter().any(|pattern| pattern.matches(&name_of(host))),
        };
        let port = match page.scheme_str() {
            Some("http") => ":80",
            Some("https") if is_listed => ":443",
            _ => return false,
        };
        let plain = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
        plain(authority) == plain(host)
    }

    fn foreign(&self, detail: String) -> Problem {
        Problem::new(ErrorKind::Forbidden, "foreign-page", detail).hint(format!(
            "use ctl or curl with the listener's own address; to let pages of all sites in, {}: `any`",
            self.setting
        ))
    }
}

/// The name in `name:port`, in lower case and without a trailing dot.
fn name_of(host: &str) -> String {
    let name = host.parse::<Authority>().map_or_else(|_| host.to_owned(), |host| host.host().to_owned());
    name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase()
}

/// Whether a host is impossible to register in public DNS: an address, a name without a dot, or a private name.
fn is_unregistrable(name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || !name.is_empty() && !name.contains('.')
        || PRIVATE.iter().any(|private| name.ends_with(private))
}

/// Whether a browser navigates to the address, for example after a click on a link: no page can read the answer.
fn is_followed_link(method: &Method, headers: &HeaderMap) -> bool {
    let is = |name: &HeaderName, text: &str| headers.get(name).is_some_and(|value| value == text);
    matches!(*method, Method::GET | Method::HEAD)
        && is(&SEC_FETCH_MODE, "navigate")
        && is(&SEC_FETCH_DEST, "document")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check(guard: &Guard, pairs: &[(&str, &str)]) -> Result<(), String> {
        let mut request = Request::get("/");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        guard.check(&head).map_err(|problem| problem.code().to_owned() + " " + &problem.hint.unwrap())
    }

    fn guard(hosts: &str) -> Guard {
        Guard::new(hosts.parse().unwrap(), "add it to `hosts`")
    }

    #[test]
    fn hosts_that_nobody_can_register_are_allowed() {
        let guard = guard("shop.example,*.shop.example");
        for (host, is_allowed) in [
            ("127.0.0.1:10000", true),
            ("[::1]:10000", true),
            ("10.0.0.7", true),
            ("localhost:10000", true),
            ("LOCALHOST.:80", true),
            ("storage-1", true),
            ("a.localhost", true),
            ("printer.local", true),
            ("gw.default.svc.cluster.local:80", true),
            ("db.internal", true),
            ("shop.example", true),
            ("Api.Shop.Example:8080", true),
            ("evil.example:10000", false),
            ("evilshop.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("local", true),
            ("evil.example.", false),
            ("127.1", false),
        ] {
            let checked = check(&guard, &[("host", host)]);
            assert_eq!(checked.is_ok(), is_allowed, "{host}: {checked:?}");
        }
        let error = check(&guard, &[("host", "evil.example:80")]).unwrap_err();
        assert_eq!(error, "foreign-host add it to `hosts`: `evil.example`, or `any` for every host");
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let guard = guard("shop.example");
        for (pairs, is_allowed) in [
            (&[("host", "127.0.0.1:1"), ("origin", "http://127.0.0.1:1")][..], true),
            (&[("host", "localhost"), ("origin", "http://localhost:80")], true),
            (&[("host", "[::1]:1"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "[::1]:1"), ("sec-fetch-site", "none")], true),
            (&[("host", "shop.example"), ("origin", "https://shop.example")], true),
            (&[("host", "127.0.0.1:1"), ("origin", "https://127.0.0.1:1")], false),
            (&[("host", "127.0.0.1:1"), ("origin", "http://127.0.0.1:2")], false),
            (&[("host", "127.0.0.1:1"), ("origin", "http://evil.example")], false),
            (&[("host", "127.0.0.1:1"), ("origin", "null")], false),
            (&[("host", "127.0.0.1:1"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "127.0.0.1:1"), ("sec-fetch-site", "same-site")], false),
            (
                &[
                    ("host", "127.0.0.1:1"),
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                true,
            ),
            (
                &[
                    ("host", "127.0.0.1:1"),
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                false,
            ),
        ] {
            let checked = check(&guard, pairs);
            assert_eq!(checked.is_ok(), is_allowed, "{pairs:?}: {checked:?}");
        }
    }

    #[test]
    fn any_disables_the_guard() {
        let guard = guard("any");
        assert_eq!(check(&guard, &[("host", "evil.example"), ("origin", "http://other.example")]), Ok(()));
    }

    #[test]
    fn hosts_are_a_list_or_any() {
        let read = serde_json::from_value::<Hosts>;
        assert_eq!(read(serde_json::json!("any")).unwrap(), Hosts::Any);
        let listed = read(serde_json::json!(["Shop.example", "*.b.example"])).unwrap();
        assert_eq!(listed, "shop.example, *.b.example".parse().unwrap());
        for wrong in
            [serde_json::json!("shop.example"), serde_json::json!(["http://a"]), serde_json::json!(["a:80"])]
        {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
