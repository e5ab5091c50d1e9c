//! Pipes through which the system moves bytes from one connection to another without copying them into our memory.
//!
//! Each thread keeps some of them to use again, and has a limited number of them: each one needs two descriptors, which new
//! connections need as well. One that still holds bytes is closed instead of kept, so nothing of one connection reaches
//! another.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// The most bytes of one step. A pipe holds as much, unless the system is short of memory.
pub(super) const MOST: usize = 64 * 1024;
/// How many unused pipes each thread keeps.
pub(super) const KEPT: usize = 16;
/// How many pipes each thread uses at once. Further connections are copied.
const USED: usize = 256;

thread_local! {
    static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// The end to read from, and the one to write to.
type Ends = (OwnedFd, OwnedFd);

/// A pipe of this thread's, which goes back to the thread on which it is dropped if it is empty.
#[derive(Debug)]
pub(super) struct Pipe {
    /// None once it is dropped.
    ends: Option<Ends>,
    /// How many bytes it holds.
    held: usize,
}

impl Pipe {
    /// An empty pipe; none if there are too many, there are no descriptors left, or the system has no `splice`.
    pub(super) fn take() -> Option<Self> {
        if IN_USE.get() >= USED {
            return None;
        }
        let kept = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        let ends = match kept {
            Some(ends) => ends,
            None => open().ok()?,
        };
        IN_USE.set(IN_USE.get() + 1);
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// How many bytes it holds.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves what has arrived on a connection into the empty pipe; 0 if the connection has ended.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        let Some((_, into)) = &self.ends else { return Poll::Ready(Err(gone())) };
        loop {
            ready!(from.poll_read_ready(cx))?;
            match from.try_io(Interest::READABLE, || splice(from, into)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => {
                    self.held += moved.as_ref().copied().unwrap_or_default();
                    return Poll::Ready(moved);
                }
            }
        }
    }

    /// Moves bytes from the pipe to a connection.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some((from, _)) = &self.ends else { return Poll::Ready(Err(gone())) };
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || splice(from, to)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => {
                    self.held -= moved.as_ref().copied().unwrap_or_default();
                    return Poll::Ready(moved);
                }
            }
        }
    }

    /// Takes all that the pipe holds into memory, where there is room for [`MOST`] bytes.
    pub(super) fn empty_into(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some((from, _)) = &self.ends else { return Err(gone()) };
        let mut len = 0;
        while self.held > 0 {
            let room = out.get_mut(len..).unwrap_or_default();
            match read(from, room)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => {
                    self.held = self.held.saturating_sub(more);
                    len += more;
                }
            }
        }
        Ok(len)
    }
}

/// Whether the system can't move bytes in this way, though it may copy them.
pub(super) fn is_refused(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, OutOfMemory, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | OutOfMemory | PermissionDenied | Unsupported)
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

#[cfg(target_os = "linux")]
fn open() -> io::Result<Ends> {
    use rustix::pipe::{PipeFlags, pipe_with};
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

#[cfg(target_os = "linux")]
fn splice(from: impl AsFd, to: impl AsFd) -> io::Result<usize> {
    use rustix::pipe::SpliceFlags;
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, MOST, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn open() -> io::Result<Ends> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn splice(_: impl AsFd, _: impl AsFd) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

fn read(from: impl AsFd, out: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(from, out)?)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // A thread that ends keeps nothing.
        let _ = IN_USE.try_with(|in_use| in_use.set(in_use.get().saturating_sub(1)));
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else { return };
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(ends);
            }
        });
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (one, other) = tokio::join!(connecting, listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    fn kept() -> usize {
        FREE.with(|free| free.borrow().len())
    }

    #[tokio::test]
    async fn bytes_pass_through_a_pipe_which_is_used_again_only_when_it_is_empty() {
        let (mut writer, from) = pair().await;
        let (to, mut reader) = pair().await;
        let mut pipe = Pipe::take().unwrap();
        writer.write_all(b"hello").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.fill(cx, &from)).await.unwrap(), 5);
        assert_eq!(pipe.held(), 5);
        assert_eq!(poll_fn(|cx| pipe.drain(cx, &to)).await.unwrap(), 5);
        let mut got = [0; 5];
        reader.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        drop(pipe);
        assert_eq!(kept(), 1);

        let mut pipe = Pipe::take().unwrap();
        assert_eq!(kept(), 0, "it is used again");
        writer.write_all(b"secret").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.fill(cx, &from)).await.unwrap(), 6);
        drop(pipe);
        assert_eq!(kept(), 0, "what one connection sent reaches no other");

        writer.shutdown().await.unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.fill(cx, &from)).await.unwrap(), 0, "the end");
    }

    #[tokio::test]
    async fn a_thread_has_a_limited_number_of_pipes() {
        let taken: Vec<_> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(taken.len(), USED);
        drop(taken);
        assert_eq!(kept(), KEPT);
        assert!(Pipe::take().is_some());
    }

    #[tokio::test]
    async fn what_a_pipe_holds_can_be_copied_after_all() {
        let (mut writer, from) = pair().await;
        let mut pipe = Pipe::take().unwrap();
        writer.write_all(b"hello").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.fill(cx, &from)).await.unwrap(), 5);
        let mut out = [0; MOST];
        assert_eq!(pipe.empty_into(&mut out).unwrap(), 5);
        assert_eq!((&out[..5], pipe.held()), (&b"hello"[..], 0));
        assert_eq!(pipe.empty_into(&mut out).unwrap(), 0);
    }
}
