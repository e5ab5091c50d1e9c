//! Host patterns: `shop.example`, `*.shop.example`. Case, port and a trailing dot of a request's host do not count.
//!
//! Pure.

use std::fmt;
use std::str::FromStr;

use plugin::http::{HostError, HostPattern};

/// The longest host name, in bytes (RFC 1035, section 2.3.4).
pub(crate) const MAX_NAME: usize = 253;

/// The hosts that a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostRule {
    /// Every host.
    Any,
    /// All names below one: `.shop.example`.
    Below(String),
    /// One host, in lower case.
    Exact(String),
}

impl HostRule {
    /// Whether it takes a host, given as [`name_of`] returns it.
    pub(crate) fn takes(&self, name: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Below(suffix) => {
                name.is_some_and(|name| name.len() > suffix.len() && name.ends_with(suffix.as_str()))
            }
            Self::Exact(host) => name == Some(host.as_str()),
        }
    }

    /// How specific it is: exact hosts before wildcards, longer wildcards before shorter ones, then any host.
    pub(crate) fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (2, 0),
            Self::Below(suffix) => (1, suffix.len()),
            Self::Any => (0, 0),
        }
    }
}

impl FromStr for HostRule {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        let pattern: HostPattern = text.parse()?;
        let text = pattern.as_str();
        Ok(match text.strip_prefix('*') {
            Some(below) => Self::Below(below.to_owned()),
            None => Self::Exact(text.to_owned()),
        })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.pad("*"),
            Self::Below(suffix) => f.pad(&format!("*{suffix}")),
            Self::Exact(host) => f.pad(host),
        }
    }
}

/// The name in `name:port` in lower case, without the brackets of an IPv6 address and without a trailing dot. `None` if
/// it is longer than any name. `buffer` is used if the name has upper-case letters.
pub(crate) fn name_of<'a>(host: &'a str, buffer: &'a mut [u8; MAX_NAME]) -> Option<&'a str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(name);
    }
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    std::str::from_utf8(lower).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, host: &str) -> bool {
        let mut buffer = [0; MAX_NAME];
        pattern.parse::<HostRule>().unwrap().takes(name_of(host, &mut buffer))
    }

    #[test]
    fn a_host_is_compared_without_case_port_and_trailing_dot() {
        for (pattern, host, expected) in [
            ("shop.example", "shop.example", true),
            ("Shop.Example", "sHOP.eXAMPLE:8080", true),
            ("[::1]", "[::1]:8080", true),
            ("2001:DB8::1", "[2001:db8::1]", true),
            ("shop.example", "shop.example.:80", true),
            ("shop.example", "www.shop.example", false),
            ("shop.example", "evilshop.example", false),
            ("*.shop.example", "www.shop.example", true),
            ("*.shop.example", "A.B.SHOP.example:1", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", ".shop.example", false),
            ("*.shop.example", "evilshop.example", false),
            ("127.0.0.1", "127.0.0.1:80", true),
            ("::1", "[::1]:80", true),
            ("a", "", false),
        ] {
            assert_eq!(takes(pattern, host), expected, "{pattern} {host}");
        }
        assert!(HostRule::Any.takes(None) && HostRule::Any.takes(Some("x")));
        assert!(!"a".parse::<HostRule>().unwrap().takes(None));
        let long = "A".repeat(MAX_NAME + 1);
        assert_eq!(name_of(&long, &mut [0; MAX_NAME]), None);
    }

    #[test]
    fn a_text_that_is_no_host_is_refused() {
        for text in ["", "*", "a:80", "http://a", "a/b", "*.*.a", "a b", "[::1", "[a]"] {
            assert!(text.parse::<HostRule>().is_err(), "{text}");
        }
    }
}
