//! A child process in its own process group, with its output in a file. It ends with its guard.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long a process may take to exit after a signal.
const END_LIMIT: Duration = Duration::from_secs(15);
const LOG_LINES: usize = 15;

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {:?}", command.as_std().get_program()))?;
        Ok(Self { child, log })
    }

    /// The process id; an error once the process has exited.
    pub(crate) fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the process has ended")
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.id()?)?;
        let pid = Pid::from_raw(id).context("the process id is 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The exit status, if the process has exited.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the process has exited; kills it if that takes too long.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        if tokio::time::timeout(END_LIMIT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

fn tail(file: &Path) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
