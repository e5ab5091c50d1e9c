//! Which process is ours: identified by pid, start time and data folder together, since pids are reused.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System, UpdateKind};

/// The process of an agent or of an agent's parent. Still means that process after its pid was reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Unix seconds; 0 if unknown.
    pub(crate) start_time: u64,
    /// The path that its command line alone names: an agent's data folder, or the file that `agent supervise` was
    /// given.
    pub(crate) data_dir: PathBuf,
}

/// The state of a pid on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observed {
    /// There is no such process.
    Absent,
    /// It has ended, but its parent has not reaped it yet.
    Ended,
    /// It runs, or is stopped.
    Alive {
        /// Unix seconds.
        start_time: u64,
        data_dir: DataDir,
    },
}

/// The data folder in a command line; for an agent's parent, its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DataDir {
    /// The kernel has no command line yet, for about a millisecond after the start.
    Unknown,
    /// It names none: not an agent of ours.
    None,
    At(PathBuf),
}

impl DataDir {
    fn of(arguments: &[OsString]) -> Self {
        if arguments.is_empty() {
            return Self::Unknown;
        }
        data_dir_argument(arguments).map_or(Self::None, |path| Self::At(path.to_owned()))
    }
}

/// Whether the observed process is the recorded one, and alive.
///
/// The path in its command line is proof, since no other process has it. The start time counts only while the kernel
/// has no command line yet: it depends on the wall clock, which may have been set since.
pub(crate) fn is_alive(recorded: &ProcessId, observed: &Observed) -> bool {
    match observed {
        Observed::Absent | Observed::Ended => false,
        Observed::Alive { start_time, data_dir } => match data_dir {
            DataDir::At(path) => *path == recorded.data_dir,
            DataDir::Unknown => start_time.abs_diff(recorded.start_time) <= 1,
            DataDir::None => false,
        },
    }
}

/// Why a process was not signalled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    /// The process has ended, and its pid may belong to another one; nothing was signalled.
    #[error("process {0} has ended, or is no longer the one that was started")]
    Gone(u32),
    #[error("process {pid} could not be signalled")]
    Refused { pid: u32, source: rustix::io::Errno },
}

/// The processes of this machine.
#[derive(Debug)]
pub(crate) struct Processes(System);

impl Processes {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(System::new()?))
    }

    /// The state of a pid now.
    pub(crate) fn observe(&mut self, pid: u32) -> Observed {
        let pid = sysinfo::Pid::from_u32(pid);
        self.0.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[pid]),
            true,
            ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always),
        );
        match self.0.process(pid) {
            None => Observed::Absent,
            Some(process) if matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead) => {
                Observed::Ended
            }
            Some(process) => {
                Observed::Alive { start_time: process.start_time(), data_dir: DataDir::of(process.cmd()) }
            }
        }
    }

    /// Whether an agent's command line is one that `ctl up` writes: its settings file is in a run folder.
    pub(crate) fn was_started_by_ctl(&mut self, pid: u32) -> bool {
        self.observe(pid);
        let process = self.0.process(sysinfo::Pid::from_u32(pid));
        process.is_some_and(|process| has_settings_of_ctl(process.cmd()))
    }

    pub(crate) fn is_alive(&mut self, process: &ProcessId) -> bool {
        is_alive(process, &self.observe(process.pid))
    }

    /// Whether it is alive but paused (SIGSTOP), so that it does not answer.
    pub(crate) fn is_stopped(&mut self, process: &ProcessId) -> bool {
        let is_alive = self.is_alive(process);
        let seen = self.0.process(sysinfo::Pid::from_u32(process.pid));
        is_alive && seen.is_some_and(|seen| seen.status() == ProcessStatus::Stop)
    }

    /// Signals a process if it is still the recorded one.
    pub(crate) fn signal(&mut self, process: &ProcessId, signal: Signal) -> Result<(), SignalError> {
        let gone = SignalError::Gone(process.pid);
        if !self.is_alive(process) {
            return Err(gone);
        }
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Err(gone) };
        kill_process(pid, signal).map_err(|source| match source {
            rustix::io::Errno::SRCH => gone,
            _ => SignalError::Refused { pid: process.pid, source },
        })
    }

    /// The command line of a process that was observed.
    pub(crate) fn arguments(&self, pid: u32) -> Vec<String> {
        let process = self.0.process(sysinfo::Pid::from_u32(pid));
        let arguments = process.into_iter().flat_map(sysinfo::Process::cmd);
        arguments.map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    /// Agents whose data folders are below this folder, or parents whose files are. They are found by their command
    /// lines, so this includes processes that are in no record.
    pub(crate) fn below(&mut self, data: &Path) -> Vec<ProcessId> {
        self.0.refresh_processes_specifics(
            ProcessesToUpdate::All,
            true,
            ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always),
        );
        let mut found = Vec::new();
        for process in self.0.processes().values() {
            let is_thread = process.thread_kind().is_some();
            if is_thread || matches!(process.status(), ProcessStatus::Zombie | ProcessStatus::Dead) {
                continue;
            }
            let folder = data_dir_argument(process.cmd()).filter(|folder| folder.starts_with(data));
            found.extend(folder.map(|folder| ProcessId {
                pid: process.pid().as_u32(),
                start_time: process.start_time(),
                data_dir: folder.to_owned(),
            }));
        }
        found.sort_by_key(|process| process.pid);
        found
    }
}

