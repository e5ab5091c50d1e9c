//! Notices that a client is gone while it is being answered.
//!
//! A client that has ended its side of the connection may still read: `nc -N` does so, and a client that was ended
//! looks the same. So its answer is delivered for a while. A reset ends the request at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::progress::Progress;

/// How long an answer is delivered after the client has ended its side.
const HALF_CLOSED: Duration = Duration::from_secs(10);
/// How often it is looked meanwhile whether the connection was reset.
const LOOK: Duration = Duration::from_millis(100);

/// Watches a connection.
pub(super) struct Hangup {
    stream: Arc<TcpStream>,
    progress: Progress,
    /// When the answer is due, once the client has ended its side.
    due: Option<Instant>,
    look: Pin<Box<Sleep>>,
}

impl Hangup {
    pub(super) fn new(stream: Arc<TcpStream>, progress: Progress) -> Self {
        Self { stream, progress, due: None, look: Box::pin(sleep_until(Instant::now())) }
    }

    /// Ready once the client is gone. What the client sent and nobody has read yet hides what comes after it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.progress.is_busy() {
            self.due = None;
            return Poll::Pending;
        }
        let due = match self.due {
            Some(due) => due,
            None => match self.poll_end(cx) {
                Poll::Ready(Ok(true)) => {
                    self.look.as_mut().reset(Instant::now() + LOOK);
                    *self.due.insert(Instant::now() + HALF_CLOSED)
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(false)) | Poll::Pending => return Poll::Pending,
            },
        };
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let is_reset = !matches!(self.stream.take_error(), Ok(None));
            if now >= due || is_reset {
                return Poll::Ready(());
            }
            self.look.as_mut().reset(due.min(now + LOOK));
        }
        Poll::Pending
    }

    /// Whether the client has ended its side.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut byte = [0];
        self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)).map_ok(|peeked| peeked == 0)
    }
}
