//! Finds out from its first bytes whether a connection begins with HTTP/2 by prior knowledge (RFC 9113, section 3.3), and
//! gives those bytes back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// What a client of HTTP/2 sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    Http2,
    Other,
}

/// Reads until it is clear how the connection begins. Returns what was read, too. Fails if nothing comes. What is not clear by
/// `due` is not HTTP/2.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), due: Instant) -> io::Result<(Begins, Bytes)> {
    let mut bytes = [0; PREFACE.len()];
    let mut len = 0;
    loop {
        let read = match timeout_at(due, stream.read(&mut bytes[len..])).await {
            Ok(read) => read?,
            Err(_) => 0,
        };
        if read == 0 && len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        len += read;
        let begins = if !PREFACE.starts_with(&bytes[..len]) || read == 0 {
            Begins::Other
        } else if len == PREFACE.len() {
            Begins::Http2
        } else {
            continue;
        };
        return Ok((begins, Bytes::copy_from_slice(&bytes[..len])));
    }
}

/// A transport that yields some bytes before its own.
///
/// Both come in one read: after a short first read, the parser would double its buffer, which it keeps.
#[derive(Debug)]
pub(super) struct Rewound<T> {
    first: Bytes,
    /// Why the transport had none of its own after the first ones.
    failed: Option<io::Error>,
    inner: T,
}

impl<T> Rewound<T> {
    pub(super) fn new(first: Bytes, inner: T) -> Self {
        Self { first, failed: None, inner }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let len = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..len]);
        self.first.advance(len);
        if self.first.is_empty() && buf.remaining() > 0 {
            self.first = Bytes::new();
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.inner).poll_read(cx, buf) {
                self.failed = Some(error);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + std::time::Duration::from_secs(60)
    }

    #[tokio::test]
    async fn the_preface_is_told_from_every_other_beginning_at_every_cut_and_nothing_is_lost() {
        for (text, expected) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest", Begins::Http2),
            ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nrest", Begins::Other),
            ("PROPFIND / HTTP/1.1\r\n\r\n", Begins::Other),
            ("P", Begins::Other),
            ("GET / HTTP/1.1\r\n\r\n", Begins::Other),
        ] {
            for cut in 1..=text.len().min(PREFACE.len()) {
                let (first, second) = text.as_bytes().split_at(cut);
                let mut stream = AsyncReadExt::chain(first, second);
                let (begins, bytes) = read(&mut stream, later()).await.unwrap();
                assert_eq!(begins, expected, "{text:?} cut at {cut}");
                let mut whole = String::new();
                AsyncReadExt::chain(&bytes[..], stream).read_to_string(&mut whole).await.unwrap();
                assert_eq!(whole, text);
            }
        }
        read(&mut &b""[..], later()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_that_stops_is_no_preface_once_its_time_is_over() {
        let (mut client, mut server) = tokio::io::duplex(64);
        assert!(read(&mut server, later()).await.is_err(), "nothing came");
        tokio::io::AsyncWriteExt::write_all(&mut client, b"PRI * HT").await.unwrap();
        let due = later();
        let (begins, bytes) = read(&mut server, due).await.unwrap();
        assert_eq!((begins, &bytes[..]), (Begins::Other, &b"PRI * HT"[..]));
        assert!(Instant::now() >= due);
    }

    #[tokio::test]
    async fn the_first_bytes_come_in_one_read_with_those_after_them() {
        let mut rewound = Rewound::new(Bytes::from_static(b"GET "), &b"/ HTTP/1.1"[..]);
        let mut buf = [0; 64];
        let len = rewound.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..len], b"GET / HTTP/1.1");
        assert_eq!(rewound.read(&mut buf).await.unwrap(), 0);
        // Also through a smaller buffer.
        let mut rewound = Rewound::new(Bytes::from_static(b"GET "), &b"/"[..]);
        let mut text = Vec::new();
        while let Some(byte) = Some(rewound.read(&mut buf[..3]).await.unwrap()).filter(|len| *len > 0) {
            text.extend_from_slice(&buf[..byte]);
        }
        assert_eq!(text, b"GET /");
    }

    #[tokio::test]
    async fn the_first_bytes_come_before_an_error_and_without_waiting_for_more() {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
        let mut buf = [0; 64];
        let mut rewound = Rewound::new(Bytes::from_static(b"GET "), Broken);
        assert_eq!(rewound.read(&mut buf).await.unwrap(), 4);
        assert_eq!(rewound.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let (_silent, quiet) = tokio::io::duplex(64);
        assert_eq!(Rewound::new(Bytes::from_static(b"GET "), quiet).read(&mut buf).await.unwrap(), 4);
    }
}
