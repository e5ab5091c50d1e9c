//! One connection that sends one request after the other, with little more than hyper's own cost.
//!
//! Nothing is retried, so that every fault of the connection is visible.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge and without TLS, as in gRPC.
    Http2,
}

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    /// Drives the connection.
    _driver: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A complete answer.
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
        Self::over(stream, protocol).await
    }

    /// Over an open stream.
    pub(crate) async fn over<S>(stream: S, protocol: Protocol) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        let mut driver = JoinSet::new();
        // The end of a connection is reported by the request that fails.
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

    /// Sends a request and waits for the complete answer.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
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
    /// The first 300 characters of the body.
    pub(crate) fn excerpt(&self) -> String {
        const SHOWN: usize = 300;
        String::from_utf8_lossy(&self.body).chars().take(SHOWN).collect()
    }
}
