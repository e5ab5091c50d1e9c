//! Why a connection is not forwarded.

/// Why a connection was closed instead of forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No acceptable PROXY protocol header, or not from a trusted proxy.
    ProxyProtocol,
    /// No usable TLS hello.
    Hello,
    /// No target has the server name.
    UnknownName,
    /// The client has as many connections as it may have.
    PerClient,
    QueueFull,
    QueueTimeout,
    /// The target has no backend.
    NoBackend,
    /// No backend accepted the connection.
    ConnectFailed,
    /// The client left before it was forwarded.
    ClientGone,
    /// The balancer stops.
    Stopped,
}

impl Refusal {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 10] = [
        Self::ProxyProtocol,
        Self::Hello,
        Self::UnknownName,
        Self::PerClient,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::NoBackend,
        Self::ConnectFailed,
        Self::ClientGone,
        Self::Stopped,
    ];

    /// The label of the metric.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ProxyProtocol => "proxy_protocol",
            Self::Hello => "hello",
            Self::UnknownName => "unknown_name",
            Self::PerClient => "per_client",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::NoBackend => "no_backend",
            Self::ConnectFailed => "connect_failed",
            Self::ClientGone => "client_gone",
            Self::Stopped => "stopped",
        }
    }
}
