//! A listener with a socket for each core.

use std::net::{SocketAddr, TcpListener};

use super::{Core, cores};
use crate::ServiceError;
use crate::net::{BindError, bind_per_core};

/// An open listener whose connections are served on the cores: each has a socket of its own, and the connections that it
/// accepts stay on it. Made by [`Context::listen_on_cores`](crate::Context::listen_on_cores).
#[derive(Debug)]
pub struct CoreListener {
    address: SocketAddr,
    sockets: Vec<(Core, TcpListener)>,
}

impl CoreListener {
    /// Opens a socket for each core of this process.
    pub(crate) fn open(name: &str, addr: SocketAddr) -> Result<Self, ServiceError> {
        let cores = cores().map_err(|error| {
            ServiceError::unavailable("the threads for connections can't be started")
                .source(error)
                .hint("raise the limits of threads and file descriptors")
        })?;
        Self::on(cores, addr).map_err(|error| unavailable(name, error))
    }

    /// The same on the given cores.
    pub(crate) fn on(cores: Vec<Core>, addr: SocketAddr) -> Result<Self, BindError> {
        let sockets = bind_per_core(addr, cores.len())?;
        let address = sockets.first().and_then(|first| first.local_addr().ok()).unwrap_or(addr);
        Ok(Self { address, sockets: cores.into_iter().zip(sockets).collect() })
    }

    /// The address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn into_sockets(self) -> Vec<(Core, TcpListener)> {
        self.sockets
    }
}

/// A listener could not be opened.
pub(crate) fn unavailable(name: &str, error: BindError) -> ServiceError {
    ServiceError::unavailable(format!("listener `{name}`")).source(error).hint("choose another port")
}
