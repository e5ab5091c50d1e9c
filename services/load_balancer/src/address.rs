//! The address of a backend: `host:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host, by name or address, and a port that is not 0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// The host of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// A name in lower case, to be resolved.
    Name(String),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// Leave the scheme and the path out.
    #[error("`{0}` is a URL; a backend is a host and a port")]
    Url(String),
    /// Begin it with one of the schemes, or leave that out.
    #[error("`{0}` begins with none of http://, https:// and h2c://")]
    Scheme(String),
    /// Add `:port`, from 1 to 65535.
    #[error("`{0}` has no port from 1 to 65535")]
    Port(String),
    /// Write a name, an IPv4 address, or an IPv6 address in brackets.
    #[error("`{0}` has no valid host")]
    Host(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains('/') {
            return Err(AddressError::Url(text.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::Port(text.to_owned()))?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = is_number.then(|| port.parse().ok()).flatten().filter(|port| *port != 0);
        let port = port.ok_or_else(|| AddressError::Port(text.to_owned()))?;
        let host = host_of(host).ok_or_else(|| AddressError::Host(text.to_owned()))?;
        Ok(Self { host, port })
    }
}

fn host_of(text: &str) -> Option<Host> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|ip| Host::Ip(ip.into()));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return ip.is_ipv4().then_some(Host::Ip(ip));
    }
    // A name whose last label is a number is a mistyped IPv4 address: `10.0.0.256`.
    let last = text.trim_end_matches('.').rsplit('.').next()?;
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_allowed)
    };
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_name = labels.len() <= 253 && labels.split('.').all(is_label);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    (is_name && !is_number).then(|| Host::Name(text.to_ascii_lowercase()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, shown) in [
            ("10.1.0.7:5432", "10.1.0.7:5432"),
            ("[2001:DB8::1]:80", "[2001:db8::1]:80"),
            ("DB_1.Example.:65535", "db_1.example.:65535"),
            ("localhost:1", "localhost:1"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
        for (text, wanted) in [
            ("http://db:80", "is a URL"),
            ("db:80/x", "is a URL"),
            ("db", "no port"),
            ("db:", "no port"),
            ("db:0", "no port"),
            ("db:+1", "no port"),
            ("db:65536", "no port"),
            (":80", "no valid host"),
            ("2001:db8::1:80", "no valid host"),
            ("[db]:80", "no valid host"),
            ("10.0.0.256:80", "no valid host"),
            ("a..b:80", "no valid host"),
            ("a b:80", "no valid host"),
            ("\u{e4}:80", "no valid host"),
            ("*:80", "no valid host"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
