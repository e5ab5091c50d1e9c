//! The backends of a listener: their addresses, and how they speak HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mesh::BaseUrl;

use super::Mistakes;
use crate::address::{Address, AddressError, Host};
use crate::settings::{Backend, Listener, Mode};

/// A backend as the settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) address: Address,
    pub(crate) protocol: Protocol,
    pub(crate) weight: u32,
    pub(crate) is_backup: bool,
}

/// How a backend speaks HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 without TLS.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    H2c,
    /// HTTP/2 or HTTP/1.1 over TLS.
    Tls {
        /// The host whose certificate it must have.
        host: String,
        /// The file with the certificates that are trusted; those of the system without it.
        ca: Option<PathBuf>,
    },
}

impl Protocol {
    /// The URL of a backend at this address; none if the address is no host of a URL.
    pub(crate) fn url(&self, address: SocketAddr) -> Option<BaseUrl> {
        let scheme = match self {
            Self::Http1 => "http",
            Self::H2c => "h2c",
            Self::Tls { .. } => "https",
        };
        let url: BaseUrl = format!("{scheme}://{address}").parse().ok()?;
        Some(match self {
            Self::Http1 | Self::H2c => url,
            Self::Tls { host, ca: None } => url.certified_for(host),
            Self::Tls { host, ca: Some(ca) } => url.trusting(ca).certified_for(host),
        })
    }
}

/// The backends of a list at this place.
pub(super) fn plan(
    place: &str,
    backends: &[Backend],
    listener: &Listener,
    mistakes: &mut Mistakes,
) -> Vec<Fixed> {
    if backends.is_empty() {
        mistakes.add(
            place,
            "there is no backend",
            "write at least one, like `{ address: \"10.1.0.7:5432\" }`",
        );
    }
    let mut fixed: Vec<Fixed> = Vec::new();
    for (at, backend) in backends.iter().enumerate() {
        let pointer = format!("{place}/{at}/address");
        match address(&backend.address, listener) {
            Ok((address, _)) if fixed.iter().any(|known| known.address == address) => {
                mistakes.add(
                    pointer,
                    format!("`{address}` is there twice"),
                    "leave one of them out; use `weight`",
                );
            }
            Ok((address, protocol)) => {
                let (weight, is_backup) = (backend.weight.as_u32(), backend.backup);
                fixed.push(Fixed { address, protocol, weight, is_backup });
            }
            Err(error) => {
                let hint = match listener.mode {
                    Mode::Tcp => "write it like `10.1.0.7:5432`, `[2001:db8::7]:5432` or `db.example:5432`",
                    Mode::Http => {
                        "write it like `10.1.0.7:8000`, `https://shop.example` or `h2c://10.1.0.7:50051`"
                    }
                };
                mistakes.add(pointer, error.to_string(), hint);
            }
        }
    }
    fixed
}

/// An address, in HTTP mode perhaps with a scheme, and the protocol that this means.
fn address(text: &str, listener: &Listener) -> Result<(Address, Protocol), AddressError> {
    let Some((scheme, rest)) = text.split_once("://").filter(|_| listener.mode == Mode::Http) else {
        return Ok((text.parse()?, Protocol::Http1));
    };
    let default = match scheme.to_ascii_lowercase().as_str() {
        "http" | "h2c" => 80,
        "https" => 443,
        _ => return Err(AddressError::Scheme(text.to_owned())),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = rest.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let address: Address = match has_port || rest.contains('/') {
        true => rest.parse()?,
        false => format!("{rest}:{default}").parse().map_err(|_| AddressError::Host(rest.to_owned()))?,
    };
    let protocol = match (scheme.to_ascii_lowercase().as_str(), &address.host) {
        ("http", _) => Protocol::Http1,
        ("h2c", _) => Protocol::H2c,
        (_, host) => {
            let host = match host {
                Host::Ip(ip) => ip.to_string(),
                // In TLS, a name has no dot at its end.
                Host::Name(name) => name.trim_end_matches('.').to_owned(),
            };
            Protocol::Tls { host, ca: listener.ca.as_deref().map(|ca| Path::new(ca).to_owned()) }
        }
    };
    Ok((address, protocol))
}

/// Whether a backend of the listener speaks TLS.
pub(super) fn has_tls(listener: &Listener) -> bool {
    let is_https = |backend: &Backend| {
        backend.address.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    };
    listener.mode == Mode::Http && listener.backends.iter().flatten().any(is_https)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listener(mode: &str) -> Listener {
        let settings = json!({"name": "a", "address": "127.0.0.1:0", "mode": mode, "ca": "/ca.pem"});
        serde_json::from_value(settings).unwrap()
    }

    #[test]
    fn a_backend_in_http_mode_may_name_its_protocol() {
        let tls = |host: &str| Protocol::Tls { host: host.to_owned(), ca: Some("/ca.pem".into()) };
        for (text, address_wanted, protocol) in [
            ("10.1.0.7:80", "10.1.0.7:80", Protocol::Http1),
            ("http://10.1.0.7", "10.1.0.7:80", Protocol::Http1),
            ("H2C://rpc.example:50051", "rpc.example:50051", Protocol::H2c),
            ("h2c://[::1]/", "[::1]:80", Protocol::H2c),
            ("https://Shop.example.", "shop.example.:443", tls("shop.example")),
            ("https://10.1.0.7:8443", "10.1.0.7:8443", tls("10.1.0.7")),
        ] {
            let (found, spoken) = address(text, &listener("http")).unwrap();
            assert_eq!((found.to_string().as_str(), spoken), (address_wanted, protocol), "{text}");
        }
        for (text, why) in [
            ("ftp://10.1.0.7", "none of"),
            ("https://", "no valid host"),
            ("https://a/b", "is a URL"),
            ("https://a:0", "no port"),
            ("10.1.0.7", "no port"),
            ("https://a@b", "no valid host"),
        ] {
            let error = address(text, &listener("http")).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let error = address("https://a", &listener("tcp")).unwrap_err().to_string();
        assert!(error.contains("is a URL"), "{error}");
    }

    #[test]
    fn the_url_of_an_address_has_the_scheme_and_is_certified_for_the_host() {
        let address: SocketAddr = "10.0.0.1:443".parse().unwrap();
        let tls = |host: &str| Protocol::Tls { host: host.to_owned(), ca: None };
        let url = |protocol: Protocol| protocol.url(address).unwrap();
        assert_eq!(url(Protocol::H2c).as_str(), "h2c://10.0.0.1:443");
        assert_eq!(url(tls("a")).as_str(), "https://10.0.0.1:443");
        assert!(!url(tls("a")).has_same_target(&url(tls("b"))));
    }
}
