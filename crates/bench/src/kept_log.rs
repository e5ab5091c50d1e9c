//! Keeps the latest log lines of the nodes in this process, to show them with a failed request.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const LINES: usize = 5_000;
const FILTER: &str = "info,chitchat=warn";

/// The latest log lines. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptLog(Arc<Mutex<VecDeque<(Instant, String)>>>);

impl KeptLog {
    /// Captures everything that this process logs from now on.
    pub(crate) fn start() -> Self {
        let kept = Self::default();
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
        // If another subscriber is installed already, no lines are captured.
        let _ = builder.with_target(false).with_writer(kept.clone()).try_init();
        kept
    }

    /// The lines logged at most `within` before or after a time.
    pub(crate) fn around(&self, time: Instant, within: Duration) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_near = |at: Instant| at.max(time) - at.min(time) <= within;
        let near = lines.iter().filter(|(at, _)| is_near(*at));
        near.map(|(_, line)| line.clone()).collect()
    }
}

impl io::Write for KeptLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        let line = String::from_utf8_lossy(bytes).trim_end().to_owned();
        lines.push_back((Instant::now(), line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for KeptLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
