//! Where connections lead and what is spoken over them: requests with the same origin share connections.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use http::HeaderValue;
use http::uri::{Authority, Scheme, Uri};

/// The protocol of an origin's connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// HTTP/1.1 without TLS.
    Http1,
    /// HTTP/2 without TLS, without negotiation.
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS, as the server prefers.
    Tls(Trust),
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trust {
    /// Those that the system trusts.
    System,
    /// Those that a certificate in this file has signed.
    File(PathBuf),
}

/// The origin of a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    protocol: Protocol,
    /// In lower case, with the port unless it is the default one.
    text: String,
    /// The name that the server's certificate must be for; the host without it.
    server_name: Option<String>,
    /// Whether the host is no IP address.
    is_named: bool,
}

impl Origin {
    pub(crate) fn new(protocol: Protocol, authority: &Authority) -> Self {
        let text = authority.as_str().to_ascii_lowercase();
        let mut origin = Self { protocol, text, server_name: None, is_named: false };
        origin.is_named = origin.host().parse::<IpAddr>().is_err();
        origin
    }

    /// The same, where the server is asked for this name (SNI), and its certificate must be for it.
    pub(crate) fn named(&self, name: &str) -> Self {
        Self { server_name: Some(name.to_ascii_lowercase()), ..self.clone() }
    }

    /// The same with another protocol.
    pub(crate) fn speaking(&self, protocol: Protocol) -> Self {
        Self { protocol, ..self.clone() }
    }

    /// The name that the server's certificate must be for.
    pub(crate) fn server_name(&self) -> &str {
        self.server_name.as_deref().unwrap_or_else(|| self.host())
    }

    /// Host and port, as in the URL.
    pub(crate) fn authority(&self) -> &str {
        &self.text
    }

    /// The host alone, with an IPv6 address free of brackets.
    pub(crate) fn host(&self) -> &str {
        let end = self.text.rfind(':').filter(|at| !self.text[*at..].contains(']'));
        let host = &self.text[..end.unwrap_or(self.text.len())];
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Whether the host is a name, which may lead elsewhere later.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named
    }

    pub(crate) fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// Whether requests may share a connection.
    pub(crate) fn may_be_shared(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::H2c | Protocol::Tls(_) => true,
        }
    }

    /// The scheme of requests.
    pub(crate) fn scheme(&self) -> Scheme {
        match self.protocol {
            Protocol::Http1 | Protocol::H2c => Scheme::HTTP,
            Protocol::Tls(_) => Scheme::HTTPS,
        }
    }

    /// The URL that a connector connects to.
    pub(crate) fn uri(&self) -> Result<Uri, http::Error> {
        Uri::builder().scheme(self.scheme()).authority(self.authority()).path_and_query("/").build()
    }

    /// The URL of a request over HTTP/2, whose authority is the value of its `Host` field.
    pub(crate) fn absolute(&self, host: Option<&HeaderValue>, path: Uri) -> Result<Uri, http::Error> {
        let mut parts = path.into_parts();
        parts.scheme = Some(self.scheme());
        parts.authority = Some(match host {
            Some(host) => Authority::try_from(host.as_bytes())?,
            None => self.text.parse()?,
        });
        Ok(Uri::from_parts(parts)?)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({:?} {})", self.protocol, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_neither_port_nor_brackets() {
        for (text, host) in
            [("a.example:80", "a.example"), ("A.example", "a.example"), ("[::1]:80", "::1"), ("[::1]", "::1")]
        {
            let origin = Origin::new(Protocol::Http1, &text.parse().unwrap());
            assert_eq!((origin.host(), origin.is_named()), (host, host != "::1"), "{text}");
        }
    }

    #[test]
    fn different_protocols_and_trusted_certificates_share_no_connections() {
        let authority: Authority = "a".parse().unwrap();
        let file = |name: &str| Protocol::Tls(Trust::File(name.into()));
        let protocols = [Protocol::Http1, Protocol::H2c, Protocol::Tls(Trust::System), file("a"), file("b")];
        let origins: std::collections::BTreeSet<_> =
            protocols.into_iter().map(|protocol| Origin::new(protocol, &authority)).collect();
        assert_eq!(origins.len(), 5);
        let plain = Origin::new(file("a"), &authority);
        assert_eq!((plain.server_name(), plain.named("Shop.example").server_name()), ("a", "shop.example"));
        assert_ne!(plain, plain.named("shop.example"));
    }
}
