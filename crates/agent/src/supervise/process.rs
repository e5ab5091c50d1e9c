//! The process of an agent: a child, or a process that outlived the parent that started it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::time::{Duration, timeout};
use types::supervision::{LAST_END, RESTARTS, RunMark, StartFile};

/// How many bytes of an agent's standard error are kept.
const KEPT: usize = 64 * 1024;
/// How long the rest of it may take to arrive after the agent's end.
const REST_LIMIT: Duration = Duration::from_millis(200);

/// A running agent.
#[derive(Debug)]
pub(super) enum Process {
    Child { child: Box<Child>, stderr: Option<ChildStderr>, kept: Vec<u8> },
    Adopted { pid: u32, pidfd: Arc<OwnedFd>, ended: watch::Receiver<bool> },
}

impl Process {
    /// Starts an agent.
    pub(super) fn start(start: &StartFile, restarts: u64, last_end: Option<&str>) -> io::Result<Self> {
        let mut command = Command::new(&start.binary);
        command
            .args(&start.arguments)
            // The setting of the parent's allocator must not apply to the agent.
            .env_remove(super::ALLOCATOR_SETTING)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if restarts > 0 {
            command.env(RESTARTS, restarts.to_string());
        }
        if let Some(reason) = last_end {
            command.env(LAST_END, reason);
        }
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        Ok(Self::Child { child: Box::new(child), stderr, kept: Vec::new() })
    }

    /// Adopts an agent that another parent started. The process id must still be the agent's: its command line names its
    /// data folder, which no other process uses.
    #[cfg(target_os = "linux")]
    pub(super) fn adopt(pid: u32, data_dir: &Path) -> io::Result<Self> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::NONBLOCK)?;
        // Read after the pidfd is open, so it is the command line of that process.
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let data_dir = data_dir.as_os_str().as_encoded_bytes();
        if !arguments.split(|byte| *byte == 0).any(|argument| argument == data_dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (pidfd, ended) = watch_end(pidfd)?;
        Ok(Self::Adopted { pid, pidfd, ended })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn adopt(_pid: u32, _data_dir: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Its process id; `None` once it has been waited for.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Child { child, .. } => child.id(),
            Self::Adopted { pid, .. } => Some(*pid),
        }
    }

    /// Sends it a signal. If it has just ended, nothing happens.
    pub(super) fn signal(&self, signal: Signal) {
        match self {
            Self::Child { child, .. } => {
                // It has not been waited for yet, so the process id is still its own.
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                let _ = pid.map(|pid| kill_process(pid, signal));
            }
            Self::Adopted { pidfd, .. } => {
                #[cfg(target_os = "linux")]
                let _ = rustix::process::pidfd_send_signal(pidfd, signal);
                #[cfg(not(target_os = "linux"))]
                let _ = (pidfd, signal);
            }
        }
    }

    /// Waits for its end, and meanwhile keeps what it prints. Cancel-safe.
    pub(super) async fn end(&mut self) -> io::Result<Status> {
        match self {
            Self::Child { child, stderr, kept } => {
                loop {
                    tokio::select! {
                        biased;
                        is_open = read(stderr, kept) => if !is_open { *stderr = None },
                        status = child.wait() => {
                            let status = status?;
                            let rest = async { while read(stderr, kept).await {} };
                            // Another process may have inherited the pipe and may keep it open.
                            let _ = timeout(REST_LIMIT, rest).await;
                            return Ok(Status::of(status));
                        }
                    }
                }
            }
            Self::Adopted { ended, .. } => {
                ended.wait_for(|ended| *ended).await.map_err(io::Error::other)?;
                Ok(Status::Unknown)
            }
        }
    }

    /// The end of what it printed to standard error.
    pub(super) fn printed(&self) -> String {
        match self {
            Self::Child { kept, .. } => String::from_utf8_lossy(kept).into_owned(),
            Self::Adopted { .. } => String::new(),
        }
    }
}

/// Waits in a thread for the end of a process that is not a child: its descriptor becomes readable then.
#[cfg(target_os = "linux")]
fn watch_end(pidfd: OwnedFd) -> io::Result<(Arc<OwnedFd>, watch::Receiver<bool>)> {
    use rustix::event::{PollFd, PollFlags, poll};
    let pidfd = Arc::new(pidfd);
    let (end, ended) = watch::channel(false);
    let polled = Arc::clone(&pidfd);
    std::thread::Builder::new().name("adopted".to_owned()).spawn(move || {
        loop {
            match poll(&mut [PollFd::new(&polled, PollFlags::IN)], None) {
                Err(rustix::io::Errno::INTR) => {}
                // If the descriptor can't be polled, the end can't be detected: the channel closes.
                Err(_) => return,
                Ok(_) => {
                    end.send_replace(true);
                    return;
                }
            }
        }
    })?;
    Ok((pidfd, ended))
}

/// Reads what is available and keeps the end of it. Returns false at the end of the pipe. Without a pipe it never
/// returns.
async fn read(stderr: &mut Option<ChildStderr>, kept: &mut Vec<u8>) -> bool {
    let Some(pipe) = stderr else { return std::future::pending().await };
    match pipe.read_buf(kept).await {
        Ok(0) | Err(_) => false,
        Ok(_) => {
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
            true
        }
    }
}

/// How a process ended, as far as its parent can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Code(u8),
    Signal(i32),
    /// An adopted process: only the parent that started it could learn its status.
    Unknown,
}

impl Status {
    fn of(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code().and_then(|code| u8::try_from(code).ok()), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// The mark that the agent left about this process.
pub(super) fn mark(data_dir: &Path, pid: u32) -> Option<RunMark> {
    let text = std::fs::read(data_dir.join(RunMark::FILE)).ok()?;
    serde_json::from_slice::<RunMark>(&text).ok().filter(|mark| mark.pid == pid)
}
