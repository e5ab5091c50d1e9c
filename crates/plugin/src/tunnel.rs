//! WebSockets through a proxy: recognizes a handshake, and moves the bytes of both connections once the server has accepted
//! it.
//!
//! The copying is the body of the answer 101: a listener polls that body as long as the connection is open, so the tunnel
//! runs in the task of its client's connection and ends with it. It ends with an error if the client has not got all that the
//! server sent; the listener then resets the client's connection, or its stream.

mod copy;
mod server;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh::head::websocket::{self, HandshakeError};
use server::Server;
use types::{ErrorKind, Problem};

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions ended.
    Closed,
    /// The client's connection broke.
    ClientLost,
    /// The server's connection broke.
    ServerLost,
    /// No byte moved for too long.
    Idle,
}

/// The bytes that a tunnel has moved. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TunnelBytes {
    /// From the client.
    pub received: Arc<AtomicU64>,
    /// To the client.
    pub sent: Arc<AtomicU64>,
}

/// A client's WebSocket handshake that has not been answered.
#[derive(Debug)]
pub struct Handshake {
    client: OnUpgrade,
    is_http2: bool,
}

impl Handshake {
    /// The handshake that a request is; none if it is an ordinary request, and an error if it is a malformed handshake. Call it
    /// before the fields of the connection are removed from the head.
    pub fn of(head: &mut Parts) -> Result<Option<Self>, HandshakeError> {
        let is_one = websocket::handshake(head)?;
        let client = head.extensions.remove::<OnUpgrade>();
        let is_http2 = head.version == Version::HTTP_2;
        Ok(client.filter(|_| is_one).map(|client| Self { client, is_http2 }))
    }

    /// The status that the client gets for a handshake that was accepted.
    pub fn accepted(&self) -> StatusCode {
        if self.is_http2 { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS }
    }

    /// The answer to the client after the server accepted the handshake with 101: its body is the tunnel. The body of the
    /// server's answer is kept until the tunnel ends, which then calls `on_end`. A tunnel that is dropped before calls nothing.
    pub fn accept<B: Send + 'static>(
        self,
        mut answer: Response<B>,
        idle: Duration,
        bytes: TunnelBytes,
        on_end: impl FnOnce(TunnelEnd) + Send + 'static,
    ) -> Response<Body> {
        let server = hyper::upgrade::on(&mut answer);
        let (mut head, held) = answer.into_parts();
        websocket::switch(&mut head.headers);
        let tunnel = async move {
            let (end, is_whole) = match tokio::try_join!(
                async { self.client.await.map_err(|_| TunnelEnd::ClientLost) },
                async { server.await.map(Server::new).map_err(|_| TunnelEnd::ServerLost) },
            ) {
                Ok((client, mut server)) => {
                    let mut client = TokioIo::new(client);
                    let copied = copy::both_ways(&mut client, server.io(), idle, &bytes).await;
                    if copied.server_has_all {
                        server.has_all();
                    }
                    (copied.end, copied.client_has_all)
                }
                Err(end) => (end, false),
            };
            on_end(end);
            drop(held);
            if is_whole { Ok(()) } else { Err(CutShort) }
        };
        Response::from_parts(head, Body::new(Running(Box::pin(tunnel))))
    }
}

/// The handshake of a request, if the server accepted it with this answer; every other answer is an ordinary one. Refuses the
/// success of a server that did not accept it: over HTTP/2 that would mean that it did.
pub fn established<B>(
    handshake: Option<Handshake>,
    answer: &Response<B>,
) -> Result<Option<Handshake>, Problem> {
    let Some(handshake) = handshake else { return Ok(None) };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some(handshake));
    }
    if handshake.is_http2 && answer.status().is_success() {
        return Err(no_websocket(answer.status()));
    }
    Ok(None)
}

/// The problem with an answer of this status to a handshake over HTTP/2.
pub(crate) fn no_websocket(status: StatusCode) -> Problem {
    let detail = format!(
        "the server answered the WebSocket handshake with {}, which over HTTP/2 would mean that it accepted it",
        status.as_str()
    );
    Problem::new(ErrorKind::BadGateway, "not-a-websocket", detail)
        .hint("see whether there is a WebSocket at this path of the server")
}

/// The client has not got all that the server sent, or would have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the WebSocket was cut short")]
pub(crate) struct CutShort;

/// A body without bytes that ends as a task does.
struct Running(BoxFuture<'static, Result<(), CutShort>>);

impl HttpBody for Running {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(ready!(self.0.as_mut().poll(cx)).err().map(Err))
    }
}
