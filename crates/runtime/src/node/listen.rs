//! Opens a node's addresses: HTTP on TCP, gossip on UDP, on the same port number unless the settings differ.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use plugin::BindError;
use tokio::net::TcpListener;
use types::Loopback;

use crate::Config;

/// How many free TCP ports are tried until the UDP port of the same number is free as well.
const PORT_TRIES: u32 = 32;

/// How long finding the route to a seed may take, including the resolution of its name.
const ROUTE_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Why a node's addresses can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Change the flag.
    #[error("{flag}: {source}")]
    Bind {
        /// The flag that sets the address.
        flag: &'static str,
        /// What is wrong with the address.
        source: BindError,
    },
    /// Use a loopback address, or add `--insecure`.
    #[error("{flag} {addr} is open to the network, and nothing is encrypted or authenticated yet")]
    Exposed {
        /// The flag.
        flag: &'static str,
        /// The address.
        addr: SocketAddr,
    },
    /// Give an address that others can reach.
    #[error("--advertise-addr {0} is not an address that others can reach")]
    Unreachable(IpAddr),
    /// State the address that others shall use.
    #[error("the address that others shall use can't be derived from {0}")]
    NotDerivable(SocketAddr),
}

impl ListenError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Bind { flag, source } if source.is_in_use() => match *flag {
                "--gossip-addr" => "choose another port with --gossip-addr, or port 0 for a free one",
                _ => "choose another port with --listen-addr, or port 0 for a free one",
            },
            Self::Bind { .. } => "the address must be one of this machine's",
            Self::Exposed { .. } => "use 127.0.0.1, or add --insecure on a network that you trust",
            Self::Unreachable(_) => "give the address of the network card that the other nodes use",
            Self::NotDerivable(_) => "say it with --advertise-addr",
        }
    }
}

/// A node's open addresses.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) listener: TcpListener,
    pub(crate) http: SocketAddr,
    pub(crate) gossip: SocketAddr,
    /// The address that others use for HTTP.
    pub(crate) advertise: IpAddr,
    /// The address that others use for gossip.
    pub(crate) advertise_gossip: IpAddr,
}

/// Opens the HTTP listener and finds a gossip address whose UDP port is free. Gossip itself opens that port shortly
/// afterwards; if another process takes it in between, the error says that it is in use.
pub(crate) async fn open(config: &Config) -> Result<Opened, ListenError> {
    let gossip_wanted = config.gossip.unwrap_or(SocketAddr::new(config.listen.ip(), 0));
    let same_port = config.gossip.is_none_or(|gossip| gossip.port() == 0);
    for (flag, addr) in [("--listen-addr", config.listen), ("--gossip-addr", gossip_wanted)] {
        if !Loopback::unless_insecure(config.insecure).allows(addr.ip()) {
            return Err(ListenError::Exposed { flag, addr });
        }
    }
    let advertise = advertise_of(config, config.listen).await?;
    let advertise_gossip = advertise_of(config, gossip_wanted).await?;
    let mut tries_left = if config.listen.port() == 0 && same_port { PORT_TRIES } else { 1 };
    loop {
        tries_left -= 1;
        let listener = plugin::bind(config.listen)
            .await
            .map_err(|source| ListenError::Bind { flag: "--listen-addr", source })?;
        let http = listener.local_addr().map_err(|source| ListenError::Bind {
            flag: "--listen-addr",
            source: BindError::Other { addr: config.listen, source },
        })?;
        let gossip =
            SocketAddr::new(gossip_wanted.ip(), if same_port { http.port() } else { gossip_wanted.port() });
        match UdpSocket::bind(gossip) {
            Ok(_free) => {
                return Ok(Opened { listener, http, gossip, advertise, advertise_gossip });
            }
            Err(_) if tries_left > 0 => {}
            Err(source) => {
                let source = BindError::udp(gossip, source);
                return Err(ListenError::Bind { flag: "--gossip-addr", source });
            }
        }
    }
}

/// The address that others use for an address that is opened here.
async fn advertise_of(config: &Config, opened: SocketAddr) -> Result<IpAddr, ListenError> {
    if let Some(given) = config.advertise {
        let reachable = !given.is_unspecified() && !given.is_multicast();
        return if reachable { Ok(given) } else { Err(ListenError::Unreachable(given)) };
    }
    if !opened.ip().is_unspecified() {
        return Ok(opened.ip());
    }
    for seed in &config.seeds {
        if let Some(ip) = route_to(seed, opened.ip()).await {
            return Ok(ip);
        }
    }
    Err(ListenError::NotDerivable(opened))
}

/// The address from which this machine would reach a seed; nothing is sent.
async fn route_to(seed: &str, any: IpAddr) -> Option<IpAddr> {
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    tokio::time::timeout(ROUTE_LIMIT, socket.connect(seed)).await.ok()?.ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        Config { listen: listen.parse().unwrap(), ..Config::new("/nowhere".into()) }
    }

    #[tokio::test]
    async fn gossip_takes_the_number_of_the_tcp_port() {
        let opened = open(&config("127.0.0.1:0")).await.unwrap();
        assert_eq!(opened.http.port(), opened.gossip.port());
        assert_ne!(opened.http.port(), 0);
    }

    #[tokio::test]
    async fn a_busy_udp_port_names_the_flag_to_change() {
        let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = config("127.0.0.1:0");
        config.gossip = Some(holder.local_addr().unwrap());
        let error = open(&config).await.unwrap_err();
        assert!(error.to_string().starts_with("--gossip-addr: 127.0.0.1:"), "{error}");
        assert!(error.hint().contains("--gossip-addr"));
    }

    #[tokio::test]
    async fn an_address_open_to_the_network_needs_the_insecure_flag() {
        let mut config = config("0.0.0.0:0");
        assert!(matches!(open(&config).await, Err(ListenError::Exposed { .. })));
        config.insecure = true;
        config.advertise = Some("0.0.0.0".parse().unwrap());
        assert!(matches!(open(&config).await, Err(ListenError::Unreachable(_))));
        config.advertise = Some("127.0.0.1".parse().unwrap());
        assert_eq!(open(&config).await.unwrap().advertise, "127.0.0.1".parse::<IpAddr>().unwrap());
    }
}
