//! A transport whose reads are observed: what hyper reads is the only thing that says something about an HTTP/2 connection as a
//! whole.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A transport that tells after each read whether something was read.
pub(super) struct Observed<T, F> {
    inner: T,
    on_read: F,
}

impl<T, F: FnMut(bool)> Observed<T, F> {
    /// `on_read` gets `true` for bytes, an end and an error, and `false` if there is nothing more to read now.
    pub(super) fn new(inner: T, on_read: F) -> Self {
        Self { inner, on_read }
    }
}

impl<T: Read + Unpin, F: FnMut(bool) + Unpin> Read for Observed<T, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        (self.on_read)(polled.is_ready());
        polled
    }
}

impl<T: Write + Unpin, F: Unpin> Write for Observed<T, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
