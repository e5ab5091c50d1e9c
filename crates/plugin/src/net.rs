//! Opens TCP listeners. If the port is in use, the error names the process that has it.

mod per_core;

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

pub(crate) use per_core::bind_per_core;

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Choose another port, or end the process that has this one.
    #[error("{addr} is in use by {holder}")]
    InUse {
        /// The requested address.
        addr: SocketAddr,
        /// `serf (pid 4711)`, or `another process`.
        holder: String,
    },
    /// This machine does not have the address, or the port needs a privilege.
    #[error("{addr} can't be opened: {source}")]
    Other {
        /// The requested address.
        addr: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
}

/// Opens a TCP listener.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr).await.map_err(|source| BindError::tcp(addr, source))
}

impl BindError {
    /// Why a TCP port could not be opened.
    fn tcp(addr: SocketAddr, source: io::Error) -> Self {
        Self::of(addr, source, listeners::Protocol::TCP)
    }

    /// The same for a UDP port.
    pub fn udp(addr: SocketAddr, source: io::Error) -> Self {
        Self::of(addr, source, listeners::Protocol::UDP)
    }

    fn of(addr: SocketAddr, source: io::Error, protocol: listeners::Protocol) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::InUse { addr, holder: holder_of(addr.port(), protocol) }
        } else {
            Self::Other { addr, source }
        }
    }

    /// Whether another process has the port.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

fn holder_of(port: u16, protocol: listeners::Protocol) -> String {
    match listeners::get_process_by_port(port, protocol) {
        Ok(process) => format!("{} (pid {})", process.name, process.pid),
        Err(_) => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_names_its_holder() {
        let first = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = bind(first.local_addr().unwrap()).await.unwrap_err();
        assert!(error.is_in_use());
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    }
}
