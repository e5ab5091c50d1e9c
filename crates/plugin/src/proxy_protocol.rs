//! The PROXY protocol, versions 1 and 2: a header at the start of a connection with the address of the client, from the
//! proxy in front.
//!
//! [`receive`] takes exactly the header off a stream: what follows it stays there, whatever pieces it arrives in.
//! [`header`] makes one to send. Specification: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a header may take to arrive.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes with which each header of version 2 begins.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the part of a version 2 header that contains the length of the rest.
const FIXED_V2: usize = 16;
/// The longest header of version 2 that is accepted, as in nginx. Clients' certificates may take a part of it.
const LONGEST_V2: usize = 4096;
/// The longest header of version 1, from the specification.
const LONGEST_V1: usize = 107;

/// The version of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl<'de> Deserialize<'de> for ProxyVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Version;
        impl Visitor<'_> for Version {
            type Value = ProxyVersion;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the version to send, `v1` (text) or `v2` (binary),")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProxyVersion, E> {
                match text {
                    "v1" => Ok(ProxyVersion::V1),
                    "v2" => Ok(ProxyVersion::V2),
                    other => Err(E::unknown_variant(other, &["v1", "v2"])),
                }
            }
        }
        deserializer.deserialize_str(Version)
    }
}

/// The connection that a proxy forwards, as its header describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// The client.
    pub source: SocketAddr,
    /// The address to which the client connected.
    pub destination: SocketAddr,
}

/// There is no acceptable header. Close the connection.
#[derive(Debug, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The peer is not trusted to name its clients: add its address to the networks that are, or connect without a proxy.
    #[error("{0} is not among the trusted proxies")]
    NotTrusted(IpAddr),
    /// The connection begins with something else: the proxy in front does not send the PROXY protocol.
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    /// It begins like a header, but breaks the specification.
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    /// It is longer than any header that is accepted.
    #[error("the PROXY protocol header is longer than {longest} bytes")]
    TooLong {
        /// The limit of its version.
        longest: usize,
    },
    /// It did not arrive in time.
    #[error("no PROXY protocol header arrived within {0:?}")]
    TooSlow(Duration),
    /// The connection ended or failed before it was complete.
    #[error("the connection ended within the PROXY protocol header")]
    Broken(#[from] io::Error),
}

/// Takes the header off a connection from `peer`, which must be in a trusted network. Waits [`HEADER_TIMEOUT`] at most.
///
/// `None` if the proxy speaks for itself, for example to check this server's health, or if it does not know the client: then
/// the client is the peer.
pub async fn receive(
    stream: &mut TcpStream,
    peer: SocketAddr,
    trust: &[IpNet],
) -> Result<Option<Proxied>, ProxyHeaderError> {
    if !is_trusted(peer.ip(), trust) {
        return Err(ProxyHeaderError::NotTrusted(peer.ip()));
    }
    match timeout(HEADER_TIMEOUT, read(stream)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(ProxyHeaderError::TooSlow(HEADER_TIMEOUT)),
    }
}

/// A network of trusted proxies as settings name it: `10.0.0.0/8`, or `10.0.0.7` for one address.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether an address is in one of the networks. An IPv4 address that is mapped into IPv6 counts as what it is.
pub fn is_trusted(address: IpAddr, trust: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trust.iter().any(|network| network.contains(&address))
}

/// The bytes of a header; without addresses one with which a proxy speaks for itself.
pub fn header(version: ProxyVersion, proxied: Option<Proxied>) -> Vec<u8> {
    let address = proxied.map(Proxied::of_one_family);
    let header = address.map_or_else(ProxyHeader::with_local, |Proxied { source, destination }| {
        ProxyHeader::with_address(ProxiedAddress::stream(source, destination))
    });
    let mut bytes = Vec::with_capacity(LONGEST_V1);
    let encoded = match version {
        ProxyVersion::V1 => header.encode_v1(&mut bytes),
        ProxyVersion::V2 => header.encode_v2(&mut bytes),
    };
    encoded.expect("both addresses are of one family, the protocol is TCP, and there are no TLVs");
    bytes
}

impl Proxied {
    /// Both addresses as IPv4, or else both as IPv6: a header has only one family.
    fn of_one_family(self) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Self { source, destination };
        }
        Self { source: as_ipv6(source), destination: as_ipv6(destination) }
    }
}

fn as_ipv6(address: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

/// Takes a header off a stream, and nothing more: it is looked at before it is taken.
async fn read(stream: &mut TcpStream) -> Result<Option<Proxied>, ProxyHeaderError> {
    let mut bytes = vec![0; LONGEST_V2];
    let mut taken = 0;
    loop {
        let seen = stream.peek(&mut bytes[taken..]).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let parsed = parse(&bytes[..taken + seen])?;
        let end = match parsed {
            Parsed::Partial => taken + seen,
            Parsed::Whole { len, .. } => len,
        };
        stream.read_exact(&mut bytes[taken..end]).await?;
        taken = end;
        if let Parsed::Whole { proxied, .. } = parsed {
            return Ok(proxied);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// All the bytes belong to a header of which more will come.
    Partial,
    /// The first bytes are a header.
    Whole { len: usize, proxied: Option<Proxied> },
}

/// What the first bytes of a connection are. There is at least one.
fn parse(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let begins_like = |signature: &[u8]| bytes.iter().zip(signature).all(|(found, wanted)| found == wanted);
    if begins_like(SIGNATURE_V2) {
        parse_v2(bytes)
    } else if begins_like(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let Some(fixed) = bytes.get(SIGNATURE_V2.len()..FIXED_V2) else { return Ok(Parsed::Partial) };
    let len = FIXED_V2 + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if len > LONGEST_V2 {
        return Err(ProxyHeaderError::TooLong { longest: LONGEST_V2 });
    }
    let Some(whole) = bytes.get(..len) else { return Ok(Parsed::Partial) };
    let proxied = match fixed[0] {
        // Of a local connection everything else is to be skipped, even a family that nobody knows.
        0x20 => None,
        0x21 => proxied(whole)?,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    Ok(Parsed::Whole { len, proxied })
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, ProxyHeaderError> {
    let line = &bytes[..bytes.len().min(LONGEST_V1)];
    match line.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Ok(Parsed::Whole { len: at + 2, proxied: proxied(&line[..at + 2])? }),
        None if line.len() == LONGEST_V1 => Err(ProxyHeaderError::TooLong { longest: LONGEST_V1 }),
        None => Ok(Parsed::Partial),
    }
}

/// The addresses in a whole header, if it has any of TCP.
fn proxied(whole: &[u8]) -> Result<Option<Proxied>, ProxyHeaderError> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(whole, config) {
        Ok((header, len)) if len == whole.len() => Ok(header
            .proxied_address()
            .filter(|address| address.protocol == Protocol::Stream)
            .map(|address| Proxied { source: address.source, destination: address.destination })),
        // It wants more than the length that it states.
        _ => Err(ProxyHeaderError::Malformed),
    }
}

#[cfg(test)]
mod tests;
