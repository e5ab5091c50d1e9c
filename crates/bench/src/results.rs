//! The committed results that docs/benchmarks.org shows: one run of each command, as JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;

use crate::rows::Row;

/// The commands whose results the page shows, in its order.
pub(crate) const NAMES: [&str; 10] =
    ["up", "detect", "swap", "idle", "failover", "move", "kv", "search", "gateway", "balancer"];

/// One committed run.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Kept {
    /// The command.
    pub(crate) name: String,
    /// The software that was compared.
    pub(crate) peer: String,
    /// The measured commit; a `+` marks uncommitted changes.
    pub(crate) head: String,
    /// The day, as `2026-11-29`.
    pub(crate) date: String,
    /// The processor and its number of cores.
    pub(crate) machine: String,
    /// The load average of the machine before the run, over one and five minutes.
    pub(crate) load_before: String,
    pub(crate) rows: Vec<Row>,
}

impl Kept {
    /// The row with the same name, number of nodes and unit.
    pub(crate) fn row(&self, like: &Row) -> Option<&Row> {
        self.rows.iter().find(|row| (&row.what, row.nodes, &row.unit) == (&like.what, like.nodes, &like.unit))
    }
}

/// The folder of the committed results.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

/// The file of a command's committed results.
pub(crate) fn file(name: &str) -> PathBuf {
    folder().join(format!("{name}.json"))
}

/// The committed results of a command, if there are any.
pub(crate) fn read(name: &str) -> anyhow::Result<Option<Kept>> {
    let file = file(name);
    let text = match std::fs::read(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("reading {}", file.display()))?,
    };
    let kept = serde_json::from_slice(&text);
    kept.map(Some).with_context(|| format!("{} is not a result of bench; measure again", file.display()))
}

/// All committed results, in the order of the page.
pub(crate) fn all() -> anyhow::Result<Vec<Kept>> {
    NAMES.iter().filter_map(|name| read(name).transpose()).collect()
}

/// The commit that is checked out here, with a `+` if there are uncommitted changes.
pub(crate) fn head() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    // Changes of the page and of the results themselves do not count.
    let changed =
        git(&["status", "--porcelain", "--", ":/", ":!/crates/bench/results", ":!/docs/benchmarks.org"]);
    if changed.is_some_and(|changed| changed.is_empty()) { commit } else { format!("{commit}+") }
}

/// The processor of this machine and its number of cores.
pub(crate) fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unnamed processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{model}, {cores} core{}", if cores == 1 { "" } else { "s" })
}
