//! The results of a run, as a table and as a file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::results;
use crate::rows::Row;
use crate::table;

/// One run of one command.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    /// The software that was compared.
    peer: &'static str,
    /// The measured commit; a `+` marks uncommitted changes.
    head: String,
    /// The day, as `2026-11-29`.
    date: String,
    at_unix_s: u64,
    /// The processor and its number of cores.
    machine: String,
    cores: usize,
    load_before: String,
    load_after: String,
    pub(crate) rows: Vec<Row>,
    /// Remarks below the table.
    pub(crate) notes: Vec<String>,
    /// Other data that may explain a number.
    pub(crate) details: Vec<Value>,
    error: Option<String>,
}

impl Report {
    pub(crate) fn begin(name: &'static str, peer: &'static str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name,
            peer,
            head: results::head(),
            date: humantime::format_rfc3339_seconds(UNIX_EPOCH + since)
                .to_string()
                .chars()
                .take(10)
                .collect(),
            at_unix_s: since.as_secs(),
            machine: results::machine(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            load_before: load(),
            load_after: String::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            details: Vec::new(),
            error: None,
        }
    }

    /// Prints the table, with each row's ratio to the committed results, and writes the file. With `record` the file
    /// becomes the committed results, unless the run failed.
    pub(crate) fn finish(
        &mut self,
        json: Option<&Path>,
        record: bool,
        outcome: &anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.load_after = load();
        self.error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        let kept = results::read(self.name)?;
        println!("{}", table::render(&self.rows, self.peer, kept.as_ref()));
        if let Some(kept) = kept {
            println!("committed: {}, {}, {}", kept.head, kept.date, kept.machine);
        }
        for note in &self.notes {
            println!("{note}");
        }
        println!("{} cores; load average {} before, {} after", self.cores, self.load_before, self.load_after);
        let file = match json {
            Some(file) => file.to_owned(),
            None => self.default_file()?,
        };
        self.write(&file)?;
        if record && outcome.is_ok() {
            self.write(&results::file(self.name))?;
            println!("run `bench page` to update docs/benchmarks.org");
        }
        Ok(())
    }

    fn write(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
        Ok(())
    }

    /// `bench/` in the target folder of this binary.
    fn default_file(&self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("finding this binary")?;
        let target = own.ancestors().nth(2).context("this binary is not in a target folder")?;
        Ok(target.join("bench").join(format!("{}-{}.json", self.name, self.at_unix_s)))
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
