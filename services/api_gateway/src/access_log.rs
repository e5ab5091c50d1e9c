//! The access log: a line for each request, written when its exchange ends.
//!
//! Requests hand their lines to a bounded queue, and one task writes them, so logging never delays a request: lines that
//! do not fit into the queue are dropped and counted. Lines never contain credentials: neither `Authorization` nor
//! `Cookie`.

mod exchange;
mod line;
mod sink;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use plugin::{Context, Health};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::ReasonCode;

use crate::settings::AccessLogPlan;
use sink::Sink;

pub(crate) use exchange::Exchange;

/// Lines can't be written.
const UNWRITABLE: ReasonCode = ReasonCode::new("access-log-unwritable");

/// How many lines may wait.
const QUEUE: usize = 16 * 1024;
/// How many lines are written at once.
const BATCH: usize = 1024;
/// How often dropped lines are reported at most.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How long the log is written after the shutdown of a service that is not stopped.
const GRACE: Duration = Duration::from_secs(2);

/// The access log of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: AccessLogPlan,
    lines: mpsc::Sender<Vec<u8>>,
    dropped: AtomicU64,
    is_failing: AtomicBool,
    /// Cancelled once no further lines come.
    closing: CancellationToken,
    /// Cancelled once all lines are written.
    closed: CancellationToken,
}

/// What the gateway notes for the log while it serves a request.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    route: OnceLock<String>,
    service: OnceLock<String>,
}

impl Notes {
    /// Notes the route of a request, if it is logged.
    pub(crate) fn route(head: &Parts, route: &str) {
        if let Some(notes) = head.extensions.get::<Arc<Self>>() {
            let _ = notes.route.set(route.to_owned());
        }
    }

    /// Notes the service of a request, if it is logged.
    pub(crate) fn service(head: &Parts, service: &str) {
        if let Some(notes) = head.extensions.get::<Arc<Self>>() {
            let _ = notes.service.set(service.to_owned());
        }
    }
}

impl AccessLog {
    /// Starts the task that writes. A file that can't be opened is tried again; that is no reason to refuse requests.
    pub(crate) fn start(cx: &Context, plan: AccessLogPlan) -> Self {
        let (lines, queue) = mpsc::channel(QUEUE);
        let log = Self(Arc::new(Shared {
            plan,
            lines,
            dropped: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        }));
        let shared = Arc::clone(&log.0);
        let help =
            "Lines of the access log that were dropped: the queue was full, or they could not be written";
        cx.metrics
            .observable_counter("access_log_dropped", help, move || shared.dropped.load(Ordering::Relaxed));
        let (shared, shutdown) = (Arc::clone(&log.0), cx.shutdown.clone());
        cx.tasks.spawn("access log", async move {
            let _closed = shared.closed.clone().drop_guard();
            write(&shared, queue, shutdown).await;
            Ok(())
        });
        log
    }

    /// Hands a line over. Never waits.
    fn log(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.0.lines.try_send(line) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `Degraded` while lines can't be written.
    pub(crate) fn health(&self) -> Health {
        if !self.0.is_failing.load(Ordering::Relaxed) {
            return Health::Ready;
        }
        let file = self.0.plan.file.as_deref().map(|path| path.display().to_string());
        let text = format!("the access log can't be written to {}", file.as_deref().unwrap_or("stdout"));
        Health::degraded(UNWRITABLE, text)
    }

    /// Writes what is queued. Call it after the last request. Idempotent.
    pub(crate) async fn stop(&self) {
        self.0.closing.cancel();
        self.0.closed.cancelled().await;
    }
}

/// Writes lines until the log is closed, then those that are queued.
async fn write(shared: &Shared, mut queue: mpsc::Receiver<Vec<u8>>, shutdown: CancellationToken) {
    let mut sink = Sink::new(shared.plan.file.clone());
    let mut reporter = Reporter { reported: 0, next: Instant::now() };
    let abandoned = async {
        shutdown.cancelled().await;
        sleep(GRACE).await;
    };
    let mut abandoned = std::pin::pin!(abandoned);
    loop {
        let mut lines = Vec::new();
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => queue.close(),
            () = &mut abandoned => shared.closing.cancel(),
            _ = queue.recv_many(&mut lines, BATCH) => {}
        }
        if lines.is_empty() && queue.recv_many(&mut lines, BATCH).await == 0 {
            break;
        }
        let count = lines.len() as u64;
        let written = sink.write(lines.concat()).await;
        shared.is_failing.store(written.is_err(), Ordering::Relaxed);
        if written.is_err() {
            shared.dropped.fetch_add(count, Ordering::Relaxed);
        }
        reporter.report(shared.dropped.load(Ordering::Relaxed), written.err());
    }
}

/// Reports dropped lines, not too often.
struct Reporter {
    reported: u64,
    next: Instant,
}

impl Reporter {
    fn report(&mut self, dropped: u64, error: Option<std::io::Error>) {
        if dropped > self.reported && Instant::now() >= self.next {
            let lines = dropped - self.reported;
            let error = error.map(|error| error.to_string());
            warn!(lines, error, "lines of the access log were dropped");
            (self.reported, self.next) = (dropped, Instant::now() + REPORT_INTERVAL);
        }
    }
}
