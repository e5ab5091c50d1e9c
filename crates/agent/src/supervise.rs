//! `agent supervise`: the small parent of an agent, which restarts it when it fails.
//!
//! It has one thread, no store and no gossip, and takes about a mebibyte of memory. The agent does not depend on it: if
//! the parent dies, the agent continues, and the next `ctl up` starts another parent that adopts it.

mod policy;
mod process;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Now};
use types::supervision::{PidFile, ProcessStart, StartFile};

use self::policy::{End, Ends, Next};
use self::process::{Process, Status, mark};

/// The variable with which `ctl` configures a parent's allocator: it needs no background thread.
const ALLOCATOR_SETTING: &str = "_RJEM_MALLOC_CONF";
/// How many characters of the reason of an end are gossiped.
const REASON_LIMIT: usize = 160;

/// Runs until the agent has ended and must not be restarted. Returns its exit code.
pub(crate) fn run(file: &Path, adopt: Option<u32>) -> anyhow::Result<ExitCode> {
    close_inherited();
    let file = &std::path::absolute(file).context("the working folder can't be read")?;
    // A closing terminal, and ^C in it, must not end background processes.
    let _ = rustix::process::setsid();
    let text = std::fs::read(file).with_context(|| format!("{} can't be read", file.display()))?;
    let start: StartFile =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
    // So that the starter's working folder can be removed or unmounted.
    std::env::set_current_dir("/").context("the working folder can't be changed")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut supervisor = Supervisor::new(file, start)?;
        let outcome = supervisor.run(adopt).await;
        if let Err(error) = &outcome {
            supervisor.log(&format!("ERROR {error:#}"));
        }
        outcome.map(ExitCode::from)
    })
}

/// Closes every descriptor but the standard three, since this process inherits those of its starter: a lock would stay
/// taken, and a pipe would never end.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/dev/fd") else { return };
    let number = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let open: Vec<i32> = entries.filter_map(number).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The descriptor of the listing itself is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// The parent of one agent.
#[derive(Debug)]
struct Supervisor {
    start: StartFile,
    pid_file: PathBuf,
    known: PidFile,
    signals: Signals,
}

impl Supervisor {
    fn new(file: &Path, start: StartFile) -> anyhow::Result<Self> {
        let pid_file = PidFile::beside(file);
        let before =
            std::fs::read(&pid_file).ok().and_then(|text| serde_json::from_slice::<PidFile>(&text).ok());
        let known = PidFile {
            agent: None,
            parent: Some(ProcessStart { pid: std::process::id(), start_time: now() }),
            restarts: before.as_ref().map_or(0, |before| before.restarts),
            last_end: before.and_then(|before| before.last_end),
            over: None,
        };
        Ok(Self {
            start,
            pid_file,
            known,
            signals: Signals::listen().context("signals can't be listened for")?,
        })
    }

