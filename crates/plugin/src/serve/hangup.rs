//! Notices that a client has gone away before it has its answer.
//!
//! A client that has closed its side of the connection may still read: `nc -N` does so, and a client whose process has
//! ended looks the same. So its answer is delivered for ten more seconds. A reset ends the request at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::progress::Progress;

/// How long an answer is delivered after the client has closed its side.
const HALF_CLOSED: Duration = Duration::from_secs(10);
/// The interval of the checks for a reset during that time.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Watches one connection.
pub(super) struct Hangup {
    stream: Arc<TcpStream>,
    progress: Progress,
    /// The deadline of the answer, once the client has closed its side.
    due: Option<Instant>,
    /// Set with `due`: most connections never need it.
    next_check: Option<Pin<Box<Sleep>>>,
}

impl Hangup {
    pub(super) fn new(stream: Arc<TcpStream>, progress: Progress) -> Self {
        Self { stream, progress, due: None, next_check: None }
    }

    /// The connection, with which HTTP is done.
    pub(super) fn into_stream(self) -> Arc<TcpStream> {
        self.stream
    }

    /// Ready once the client is gone. Bytes that it sent and that are still unread hide the end behind them.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.progress.is_busy() {
            (self.due, self.next_check) = (None, None);
            return Poll::Pending;
        }
        let due = match self.due {
            Some(due) => due,
            None => match self.poll_end(cx) {
                Poll::Ready(Ok(true)) => *self.due.insert(Instant::now() + HALF_CLOSED),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(false)) | Poll::Pending => return Poll::Pending,
            },
        };
        let first = || Box::pin(sleep_until(Instant::now() + CHECK_INTERVAL));
        let next_check = self.next_check.get_or_insert_with(first);
        while next_check.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let is_reset = !matches!(self.stream.take_error(), Ok(None));
            if now >= due || is_reset {
                return Poll::Ready(());
            }
            next_check.as_mut().reset(due.min(now + CHECK_INTERVAL));
        }
        Poll::Pending
    }

    /// Whether the client has closed its side.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut byte = [0];
        self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)).map_ok(|peeked| peeked == 0)
    }
}
