//! The base URL of a server, such as `http://host[:port][/path]`, with the state of that address.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery, Uri};
use tokio::time::Instant;

use crate::address::{AddressState, Unreachable};
use crate::origin::{Origin, Protocol, Trust};

/// A URL below which requests are sent: `http://127.0.0.1:8000/base`.
///
/// `https://` is HTTP over TLS, `h2c://` HTTP/2 without TLS.
///
/// Two are equal when their texts are equal. Clones share what is known about the address: its requests in flight, its
/// response time, its failures. So parse an address once and keep it.
#[derive(Clone)]
pub struct BaseUrl(Arc<Base>);

struct Base {
    text: String,
    authority: Authority,
    origin: Arc<Origin>,
    host: HeaderValue,
    /// Whose address it is, if that is known.
    name: Option<String>,
    /// The offset of the path in the text. The path has no trailing slash, so it may be empty.
    path_at: usize,
    state: AddressState,
}

/// Why a text is not a base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// Begin it with one of the schemes.
    #[error("`{0}` begins with none of http://, https:// and h2c://")]
    Scheme(String),
    /// Remove that part.
    #[error("`{text}` has a {part}; only scheme://host[:port][/path] is possible")]
    Superfluous {
        /// The text that was given.
        text: String,
        /// `query`, `fragment`, `user name`.
        part: &'static str,
    },
    /// Write `http://host:port` or `http://host:port/path`.
    #[error("`{0}` is not of the form scheme://host[:port][/path]")]
    Malformed(String),
}

impl BaseUrl {
    /// The URL as text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Host and port: `127.0.0.1:8000`.
    pub fn authority(&self) -> &str {
        self.0.authority.as_str()
    }

    /// The host, with an IPv6 address free of brackets, and the port, by default that of the scheme.
    pub fn host_and_port(&self) -> (&str, u16) {
        let host = self.0.authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let default = if self.is_https() { 443 } else { 80 };
        (bare, self.0.authority.port_u16().unwrap_or(default))
    }

    /// Whether connections use TLS.
    pub fn is_https(&self) -> bool {
        matches!(self.0.origin.protocol(), Protocol::Tls(_))
    }

    /// The same URL, where a server's certificate must be signed by one in this file (PEM). Only `https://` URLs change.
    #[must_use]
    pub fn trusting(self, file: &Path) -> Self {
        if !self.is_https() {
            return self;
        }
        self.with_origin(self.0.origin.speaking(Protocol::Tls(Trust::File(file.to_owned()))))
    }

    /// The same URL, where the server is asked for this name in TLS (SNI) and its certificate must be for it, not for the host:
    /// for an address that a name was resolved to.
    #[must_use]
    pub fn certified_for(self, name: &str) -> Self {
        self.with_origin(self.0.origin.named(name))
    }

