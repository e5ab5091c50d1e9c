//! A queue of log lines for the thread that writes them, so that a slow or broken log never blocks the agent.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::warn;

use super::file::RotatingFile;

/// How many lines may wait.
const MAX_LINES: usize = 1_024;
/// How many bytes may wait.
const MAX_BYTES: usize = 1024 * 1024;
/// How long the agent's exit may wait for its log.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// How often dropped lines are reported.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// Where lines are written.
#[derive(Debug)]
pub(super) enum Sink {
    /// To standard error.
    Stderr,
    /// To a file.
    File(RotatingFile),
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::File(file) => file.write_line(line),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        match self {
            Self::Stderr => Ok(()),
            Self::File(file) => file.reopen(),
        }
    }
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Reopen,
    /// Answered once all messages before it are written.
    Flush(SyncSender<()>),
}

/// The sending end. As a writer it takes whole lines and never fails.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Starts the thread that writes.
    pub(super) fn start(sink: Sink) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_LINES);
        let queue = Self { sender, waiting: Arc::default(), dropped: Arc::default() };
        let worker = Worker {
            sink,
            receiver,
            waiting: Arc::clone(&queue.waiting),
            dropped: Arc::clone(&queue.dropped),
            reported: 0,
            last_report: None,
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(|| worker.run())?;
        Ok(queue)
    }

    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    pub(super) fn reopen(&self) {
        // If the queue is full, the writer hangs and could not open a file either.
        let _ = self.sender.try_send(Message::Reopen);
    }

    /// Waits until the queued lines have been written, for a second at most.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.sender.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(unsent)) if Instant::now() < deadline => {
                    message = unsent;
                    std::thread::park_timeout(Duration::from_millis(5));
                }
                Err(_) => return,
            }
        }
        // If the writer hangs, the limit ends the wait.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        let has_room = before.saturating_add(line.len()) <= MAX_BYTES;
        if !has_room || self.sender.try_send(Message::Line(line.to_vec())).is_err() {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The receiving end, which runs in its own thread.
struct Worker {
    sink: Sink,
    receiver: Receiver<Message>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    /// How many of the dropped lines were reported.
    reported: u64,
    last_report: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        while let Ok(message) = self.receiver.recv() {
            match message {
                Message::Line(line) => {
                    let written = self.sink.write(&line);
                    self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                    match written {
                        Ok(()) => self.report(),
                        Err(_) => {
                            self.dropped.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                Message::Reopen => {
                    // Later lines try again, and are counted as dropped if that fails.
                    let _ = self.sink.reopen();
                }
                Message::Flush(done) => {
                    // The caller may no longer be waiting.
                    let _ = done.try_send(());
                }
            }
        }
    }

    /// Reports dropped lines once the log can be written again. The report goes through the queue like any line.
    fn report(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let is_due = self.last_report.is_none_or(|last| last.elapsed() >= REPORT_PAUSE);
        if dropped > self.reported && is_due {
            warn!(
                lines = dropped - self.reported,
                "log lines were dropped: they could not be written in time"
            );
            self.reported = dropped;
            self.last_report = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_do_not_block() {
        let full = RotatingFile::open(std::path::Path::new("/dev/full")).unwrap();
        let mut queue = Queue::start(Sink::File(full)).unwrap();
        for _ in 0..10 {
            queue.write_all(b"a line\n").unwrap();
        }
        wait_until("all are counted", || queue.dropped().load(Ordering::Relaxed) == 10);
        queue.flush();
    }

    #[test]
    fn lines_are_dropped_while_the_reader_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // The pipe is open for reading, but is not read.
        let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut queue = Queue::start(Sink::File(RotatingFile::open(&path).unwrap())).unwrap();
        let line = [b'x'; 4 * 1024];
        for _ in 0..1_000 {
            queue.write_all(&line).unwrap();
        }
        assert!(
            queue.dropped().load(Ordering::Relaxed) > 500,
            "a pipe holds 64 KiB, and a mebibyte may wait"
        );
        let started = Instant::now();
        queue.flush();
        assert!(started.elapsed() < FLUSH_LIMIT * 5);
        drop(reader);
    }

    #[test]
    fn queued_lines_are_written_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.log");
        let mut queue = Queue::start(Sink::File(RotatingFile::open(&path).unwrap())).unwrap();
        for _ in 0..100 {
            queue.write_all(b"a line\n").unwrap();
        }
        queue.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
        assert_eq!(queue.dropped().load(Ordering::Relaxed), 0);
    }
}
