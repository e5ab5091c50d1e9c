//! Connections to servers, kept open between requests.
//!
//! Each core has a pool of its own, so that taking a connection waits for no other core; the threads of the shared runtime
//! have one together. A pool hands out the connection that was used last, checks that it is open, and closes those that have
//! been idle for too long. Requests over HTTP/2 share a connection.

mod alone;
mod connect;
mod connection;
mod idle;
mod observed;
mod per_core;
mod received;
mod retired;
mod reuse;
mod shared;
mod tls;
mod tls_reason;
mod unanswered;

use std::collections::BTreeSet;
use std::sync::Arc;

pub(crate) use self::connect::ConnectError;
pub(crate) use self::connection::{Leased, SendError};
pub(crate) use self::received::Received;
pub(crate) use self::retired::Addresses;
pub use self::tls::check_ca;
pub(crate) use self::unanswered::Asked;

use self::connect::Connector;
use self::per_core::{PerCore, Settings};
use crate::counts::{Counts, Idle};
use crate::limits::Limits;
use crate::origin::Origin;
use crate::upstream::Upstream;

/// The pools of all cores.
#[derive(Debug)]
pub(crate) struct Pools {
    /// The first is that of the shared runtime.
    cores: Box<[Arc<PerCore>]>,
}

/// Which connection to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// One that is open, or a new one.
    Any,
    /// A new one.
    New,
}

impl Pools {
    pub(crate) fn new(limits: &Limits, counts: &Arc<Counts>) -> Arc<Self> {
        let number = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = Arc::new(Settings {
            connector: Connector::new(limits.connect),
            idle: limits.keep_alive,
            lookup: limits.lookup,
            most_idle: limits.keep_alive_connections,
            counts: Arc::clone(counts),
        });
        let cores = (0..=number).map(|_| Arc::new(PerCore::new(Arc::clone(&settings))));
        let pools = Arc::new(Self { cores: cores.collect() });
        counts.watch(&pools);
        pools
    }

    /// A connection to an origin.
    /// A new one is counted under `upstream`.
    pub(crate) async fn lease(
        &self,
        origin: &Arc<Origin>,
        which: Which,
        upstream: Option<&Arc<Upstream>>,
    ) -> Result<Leased, ConnectError> {
        self.here().lease(origin, which, upstream).await
    }

    /// A new connection to an origin that never carries another request, for a WebSocket.
    pub(crate) async fn lease_alone(
        &self,
        origin: &Arc<Origin>,
        upstream: Option<&Arc<Upstream>>,
    ) -> Result<Leased, ConnectError> {
        self.here().lease_alone(origin, upstream).await
    }

    /// Adds the number of idle connections by what they were opened for.
    pub(crate) fn idle(&self, idle: &mut Idle) {
        self.cores.iter().for_each(|core| core.idle(idle));
    }

    /// Closes the idle connections to these addresses.
    pub(crate) fn close(&self, addresses: &BTreeSet<String>, draining: &Arc<BTreeSet<String>>) {
        for core in &self.cores {
            core.close(addresses, draining);
        }
    }

    /// Open connections: those that carry requests, and those that are idle.
    pub(crate) fn open(&self) -> (usize, usize) {
        let open = self.cores.iter().map(|core| core.open());
        open.fold((0, 0), |all, core| (all.0 + core.0, all.1 + core.1))
    }

    fn here(&self) -> &Arc<PerCore> {
        let at = crate::core::current().map_or(0, |core| 1 + core % (self.cores.len() - 1));
        &self.cores[at]
    }
}

#[cfg(test)]
mod tests;