    /// The same URL, whose server metrics and logs call by this name instead of host and port. Nothing is known of it.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.remade(Arc::clone(&self.0.origin), Some(name.to_owned()))
    }

    /// What metrics and logs call it: its name, or else host and port.
    pub fn name(&self) -> &str {
        self.0.name.as_deref().unwrap_or_else(|| self.authority())
    }

    /// The same URL with another origin, and nothing known of it.
    fn with_origin(&self, origin: Origin) -> Self {
        self.remade(Arc::new(origin), self.0.name.clone())
    }

    fn remade(&self, origin: Arc<Origin>, name: Option<String>) -> Self {
        Self(Arc::new(Base {
            text: self.0.text.clone(),
            authority: self.0.authority.clone(),
            origin,
            host: self.0.host.clone(),
            name,
            path_at: self.0.path_at,
            state: AddressState::new(Instant::now()),
        }))
    }

    /// Whether requests to both reach the same server in the same way: the texts are equal, and so is whose certificates are
    /// trusted.
    pub fn has_same_target(&self, other: &Self) -> bool {
        self == other && self.0.origin == other.0.origin
    }

    /// The path, without a trailing slash: empty or `/base`.
    pub fn path(&self) -> &str {
        &self.0.text[self.0.path_at..]
    }

    /// The number of requests sent to this URL whose answers have not ended.
    pub fn in_flight(&self) -> u32 {
        self.0.state.in_flight()
    }

    /// The number of requests for which a connection to this URL existed, whatever their outcome.
    pub fn reached(&self) -> u64 {
        self.0.state.reached()
    }

    /// Counts a request for which a connection existed.
    pub fn mark_reached(&self) {
        self.0.state.mark_reached();
    }

    /// Takes what active checks have found: why they fail, or `None` if they succeed. While they fail, the address gets no
    /// requests.
    pub fn checked(&self, why_down: Option<String>) {
        self.0.state.checked(why_down, Instant::now());
    }

    /// Takes what a probe has found, which opens a connection without TLS: why it failed, or `None` if it did not.
    pub fn probed(&self, why: Option<&str>) {
        match why {
            Some(why) => {
                let why = Unreachable { why: why.to_owned(), is_tls: false };
                self.0.state.mark_unreachable(why, Instant::now());
            }
            None => self.0.state.refute_unreachable(),
        }
    }

    /// Why the last connection could not be opened, unless one has been open since.
    pub fn why_unreachable(&self) -> Option<String> {
        self.0.state.why_unreachable()
    }

    /// Whether its active checks fail.
    pub fn is_down(&self) -> bool {
        self.0.state.is_down()
    }

    /// Why it gets no requests for a while, if it failed too often.
    pub fn ejected(&self) -> Option<&'static str> {
        self.0.state.ejection(Instant::now()).map(|(reason, _)| reason.in_words())
    }

    /// Why its active checks fail, if they do.
    pub fn why_down(&self) -> Option<String> {
        self.0.state.why_down()
    }

    /// What requests below it share connections by.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.0.origin
    }

    /// The value of the `Host` header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.0.host
    }

    /// A path below this URL's, byte for byte.
    pub(crate) fn below(&self, path: &PathAndQuery) -> Result<PathAndQuery, http::Error> {
        let text = path.as_str();
        // `?a` remains of `http://host?a`: its path is empty, which means the root.
        let slash = if text.starts_with('?') { "/" } else { "" };
        if self.path().is_empty() && slash.is_empty() {
            return Ok(path.clone());
        }
        let joined = [self.path(), slash, text].concat();
        Ok(PathAndQuery::from_maybe_shared(bytes::Bytes::from(joined))?)
    }

    /// Counts a request until the lease is dropped.
    pub(crate) fn lease(&self) -> Lease {
        self.0.state.enter();
        Lease(self.clone())
    }

    /// What is known about the address.
    pub(crate) fn state(&self) -> &AddressState {
        &self.0.state
    }

    /// The same for clones of one parsed address alone, for as long as one of them exists.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Whether both are clones of one parsed address, not merely equal.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;
    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let malformed = || BaseUrlError::Malformed(text.to_owned());
        let superfluous = |part| BaseUrlError::Superfluous { text: text.to_owned(), part };
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let (protocol, scheme) = match scheme.as_deref() {
            Some("http") => (Protocol::Http1, "http"),
            Some("h2c") => (Protocol::H2c, "h2c"),
            Some("https") => (Protocol::Tls(Trust::System), "https"),
            _ => return Err(BaseUrlError::Scheme(text.to_owned())),
        };
        if text.contains('#') {
            return Err(superfluous("fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        if uri.query().is_some() {
            return Err(superfluous("query"));
        }
        let authority = uri.authority().ok_or_else(malformed)?.clone();
        if authority.as_str().contains('@') {
            return Err(superfluous("user name"));
        }
        let port_is_bad = authority.port_u16().is_none() && authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || port_is_bad || authority.port_u16() == Some(0) {
            return Err(malformed());
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| malformed())?;
        let begin = format!("{scheme}://{authority}");
        let path_at = begin.len();
        Ok(Self(Arc::new(Base {
            text: begin + uri.path().trim_end_matches('/'),
            origin: Arc::new(Origin::new(protocol, &authority)),
            authority,
            host,
            name: None,
            path_at,
            state: AddressState::new(Instant::now()),
        })))
    }
}

