//! The access log in the settings of a gateway, and its plan after the check.

use std::path::PathBuf;

use plugin::SettingsMistake;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::listener::file;

/// The name of the standard output.
pub(crate) const STDOUT: &str = "stdout";

/// Where each request is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLogSettings {
    /// `stdout` of the agent, or a file; a path that is not absolute is relative to the manifest. The file is opened again
    /// within a second after it was moved away, so `logrotate` needs no signal.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessLogPlan {
    /// The file; none for the standard output.
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: LogFormat,
    pub(crate) query: QueryLog,
}

impl AccessLogSettings {
    pub(super) fn plan(&self, mistakes: &mut Vec<SettingsMistake>) -> AccessLogPlan {
        let file = (self.to != STDOUT).then(|| file("/access_log/to", &self.to, mistakes));
        AccessLogPlan { file, format: self.format, query: self.query }
    }
}
