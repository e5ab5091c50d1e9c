//! What was measured, as a table and as a file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::stats::Summary;
use crate::table;

/// One run of one command.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    at_unix_s: u64,
    cores: usize,
    load_before: String,
    load_after: String,
    pub(crate) rows: Vec<Row>,
    /// Remarks for people, below the table.
    pub(crate) notes: Vec<String>,
    /// Everything else that may explain a number.
    pub(crate) details: Vec<Value>,
    error: Option<String>,
}

/// One number, ours and Serf's.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) nodes: usize,
    pub(crate) unit: &'static str,
    pub(crate) ours: Option<Summary>,
    pub(crate) peer: Peer,
    pub(crate) targets: Vec<Target>,
}

/// What Serf made of the same task.
#[derive(Debug, Clone, Serialize)]
pub(crate) enum Peer {
    /// The better one of its profiles.
    Measured { profile: String, summary: Summary },
    /// It could not be measured.
    Missing(String),
    /// It has no such task.
    None,
}

/// What a number has to be.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) enum Target {
    P50(f64),
    P99(f64),
    Max(f64),
    /// Ours to Serf's, by p50.
    Ratio(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P50(limit) => write!(f, "p50 <= {limit}"),
            Self::P99(limit) => write!(f, "p99 <= {limit}"),
            Self::Max(limit) => write!(f, "max <= {limit}"),
            Self::Ratio(limit) => write!(f, "ratio <= {limit}"),
        }
    }
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, nodes: usize, unit: &'static str) -> Self {
        Self { what: what.into(), nodes, unit, ours: None, peer: Peer::None, targets: Vec::new() }
    }

    pub(crate) fn ours(self, ours: Option<Summary>) -> Self {
        Self { ours, ..self }
    }

    pub(crate) fn peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Ours to Serf's, by p50.
    pub(crate) fn ratio(&self) -> Option<f64> {
        match (&self.ours, &self.peer) {
            (Some(ours), Peer::Measured { summary, .. }) => Some(ours.p50 / summary.p50),
            _ => None,
        }
    }

    /// Whether each target that can be judged is met; none if there is none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let met = |target: &Target| {
            let ours = self.ours.as_ref();
            match target {
                Target::P50(limit) => ours.map(|ours| ours.p50 <= *limit),
                Target::P99(limit) => ours.map(|ours| ours.p99 <= *limit),
                Target::Max(limit) => ours.map(|ours| ours.max <= *limit),
                Target::Ratio(limit) => self.ratio().map(|ratio| ratio <= *limit),
            }
        };
        let judged: Vec<bool> = self.targets.iter().filter_map(met).collect();
        (!judged.is_empty()).then(|| judged.into_iter().all(|met| met))
    }
}

impl Peer {
    /// The better one of several profiles, each with its samples or the reason why there are none.
    pub(crate) fn best(profiles: Vec<(String, Result<Summary, String>)>) -> Self {
        let mut best: Option<(String, Summary)> = None;
        let mut why = Vec::new();
        for (profile, measured) in profiles {
            match measured {
                Ok(summary) if best.as_ref().is_none_or(|(_, best)| summary.p50 < best.p50) => {
                    best = Some((profile, summary));
                }
                Ok(_) => {}
                Err(reason) => why.push(format!("{profile}: {reason}")),
            }
        }
        match best {
            Some((profile, summary)) => Self::Measured { profile, summary },
            None if why.is_empty() => Self::Missing("not measured".to_owned()),
            None => Self::Missing(why.join("; ")),
        }
    }
}

impl Report {
    pub(crate) fn begin(name: &'static str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name,
            at_unix_s: since.as_secs(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            load_before: load(),
            load_after: String::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            details: Vec::new(),
            error: None,
        }
    }

    /// Prints the table and writes the file.
    pub(crate) fn finish(&mut self, json: Option<&Path>, outcome: &anyhow::Result<()>) -> anyhow::Result<()> {
        self.load_after = load();
        self.error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        println!("{}", table::render(&self.rows));
        for note in &self.notes {
            println!("{note}");
        }
        println!("{} cores; load average {} before, {} after", self.cores, self.load_before, self.load_after);
        let file = match json {
            Some(file) => file.to_owned(),
            None => self.default_file()?,
        };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
        Ok(())
    }

    /// `bench/` in the target folder that this binary stands in.
    fn default_file(&self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe().context("where this binary is")?;
        let target = own.ancestors().nth(2).context("this binary is in no target folder")?;
        Ok(target.join("bench").join(format!("{}-{}.json", self.name, self.at_unix_s)))
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], peer: &[f64]) -> Row {
        let peer = Peer::best(vec![("lan".to_owned(), Summary::of(peer).ok_or("absent".to_owned()))]);
        Row::new("x", 5, "ms").ours(Summary::of(ours)).peer(peer)
    }

    #[test]
    fn a_row_is_met_only_if_each_of_its_targets_is() {
        let fast = row(&[10.0, 20.0], &[100.0]).target(Target::P99(20.0));
        assert_eq!(fast.is_met(), Some(true));
        assert_eq!(fast.target(Target::Ratio(0.05)).is_met(), Some(false));
    }

    #[test]
    fn without_a_peer_its_ratio_is_not_judged() {
        let alone = row(&[10.0], &[]).target(Target::Ratio(0.25));
        assert_eq!(alone.is_met(), None);
        assert_eq!(alone.target(Target::P50(10.0)).is_met(), Some(true));
    }

    #[test]
    fn of_two_profiles_the_better_one_is_the_peer() {
        let peer = Peer::best(vec![
            ("local".to_owned(), Ok(Summary::of(&[3.0]).unwrap())),
            ("lan".to_owned(), Ok(Summary::of(&[2.0]).unwrap())),
            ("wan".to_owned(), Err("it did not start".to_owned())),
        ]);
        assert!(matches!(peer, Peer::Measured { profile, .. } if profile == "lan"));
    }
}
