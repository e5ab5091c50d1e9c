//! Where a redirect leads.
//!
//! Pure. Without a scheme, host or port of its own, a redirect's location is a path, so it is right behind every proxy.
//! Otherwise the parts that are not given are those of the request.

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};

use crate::rule::Scheme;

/// What stands for the rest of the path in a redirect's target.
const REST: &str = "{rest}";

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) status: StatusCode,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    /// The path stays unless this is given.
    pub(crate) to: Option<Template>,
}

/// A path and query: `/new{rest}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    before: String,
    /// What follows `{rest}`; `None` without it.
    after: Option<String>,
}

/// Why a text is no target of a redirect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// Begin with a slash; another host belongs into `host`.
    #[error("`{0}` begins neither with `/` nor with `{REST}`")]
    NoPath(String),
    /// Begin with one slash: browsers take `//name` for another host.
    #[error("`{0}` begins with `//`, which leads to another host")]
    OtherHost(String),
    /// Leave the other braces out.
    #[error("`{0}` has braces besides one `{REST}`")]
    Braces(String),
    /// Encode them.
    #[error("`{0}` has characters that no URL has")]
    Characters(String),
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (before, after) = match text.split_once(REST) {
            Some((before, after)) => (before, Some(after.to_owned())),
            None => (text, None),
        };
        let parts = [before, after.as_deref().unwrap_or_default()];
        let backslash_or_slash = |rest: &str| rest.starts_with(['/', '\\']);
        if !(before.starts_with('/') || before.is_empty() && after.is_some()) {
            Err(TemplateError::NoPath(text.to_owned()))
        } else if before.strip_prefix('/').is_some_and(backslash_or_slash) {
            Err(TemplateError::OtherHost(text.to_owned()))
        } else if parts.iter().any(|part| part.contains(['{', '}'])) {
            Err(TemplateError::Braces(text.to_owned()))
        } else if !parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_graphic())) {
            Err(TemplateError::Characters(text.to_owned()))
        } else {
            Ok(Self { before: before.to_owned(), after })
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.before)?;
        match &self.after {
            Some(after) => write!(f, "{REST}{after}"),
            None => Ok(()),
        }
    }
}

impl Template {
    /// The target for the rest of a path and query. The rest is empty or begins with `/` or `?`.
    fn filled(&self, rest: &str) -> String {
        let Some(after) = &self.after else { return self.before.clone() };
        let before = match rest.starts_with('/') {
            true => self.before.strip_suffix('/').unwrap_or(&self.before),
            false => &self.before,
        };
        [before, rest, after].concat()
    }
}

impl Redirect {
    /// Whether it leads to the same place under another scheme, perhaps at another port: a request that has the scheme already would
    /// be led to itself.
    pub(crate) fn is_of_scheme(&self) -> bool {
        self.scheme.is_some() && self.host.is_none() && self.to.is_none()
    }

    /// The value of `Location`. `asked` is the request's host and port, `matched` the number of bytes of the path that its
    /// route matched.
    pub(crate) fn location(
        &self,
        scheme: Scheme,
        asked: Option<&str>,
        path: &PathAndQuery,
        matched: usize,
    ) -> Option<HeaderValue> {
        let path = match &self.to {
            Some(template) => template.filled(&path.as_str()[matched..]),
            None => path.as_str().to_owned(),
        };
        // `?a` remains of a request for `http://host?a`.
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let is_path = self.scheme.is_none() && self.host.is_none() && self.port.is_none();
        let (name, asked_port) = asked.map(split).unwrap_or_default();
        let host = self.host.as_deref().unwrap_or(name);
        if is_path || host.is_empty() {
            // Browsers take `//name` and `/\name` for another host.
            return HeaderValue::from_str(&format!("/{}", path.trim_start_matches(['/', '\\']))).ok();
        }
        let port = match (self.port, self.scheme, &self.host) {
            (Some(port), _, _) => Some(port),
            // The port of the request belongs to its scheme and host.
            (None, None, None) => asked_port,
            (None, _, _) => None,
        };
        let scheme = self.scheme.unwrap_or(scheme);
        let is_usual = matches!((scheme, port), (Scheme::Http, Some(80)) | (Scheme::Https, Some(443)));
        let port = port.filter(|_| !is_usual).map_or_else(String::new, |port| format!(":{port}"));
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        HeaderValue::from_str(&format!("{}://{host}{port}{path}", scheme.as_str())).ok()
    }
}

