//! The agent's log: to standard error, or to a file that the agent itself rotates.
//!
//! A log that can't be written must not stop the agent. Lines go through a bounded queue to a separate thread. Those
//! that do not fit or can't be written are dropped and counted. A repeated condition is logged once a second.

mod file;
mod limit;
mod queue;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, JsonFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::file::RotatingFile;
use self::limit::Limited;
use self::queue::{Queue, Sink};

/// The default filter: all changes, and only errors of gossip.
pub(crate) const DEFAULT_FILTER: &str = "info,chitchat=error";

/// Why the log can't be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// Name a file that can be created.
    #[error("log file {path} can't be opened: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// The system is out of threads.
    #[error("the thread that writes the log can't be started: {0}")]
    Thread(std::io::Error),
}

/// The running log. Dropping it writes the queued lines, for a second at most.
#[derive(Debug)]
#[must_use]
pub(crate) struct Log {
    queue: Queue,
    is_file: bool,
}

/// Starts the log. A filter that can't be parsed is replaced by the default filter, with a warning.
pub(crate) fn start(filter: &str, as_json: bool, file: Option<&Path>) -> Result<Log, LogError> {
    let (parsed, problem) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error.to_string())),
    };
    let sink = match file {
        None => Sink::Stderr,
        Some(path) => Sink::File(
            RotatingFile::open(path).map_err(|source| LogError::File { path: path.to_owned(), source })?,
        ),
    };
    let queue = Queue::start(sink).map_err(LogError::Thread)?;
    let is_coloured = file.is_none()
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let writer = queue.clone();
    // The formatter would print its own errors with a macro that panics if it can't print.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || writer.clone())
        .with_ansi(is_coloured)
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(parsed);
    let started = if as_json {
        let format = Limited::json(Format::default().json());
        registry.with(layer.fmt_fields(JsonFields::new()).event_format(format)).try_init()
    } else {
        let format = Format::default().with_target(false).with_ansi(is_coloured);
        registry.with(layer.event_format(Limited::text(format))).try_init()
    };
    if let Err(error) = started {
        crate::output::complain(&format!("warning: logs can't be written: {error}"));
    }
    if file.is_some() {
        log_panics();
    }
    if let Some(problem) = problem {
        tracing::warn!(filter, problem, "the log filter can't be read; using {DEFAULT_FILTER}");
    }
    Ok(Log { queue, is_file: file.is_some() })
}

impl Log {
    /// Whether the log goes to a file instead of standard error.
    pub(crate) fn is_file(&self) -> bool {
        self.is_file
    }

    /// Closes the file and opens its path again: the old file may have been moved away.
    pub(crate) fn reopen(&self) {
        self.queue.reopen();
    }

    /// Lines dropped since the start.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        self.queue.dropped()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush();
    }
}

/// Writes panics to the log file as well as to standard error.
fn log_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(thread, "{panic}");
        print(panic);
    }));
}
