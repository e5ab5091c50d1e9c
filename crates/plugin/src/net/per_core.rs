//! Opens one listening socket for each core. All of them have the same address, and the system spreads new connections
//! over them.
//!
//! The first one is opened alone, like any listener: if another process listens at the address, even with `SO_REUSEPORT`,
//! it is refused. Only then does it allow others beside it. It listens from its first moment on, so no other node can take
//! the port in between. A process of the same user that asks for `SO_REUSEPORT` itself could still join later.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use super::BindError;

/// How many connections wait for each core: what Tokio's listeners have.
const BACKLOG: i32 = 1024;

/// Opens a socket for each core. They are non-blocking.
pub(crate) fn bind_per_core(addr: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, BindError> {
    let first = open(addr, false).map_err(|source| BindError::tcp(addr, source))?;
    let others =
        beside(&first, cores.saturating_sub(1)).map_err(|source| BindError::Other { addr, source })?;
    Ok(std::iter::once(first).chain(others).collect())
}

/// More sockets with the address of the first one.
#[cfg(target_os = "linux")]
fn beside(first: &TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    socket2::SockRef::from(first).set_reuse_port(true)?;
    let addr = first.local_addr()?;
    (0..count).map(|_| open(addr, true)).collect()
}

/// Other systems do not spread connections over sockets of one address, so the cores share the first one.
#[cfg(not(target_os = "linux"))]
fn beside(first: &TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    (0..count).map(|_| first.try_clone()).collect()
}

fn open(addr: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // A port whose connections have only just been closed may be opened. On Windows it would mean something else.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    if is_shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(unix))]
    let _ = is_shared;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::*;

    const LOCAL: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    fn port(sockets: &[TcpListener]) -> SocketAddr {
        let addresses: BTreeSet<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert_eq!(addresses.len(), 1, "all have one port, also if the system chose it");
        *addresses.first().unwrap()
    }

    #[test]
    fn a_port_that_another_node_listens_on_for_all_its_cores_is_refused_and_named() {
        let first = bind_per_core(LOCAL.into(), 4).unwrap();
        for cores in [1, 4] {
            let error = bind_per_core(port(&first), cores).unwrap_err();
            assert!(error.is_in_use());
            assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        }
        assert!(TcpListener::bind(port(&first)).is_err(), "nor may a plain listener share it");
        let addr = port(&first);
        drop(first);
        bind_per_core(addr, 4).expect("the port is free again");
    }

    #[test]
    fn two_nodes_that_open_one_port_at_the_same_moment_never_share_it() {
        for _ in 0..50 {
            let addr = port(&bind_per_core(LOCAL.into(), 2).unwrap());
            let open = || std::thread::spawn(move || bind_per_core(addr, 2));
            let both = [open(), open()].map(|thread| thread.join().unwrap());
            // A chance test may take the port in between; then neither has it.
            assert!(both.iter().filter(|opened| opened.is_ok()).count() <= 1);
        }
    }

    #[test]
    fn every_connection_arrives_at_one_of_the_sockets() {
        let sockets = bind_per_core(LOCAL.into(), 3).unwrap();
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(port(&sockets)).unwrap()).collect();
        let (mut accepted, end) = (0, Instant::now() + Duration::from_secs(30));
        while accepted < clients.len() && Instant::now() < end {
            accepted += sockets.iter().filter(|socket| socket.accept().is_ok()).count();
        }
        assert_eq!(accepted, clients.len());
    }
}