    async fn run(&mut self, adopt: Option<u32>) -> anyhow::Result<u8> {
        let adopted = adopt.map(|pid| Process::adopt(pid, &self.start.data_dir)).transpose();
        let mut process = match adopted.context("the agent can't be adopted")? {
            Some(process) => process,
            None => self.spawn().with_context(|| format!("starting {}", self.start.binary.display()))?,
        };
        let mut ends = Ends::new(self.start.restart, adopt.is_some());
        loop {
            let agent = process.pid().map(|pid| ProcessStart { pid, start_time: now() });
            self.known.agent = agent;
            self.write_pid_file();
            let began = Instant::now();
            let (status, must_stop) = self.until_end(&mut process).await?;
            let left = agent.and_then(|agent| mark(&self.start.data_dir, agent.pid));
            let left_end = left.as_ref().and_then(|mark| mark.end.as_ref());
            let end = End {
                code: match status {
                    Status::Code(code) => Some(code),
                    Status::Signal(_) => None,
                    Status::Unknown => left_end.map(|end| end.code),
                },
                was_ready: left.as_ref().is_some_and(|mark| mark.was_ready),
                is_final: left_end.is_some_and(|end| end.is_final),
                ran: began.elapsed(),
            };
            let printed = process.printed();
            let reason = reason(status, left_end.and_then(|end| end.reason.as_deref()), &printed);
            let code = match status {
                Status::Code(code) => code,
                Status::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
                Status::Unknown => end.code.unwrap_or(1),
            };
            let mut next = ends.after(&end, Instant::now(), rand::random());
            if must_stop && next != Next::Done {
                next = Next::GiveUp("it received a signal to stop".to_owned());
            }
            self.known.agent = None;
            if next != Next::Done {
                self.known.last_end = Some(reason.clone());
                // In all other cases the agent has logged it.
                if matches!(status, Status::Signal(_) | Status::Code(policy::USAGE)) {
                    self.log_printed(&printed);
                }
            }
            match next {
                Next::Done => {
                    self.known.over = Some("it left on request".to_owned());
                    self.write_pid_file();
                    return Ok(code);
                }
                Next::GiveUp(why) => {
                    self.log(&format!("ERROR the agent ended: {reason}; it is not started again: {why}"));
                    self.known.over = Some(why);
                    self.write_pid_file();
                    return Ok(code);
                }
                Next::Restart(pause) => {
                    let when = if pause.is_zero() { "at once".to_owned() } else { format!("in {pause:.1?}") };
                    self.log(&format!(" WARN the agent ended: {reason}; it is started again {when}"));
                    self.write_pid_file();
                    if !pause.is_zero() && self.is_signalled_to_stop_within(pause).await {
                        self.known.over = Some("it received a signal to stop".to_owned());
                        self.write_pid_file();
                        return Ok(0);
                    }
                    self.known.restarts += 1;
                    process = self.spawn_again(&mut ends).await?;
                }
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Process> {
        Process::start(&self.start, self.known.restarts, self.known.last_end.as_deref())
    }

    /// Starts the agent, and tries again if that fails: a binary may be missing while it is replaced.
    async fn spawn_again(&mut self, ends: &mut Ends) -> anyhow::Result<Process> {
        loop {
            let error = match self.spawn() {
                Ok(process) => return Ok(process),
                Err(error) => error,
            };
            let reason = format!("{} can't be started: {error}", self.start.binary.display());
            let end = End { code: None, was_ready: false, is_final: false, ran: Duration::ZERO };
            self.known.last_end = Some(reason.clone());
            match ends.after(&end, Instant::now(), rand::random()) {
                Next::Restart(pause) => {
                    self.log(&format!(" WARN {reason}; it is tried again in {pause:.1?}"));
                    self.write_pid_file();
                    if self.is_signalled_to_stop_within(pause).await {
                        anyhow::bail!("it received a signal to stop");
                    }
                }
                Next::Done => anyhow::bail!("{reason}"),
                Next::GiveUp(why) => {
                    self.log(&format!("ERROR {reason}; it is not tried again: {why}"));
                    self.known.over = Some(why);
                    self.write_pid_file();
                    anyhow::bail!("{reason}");
                }
            }
        }
    }

    /// Waits for the agent's end, and passes signals on meanwhile. Returns whether one of them was a signal to stop.
    async fn until_end(&mut self, process: &mut Process) -> anyhow::Result<(Status, bool)> {
        let mut must_stop = false;
        loop {
            let signal = tokio::select! {
                biased;
                status = process.end() => return Ok((status.context("the agent can't be waited for")?, must_stop)),
                signal = self.signals.next() => signal,
            };
            must_stop |= signal != Signal::HUP;
            process.signal(signal);
            if must_stop {
                // A stopped process (SIGSTOP) can't leave.
                process.signal(Signal::CONT);
            }
        }
    }

    /// Whether a signal to stop comes within this time.
    async fn is_signalled_to_stop_within(&mut self, pause: Duration) -> bool {
        let signalled = async { while self.signals.next().await == Signal::HUP {} };
        tokio::time::timeout(pause, signalled).await.is_ok()
    }

    /// Replaces the pid file atomically. On a full disk the old one stays; the lock of the data folder has the pid too.
    fn write_pid_file(&self) {
        let temporary = self.pid_file.with_extension(format!("pid{}", std::process::id()));
        let written = serde_json::to_vec(&self.known)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&temporary, text))
            .and_then(|()| std::fs::rename(&temporary, &self.pid_file));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&temporary);
            self.log(&format!(" WARN {} can't be written: {error}", self.pid_file.display()));
        }
    }

    /// Appends to the agent's log what it printed, which is not there otherwise.
    fn log_printed(&self, printed: &str) {
        for line in printed.lines().filter(|line| !line.trim().is_empty()) {
            self.append(&format!("{line}\n"));
        }
    }

    /// Writes a line to the agent's log. This is safe while an agent runs, since both append whole lines.
    fn log(&self, text: &str) {
        let mut time = String::new();
        // The line is useful even without a time.
        let _ = Now.format_time(&mut Writer::new(&mut time));
        self.append(&format!("{time} {text}\n"));
    }

    fn append(&self, line: &str) {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(&self.start.log);
        // A log that can't be written must not end the parent.
        let _ = opened.and_then(|mut log| log.write_all(line.as_bytes()));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Why an agent ended, in one line: its status, and the reason that it recorded, else an error or the last line that it
/// printed.
fn reason(status: Status, recorded: Option<&str>, printed: &str) -> String {
    let how = match status {
        Status::Code(code) => format!("exit code {code}"),
        Status::Signal(signal) => match Signal::from_named_raw(signal) {
            Some(signal) => format!("killed by {}", signal_name(signal)),
            None => format!("killed by signal {signal}"),
        },
        Status::Unknown => "ended after its parent, so the exit code is unknown".to_owned(),
    };
    let mut lines = printed.lines().map(str::trim).filter(|line| !line.is_empty());
    let error_line = lines.clone().find(|line| line.starts_with("error: ") || line.contains("panicked at"));
    let why = recorded.or(error_line).or_else(|| lines.next_back());
    let text = match why {
        Some(why) => format!("{how}: {}", why.trim_start_matches("error: ")),
        None => how,
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_LIMIT).collect()
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::KILL => "SIGKILL",
        Signal::ABORT => "SIGABRT",
        Signal::SEGV => "SIGSEGV",
        Signal::BUS => "SIGBUS",
        Signal::ILL => "SIGILL",
        Signal::TERM => "SIGTERM",
        Signal::INT => "SIGINT",
        Signal::HUP => "SIGHUP",
        _ => "a signal",
    }
}

