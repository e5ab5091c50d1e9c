//! Logs go to standard error: coloured on a terminal only.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged unless told otherwise: what changed, and of gossip only what is wrong.
pub(crate) const DEFAULT_FILTER: &str = "info,chitchat=error";

/// Starts to log. A filter that can't be read is replaced by the default one, and that is said.
pub(crate) fn start(filter: &str, as_json: bool) {
    let (parsed, problem) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error.to_string())),
    };
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(is_coloured);
    let started = if as_json { builder.json().try_init() } else { builder.with_target(false).try_init() };
    if let Err(error) = started {
        eprintln!("warning: logs can't be written: {error}");
    }
    if let Some(problem) = problem {
        tracing::warn!(filter, problem, "the log filter can't be read; using {DEFAULT_FILTER}");
    }
}
