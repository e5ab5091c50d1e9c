//! How an agent's process is restarted: the files that `ctl`, `agent supervise` and the agent write for one another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When a node's process is restarted after it has ended. A node that left, or that an operator stopped or aborted, is
/// never restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// After a failure or a kill, unless there were too many in a short time.
    #[default]
    OnFailure,
    /// The same, without a limit.
    Always,
    /// Never.
    No,
}

impl RestartPolicy {
    /// All policies, as they are written in manifests.
    pub const NAMES: [&str; 3] = ["on-failure", "always", "no"];

    /// As it is written in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::Always => "always",
            Self::No => "no",
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::OnFailure, Self::Always, Self::No]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| format!("`{text}` is none of {}", Self::NAMES.join(", ")))
    }
}

/// What `agent supervise` runs: `run/CLUSTER/NODE.start`, written by `ctl` before each start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartFile {
    /// The manifest that the node was last started from.
    #[serde(default)]
    pub manifest: PathBuf,
    /// The agent's binary; looked up again at each start.
    pub binary: PathBuf,
    /// Its command line, without the binary.
    pub arguments: Vec<String>,
    /// The file that it logs to.
    pub log: PathBuf,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// When it is restarted.
    pub restart: RestartPolicy,
}

impl StartFile {
    /// The extension of its name.
    pub const EXTENSION: &str = "start";

    /// The value of a flag in the command line.
    pub fn argument(&self, flag: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        arguments.find(|argument| *argument == flag)?;
        arguments.next().map(String::as_str)
    }
}

/// A process, by its id and the time of its start, since ids are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStart {
    /// Its process id.
    pub pid: u32,
    /// Unix seconds.
    pub start_time: u64,
}

/// What the parent of an agent records about it: `run/CLUSTER/NODE.pid`, written at each start and each end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFile {
    /// The agent's process, while it runs.
    #[serde(flatten)]
    pub agent: Option<ProcessStart>,
    /// Its parent.
    pub parent: Option<ProcessStart>,
    /// How often it was restarted.
    #[serde(default)]
    pub restarts: u64,
    /// Why it ended the last time, unless it was stopped.
    #[serde(default)]
    pub last_end: Option<String>,
    /// Why it is no longer restarted, if so.
    #[serde(default)]
    pub over: Option<String>,
}

impl PidFile {
    /// The extension of its name.
    pub const EXTENSION: &str = "pid";

    /// The pid file of the node of a start file.
    pub fn beside(start_file: &Path) -> PathBuf {
        start_file.with_extension(Self::EXTENSION)
    }
}

/// The progress of an agent's process: `run.json` in its data folder, written by the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMark {
    /// The process id.
    pub pid: u32,
    /// Whether its role was ready once.
    pub was_ready: bool,
    /// How it ended; absent while it runs, and if it was killed.
    #[serde(default)]
    pub end: Option<RunEnd>,
}

impl RunMark {
    /// The name of its file.
    pub const FILE: &str = "run.json";
}

/// How an agent's process ended, unless it was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Its exit code.
    pub code: u8,
    /// Why.
    pub reason: Option<String>,
    /// Whether it would end in the same way after a restart.
    pub is_final: bool,
}

/// The environment variable with the number of restarts of an agent.
pub const RESTARTS: &str = "COTERIE_RESTARTS";
/// The environment variable with the reason for an agent's last end.
pub const LAST_END: &str = "COTERIE_LAST_END";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_is_printed_parses_to_the_same_policy() {
        for name in RestartPolicy::NAMES {
            let policy: RestartPolicy = name.parse().unwrap();
            assert_eq!(
                (policy.to_string().as_str(), serde_json::to_value(policy).unwrap()),
                (name, name.into())
            );
        }
        assert!("never".parse::<RestartPolicy>().unwrap_err().contains("on-failure, always, no"));
    }

    #[test]
    fn a_pid_file_has_the_agents_pid_at_its_top() {
        let agent = ProcessStart { pid: 7, start_time: 8 };
        let file = PidFile {
            agent: Some(agent),
            parent: Some(ProcessStart { pid: 5, start_time: 6 }),
            restarts: 1,
            last_end: Some("killed".to_owned()),
            over: None,
        };
        let text = serde_json::to_value(&file).unwrap();
        assert_eq!((&text["pid"], &text["start_time"]), (&7.into(), &8.into()));
        assert_eq!(serde_json::from_value::<PidFile>(text).unwrap(), file);
        let ended = PidFile { agent: None, ..file };
        let text = serde_json::to_string(&ended).unwrap();
        assert_eq!(serde_json::from_str::<PidFile>(&text).unwrap(), ended);
    }
}
