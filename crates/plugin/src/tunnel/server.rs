//! The server's end of a tunnel. It is reset unless the server was told that its client has ended: what broke off must not look
//! like an end.

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The server's connection. Dropped early, it is reset where that is possible.
#[derive(Debug)]
pub(super) struct Server {
    /// None only while it is dropped.
    io: Option<TokioIo<Upgraded>>,
    has_all: bool,
}

impl Server {
    pub(super) fn new(upgraded: Upgraded) -> Self {
        Self { io: Some(TokioIo::new(upgraded)), has_all: false }
    }

    pub(super) fn io(&mut self) -> &mut TokioIo<Upgraded> {
        self.io.as_mut().expect("it is there until this is dropped")
    }

    /// The server was told that its client has ended.
    pub(super) fn has_all(&mut self) {
        self.has_all = true;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(io) = self.io.take().filter(|_| !self.has_all) else { return };
        // With TLS the missing `close_notify` shows that something is missing. A stream of HTTP/2 can't be reset through hyper.
        if let Ok(parts) = io.into_inner().downcast::<TokioIo<TcpStream>>() {
            // If it fails, the connection is closed in order.
            let _ = parts.io.inner().set_zero_linger();
        }
    }
}
