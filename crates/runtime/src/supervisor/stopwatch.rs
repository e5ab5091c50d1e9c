//! Measures the steps of a command, for its receipt.

use std::time::Duration;

use tokio::time::Instant;
use types::api::Step;

/// Measures the steps of a command.
pub(crate) struct Stopwatch {
    pub(crate) began: Instant,
    last: Instant,
    pub(crate) steps: Vec<Step>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, steps: Vec::new() }
    }

    /// Ends a step.
    pub(crate) fn step(&mut self, name: &str) {
        let now = Instant::now();
        self.steps.push(Step { name: name.to_owned(), ms: millis(now - self.last) });
        self.last = now;
    }
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
