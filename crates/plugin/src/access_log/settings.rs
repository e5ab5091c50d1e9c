//! An access log in the settings of a service, and its plan after the check.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SettingsMistake;
use crate::settings::{absolute_path, resolve_path};

/// The name of the standard output.
pub const STDOUT: &str = "stdout";

/// Where each request is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` of the agent, or a file; a path that is not absolute is relative to the manifest. The file is opened again
    /// when the agent gets SIGHUP, and within a second after it was moved away, so `logrotate` needs no signal.
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
        let file = (self.to != STDOUT).then(|| absolute_path("/access_log/to", &self.to, mistakes));
        AccessLogPlan { file, format: self.format, query: self.query }
    }
}

/// Makes the path of an access log in settings absolute, for [`Plugin::resolve_files`](crate::Plugin::resolve_files).
pub fn resolve_access_log(settings: &mut serde_json::Value, folder: &Path) {
    let log = settings.get_mut("access_log").and_then(|log| log.get_mut("to"));
    if let Some(path) = log.filter(|to| *to != STDOUT) {
        resolve_path(path, folder);
    }
}