/// The signals that a parent passes on.
#[derive(Debug)]
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    hangup: unix::Signal,
    /// Without a handler they would end the process.
    _ignored: [unix::Signal; 2],
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
            hangup: unix::signal(SignalKind::hangup())?,
            _ignored: [
                unix::signal(SignalKind::user_defined1())?,
                unix::signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// The next signal, in the form to pass to the agent. Cancel-safe.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_one_line() {
        let panic = "\nthread 'main' panicked at src/main.rs:1:1:\nhere\nnote: run with RUST_BACKTRACE\n";
        for (status, recorded, printed, expected) in [
            (Status::Signal(9), None, "", "killed by SIGKILL"),
            (Status::Code(101), None, panic, "exit code 101: thread 'main' panicked at src/main.rs:1:1:"),
            (Status::Code(1), None, "error: no port\nhint: choose\n", "exit code 1: no port"),
            (Status::Code(1), Some("gossip ended"), "error: other", "exit code 1: gossip ended"),
            (Status::Code(3), None, "a\nb\n", "exit code 3: b"),
            (Status::Unknown, None, "", "ended after its parent, so the exit code is unknown"),
        ] {
            assert_eq!(reason(status, recorded, printed), expected);
        }
        assert_eq!(reason(Status::Code(1), Some(&"x".repeat(1_000)), "").len(), REASON_LIMIT);
    }
}
