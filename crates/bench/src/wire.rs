//! One connection that asks one thing after the other, as cheaply as hyper does it.
//!
//! Nothing is tried again: what the other side does to a connection is seen as it is.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How the other side is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// Without TLS and without being asked first, as gRPC does.
    Http2,
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    /// Moves the bytes.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr, protocol: Protocol) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        let mut driver = JoinSet::new();
        // How a connection ends is told by the request that it fails.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                driver.spawn(async move { drop(connection.await) });
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                driver.spawn(async move { drop(connection.await) });
                Sender::Http2(sender)
            }
        };
        Ok(Self { sender, _driver: driver })
    }

    /// Asks, and waits for all of the answer.
    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.context("the connection was closed between two requests")?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.context("the connection was closed between two requests")?;
                sender.send_request(request).await
            }
        };
        let (head, body) = answer.context("no answer")?.into_parts();
        let body =
            body.collect().await.with_context(|| format!("{}, but not all of its body", head.status))?;
        let trailers = body.trailers().cloned();
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
    }
}

impl Answer {
    /// The beginning of the body, fit for a terminal.
    pub(crate) fn excerpt(&self) -> String {
        const SHOWN: usize = 300;
        String::from_utf8_lossy(&self.body).chars().take(SHOWN).collect()
    }
}
