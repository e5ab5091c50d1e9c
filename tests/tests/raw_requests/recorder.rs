//! A server that keeps each request as the bytes that arrived, and answers with prescribed bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The answer to a request for which none is prescribed.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nrecorded";

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// The request line and the fields, as sent, without the empty line.
    pub(crate) head: String,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// The fields after a chunked body, as sent.
    pub(crate) trailers: String,
    /// Whether the body was complete.
    pub(crate) is_whole: bool,
    /// Whether the connection ended before the body was complete.
    pub(crate) is_cut: bool,
    /// Whether the connection ended before the answer was sent.
    pub(crate) is_unread: bool,
}

impl Seen {
    /// The request line without the version.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }

    /// The values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// What an exchange is answered with.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    pub(crate) bytes: Vec<u8>,
    /// Whether the connection ends after them.
    pub(crate) closes: bool,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    /// Answers by the beginning of the path.
    answers: Mutex<BTreeMap<String, Scripted>>,
}

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let mut tasks = JoinSet::new();
        let recording = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&recording);
                connections.spawn(async move {
                    // The end of a connection is its client's business.
                    let _ = Exchange { stream, buffer: Vec::new(), shared }.run().await;
                });
            }
        });
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// Prescribes the answer to requests whose path begins with this.
    pub(crate) fn answers(&self, path: &str, scripted: Scripted) {
        locked(&self.shared.answers).insert(path.to_owned(), scripted);
    }

    /// The requests whose target contains this, so far.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        locked(&self.shared.seen).iter().filter(|seen| seen.line().contains(path)).cloned().collect()
    }
}

/// One connection.
struct Exchange {
    stream: TcpStream,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl Exchange {
    async fn run(mut self) -> std::io::Result<()> {
        while let Some(end) = self.until(b"\r\n\r\n").await? {
            let head = self.take(end);
            let head = String::from_utf8_lossy(&head[..end - 4]).into_owned();
            let at = {
                let mut seen = locked(&self.shared.seen);
                seen.push(Seen { head: head.clone(), ..Seen::default() });
                seen.len() - 1
            };
            let seen = Seen { head, ..Seen::default() };
            let is_chunked = !seen.values("transfer-encoding").is_empty();
            let length = seen.values("content-length").first().and_then(|length| length.parse().ok());
            let is_whole = match length {
                _ if is_chunked => self.chunks(at).await,
                Some(length) => self.counted(at, length).await,
                None => Ok(true),
            };
            if !is_whole.is_ok_and(|is_whole| is_whole) {
                locked(&self.shared.seen)[at].is_cut = true;
                return Ok(());
            }
            locked(&self.shared.seen)[at].is_whole = true;
            let scripted = {
                let answers = locked(&self.shared.answers);
                let path = seen.line().split_once(' ').map_or("", |(_, path)| path).to_owned();
                answers.iter().find(|(begin, _)| path.starts_with(begin.as_str())).map(|(_, one)| one.clone())
            };
            match scripted {
                Some(scripted) => {
                    if let Err(error) = self.stream.write_all(&scripted.bytes).await {
                        locked(&self.shared.seen)[at].is_unread = true;
                        return Err(error);
                    }
                    if scripted.closes {
                        return self.stream.shutdown().await;
                    }
                }
                None => self.stream.write_all(ANSWER).await?,
            }
        }
        Ok(())
    }

    /// Reads until the bytes are in the buffer. Returns where they end there; `None` at the end of the connection.
    async fn until(&mut self, wanted: &[u8]) -> std::io::Result<Option<usize>> {
        loop {
            if let Some(at) = self.buffer.windows(wanted.len()).position(|bytes| bytes == wanted) {
                return Ok(Some(at + wanted.len()));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads a body of this length. False if it was cut.
    async fn counted(&mut self, at: usize, length: usize) -> std::io::Result<bool> {
        let mut left = length;
        loop {
            let piece = self.take(left.min(self.buffer.len()));
            left -= piece.len();
            locked(&self.shared.seen)[at].body.extend_from_slice(&piece);
            if left == 0 {
                return Ok(true);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads a chunked body with its trailers. False if it was cut.
    async fn chunks(&mut self, at: usize) -> std::io::Result<bool> {
        loop {
            let Some(end) = self.until(b"\r\n").await? else { return Ok(false) };
            let line = self.take(end);
            let Ok(size) = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16) else {
                return Ok(false);
            };
            if size > 0 {
                if !self.counted(at, size).await? || self.until(b"\r\n").await?.is_none() {
                    return Ok(false);
                }
                self.take(2);
                continue;
            }
            loop {
                let Some(end) = self.until(b"\r\n").await? else { return Ok(false) };
                let line = self.take(end);
                if line == b"\r\n" {
                    return Ok(true);
                }
                locked(&self.shared.seen)[at].trailers += &String::from_utf8_lossy(&line);
            }
        }
    }
}
