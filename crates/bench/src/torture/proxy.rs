//! A proxy between a node and an S3 server that injects network and server faults.
//!
//! Its only HTTP is a refusal: bytes are forwarded unchanged, so signatures stay valid.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The fault to inject into requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Every piece of data is delayed by this time, in both directions.
    Slow(Duration),
    /// Requests are answered with 503.
    Refuse,
    /// The connection is closed before the server has received anything.
    Drop,
    /// The server carries the request out, but its answer is lost.
    Forget,
    /// No data is forwarded until the mode ends.
    Silent,
}

/// A proxy on its own port. Dropping it closes all connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    _accepting: JoinSet<()>,
}

const BUSY: &[u8] = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Proxy {
    /// Listens on this address and forwards to a server.
    pub(crate) async fn start(at: IpAddr, server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((at, 0)).await.with_context(|| format!("listening at {at}"))?;
        let addr = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, server, modes));
        Ok(Self { addr, mode, _accepting: accepting })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    let mode = mode.clone();
                    // After any error both sides see a closed connection.
                    connections.spawn(async move { drop(pass(client, server, mode).await) });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The direction of a piece of data.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    ToServer,
    ToClient,
}

async fn pass(
    client: TcpStream,
    server: SocketAddr,
    mut modes: watch::Receiver<Mode>,
) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut there, mut back) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let (direction, length) = tokio::select! {
            length = from_client.read(&mut there) => (Direction::ToServer, length?),
            length = from_server.read(&mut back) => (Direction::ToClient, length?),
        };
        if length == 0 {
            return Ok(());
        }
        let mode = *modes.borrow_and_update();
        match (mode, direction) {
            (Mode::Pass, _) | (Mode::Forget, Direction::ToServer) => {}
            (Mode::Slow(delay), _) => sleep(delay).await,
            (Mode::Refuse, Direction::ToServer) => {
                to_client.write_all(BUSY).await?;
                return to_client.shutdown().await;
            }
            (Mode::Refuse | Mode::Drop | Mode::Forget, _) => return Ok(()),
            (Mode::Silent, _) => {
                if modes.wait_for(|mode| *mode != Mode::Silent).await.is_err() {
                    return Ok(());
                }
            }
        }
        match direction {
            Direction::ToServer => to_server.write_all(&there[..length]).await?,
            Direction::ToClient => to_client.write_all(&back[..length]).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncBufReadExt;
    use tokio::io::BufReader;

    use super::*;

    /// A server that echoes each line, and counts the lines received.
    async fn echo() -> (SocketAddr, watch::Receiver<u32>, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (count, counted) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (read, mut write) = stream.split();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    count.send_modify(|count| *count += 1);
                    if write.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        });
        (addr, counted, tasks)
    }

    async fn send(proxy: &Proxy) -> String {
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        let mut line = String::new();
        // A reset connection means the same as a closed one.
        let _ = BufReader::new(stream).read_line(&mut line).await;
        line
    }

    #[tokio::test]
    async fn each_mode_injects_its_fault() {
        let (server, mut count, _server) = echo().await;
        let proxy = Proxy::start(Ipv4Addr::LOCALHOST.into(), server).await.unwrap();
        assert_eq!(send(&proxy).await, "hello\n");
        proxy.set(Mode::Refuse);
        assert!(send(&proxy).await.starts_with("HTTP/1.1 503"));
        proxy.set(Mode::Drop);
        assert_eq!(send(&proxy).await, "");
        assert_eq!(*count.borrow(), 1, "the server has seen neither");
        proxy.set(Mode::Forget);
        assert_eq!(send(&proxy).await, "");
        count.wait_for(|count| *count == 2).await.expect("the server runs");
        proxy.set(Mode::Silent);
        let (answer, ()) =
            tokio::join!(send(&proxy), async { proxy.set(Mode::Slow(Duration::from_millis(1))) });
        assert_eq!(answer, "hello\n");
    }
}
