//! Chooses the manifest of `ctl up`. A running cluster keeps its own.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::exit::{Exit, Failure};
use crate::hints::quoted;
use crate::manifest_file::{self, is_stdin};
use crate::reach::Cx;
use crate::record::{ClusterRecord, LastRun};

/// The file in the run folder that keeps a manifest from standard input.
const KEPT: &str = "manifest.stdin";

/// The named file, else that of the named cluster if known, else the first default that exists here.
pub(super) fn choose(named: Option<&Path>, cx: &Cx) -> anyhow::Result<PathBuf> {
    let (None, Some(cluster)) = (named, &cx.cluster) else {
        return Ok(manifest_file::choose(named)?);
    };
    let record = ClusterRecord::load(&cx.state, cluster)?.map(|record| record.manifest);
    let known = match record {
        Some(file) => Some(file),
        None => LastRun::load(&cx.state, cluster)?.map(|last| last.manifest),
    };
    match known {
        Some(file) if file.is_file() => Ok(file),
        Some(file) => {
            let message = format!("{}, which cluster `{cluster}` was started from, is gone", file.display());
            let hint = match manifest_file::choose(None) {
                Ok(file) => format!(
                    "`ctl up {} --cluster {cluster} --replace` makes the one here its manifest",
                    quoted(&file.display().to_string())
                ),
                Err(_) => format!(
                    "put it back, or write another there; `ctl up --cluster {cluster}` then starts from it"
                ),
            };
            Err(Failure::new(Exit::Usage, message).hint(hint).into())
        }
        None => Ok(manifest_file::choose(None)?),
    }
}

/// Refuses to start a running cluster from another manifest.
pub(super) fn check(file: &Path, record: &ClusterRecord, is_running: bool) -> Result<(), Failure> {
    if !is_running || is_same(&record.manifest, file) {
        return Ok(());
    }
    let cluster = &record.cluster;
    let shown = |path: &Path| quoted(&path.display().to_string());
    let message = format!(
        "cluster `{cluster}` runs from {}, not from {}",
        record.manifest.display(),
        if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() }
    );
    Err(Failure::new(Exit::Conflict, message).hint(format!(
        "`ctl up --cluster {cluster}` uses its own, `ctl up {0} --cluster {cluster} --replace` makes this one its manifest, \
         `ctl up {0} --cluster {cluster}-2` starts another cluster from it",
        shown(file)
    )))
}

fn is_same(recorded: &Path, file: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    !is_stdin(file) && canonical(recorded) == canonical(file)
}

/// The path to record for a manifest; one from standard input is first stored in the run folder.
pub(super) fn keep(file: &Path, text: &str, run_dir: &Path) -> anyhow::Result<PathBuf> {
    if !is_stdin(file) {
        return Ok(std::path::absolute(file)?);
    }
    let kept = run_dir.join(KEPT);
    std::fs::write(&kept, text).with_context(|| format!("writing {}", kept.display()))?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_cluster_keeps_its_manifest_under_any_path_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        std::fs::write(path("a.yaml"), "").unwrap();
        std::fs::write(path("b.yaml"), "").unwrap();
        std::os::unix::fs::symlink(path("a.yaml"), path("link.yaml")).unwrap();
        let record = ClusterRecord {
            cluster: "demo".parse().unwrap(),
            manifest: path("a.yaml"),
            agent: None,
            started_at_ms: 0,
            nodes: Vec::new(),
        };
        for (file, is_running, is_right) in [
            (path("a.yaml"), true, true),
            (path("sub/../a.yaml"), true, true),
            (path("link.yaml"), true, true),
            (path("b.yaml"), true, false),
            (path("b.yaml"), false, true),
            (PathBuf::from("-"), true, false),
        ] {
            let checked = check(&file, &record, is_running);
            assert_eq!(checked.is_ok(), is_right, "{}: {checked:?}", file.display());
        }
    }
}
