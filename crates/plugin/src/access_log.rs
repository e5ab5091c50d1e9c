//! The access log of a service: a line for each request or connection, which never delays one.
//!
//! Each core appends lines to a buffer of its own, and one task writes the buffers, at most once a second unless they are
//! long. A buffer that is full drops further lines and counts them. The file is opened again when it was moved away, and on
//! SIGHUP.

mod buffers;
mod json;
mod line;
pub mod reason;
mod request;
mod settings;
mod sink;
mod time;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::ReasonCode;

use crate::{Context, Health};
use buffers::{Buffers, Filled, Pushed, give_back, take};
use sink::{Sink, Unwritten};

pub use json::JsonLine;
pub use request::{LoggedHead, LoggedRequest, RequestEnd};
pub use settings::{
    AccessLogPlan, AccessLogSettings, LogFormat, QueryLog, STDOUT, access_log_warning, resolve_access_log,
};
pub use time::{common_time, rfc_3339};

/// Lines can't be written.
const UNWRITABLE: ReasonCode = ReasonCode::new("access-log-unwritable");

/// The shortest time between two writes of short buffers.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often dropped lines are reported at most.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// When a file that could not be opened is tried again while no line comes.
const RETRY: Duration = Duration::from_secs(5);
/// How long the log is written after the shutdown of a service that is not stopped.
const GRACE: Duration = Duration::from_secs(2);

/// The bits of `Shared::options`.
const ON: u8 = 1;
const COMBINED: u8 = 2;
const OMIT_QUERY: u8 = 4;

/// An access log, which may be off. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: AtomicU8,
    /// Held while buffers are taken, so that each line is written as the plan says under which it was appended.
    plans: Mutex<Plans>,
    buffers: Buffers,
    dropped: AtomicU64,
    /// Why lines can't be written now.
    trouble: Mutex<Option<Trouble>>,
    /// There is a first line in a buffer.
    arrived: Notify,
    /// A buffer is long.
    filled: Notify,
    /// The plan was replaced.
    changed: Notify,
    /// Cancelled once no further lines come.
    closing: CancellationToken,
    /// Cancelled once all lines are written.
    closed: CancellationToken,
}

/// Why lines can't be written.
#[derive(Debug)]
struct Trouble {
    why: String,
    /// The file was open, so that opening it again does not show that it can be written: the disk may be full.
    is_of_write: bool,
}

#[derive(Debug)]
struct Plans {
    now: Option<AccessLogPlan>,
    /// The changes that the writer has yet to make, in their order.
    changes: Vec<Change>,
}

/// A change of the plan.
#[derive(Debug)]
struct Change {
    /// The lines that were appended before.
    lines: Vec<Filled>,
    /// Where later ones go.
    to: Option<PathBuf>,
}

/// Why the writer goes on.
enum Event {
    Write,
    Reopen,
    Close,
}