impl PartialEq for BaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for BaseUrl {}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({})", self.as_str())
    }
}

/// A request in flight; it ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Lease(BaseUrl);

impl Lease {
    pub(crate) fn state(&self) -> &AddressState {
        self.0.state()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.0.state.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_parses_with_and_without_port_and_path() {
        for (text, shown, authority, path) in [
            ("http://a", "http://a", "a", ""),
            ("http://a/", "http://a", "a", ""),
            ("HTTP://a:80/b/c/", "http://a:80/b/c", "a:80", "/b/c"),
            ("http://[::1]:8000/x%2Fy", "http://[::1]:8000/x%2Fy", "[::1]:8000", "/x%2Fy"),
            ("HTTPS://a/b", "https://a/b", "a", "/b"),
            ("h2c://a:50051", "h2c://a:50051", "a:50051", ""),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!((url.as_str(), url.authority(), url.path()), (shown, authority, path));
        }
    }

    #[test]
    fn a_name_replaces_host_and_port_where_the_server_is_shown_and_nowhere_else() {
        let plain: BaseUrl = "https://10.0.0.1:443/a".parse().unwrap();
        let named = plain.clone().named("gateway-1").certified_for("a.example");
        assert_eq!((plain.name(), named.name()), ("10.0.0.1:443", "gateway-1"));
        assert_eq!((named.as_str(), named.authority()), (plain.as_str(), plain.authority()));
        assert!(!named.is_same(&plain));
    }

    #[test]
    fn host_and_port_are_what_a_socket_connects_to() {
        for (text, expected) in [
            ("http://a", ("a", 80)),
            ("https://a", ("a", 443)),
            ("h2c://a", ("a", 80)),
            ("http://a:8000/b", ("a", 8000)),
            ("http://[::1]:9", ("::1", 9)),
        ] {
            assert_eq!(text.parse::<BaseUrl>().unwrap().host_and_port(), expected);
        }
    }

    #[test]
    fn a_text_that_is_no_address_is_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<BaseUrl>().unwrap_err();
        assert!(matches!(refused("127.0.0.1:80"), BaseUrlError::Scheme(_)));
        assert!(matches!(refused("ftp://a"), BaseUrlError::Scheme(_)));
        for (text, bad) in
            [("http://a/?q", "query"), ("http://a/#f", "fragment"), ("http://u:p@a/", "user name")]
        {
            assert!(matches!(refused(text), BaseUrlError::Superfluous { part, .. } if part == bad), "{text}");
        }
        for text in ["http://", "http:///x", "http://a:", "http://a:99999", "http://a:0", "http://a b"] {
            assert!(matches!(refused(text), BaseUrlError::Malformed(_)), "{text}");
        }
    }

    #[test]
    fn a_path_is_appended_byte_for_byte() {
        for (base, path, whole) in [
            ("http://a", "/x%2F/../y?q=%20", "/x%2F/../y?q=%20"),
            ("http://a/svc/t", "/x//y/./%2e?", "/svc/t/x//y/./%2e?"),
            ("http://a/svc/t", "/", "/svc/t/"),
            ("http://a/svc/t", "?q", "/svc/t/?q"),
            ("http://a", "?q", "/?q"),
        ] {
            let base: BaseUrl = base.parse().unwrap();
            let path: PathAndQuery = path.parse().unwrap();
            assert_eq!(base.below(&path).unwrap().as_str(), whole);
        }
    }

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let url: BaseUrl = "http://a".parse().unwrap();
        let lease = url.clone().lease();
        assert_eq!(url.in_flight(), 1);
        drop(lease);
        assert_eq!(url.in_flight(), 0);
    }
}
