//! The transport of one connection: it adds problem details to refusals of the parser, and closes in such a way that a
//! client that is still sending receives the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer::{named, raw_problem};
use super::connection::Client;
use super::progress::Progress;
use super::refusal::RefusedHead;
use super::slots::Order;
use super::switch::Half;
use super::{Shared, refused};

/// How long a client may continue to send after its answer: closing at once would reset the connection, and the client
/// could lose the answer (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// The same once the listener is being closed.
const SHORT_LINGER: Duration = Duration::from_millis(100);

/// A TCP connection that can be shared.
#[derive(Debug, Clone)]
pub(super) struct Tcp(pub(super) Arc<TcpStream>);

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let mut read = None;
            let _ = self.0.try_io(Interest::READABLE, || {
                let room = buf.remaining();
                match read.insert(self.0.try_read_buf(buf)) {
                    // The socket has no more: this notes that it is not readable, and saves a read in vain.
                    Ok(len) if cfg!(unix) && (1..room).contains(len) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) | Err(_) => Ok(()),
                }
            });
            match read {
                // It was not readable after all.
                None => {}
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(read) => return Poll::Ready(read.map(|_| ())),
            }
        }
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write))
    }
}

/// A transport that distinguishes refusals of the parser from answers of the service.
pub(super) struct Link<T> {
    inner: T,
    progress: Progress,
    client: Client,
    shared: Arc<Shared>,
    /// The unwritten rest of the problem that replaces the parser's empty refusal.
    refusal: Option<Bytes>,
    lingering: Option<Pin<Box<Sleep>>>,
    _closed: Closed,
}

/// Reports the end of a transport whose connection has switched to another protocol.
struct Closed(Progress);

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(switch) = self.0.switch() {
            switch.closed();
        }
    }
}

impl<T> Link<T> {
    pub(super) fn new(inner: T, progress: Progress, (client, shared): (Client, Arc<Shared>)) -> Self {
        let closed = Closed(progress.clone());
        Self { inner, progress, client, shared, refusal: None, lingering: None, _closed: closed }
    }

    /// The transport itself, once the connection is not served any more.
    pub(super) fn into_inner(self) -> T {
        self.inner
    }

    /// Fails once a connection that has switched was cut. Returns whether it has switched.
    fn has_switched(&self, half: Half, cx: &Context<'_>) -> io::Result<bool> {
        match self.progress.switch() {
            Some(switch) => switch.check(half, cx).map(|()| true),
            None => Ok(false),
        }
    }

    /// Discards what the parser writes, and prepares a problem that replaces it.
    fn refuse(&mut self, written: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        let status = written.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok());
        let head = self.progress.head();
        let limits = &self.shared.limits;
        let problem = refused::problem(&head, status.unwrap_or(StatusCode::BAD_REQUEST), limits);
        let (problem, since) = (named(&problem, limits), self.progress.head_since());
        self.client.refused(RefusedHead::raw(&head, self.client.peer, &problem, since), &self.shared);
        self.refusal = Some(raw_problem(&problem, head.starts_with(b"HEAD ")));
    }
}

impl<T: AsyncWrite + Unpin> Link<T> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(refusal) = self.refusal.as_mut().filter(|refusal| !refusal.is_empty()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            refusal.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Link<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_switched(Half::Read, cx)? {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.progress.received(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Link<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.has_switched(Half::Write, cx)? {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        if self.progress.is_refusing() {
            self.refuse(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.has_switched(Half::Write, cx)? {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        if self.progress.is_refusing() {
            self.refuse(bufs.first().map_or(&[], |buf| buf));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if let Some(switch) = this.progress.switch() {
                switch.ended();
            }
            let limit = if !this.progress.is_unread() && this.refusal.is_none() {
                return Poll::Ready(Ok(()));
            } else if this.progress.activity().has(Order::Stop) {
                SHORT_LINGER
            } else {
                LINGER
            };
            this.lingering = Some(Box::pin(sleep_until(Instant::now() + limit)));
        }
        let Some(lingering) = &mut this.lingering else { return Poll::Ready(Ok(())) };
        while lingering.as_mut().poll(cx).is_pending() {
            let mut discarded = [0; 8 * 1024];
            let mut discarded = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut discarded))?;
            if discarded.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
