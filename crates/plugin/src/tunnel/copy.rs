//! Copies bytes both ways between two upgraded connections until both directions have ended.
//!
//! The end of one direction is passed on as such. Each direction has a buffer only while it has bytes, and reads no more
//! until its reader has taken what was read.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::{TunnelBytes, TunnelEnd};
use crate::Buffer;

/// An idle time that the clock can't express has no end; this is far enough.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// How the copying ended, and which side was told that the other one has ended. A side that was not must not take what it got
/// for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) end: TunnelEnd,
    pub(super) client_has_all: bool,
    pub(super) server_has_all: bool,
}

/// Copies until both directions have ended, or nothing moves for `idle`.
pub(super) async fn both_ways<C, S>(
    client: &mut C,
    server: &mut S,
    idle: Duration,
    bytes: &TunnelBytes,
) -> Copied
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let after = |moment: Instant| moment.checked_add(idle).unwrap_or(moment + FAR);
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until(after(last)));
    let end = poll_fn(|cx| {
        let (received, sent) = (up.moved, down.moved);
        up.poll(cx, client, server);
        down.poll(cx, server, client);
        if (received, sent) != (up.moved, down.moved) {
            last = Instant::now();
            bytes.received.fetch_add(up.moved - received, Ordering::Relaxed);
            bytes.sent.fetch_add(down.moved - sent, Ordering::Relaxed);
        }
        if let Some(end) = end(up.state, down.state) {
            return Poll::Ready(end);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let due = after(last);
            if due <= Instant::now() {
                return Poll::Ready(TunnelEnd::Idle);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;
    Copied { end, client_has_all: down.state == State::Ended, server_has_all: up.state == State::Ended }
}

/// Whether two directions together have ended. One whose reader is gone ends with the other one: what its reader sent before
/// it went must still arrive.
fn end(up: State, down: State) -> Option<TunnelEnd> {
    match (up, down) {
        (State::Late, _) => Some(TunnelEnd::ServerLost),
        (_, State::Late) => Some(TunnelEnd::ClientLost),
        (State::Lost, _) => Some(TunnelEnd::ClientLost),
        (_, State::Lost) => Some(TunnelEnd::ServerLost),
        (State::Ended, State::Ended) => Some(TunnelEnd::Closed),
        (State::Refused, State::Ended | State::Refused) => Some(TunnelEnd::ServerLost),
        (State::Ended, State::Refused) => Some(TunnelEnd::ClientLost),
        _ => None,
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    state: State,
    /// There is one while bytes wait.
    buffer: Option<Buffer>,
    /// The bytes in the buffer that were read and not written yet.
    start: usize,
    end: usize,
    /// Whether written bytes may wait in a buffer of the transport.
    is_unflushed: bool,
    /// All bytes that were written.
    moved: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Reading,
    Writing,
    /// The writer has ended; the reader learns it next.
    Ending,
    /// The reader has learned it.
    Ended,
    /// The writer's connection broke.
    Lost,
    /// The reader's connection takes no more.
    Refused,
    /// The reader has taken nothing for too long.
    Late,
}

impl Direction {
    /// Moves what can be moved now.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while let Poll::Ready(next) = self.step(cx, from, to) {
            self.state = next;
            if matches!(next, State::Ended | State::Lost | State::Refused | State::Late) {
                self.buffer = None;
                return;
            }
        }
    }

    /// One step; the next state.
    fn step<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<State>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match self.state {
            State::Reading => {
                let mut buffer = self.buffer.take().unwrap_or_else(Buffer::take);
                let mut read = ReadBuf::new(buffer.bytes_mut());
                let polled = Pin::new(from).poll_read(cx, &mut read);
                let len = read.filled().len();
                match polled {
                    // The buffer goes back to its thread.
                    Poll::Pending => self.flush(cx, to),
                    Poll::Ready(Ok(())) if len == 0 => Poll::Ready(State::Ending),
                    Poll::Ready(Ok(())) => {
                        (self.buffer, self.start, self.end) = (Some(buffer), 0, len);
                        Poll::Ready(State::Writing)
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(State::Lost),
                }
            }
            State::Writing => {
                let Some(buffer) = &self.buffer else { return Poll::Ready(State::Reading) };
                let waiting = &buffer.bytes()[self.start..self.end];
                match ready!(Pin::new(to).poll_write(cx, waiting)) {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => Poll::Ready(State::Late),
                    Ok(0) | Err(_) => Poll::Ready(State::Refused),
                    Ok(len) => {
                        self.start += len;
                        self.moved += len as u64;
                        self.is_unflushed = true;
                        Poll::Ready(if self.start == self.end { State::Reading } else { State::Writing })
                    }
                }
            }
            State::Ending => Poll::Ready(match ready!(Pin::new(to).poll_shutdown(cx)) {
                Ok(()) => State::Ended,
                Err(_) => State::Refused,
            }),
            State::Ended | State::Lost | State::Refused | State::Late => Poll::Pending,
        }
    }

    /// Sends what the transport has buffered. Pending, because there is nothing else to do.
    fn flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<State> {
        if self.is_unflushed {
            if ready!(Pin::new(to).poll_flush(cx)).is_err() {
                return Poll::Ready(State::Refused);
            }
            self.is_unflushed = false;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A tunnel with `room` bytes in each transport, and its far ends.
    fn tunnel(room: usize) -> (DuplexStream, DuplexStream, TunnelBytes, JoinHandle<Copied>) {
        let ((client, mut near), (server, mut far)) = (duplex(room), duplex(room));
        let bytes = TunnelBytes::default();
        let counts = bytes.clone();
        let running = tokio::runtime::Handle::current()
            .spawn(async move { both_ways(&mut near, &mut far, 5 * SECOND, &counts).await });
        (client, server, bytes, running)
    }

    #[test]
    fn a_reader_that_takes_nothing_for_too_long_ends_both_directions() {
        for other in [State::Reading, State::Writing, State::Ending] {
            assert_eq!(end(other, State::Late), Some(TunnelEnd::ClientLost));
            assert_eq!(end(State::Late, other), Some(TunnelEnd::ServerLost));
            assert_eq!(end(other, State::Refused), None, "what it sent before it went must still arrive");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_in_both_directions_and_each_end_is_passed_on() {
        let (client, mut server, bytes, running) = tunnel(7);
        let (mut reading, mut writing) = tokio::io::split(client);
        let sent: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
        let (expected, up) = (sent.clone(), async move {
            writing.write_all(&sent).await.unwrap();
            writing.shutdown().await.unwrap();
        });
        let back = async {
            let mut arrived = Vec::new();
            server.read_to_end(&mut arrived).await.unwrap();
            assert!(arrived == expected);
            server.write_all(b"bye").await.unwrap();
            server.shutdown().await.unwrap();
        };
        let down = async {
            let mut last = Vec::new();
            reading.read_to_end(&mut last).await.unwrap();
            assert_eq!(last, b"bye");
        };
        tokio::join!(up, back, down);
        let all = Copied { end: TunnelEnd::Closed, client_has_all: true, server_has_all: true };
        assert_eq!(running.await.unwrap(), all);
        assert_eq!(
            (bytes.received.load(Ordering::Relaxed), bytes.sent.load(Ordering::Relaxed)),
            (200_000, 3)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_once_no_byte_has_moved_for_the_idle_time() {
        let (mut client, mut server, _, running) = tunnel(100);
        for _ in 0..3 {
            tokio::time::sleep(4 * SECOND).await;
            client.write_all(b"a").await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), b'a');
            tokio::time::sleep(4 * SECOND).await;
            server.write_all(b"b").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'b');
        }
        let began = Instant::now();
        let none = Copied { end: TunnelEnd::Idle, client_has_all: false, server_has_all: false };
        assert_eq!(running.await.unwrap(), none);
        assert!(began.elapsed().abs_diff(5 * SECOND) < SECOND / 10, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_no_more_does_not_cut_what_it_sent_before() {
        let (mut client, mut server, _, running) = tunnel(1_000);
        server.write_all(b"last words").await.unwrap();
        drop(server);
        client.write_all(b"lost").await.unwrap();
        let mut words = Vec::new();
        client.read_to_end(&mut words).await.unwrap();
        assert_eq!(words, b"last words");
        drop(client);
        let copied = running.await.unwrap();
        assert!(copied.end != TunnelEnd::Idle && copied.client_has_all, "{copied:?}");
    }
}