/// `--config STATE/run/CLUSTER/NODE.yaml`.
fn has_settings_of_ctl(arguments: &[OsString]) -> bool {
    let mut arguments = arguments.iter();
    let config = arguments.find(|argument| *argument == "--config").and_then(|_| arguments.next());
    let run = config.and_then(|config| Path::new(config).ancestors().nth(2));
    run.is_some_and(|run| run.file_name().is_some_and(|name| name == "run"))
}

fn data_dir_argument(arguments: &[OsString]) -> Option<&Path> {
    if let [_, verb, file, ..] = arguments
        && verb == "supervise"
    {
        return Some(Path::new(file));
    }
    let mut arguments = arguments.iter();
    arguments.find(|argument| *argument == "--data-dir")?;
    arguments.next().map(Path::new)
}

/// The signal with this name (`TERM`, `SIGTERM`, in any case) or number.
pub(crate) fn parse_signal(text: &str) -> Result<Signal, String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let known = SIGNALS.iter().find(|(known, signal)| name == *known || name == signal.as_raw().to_string());
    known.map(|(_, signal)| *signal).ok_or_else(|| {
        let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
        format!("known are {}", names.join(", "))
    })
}

/// The name of a signal that `parse_signal` accepts.
pub(crate) fn signal_name(signal: Signal) -> &'static str {
    SIGNALS.iter().find(|(_, known)| *known == signal).map_or("?", |(name, _)| name)
}

const SIGNALS: [(&str, Signal); 10] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(start_time: u64, data_dir: DataDir) -> Observed {
        Observed::Alive { start_time, data_dir }
    }

    #[test]
    fn a_command_line_that_ctl_writes_is_distinguished_from_one_that_a_person_types() {
        for (words, expected) in [
            ("agent --config /s/run/demo/a.yaml --data-dir /s/data/demo/a", true),
            ("agent --config agent.yaml", false),
            ("agent --config /etc/coterie/agent.yaml", false),
            ("agent --config", false),
            ("agent", false),
        ] {
            let arguments: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            assert_eq!(has_settings_of_ctl(&arguments), expected, "{words}");
        }
    }

    #[test]
    fn a_pid_that_was_given_to_another_process_is_not_ours() {
        let recorded = ProcessId { pid: 10, start_time: 1000, data_dir: PathBuf::from("/d") };
        let at = |path: &str| DataDir::At(PathBuf::from(path));
        for (observed, expected) in [
            (Observed::Absent, false),
            (Observed::Ended, false),
            (alive(1000, at("/d")), true),
            // The clock was set since.
            (alive(1002, at("/d")), true),
            (alive(0, at("/d")), true),
            (alive(1000, at("/e")), false),
            (alive(1000, DataDir::None), false),
            (alive(1000, DataDir::Unknown), true),
            (alive(0, DataDir::Unknown), false),
        ] {
            assert_eq!(is_alive(&recorded, &observed), expected, "{observed:?}");
        }
    }

    #[test]
    fn a_process_is_signalled_only_when_it_is_the_one_that_was_started() {
        let mut processes = Processes::new().unwrap();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line", "sh", "--data-dir", "/d/c/n1"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Its command line can be read soon after its start.
        let ours = loop {
            if let [found] = &processes.below(Path::new("/d/c"))[..] {
                break found.clone();
            }
        };
        assert_eq!(ours.pid, child.id());
        let foreign = ProcessId { data_dir: PathBuf::from("/d/c/n2"), ..ours.clone() };
        let refused = processes.signal(&foreign, Signal::KILL);
        assert!(matches!(refused, Err(SignalError::Gone(_))));
        assert!(processes.is_alive(&ours) && !processes.is_stopped(&ours));
        processes.signal(&ours, Signal::STOP).unwrap();
        while !processes.is_stopped(&ours) {
            std::thread::yield_now();
        }
        assert!(processes.is_alive(&ours));
        assert_eq!(processes.below(Path::new("/d/c")), std::slice::from_ref(&ours));
        processes.signal(&ours, Signal::KILL).unwrap();
        while processes.is_alive(&ours) {
            std::thread::yield_now();
        }
        // Not reaped yet: a zombie counts as ended.
        let refused = processes.signal(&ours, Signal::KILL);
        assert!(matches!(refused, Err(SignalError::Gone(_))));
        child.wait().unwrap();
        assert_eq!(processes.observe(child.id()), Observed::Absent);
    }

    #[test]
    fn an_agent_is_found_by_its_data_folder() {
        let arguments = ["agent", "--data-dir", "/d/c/n1", "--shard", "0"].map(OsString::from);
        assert_eq!(data_dir_argument(&arguments), Some(Path::new("/d/c/n1")));
        assert_eq!(data_dir_argument(&arguments[..2]), None);
        assert_eq!(data_dir_argument(&[]), None);
        let parent = ["agent", "supervise", "/run/c/n1.start", "--adopt", "7"].map(OsString::from);
        assert_eq!(data_dir_argument(&parent), Some(Path::new("/run/c/n1.start")));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["KILL", "sigkill", "9"] {
            assert_eq!(parse_signal(text), Ok(Signal::KILL));
        }
        assert_eq!(signal_name(Signal::STOP), "STOP");
        assert!(parse_signal("NOPE").unwrap_err().starts_with("known are HUP, INT"));
    }
}
