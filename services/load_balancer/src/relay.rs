//! Copies bytes both ways between two connections until both directions have ended.
//!
//! The end of one direction is passed on as such (half-close), and a reset as a reset. Each direction has a buffer only
//! while it has bytes: an idle connection has none. A direction reads no more until its reader has taken what was read.
//!
//! A direction that may splice does so once it has much to move: the system then moves the bytes through a pipe. It copies
//! from then on if the system refuses that.

mod pipe;

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use plugin::Buffer;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use self::pipe::Pipe;

/// After how many bytes a direction splices, if it may. It does so earlier if as many as a buffer holds arrive at once.
const SPLICE_AFTER: u64 = 64 * 1024;
/// An idle time that the clock can't express has no end; this is far enough.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Both directions ended.
    Closed,
    /// The client's connection was reset.
    ClientReset,
    /// The backend's connection was reset.
    BackendReset,
    /// No byte moved for too long.
    Idle,
    /// We cut it.
    Cut,
}

/// Bytes of a connection, or of all of a listener's.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// From clients.
    pub(crate) received: AtomicU64,
    /// To clients.
    pub(crate) sent: AtomicU64,
}

/// Makes the close of a connection a reset, so that its peer does not take what it got for everything.
pub(crate) fn reset(stream: &TcpStream) {
    // If it fails, the connection is closed in order.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Copies until both directions have ended, nothing moves for `idle`, or `cut` returns; the bytes are added to each of
/// `traffic`. Unless both directions ended, both connections are reset when they are dropped. `may_splice`: long transfers
/// need not be copied.
pub(crate) async fn relay(
    client: &mut TcpStream,
    backend: &mut TcpStream,
    idle: Duration,
    may_splice: bool,
    traffic: [&Traffic; 2],
    cut: impl Future<Output = ()>,
) -> End {
    let end = tokio::select! {
        biased;
        () = cut => End::Cut,
        end = copy(client, backend, idle, may_splice, traffic) => end,
    };
    if end != End::Closed {
        reset(client);
        reset(backend);
    }
    end
}

async fn copy(
    client: &mut TcpStream,
    backend: &mut TcpStream,
    idle: Duration,
    may_splice: bool,
    traffic: [&Traffic; 2],
) -> End {
    let (client, backend) = (&*client, &*backend);
    // A client that resets its connection while its backend reads nothing would not be noticed by reading: that waits.
    let mut gone = pin!(client.ready(Interest::ERROR));
    let (mut up, mut down) = (Direction::new(may_splice), Direction::new(may_splice));
    let after = |moment: Instant| moment.checked_add(idle).unwrap_or(moment + FAR);
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until(after(last)));
    poll_fn(|cx| {
        let (received, sent) = (up.moved, down.moved);
        up.poll(cx, client, backend);
        down.poll(cx, backend, client);
        if (received, sent) != (up.moved, down.moved) {
            last = Instant::now();
            for traffic in traffic {
                traffic.received.fetch_add(up.moved - received, Ordering::Relaxed);
                traffic.sent.fetch_add(down.moved - sent, Ordering::Relaxed);
            }
        }
        if up.state == State::Writing && gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::ClientReset);
        }
        if let Some(end) = end(&up.state, &down.state) {
            return Poll::Ready(end);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let due = after(last);
            if due <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

/// Whether two directions together have ended. One whose reader is gone ends with the other one: what its reader sent
/// before it went must still arrive.
fn end(up: &State, down: &State) -> Option<End> {
    match (up, down) {
        (State::Lost, _) => Some(End::ClientReset),
        (_, State::Lost) => Some(End::BackendReset),
        (State::Ended, State::Ended) => Some(End::Closed),
        (State::Refused, State::Ended | State::Refused) => Some(End::BackendReset),
        (State::Ended, State::Refused) => Some(End::ClientReset),
        _ => None,
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    state: State,
    /// There is one while bytes arrive or wait.
    buffer: Option<Buffer>,
    /// The bytes in the buffer that were read and not written yet.
    start: usize,
    end: usize,
    /// All bytes that were written.
    moved: u64,
    splice: Splice,
    /// Instead of a buffer, while bytes arrive or wait.
    pipe: Option<Pipe>,
}

/// Whether the system moves the bytes of a direction by itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Splice {
    /// It does not, or can't.
    #[default]
    Off,
    /// Once there is much to move.
    Later,
    On,
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
    /// The writer's connection is reset.
    Lost,
    /// The reader's connection takes no more.
    Refused,
}

impl Direction {
    fn new(may_splice: bool) -> Self {
        let splice = if may_splice { Splice::Later } else { Splice::Off };
        Self { splice, ..Self::default() }
    }

    /// Moves what can be moved now.
    fn poll(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) {
        while let Poll::Ready(next) = self.step(cx, from, to) {
            self.state = next;
            if matches!(next, State::Ended | State::Lost | State::Refused) {
                (self.buffer, self.pipe) = (None, None);
                return;
            }
        }
    }

    /// One step; the next state.
    fn step(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) -> Poll<State> {
        match self.state {
            State::Reading if self.splice == Splice::On => self.fill(cx, from),
            State::Writing if self.pipe.is_some() => self.drain(cx, to),
            State::Reading => {
                let read = self.read(cx, from);
                if !matches!(read, Poll::Ready(Ok(1..))) {
                    self.buffer = None;
                }
                Poll::Ready(match ready!(read) {
                    Ok(0) => State::Ending,
                    Ok(len) => {
                        (self.start, self.end) = (0, len);
                        if len == Buffer::SIZE {
                            self.has_much();
                        }
                        State::Writing
                    }
                    Err(_) => State::Lost,
                })
            }
            State::Writing => {
                let Some(buffer) = &self.buffer else { return Poll::Ready(State::Reading) };
                let waiting = &buffer.bytes()[self.start..self.end];
                match ready!(write(cx, to, waiting)) {
                    Ok(0) | Err(_) => Poll::Ready(State::Refused),
                    Ok(len) => {
                        self.start += len;
                        self.moved += len as u64;
                        if self.moved >= SPLICE_AFTER {
                            self.has_much();
                        }
                        Poll::Ready(if self.start == self.end { State::Reading } else { State::Writing })
                    }
                }
            }
            State::Ending => Poll::Ready(match SockRef::from(to).shutdown(Shutdown::Write) {
                Ok(()) => State::Ended,
                Err(_) => State::Refused,
            }),
            State::Ended | State::Lost | State::Refused => Poll::Pending,
        }
    }

    /// There is much to move.
    fn has_much(&mut self) {
        if self.splice == Splice::Later {
            self.splice = Splice::On;
        }
    }

    /// Moves what has arrived into a pipe, which is taken only once there is something.
    fn fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<State> {
        self.buffer = None;
        if from.poll_read_ready(cx).is_pending() {
            self.pipe = None;
            return Poll::Pending;
        }
        let Some(pipe) = self.pipe.take().or_else(Pipe::take) else {
            self.splice = Splice::Off;
            return Poll::Ready(State::Reading);
        };
        let pipe = self.pipe.insert(pipe);
        let next = match pipe.fill(cx, from) {
            Poll::Ready(Ok(0)) => Poll::Ready(State::Ending),
            Poll::Ready(Ok(_)) => return Poll::Ready(State::Writing),
            Poll::Ready(Err(error)) if pipe::is_refused(&error) => {
                self.splice = Splice::Off;
                Poll::Ready(State::Reading)
            }
            Poll::Ready(Err(_)) => Poll::Ready(State::Lost),
            Poll::Pending => Poll::Pending,
        };
        self.pipe = None;
        next
    }

    /// Moves bytes out of the pipe.
    fn drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<State> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(State::Reading) };
        match ready!(pipe.drain(cx, to)) {
            Ok(len @ 1..) => {
                self.moved += len as u64;
                Poll::Ready(if pipe.held() == 0 { State::Reading } else { State::Writing })
            }
            Err(error) if pipe::is_refused(&error) => Poll::Ready(self.copy_instead()),
            Ok(0) | Err(_) => Poll::Ready(State::Refused),
        }
    }

    /// The system does not move bytes from the pipe to the reader: they are copied, and so are all that follow.
    fn copy_instead(&mut self) -> State {
        self.splice = Splice::Off;
        let Some(mut pipe) = self.pipe.take() else { return State::Reading };
        let buffer = self.buffer.get_or_insert_with(Buffer::take);
        match pipe.empty_into(buffer.bytes_mut()) {
            Ok(len) => {
                (self.start, self.end) = (0, len);
                State::Writing
            }
            Err(_) => State::Refused,
        }
    }

    /// Reads into a buffer that is taken only once there is something to read.
    fn read(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let buffer = self.buffer.get_or_insert_with(Buffer::take);
            match from.try_read(buffer.bytes_mut()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

fn write(cx: &mut Context<'_>, to: &TcpStream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(to.poll_write_ready(cx))?;
        match to.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

#[cfg(test)]
mod tests;
