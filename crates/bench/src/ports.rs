//! Free ports on loopback, from a range that neither the kernel nor `ctl` uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// Above the ports of `ctl`, below Linux's range for outgoing connections.
const FIRST: u16 = 30_000;
const COUNT: u16 = 2_700;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address that is free for TCP and UDP and that no recent call has returned.
pub(crate) fn free() -> anyhow::Result<SocketAddr> {
    // The search begins elsewhere in each process, so that two benches seldom collide.
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .map(|_| {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
            SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + (start + step) % COUNT))
        })
        .find(|addr| TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok())
        .context("no port is free")
}
