//! The record of the cluster that is brought up, and the logs of its last run.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::source;
use crate::manifest_file::Loaded;
use crate::process::Processes;
use crate::reach::is_running;
use crate::record::ClusterRecord;
use crate::render;
use crate::state::State;
use crate::supervision;
use crate::tail;

/// The record of the cluster, and whether no node of it runs.
pub(super) async fn record(
    state: &State,
    loaded: &Loaded,
    file: &Path,
    may_replace: bool,
) -> anyhow::Result<(ClusterRecord, bool)> {
    let manifest = &loaded.checked.manifest;
    let mut processes = Processes::new()?;
    let known = ClusterRecord::load(state, &manifest.cluster)?;
    let mut record = known.unwrap_or_else(|| ClusterRecord {
        cluster: manifest.cluster.clone(),
        manifest: PathBuf::new(),
        agent: None,
        started_at_ms: 0,
        nodes: Vec::new(),
    });
    supervision::settled(&state.run_dir(&manifest.cluster), &mut processes).await;
    let is_fresh = !is_running(&record, &mut processes);
    if !may_replace {
        source::check(file, &record, !is_fresh)?;
    }
    if is_fresh {
        record.started_at_ms = render::now_ms();
    }
    record.manifest = source::keep(file, &loaded.source, &state.run_dir(&manifest.cluster))?;
    record.nodes.retain(|node| {
        let is_wanted = manifest.nodes.iter().any(|wanted| wanted.id == node.id);
        is_wanted || node.is_running(&mut processes)
    });
    for node in &mut record.nodes {
        if let Some(wanted) = manifest.nodes.iter().find(|wanted| wanted.id == node.id) {
            node.role = wanted.role.clone();
        }
    }
    Ok((record, is_fresh))
}

pub(super) fn remove_logs(run_dir: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(run_dir).with_context(|| format!("reading {}", run_dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if tail::is_log(&path) {
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}
