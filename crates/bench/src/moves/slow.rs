//! Slow clients, for which a move must not wait: an upload of one byte per second, a download of 8 MiB and a watch that
//! are read slowly, and listings of all shards.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use types::KeyHash;

use super::SHARDS;
use crate::wire::{Connection, Protocol};

const BIG: usize = 8 * 1024 * 1024;
/// The number of bytes of a download that are read every 100 ms.
const CHUNK: usize = 32 * 1024;
/// The number of bytes of a watch that are read every 100 ms: fewer than arrive, so that it lags more and more.
const WATCH_CHUNK: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Upload,
    Download,
    Watch,
    Listing,
}

/// Slow clients: one of each kind at the gateway and at each node that was an owner. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct SlowClients {
    gateway: SocketAddr,
    big: String,
    clients: JoinSet<()>,
    running: BTreeMap<(SocketAddr, Kind), AbortHandle>,
    begun: u64,
    listed: Arc<AtomicU64>,
}

impl SlowClients {
    /// Stores the large value; no client runs yet.
    pub(crate) async fn start(gateway: SocketAddr) -> anyhow::Result<Self> {
        let big = key_of_shard_0("big");
        let request = Request::put(format!("/storage/kv/{big}"))
            .header(HOST, gateway.to_string())
            .body(Full::new(Bytes::from(vec![b'x'; BIG])))?;
        let answer = Connection::open(gateway, Protocol::Http1).await?.send(request).await?;
        anyhow::ensure!(answer.status.is_success(), "the large value: {}", answer.excerpt());
        let (clients, running, listed) = (JoinSet::new(), BTreeMap::new(), Arc::default());
        Ok(Self { gateway, big, clients, running, begun: 0, listed })
    }

    /// Restarts the clients that have ended, at the gateway and at the owner of shard 0.
    pub(crate) async fn renew(&mut self, owner: SocketAddr) -> anyhow::Result<()> {
        while self.clients.try_join_next().is_some() {}
        for (address, prefix) in [(self.gateway, "/storage"), (owner, "/svc/storage")] {
            for kind in [Kind::Upload, Kind::Download, Kind::Watch, Kind::Listing] {
                if self.running.get(&(address, kind)).is_none_or(AbortHandle::is_finished) {
                    let client = self.start_client(kind, address, prefix).await.context("a slow client")?;
                    self.running.insert((address, kind), client);
                    self.begun += 1;
                }
            }
        }
        Ok(())
    }

    async fn start_client(
        &mut self,
        kind: Kind,
        address: SocketAddr,
        prefix: &str,
    ) -> anyhow::Result<AbortHandle> {
        let mut stream = TcpStream::connect(address).await?;
        let head = match kind {
            Kind::Upload => {
                format!("PUT {prefix}/kv/{} HTTP/1.1\r\ncontent-length: 3600", key_of_shard_0("slow"))
            }
            Kind::Download => format!("GET {prefix}/kv/{} HTTP/1.1\r\nconnection: close", self.big),
            Kind::Watch => format!("GET {prefix}/watch?values=true HTTP/1.1"),
            Kind::Listing => format!("GET {prefix}/kv?limit=100 HTTP/1.1"),
        };
        let head = format!("{head}\r\nhost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        Ok(match kind {
            Kind::Upload => self.clients.spawn(upload(stream)),
            Kind::Download => self.clients.spawn(read_slowly(stream, CHUNK)),
            Kind::Watch => self.clients.spawn(read_slowly(stream, WATCH_CHUNK)),
            Kind::Listing => self.clients.spawn(listings(stream, head, Arc::clone(&self.listed))),
        })
    }

    /// Ends the clients. Returns a summary for the report.
    pub(crate) async fn finish(mut self) -> String {
        self.clients.shutdown().await;
        format!("{} slow clients, {} listings", self.begun, self.listed.load(Ordering::Relaxed))
    }
}

/// A key of the shard that moves.
fn key_of_shard_0(name: &str) -> String {
    let shards: NonZeroU32 = SHARDS;
    let names = (0_u32..).map(|number| format!("{name}-{number}"));
    let mut of_0 = names.filter(|name| KeyHash::of(name.as_bytes()).shard(shards).as_u32() == 0);
    of_0.next().expect("some name hashes to shard 0")
}

/// Sends one byte per second until the upload is refused.
async fn upload(mut stream: TcpStream) {
    loop {
        tokio::select! {
            _ = stream.read_u8() => return,
            () = sleep(Duration::from_secs(1)) => if stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    }
}

/// Reads up to `bytes` every 100 ms, to the end.
async fn read_slowly(mut stream: TcpStream, bytes: usize) {
    let mut some = vec![0; bytes];
    while stream.read(&mut some).await.is_ok_and(|length| length > 0) {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Sends listings one after the other over one connection.
async fn listings(mut stream: TcpStream, head: String, listed: Arc<AtomicU64>) {
    let mut some = vec![0; 64 * 1024];
    // An answer is small and nearly always arrives in one piece; if it does not, the next request is sent early.
    while stream.read(&mut some).await.is_ok_and(|length| length > 0) {
        listed.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}
