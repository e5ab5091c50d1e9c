//! An access log in the settings of a service, and its plan after the check.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SettingsMistake;
use crate::settings::{absolute_path, resolve_path};

/// The name of the standard output.
pub const STDOUT: &str = "stdout";
/// Names that other programs have for outputs of a process, and that are unlikely to be meant as files.
const NO_FILES: [&str; 4] = ["stderr", "-", "syslog", "journald"];

/// Where each request is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` of the agent (agents that `ctl up` starts have none), or a file; a path that is not absolute is relative to the
    /// manifest. Its folder is created if it is missing. The file is opened again when the agent gets SIGHUP, and within a second
    /// after it was moved away, so `logrotate` needs no signal.
    pub to: String,
    /// `json`: an object on each line. `combined`: the format of that name of Apache and nginx. Default: `json`.
    #[serde(default)]
    pub format: LogFormat,
    /// `keep` logs the query of a request with its path, `omit` leaves it out. Default: `keep`.
    #[serde(default)]
    pub query: QueryLog,
}

/// The format of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A JSON object.
    #[default]
    Json,
    /// Apache's and nginx's format of this name.
    Combined,
}

/// Whether queries are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueryLog {
    /// They are.
    #[default]
    Keep,
    /// They are left out.
    Omit,
}

/// A checked access log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLogPlan {
    /// The file; none for the standard output.
    pub file: Option<PathBuf>,
    /// The format of a line.
    pub format: LogFormat,
    /// Whether queries are logged.
    pub query: QueryLog,
}

impl AccessLogSettings {
    /// Checks the settings, which are at `/access_log`.
    pub fn plan(&self, mistakes: &mut Vec<SettingsMistake>) -> AccessLogPlan {
        let file = log_file(&self.to, mistakes);
        AccessLogPlan { file, format: self.format, query: self.query }
    }
}

/// The file of `/access_log/to`; none for the standard output.
pub(super) fn log_file(to: &str, mistakes: &mut Vec<SettingsMistake>) -> Option<PathBuf> {
    let pointer = "/access_log/to";
    if NO_FILES.contains(&to) {
        let message = format!("the access log can't go to `{to}`");
        let hint = format!("write `stdout`, or the path of a file; `./{to}` is a file of that name");
        mistakes.push(SettingsMistake::new(pointer, message).hint(hint));
        return None;
    }
    (to != STDOUT).then(|| absolute_path(pointer, to, mistakes))
}

/// Warns of a log that nobody could read, for [`Plugin::check_files`](crate::Plugin::check_files): `ctl up` starts the agents of
/// a manifest.
pub fn access_log_warning(settings: &serde_json::Value) -> Option<SettingsMistake> {
    let to = settings.get("access_log")?.get("to")?.as_str()?;
    let message = "the agents of a manifest have no standard output, so this log would be lost";
    let mistake =
        || SettingsMistake::new("/access_log/to", message).hint("name a file: `to: logs/access.log`");
    (to == STDOUT).then(mistake)
}

/// Makes the path of an access log in settings absolute, for [`Plugin::resolve_files`](crate::Plugin::resolve_files).
pub fn resolve_access_log(settings: &mut serde_json::Value, folder: &Path) {
    let log = settings.get_mut("access_log").and_then(|log| log.get_mut("to"));
    let is_file = |to: &str| to != STDOUT && !NO_FILES.contains(&to);
    if let Some(path) = log.filter(|to| to.as_str().is_some_and(is_file)) {
        resolve_path(path, folder);
    }
}
