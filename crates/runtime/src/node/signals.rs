//! The signals that end an agent, and those that must not.
//!
//! A hang-up ends an agent only if its terminal was closed. Otherwise it is a request to open log files again.

use std::fs::File;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Signals this close together are one.
const SAME_SIGNAL: Duration = Duration::from_millis(300);
/// How long after a hang-up it is checked whether the terminal is gone: a shell that ends signals before it leaves it.
const CLOSING: Duration = Duration::from_millis(200);

/// Signals that end an agent.
#[derive(Debug)]
pub struct Signals {
    last: Option<Instant>,
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
    leaves_on_hangup: bool,
    /// When to check the terminal.
    check_at: Option<Instant>,
    /// Without a listener, these would end the process.
    _ignored: [Signal; 2],
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            last: None,
            // Read before the signal has a listener.
            leaves_on_hangup: has_terminal() && !is_hangup_ignored(),
            check_at: None,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            _ignored: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// The name of the next signal. Some senders signal a process and its group, so a signal that comes within
    /// 300 ms of the last one counts as the same. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.quit.recv() => "SIGQUIT",
                _ = self.hangup.recv(), if self.leaves_on_hangup => {
                    self.check_at = Some(Instant::now() + CLOSING);
                    continue;
                }
                () = sleep_until(self.check_at.unwrap_or_else(Instant::now)), if self.check_at.is_some() => {
                    self.check_at = None;
                    if has_terminal() {
                        continue;
                    }
                    "SIGHUP"
                }
            };
            let now = Instant::now();
            if self.last.replace(now).is_none_or(|last| now - last >= SAME_SIGNAL) {
                return name;
            }
        }
    }
}

/// Whether this process has a controlling terminal, which sends a hang-up when it is closed.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether the process was started with hang-ups ignored, as by nohup.
fn is_hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_under_nohup_is_recognized_by_its_signal_mask() {
        let status = |mask: &str| format!("Name:\tagent\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        for (mask, expected) in
            [("0000000000001001", true), ("0000000000001000", false), ("0000000000000000", false)]
        {
            assert_eq!(ignores_hangup(&status(mask)), expected, "{mask}");
        }
        assert!(!ignores_hangup("Name:\tagent\n"));
    }
}