impl AccessLog {
    /// Starts the task that writes. The file is opened at once, and created with its folder if it is not there; one that
    /// can't be opened is tried again, which is no reason to refuse requests.
    pub fn start(cx: &Context, plan: Option<AccessLogPlan>) -> Self {
        let log = Self(Arc::new(Shared {
            options: AtomicU8::new(options(plan.as_ref())),
            plans: Mutex::new(Plans { now: plan, changes: Vec::new() }),
            buffers: Buffers::default(),
            dropped: AtomicU64::new(0),
            trouble: Mutex::default(),
            arrived: Notify::new(),
            filled: Notify::new(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        }));
        let shared = Arc::clone(&log.0);
        let help =
            "Lines of the access log that were dropped: the buffer was full, or they could not be written";
        cx.metrics
            .observable_counter("access_log_dropped", help, move || shared.dropped.load(Ordering::Relaxed));
        let (shared, shutdown) = (Arc::clone(&log.0), cx.shutdown.clone());
        // Before the service serves, so that no signal is missed.
        let hangups = signal(SignalKind::hangup()).ok();
        cx.tasks.spawn("access log", async move {
            let _closed = shared.closed.clone().drop_guard();
            write(&shared, hangups, shutdown).await;
            Ok(())
        });
        log
    }

    /// Continues with another plan. Lines that were appended before are written as the former plan says.
    pub fn change(&self, plan: Option<AccessLogPlan>) {
        let mut plans = self.0.plans();
        let options = options(plan.as_ref());
        let lines = self.0.buffers.take_all(|| self.0.options.store(options, Ordering::Relaxed));
        plans.changes.push(Change { lines, to: file(plan.as_ref()) });
        plans.now = plan;
        drop(plans);
        self.0.changed.notify_one();
    }

    /// Whether lines are wanted.
    pub fn is_on(&self) -> bool {
        self.has(ON)
    }

    /// The format of lines.
    pub fn format(&self) -> LogFormat {
        if self.has(COMBINED) { LogFormat::Combined } else { LogFormat::Json }
    }

    /// Whether the queries of requests are shown.
    pub fn query(&self) -> QueryLog {
        if self.has(OMIT_QUERY) { QueryLog::Omit } else { QueryLog::Keep }
    }

    fn has(&self, bit: u8) -> bool {
        self.0.options.load(Ordering::Relaxed) & bit != 0
    }

    /// Appends one line, which `write` writes without its end. Never waits.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.0;
        if !self.is_on() || shared.closing.is_cancelled() {
            return;
        }
        let write = |out: &mut Vec<u8>| {
            // A change of the plan comes before a line or after it.
            let is_on = self.is_on();
            if is_on {
                write(out);
            }
            is_on
        };
        match shared.buffers.append(write) {
            Pushed::First => shared.arrived.notify_one(),
            Pushed::Long => shared.filled.notify_one(),
            Pushed::Further => {}
            Pushed::Dropped => {
                shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// `Degraded` while lines can't be written.
    pub fn health(&self) -> Health {
        let why = self.0.trouble().as_ref().map(|trouble| trouble.why.clone());
        let Some(why) = why else { return Health::Ready };
        let to = shown(file(self.0.plans().now.as_ref()).as_deref());
        Health::degraded(UNWRITABLE, format!("the access log can't be written to {to}: {why}"))
    }

    /// Writes what was appended. Call it after the last request. Idempotent.
    pub async fn stop(&self) {
        self.0.closing.cancel();
        self.0.closed.cancelled().await;
    }
}

fn options(plan: Option<&AccessLogPlan>) -> u8 {
    let Some(plan) = plan else { return 0 };
    let format = match plan.format {
        LogFormat::Json => 0,
        LogFormat::Combined => COMBINED,
    };
    let query = match plan.query {
        QueryLog::Keep => 0,
        QueryLog::Omit => OMIT_QUERY,
    };
    ON | format | query
}

/// The file of a plan; none for the standard output.
fn file(plan: Option<&AccessLogPlan>) -> Option<PathBuf> {
    plan.and_then(|plan| plan.file.clone())
}

/// Where lines go, in words.
fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| STDOUT.to_owned(), |path| path.display().to_string())
}

impl Shared {
    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file without waiting for a line, so that a log that can't be written is known before it is needed. That ends no
    /// trouble with writes.
    async fn open(&self, sink: &mut Sink, reporter: &mut Reporter) {
        let opened = sink.reopen().await;
        let mut trouble = self.trouble();
        match &opened {
            Ok(()) => drop(trouble.take_if(|trouble| !trouble.is_of_write)),
            Err(error) => *trouble = Some(Trouble { why: error.to_string(), is_of_write: false }),
        }
        drop(trouble);
        if let Err(error) = opened {
            reporter.unopened(sink, &error);
        }
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all buffers, and makes the changes of the plan.
    async fn flush(&self, sink: &mut Sink, reporter: &mut Reporter) {
        let (changes, lines) = {
            let mut plans = self.plans();
            let lines: Vec<Filled> = self.buffers.iter().map(take).collect();
            (std::mem::take(&mut plans.changes), lines)
        };
        let mut failure = None;
        for Change { lines, to } in changes {
            for filled in lines {
                self.write(filled, sink, &mut failure).await;
            }
            *sink = Sink::new(to);
            *self.trouble() = None;
            self.open(sink, reporter).await;
        }
        for (buffer, filled) in self.buffers.iter().zip(lines) {
            give_back(buffer, self.write(filled, sink, &mut failure).await);
        }
        reporter.report(sink, self.dropped.load(Ordering::Relaxed), failure);
    }

    /// Writes lines, and returns their memory.
    async fn write(&self, filled: Filled, sink: &mut Sink, failure: &mut Option<io::Error>) -> Vec<u8> {
        if filled.lines == 0 {
            return filled.bytes;
        }
        let (bytes, written) = sink.write(filled.bytes).await;
        let unwritten = written.err();
        let trouble =
            |unwritten: &Unwritten| Trouble { why: unwritten.error.to_string(), is_of_write: sink.is_open() };
        *self.trouble() = unwritten.as_ref().map(trouble);
        if let Some(Unwritten { error, lines }) = unwritten {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
            *failure = Some(error);
        }
        bytes
    }
}

/// Writes lines until the log is closed, then those that are left.
async fn write(shared: &Shared, mut hangups: Option<Signal>, shutdown: CancellationToken) {
    let mut sink = Sink::new(file(shared.plans().now.as_ref()));
    let mut reporter = Reporter { reported: 0, next: Instant::now(), next_open: Instant::now() };
    shared.open(&mut sink, &mut reporter).await;
    let abandoned = async {
        shutdown.cancelled().await;
        sleep(GRACE).await;
    };
    let mut abandoned = std::pin::pin!(abandoned);
    let mut written_at: Option<Instant> = None;
    let mut due: Option<Instant> = None;
    loop {
        let is_failing = shared.trouble().is_some();
        let event = tokio::select! {
            biased;
            () = shared.closing.cancelled() => Event::Close,
            () = &mut abandoned => Event::Close,
            () = shared.changed.notified() => Event::Write,
            () = hung_up(&mut hangups) => Event::Reopen,
            () = shared.filled.notified() => Event::Write,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::Write,
            () = sleep(RETRY), if is_failing => Event::Reopen,
            () = shared.arrived.notified(), if due.is_none() => {
                let now = Instant::now();
                due = Some(written_at.map_or(now, |at| now.max(at + INTERVAL)));
                continue;
            }
        };
        if matches!(event, Event::Close) {
            shared.closing.cancel();
        }
        (due, written_at) = (None, Some(Instant::now()));
        shared.flush(&mut sink, &mut reporter).await;
        match event {
            Event::Write => {}
            Event::Reopen => shared.open(&mut sink, &mut reporter).await,
            Event::Close => return,
        }
    }
}

/// The next SIGHUP. Cancel-safe.
async fn hung_up(hangups: &mut Option<Signal>) {
    let received = match hangups {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Reports dropped lines and files that can't be opened, not too often.
struct Reporter {
    reported: u64,
    next: Instant,
    next_open: Instant,
}

impl Reporter {
    fn report(&mut self, sink: &Sink, dropped: u64, error: Option<io::Error>) {
        if dropped > self.reported && Instant::now() >= self.next {
            let (lines, file) = (dropped - self.reported, shown(sink.path()));
            let error = error.map(|error| error.to_string());
            warn!(file, lines, error, "lines of the access log were dropped");
            (self.reported, self.next) = (dropped, Instant::now() + REPORT_INTERVAL);
        }
    }

    fn unopened(&mut self, sink: &Sink, error: &io::Error) {
        if Instant::now() >= self.next_open {
            let file = shown(sink.path());
            warn!(file, %error, "the access log can't be opened");
            self.next_open = Instant::now() + REPORT_INTERVAL;
        }
    }
}

#[cfg(test)]
mod tests;
