//! An HTTP server on this machine for tests: it answers as the test says, counts, and can stall or break.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() {
//! use mesh::testing::{Upstream, text};
//!
//! let works = Upstream::serving(async |_| text("it works")).await;
//! let stalls = Upstream::serving(async |_| std::future::pending().await).await;
//! let breaks = Upstream::writing("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
//! assert_eq!(works.hits() + stalls.hits() + breaks.hits(), 0);
//! # }
//! ```

#[cfg(test)]
mod fixtures;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[cfg(test)]
pub(crate) use self::fixtures::{Pieces, echo, member, mesh, not_processed, standby, until, view, whole};
use crate::BaseUrl;
use crate::head::websocket;

/// What an [`Upstream`] answers.
pub type Answer = Response<BoxBody<Bytes, hyper::Error>>;

const HERE: &str = "this machine has a loopback address";
/// How long the client may take to close a connection that is over.
const LAST_READ: Duration = Duration::from_secs(5);

/// A server on a free port of this machine that runs until it is dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Requests, or connections where those are not parsed.
    hits: AtomicUsize,
    /// The heads that [`Upstream::writing`] read.
    heads: Mutex<Vec<String>>,
}

impl Upstream {
    /// Answers each request with the handler's answer.
    ///
    /// # Panics
    /// When this machine has no free port.
    pub async fn serving<F, A>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Answer> + Send + 'static,
    {
        let seen = Arc::<Seen>::default();
        let count = Arc::clone(&seen);
        Self::accepting(seen, move |stream| {
            let (handler, count) = (handler.clone(), Arc::clone(&count));
            let service = service_fn(move |request| {
                count.hits.fetch_add(1, Ordering::SeqCst);
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            async move {
                let _ = connection.await;
            }
        })
        .await
    }

    /// Reads the head of a request, writes these bytes and closes the connection.
    ///
    /// # Panics
    /// When this machine has no free port.
    pub async fn writing(bytes: impl Into<Bytes>) -> Self {
        let (bytes, seen) = (bytes.into(), Arc::<Seen>::default());
        let noted = Arc::clone(&seen);
        Self::accepting(seen, move |mut stream| {
            noted.hits.fetch_add(1, Ordering::SeqCst);
            let (bytes, noted) = (bytes.clone(), Arc::clone(&noted));
            async move {
                let head = read_head(&mut stream).await;
                noted.heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                // Data that is left unread would reset the connection before the answer has been read.
                let _ =
                    timeout(LAST_READ, async { while let Ok(1..) = stream.read(&mut [0; 1024]).await {} })
                        .await;
            }
        })
        .await
    }

    /// Passes each connection to the handler.
    ///
    /// # Panics
    /// When this machine has no free port.
    pub async fn raw<F, A>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> A + Clone + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let seen = Arc::<Seen>::default();
        let count = Arc::clone(&seen);
        Self::accepting(seen, move |stream| {
            count.hits.fetch_add(1, Ordering::SeqCst);
            handler(stream)
        })
        .await
    }

    /// Accepts each WebSocket handshake, greets its client with `hello`, and sends back what comes.
    ///
    /// # Panics
    /// When this machine has no free port.
    pub async fn websocket() -> Self {
        Self::raw(|mut stream| async move {
            let answer = accepting(&read_head(&mut stream).await) + "hello";
            if stream.write_all(answer.as_bytes()).await.is_ok() {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            }
        })
        .await
    }

    async fn accepting<F, A>(seen: Arc<Seen>, handler: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect(HERE);
        let addr = listener.local_addr().expect(HERE);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(handler(stream));
            }
        });
        Self { addr, seen, _tasks: tasks }
    }

    /// Its URL.
    ///
    /// # Panics
    /// Never: an address makes a valid URL.
    pub fn url(&self) -> BaseUrl {
        url_of(self.addr)
    }

    /// How many requests have come; how many connections, where requests are not parsed.
    pub fn hits(&self) -> usize {
        self.seen.hits.load(Ordering::SeqCst)
    }

    /// The heads of the requests so far, of one that is [`writing`](Self::writing).
    pub fn heads(&self) -> Vec<String> {
        self.seen.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The URL of a port of this machine that refuses connections, as [`closed_addr`] does.
///
/// # Panics
/// When this machine has no free port.
pub async fn closed_port() -> BaseUrl {
    url_of(closed_addr())
}

/// A port of this machine that refuses connections until the process ends: bound, so that no other test gets it, and not
/// listening.
///
/// # Panics
/// When this machine has no free port.
pub fn closed_addr() -> SocketAddr {
    static BOUND: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().expect(HERE);
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect(HERE);
    let addr = socket.local_addr().expect(HERE);
    BOUND.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    addr
}

fn url_of(addr: SocketAddr) -> BaseUrl {
    format!("http://{addr}").parse().expect("an address makes a valid URL")
}

/// The head of a WebSocket handshake for this path.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The head of the answer that accepts the handshake with this head; 400 if that has no key.
pub fn accepting(head: &str) -> String {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    match key {
        Some((_, key)) => format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            websocket::accepts(key)
        ),
        None => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
    }
}

/// Reads until the end of a request's head.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|read| read > 0) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The answer 200 with this body.
pub fn text(text: impl Into<Bytes>) -> Answer {
    let body = Full::new(text.into()).map_err(|never| match never {});
    Response::new(BodyExt::boxed(body))
}

#[cfg(test)]
mod tests;
