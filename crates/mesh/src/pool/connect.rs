//! Opens connections: TCP, then HTTP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Executor, Read, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::seq::SliceRandom;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tower::Service;

use super::alone;
use super::observed::Observed;
use super::shared::{Shared, Streams};
use super::tls::{Tls, TlsError};
use crate::counts::ConnectResult;
use crate::origin::{Origin, Protocol};
use crate::tolerant::Tolerant;
use crate::trail;
use crate::upload::AttemptBody;
use crate::upstream::Upstream;
use crate::wire::{MAX_BUFFER, chain, root_cause};

/// The largest head of an answer over HTTP/2, in bytes.
const MAX_HEAD: u32 = 16 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 64 * 1024;
/// After how long without bytes the system asks whether the server's machine is still there, how often, and how many times in
/// vain. Not by pings of HTTP/2: strict servers of gRPC accept one every five minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMES: u32 = 3;

/// Opens connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    tcp: HttpConnector<AnyOrder>,
    tls: Arc<Tls>,
    limit: Duration,
}

/// Looks names up as this machine does. Their addresses come in any order, so that connections use all of them; the others are
/// tried if one does not answer.
#[derive(Debug, Clone)]
struct AnyOrder(GaiResolver);

impl Service<Name> for AnyOrder {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let looking = self.0.call(name);
        Box::pin(async move {
            let mut found: Vec<_> = looking.await?.collect();
            found.shuffle(&mut rand::rng());
            Ok(found.into_iter())
        })
    }
}

/// Why no connection could be opened. Nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(crate) struct ConnectError {
    pub(crate) result: ConnectResult,
    why: String,
}

/// A new connection.
#[derive(Debug)]
pub(super) enum Opened {
    Http1(http1::SendRequest<AttemptBody>),
    Http2(Shared),
}

/// Counts an open connection until it is dropped.
#[derive(Debug)]
pub(super) struct Open(OpenBy);

/// Where an open connection is counted.
#[derive(Debug, Clone)]
pub(super) struct OpenBy {
    /// All connections of the pool.
    pub(super) pool: Arc<AtomicUsize>,
    /// Those of the service or route whose request opened it.
    pub(super) upstream: Arc<Upstream>,
}

impl Connector {
    /// `limit`: how long opening a connection may take.
    pub(super) fn new(limit: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(AnyOrder(GaiResolver::new()));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(limit));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE_EVERY));
        tcp.set_keepalive_retries(Some(KEEP_ALIVE_TIMES));
        Self { tcp, tls: Arc::default(), limit }
    }

    /// Opens a connection that counts as open until it ends.
    pub(super) async fn connect(&self, origin: &Origin, open: &OpenBy) -> Result<Opened, ConnectError> {
        let shakes = AtomicBool::new(false);
        self.in_time(self.open(origin, open, &shakes), &shakes).await
    }

    /// Opens a connection for one request alone. With TLS, it speaks HTTP/1.1. Over HTTP/2 without TLS, it is known whether
    /// the server allows WebSockets.
    pub(super) async fn connect_alone(
        &self,
        origin: &Origin,
        open: &OpenBy,
    ) -> Result<(Opened, Open), ConnectError> {
        let (open, shakes) = (Open::new(open), AtomicBool::new(false));
        Ok((self.in_time(self.open_alone(origin, &shakes), &shakes).await?, open))
    }

    /// `shakes`: whether there is a connection, and its TLS handshake is under way.
    async fn in_time(
        &self,
        connecting: impl Future<Output = Result<Opened, ConnectError>>,
        shakes: &AtomicBool,
    ) -> Result<Opened, ConnectError> {
        let began = Instant::now();
        let opened = timeout(self.limit, connecting).await;
        trail::connected(began.elapsed());
        opened.unwrap_or_else(|_late| {
            let limit = self.limit;
            Err(if shakes.load(Ordering::Relaxed) {
                let why = format!("the TLS handshake did not end within {limit:?}");
                ConnectError { result: ConnectResult::Tls, why }
            } else {
                ConnectError {
                    result: ConnectResult::TimedOut,
                    why: format!("no connection within {limit:?}"),
                }
            })
        })
    }

    async fn tcp(&self, origin: &Origin) -> Result<TokioIo<TcpStream>, ConnectError> {
        let uri = origin.uri().map_err(|error| ConnectError::other(&error))?;
        let mut tcp = self.tcp.clone();
        tcp.call(uri).await.map_err(|error| ConnectError::of(&error))
    }

    async fn open_alone(&self, origin: &Origin, shakes: &AtomicBool) -> Result<Opened, ConnectError> {
        let stream = self.tcp(origin).await?;
        match origin.protocol() {
            Protocol::Http1 => alone::http1(stream).await,
            Protocol::H2c => alone::http2(stream).await,
            Protocol::Tls(trust) => {
                shakes.store(true, Ordering::Relaxed);
                let shaking = self.tls.connect_http1(trust, origin.server_name(), stream.into_inner());
                alone::http1(TokioIo::new(shaking.await.map_err(|error| ConnectError::tls(&error))?)).await
            }
        }
    }

    async fn open(
        &self,
        origin: &Origin,
        open: &OpenBy,
        shakes: &AtomicBool,
    ) -> Result<Opened, ConnectError> {
        let stream = self.tcp(origin).await?;
        match origin.protocol() {
            Protocol::Http1 => http1(Tolerant::new(stream), open).await,
            Protocol::H2c => http2(stream, open).await,
            Protocol::Tls(trust) => {
                shakes.store(true, Ordering::Relaxed);
                let shaking = self.tls.connect(trust, origin.server_name(), stream.into_inner());
                let (stream, is_http2) =
                    Box::pin(shaking).await.map_err(|error| ConnectError::tls(&error))?;
                let stream = TokioIo::new(stream);
                if is_http2 { http2(stream, open).await } else { http1(Tolerant::new(stream), open).await }
            }
        }
    }
}