/// The name, in brackets if it is an IPv6 address, and the port of `name:port`.
fn split(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(scheme: Option<Scheme>, host: &str, port: u16, to: &str) -> Redirect {
        Redirect {
            status: StatusCode::FOUND,
            scheme,
            host: (!host.is_empty()).then(|| host.to_owned()),
            port: (port > 0).then_some(port),
            to: (!to.is_empty()).then(|| to.parse().unwrap()),
        }
    }

    #[test]
    fn what_is_not_given_is_taken_from_the_request() {
        let https = Some(Scheme::Https);
        for (redirect, host, path, matched, location) in [
            (redirect(None, "", 0, "/new{rest}"), "a", "/old/x?y", 4, "/new/x?y"),
            (redirect(None, "", 0, "/new{rest}"), "a", "/old", 4, "/new"),
            (redirect(None, "", 0, "/new{rest}"), "a", "/old?y", 4, "/new?y"),
            (redirect(None, "", 0, "/new/{rest}"), "a", "/old/x", 4, "/new/x"),
            (redirect(None, "", 0, "/new/{rest}.html"), "a", "/old/x", 4, "/new/x.html"),
            (redirect(None, "", 0, "/new"), "a", "/old/x?y", 4, "/new"),
            (redirect(None, "", 0, "{rest}"), "a", "/old", 4, "/"),
            (redirect(None, "", 0, "{rest}"), "a", "/old/a%2Fb//c", 4, "/a%2Fb//c"),
            (redirect(https, "", 0, ""), "a", "/x?y", 0, "https://a/x?y"),
            (redirect(https, "", 0, ""), "a:80", "/x", 0, "https://a/x"),
            (redirect(https, "", 8443, ""), "a:8080", "/x", 0, "https://a:8443/x"),
            (redirect(https, "", 443, ""), "[::1]:8080", "/x", 0, "https://[::1]/x"),
            (redirect(https, "", 0, ""), "[::1]", "/x", 0, "https://[::1]/x"),
            (redirect(None, "b", 0, ""), "a:8080", "/x", 0, "http://b/x"),
            (redirect(None, "::1", 0, ""), "a", "/x", 0, "http://[::1]/x"),
            (redirect(None, "", 81, ""), "a:8080", "/x", 0, "http://a:81/x"),
            (redirect(None, "b", 81, "/n{rest}"), "a", "/o/x", 2, "http://b:81/n/x"),
        ] {
            let path = path.parse().unwrap();
            let found = redirect.location(Scheme::Http, Some(host), &path, matched).unwrap();
            assert_eq!(found, location, "{redirect:?} {path}");
        }
    }

    #[test]
    fn a_redirect_never_leads_to_a_host_that_the_path_names() {
        for (to, path, matched) in [
            ("{rest}", "/old//evil.example", 4),
            ("{rest}", "/old/\\evil.example", 4),
            ("", "//evil.example", 0),
        ] {
            let path = path.parse::<PathAndQuery>().unwrap();
            let found = redirect(None, "", 0, to).location(Scheme::Http, Some("a"), &path, matched).unwrap();
            assert_eq!(found, "/evil.example", "{path}");
            let found = redirect(Some(Scheme::Https), "", 0, to).location(Scheme::Http, None, &path, matched);
            assert_eq!(found.unwrap(), "/evil.example", "a request without a host");
            let found =
                redirect(Some(Scheme::Https), "", 0, to).location(Scheme::Http, Some("a"), &path, matched);
            assert!(found.unwrap().to_str().unwrap().starts_with("https://a/"));
        }
    }

    #[test]
    fn a_target_that_is_no_path_is_refused() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        for text in ["", "new", "http://a/"] {
            assert!(matches!(error(text), TemplateError::NoPath(_)), "{text}");
        }
        for text in ["//evil.example", "/\\evil.example"] {
            assert!(matches!(error(text), TemplateError::OtherHost(_)), "{text}");
        }
        for text in ["/{path}", "/{rest}{rest}", "/{rest", "/a}"] {
            assert!(matches!(error(text), TemplateError::Braces(_)), "{text}");
        }
        assert!(matches!(error("/a b"), TemplateError::Characters(_)));
        for text in ["/new{rest}", "{rest}", "/a?b=c"] {
            assert_eq!(text.parse::<Template>().unwrap().to_string(), text);
        }
    }
}
