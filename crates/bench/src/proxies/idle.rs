//! Connections that were used once and are kept open.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxies::Addresses;
use crate::proxies::backend::Body;
use crate::proxies::handshakes;
use crate::proxies::start::fetch;
use crate::wire::{Connection, Protocol};

/// How many connections are opened at once.
const AT_ONCE: usize = 50;
/// The time limit of opening them and of their first answers.
const LIMIT: Duration = Duration::from_secs(60);

/// The kind of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Http1,
    /// Without TLS.
    Http2,
    /// HTTP/1 over TLS.
    Tls,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Tls];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::Tls => "TLS",
        })
    }
}

/// Opens one connection.
pub(crate) async fn open(addresses: &Addresses, kind: Kind) -> anyhow::Result<Connection> {
    match kind {
        Kind::Http1 => Connection::open(addresses.http1, Protocol::Http1).await,
        Kind::Http2 => Connection::open(addresses.http2, Protocol::Http2).await,
        Kind::Tls => {
            let stream = TcpStream::connect(addresses.tls).await.context("connecting")?;
            let stream = handshakes::connector().connect(handshakes::name()?, stream).await.context("TLS")?;
            Connection::over(stream, Protocol::Http1).await
        }
    }
}

/// Opens a number of connections, each with one request of 1 KB.
pub(crate) async fn open_many(
    addresses: &Addresses,
    kind: Kind,
    number: usize,
) -> anyhow::Result<Vec<Connection>> {
    let mut opened = Vec::with_capacity(number);
    while opened.len() < number {
        let batch = (0..AT_ONCE.min(number - opened.len())).map(|_| async {
            let mut connection = open(addresses, kind).await?;
            fetch(&mut connection, kind, Body::OneKb).await?;
            anyhow::Ok(connection)
        });
        let batch = timeout(LIMIT, try_join_all(batch)).await;
        opened.extend(batch.with_context(|| format!("opening {number} connections took too long"))??);
    }
    Ok(opened)
}
