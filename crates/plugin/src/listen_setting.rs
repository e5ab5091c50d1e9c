//! What checked settings say of listeners: those that the service binds with what they expect, and those of other services
//! to which it forwards with what it sends. Data alone; `ctl validate` compares the two.

use std::net::SocketAddr;

use ipnet::IpNet;
use types::ServiceName;

/// An address in checked settings that the service itself will bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSetting {
    /// The JSON pointer (RFC 6901) of the setting: `/listeners/0/address`.
    pub pointer: String,
    /// The name of its endpoint in gossip.
    pub name: String,
    /// The address; port 0 is any free port.
    pub address: SocketAddr,
    /// What connections to it have to be like.
    pub expects: Expects,
}

/// What connections to a listener have to be like, so that it serves them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expects {
    /// The proxies that alone may connect, if each connection must begin with a header of the PROXY protocol.
    pub proxies: Option<Vec<IpNet>>,
    /// The HTTP that it speaks; `None` if it forwards the bytes of any protocol.
    pub http: Option<ExpectedHttp>,
}

/// The HTTP of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedHttp {
    /// Over TLS.
    pub tls: bool,
    /// HTTP/1.1 is among its protocols.
    pub http1: bool,
}

/// A service that checked settings name as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSetting {
    /// The JSON pointer of the setting with the service's name.
    pub pointer: String,
    /// The service.
    pub service: ServiceName,
    /// The listener of its members that is the target; `None` for their API.
    pub listener: Option<TargetListener>,
}

/// A listener of another service's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetListener {
    /// Its name.
    pub name: String,
    /// The JSON pointer of the setting with its name; `None` if that is the default.
    pub pointer: Option<String>,
    /// Whether other settings can make the API of the members the target instead.
    pub may_be_api: bool,
    /// What connections to it are like.
    pub sends: Sends,
}

/// What the connections that a service opens to a listener are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sends {
    /// The JSON pointer of the settings with `mode` and `send_proxy_protocol`: `/listeners/0`.
    pub place: String,
    /// Each begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// What follows.
    pub content: SentContent,
}

/// What is sent over a connection to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentContent {
    /// What the client sends, whatever that is.
    Bytes,
    /// The same, which is TLS: it was chosen by the server name in it.
    Tls,
    /// Requests in HTTP/1.1 without TLS.
    Http1,
}