async fn http1<T>(io: Tolerant<T>, open: &OpenBy) -> Result<Opened, ConnectError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let handshake = http1_builder().handshake(io).await;
    let (sender, connection) = handshake.map_err(|error| ConnectError::other(&error))?;
    let open = Open::new(open);
    TokioExecutor::new().execute(async move {
        // The request's future reports the error.
        let _ = connection.with_upgrades().await;
        drop(open);
    });
    Ok(Opened::Http1(sender))
}

async fn http2<T>(io: T, open: &OpenBy) -> Result<Opened, ConnectError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let streams = Streams::new(Instant::now());
    let heard = Arc::clone(&streams);
    let io = Observed::new(io, move |is_read| {
        if is_read {
            heard.hears();
        }
    });
    let handshake = http2_builder().handshake(io).await;
    let (sender, connection) = handshake.map_err(|error| ConnectError::other(&error))?;
    let driver = Driver { connection, streams: Arc::clone(&streams) };
    let open = Open::new(open);
    TokioExecutor::new().execute(async move {
        let _ = driver.await;
        drop(open);
    });
    Ok(Opened::Http2(Shared::new(sender, streams)))
}

pub(super) fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER);
    builder
}

pub(super) fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// Drives a connection over HTTP/2 and reads the server's limit of streams.
struct Driver<T>
where
    T: Read + Write + Unpin + Send + 'static,
{
    connection: http2::Connection<T, AttemptBody, TokioExecutor>,
    streams: Arc<Streams>,
}

impl<T> Future for Driver<T>
where
    T: Read + Write + Unpin + Send + 'static,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        self.streams.allow(self.connection.current_max_send_streams(), cx);
        Poll::Ready(ready!(polled))
    }
}

impl ConnectError {
    /// Whether no process listens at the address.
    pub(crate) fn is_refused(&self) -> bool {
        self.result == ConnectResult::Refused
    }

    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let kinds =
            || chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
        let has = |kind| kinds().any(|found| found == kind);
        let result = if has(io::ErrorKind::ConnectionRefused) {
            ConnectResult::Refused
        } else if has(io::ErrorKind::TimedOut) {
            ConnectResult::TimedOut
        } else {
            ConnectResult::Failed
        };
        Self { result, why: root_cause(error) }
    }

    fn tls(error: &TlsError) -> Self {
        Self { result: ConnectResult::Tls, why: error.to_string() }
    }

    pub(super) fn other(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { result: ConnectResult::Failed, why: root_cause(error) }
    }
}

impl Open {
    fn new(open: &OpenBy) -> Self {
        open.pool.fetch_add(1, Ordering::Relaxed);
        open.upstream.opened();
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.pool.fetch_sub(1, Ordering::Relaxed);
        self.0.upstream.closed();
    }
}
