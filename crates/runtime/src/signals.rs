//! The signals that end an agent.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals this close together are one.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// Signals that end an agent.
#[derive(Debug)]
pub struct Signals {
    last: Option<Instant>,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            last: None,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The name of the next one. Some senders signal a process and its group: what comes within a moment of the
    /// last one is the same. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
            };
            let now = Instant::now();
            if self.last.replace(now).is_none_or(|last| now - last >= SAME_SIGNAL) {
                return name;
            }
        }
    }
}
