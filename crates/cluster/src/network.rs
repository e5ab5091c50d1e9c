//! The transport of gossip: UDP, or an in-memory network for tests. A sealed transport would be added here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{ChannelTransport, RecvOutcome, SendOutcome, Socket, Transport, UdpTransport};
use tokio::sync::watch;

/// The transport of gossip.
#[derive(Debug, Clone)]
pub enum Network {
    /// Unencrypted datagrams.
    Udp,
    /// An in-memory network between nodes of one process, for tests.
    Memory(MemoryNetwork),
}

impl Network {
    pub(crate) fn transport(&self) -> Box<dyn Transport> {
        match self {
            Self::Udp => Box::new(UdpTransport),
            Self::Memory(network) => Box::new(network.clone()),
        }
    }
}

/// An in-memory network for tests. Links can be cut and nodes paused.
#[derive(Clone)]
pub struct MemoryNetwork {
    channels: ChannelTransport,
    held: Arc<watch::Sender<BTreeSet<SocketAddr>>>,
}

impl MemoryNetwork {
    /// A network in which every node reaches every other.
    pub fn new() -> Self {
        Self { channels: ChannelTransport::default(), held: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }

    /// Cuts the link between two addresses, both ways.
    pub async fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.channels.remove_link(a, b).await;
    }

    /// Restores a link.
    pub async fn heal(&self, a: SocketAddr, b: SocketAddr) {
        self.channels.add_link(a, b).await;
    }

    /// Pauses a node: it neither sends nor receives until it is released, like a stopped process.
    pub fn hold(&self, addr: SocketAddr) {
        self.held.send_modify(|held| {
            held.insert(addr);
        });
    }

    /// Resumes a paused node.
    pub fn release(&self, addr: SocketAddr) {
        self.held.send_modify(|held| {
            held.remove(&addr);
        });
    }

    /// Waits until the node at an address is paused.
    pub async fn held(&self, addr: SocketAddr) {
        let mut held = self.held.subscribe();
        // The sender exists as long as this network, so the wait can't fail.
        let _ = held.wait_for(|held| held.contains(&addr)).await;
    }

    /// Waits until the node at an address is not paused.
    pub async fn released(&self, addr: SocketAddr) {
        let mut held = self.held.subscribe();
        // The sender exists as long as this network, so the wait can't fail.
        let _ = held.wait_for(|held| !held.contains(&addr)).await;
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

#[async_trait]
impl Transport for MemoryNetwork {
    async fn open(&self, listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let socket = self.channels.open(listen_addr).await?;
        let addr = socket.local_addr()?;
        Ok(Box::new(MemorySocket { network: self.clone(), addr, socket }))
    }
}

struct MemorySocket {
    network: MemoryNetwork,
    addr: SocketAddr,
    socket: Box<dyn Socket>,
}

#[async_trait]
impl Socket for MemorySocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.addr)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        self.network.released(self.addr).await;
        self.socket.send(to, envelope).await
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.network.released(self.addr).await;
        self.socket.recv().await
    }
}
