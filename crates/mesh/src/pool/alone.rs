//! Opens connections that carry one request alone, a WebSocket handshake: they belong to no pool.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::task::AtomicWaker;
use hyper::rt::{Executor, Read, Write};
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use super::connect::{ConnectError, Opened, http1_builder, http2_builder};
use super::observed::Observed;
use super::shared::{Shared, Streams};

/// A limit of streams that no server has: as long as it is in force, the server's settings have not arrived.
const NOT_YET_KNOWN: usize = 4_711;

/// A connection with HTTP/1.1. Its end is noticed by the reader of the WebSocket.
pub(super) async fn http1<T>(io: T) -> Result<Opened, ConnectError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let handshake = http1_builder().handshake(io).await;
    let (sender, connection) = handshake.map_err(|error| ConnectError::other(&error))?;
    TokioExecutor::new().execute(async move {
        // The request's future reports the error.
        let _ = connection.with_upgrades().await;
    });
    Ok(Opened::Http1(sender))
}

/// A connection with HTTP/2. Waits for the server's settings, which say whether it allows WebSockets (RFC 8441, section 3).
pub(super) async fn http2<T>(io: T) -> Result<Opened, ConnectError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let understood = Arc::<AtomicWaker>::default();
    let (reader, mut has_read) = (Arc::clone(&understood), false);
    // hyper says nothing about the server's settings, which come at some time after the connection is open; its own task reads
    // them. All frames that had come were handled before there was nothing more to read.
    let io = Observed::new(io, move |is_read| {
        if !is_read && has_read {
            reader.wake();
        }
        has_read = is_read;
    });
    let handshake = http2_builder().initial_max_send_streams(NOT_YET_KNOWN).handshake(io).await;
    let (sender, mut connection) = handshake.map_err(|error| ConnectError::other(&error))?;
    let streams = Streams::new(Instant::now());
    poll_fn(|cx| {
        understood.register(cx.waker());
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            // A connection that ends before its first request has no use, even if it ends well.
            return Poll::Ready(ended.map_err(|error| ConnectError::other(&error)));
        }
        if connection.current_max_send_streams() == NOT_YET_KNOWN {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    })
    .await?;
    if connection.is_extended_connect_protocol_enabled() {
        streams.allow_websockets();
    }
    let shared = Shared::new(sender, Arc::clone(&streams));
    TokioExecutor::new().execute(async move {
        let _ = connection.await;
    });
    Ok(Opened::Http2(shared))
}
