//! SQLite's FTS5 and DuckDB's full-text extension, in a Python process that measures itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::search::queries::{Kind, Query};

const SCRIPT: &str = include_str!("sql.py");
/// The time limit of a run.
const LIMIT: Duration = Duration::from_secs(1_200);

/// A database with full-text search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    DuckDb,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sqlite => "SQLite FTS5",
            Self::DuckDb => "DuckDB fts",
        })
    }
}

/// What a database measured.
#[derive(Debug, Deserialize)]
pub(crate) struct OfDatabase {
    pub(crate) version: String,
    pub(crate) index_seconds: f64,
    /// Each kind's results, or why it can't be asked.
    pub(crate) kinds: BTreeMap<Kind, Result<OfKind, String>>,
    /// The memory of the process after all queries.
    pub(crate) rss_mib: f64,
    /// The size of its file.
    pub(crate) mib: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OfKind {
    pub(crate) took_ms: Vec<f64>,
    pub(crate) cpu_us: f64,
    /// The number of matches of each of the first queries.
    pub(crate) totals: Vec<usize>,
}

/// Indexes a file and runs the queries. `Err` says what is missing.
pub(crate) async fn measure(
    database: Database,
    file: &Path,
    queries: &BTreeMap<Kind, Vec<Query>>,
    each: Duration,
) -> anyhow::Result<Result<OfDatabase, String>> {
    let folder = tempfile::tempdir()?;
    let words: BTreeMap<_, Vec<_>> = (queries.iter())
        .map(|(kind, queries)| (kind.key(), queries.iter().map(|query| &query.words).collect()))
        .collect();
    let config = folder.path().join("config.json");
    let name = match database {
        Database::Sqlite => "sqlite",
        Database::DuckDb => "duckdb",
    };
    let text = json!({ "engine": name, "file": file, "folder": folder.path(), "queries": words, "seconds": each.as_secs_f64() });
    std::fs::write(&config, text.to_string())?;
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(&config).stdin(Stdio::null()).kill_on_drop(true);
    let Ok(running) = timeout(LIMIT, command.output()).await else {
        bail!("{database} took more than {LIMIT:?}")
    };
    let output = match running {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err("no python3".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    if !output.status.success() {
        bail!("{database}: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{database}: {}", String::from_utf8_lossy(&output.stdout)))
}
