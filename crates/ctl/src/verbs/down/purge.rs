//! Deletes what a cluster has stored on this machine, once the user has confirmed.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use types::ClusterId;

use crate::ask;
use crate::exit::{Exit, Failure};
use crate::out::say;
use crate::reach::Cx;
use crate::render;

/// The folders to delete, of those that exist.
fn folders(cx: &Cx, cluster: &ClusterId) -> Vec<PathBuf> {
    let store = cx.state.store().join(cluster.as_str());
    let all = [cx.state.cluster_data_dir(cluster), store, cx.state.run_dir(cluster)];
    all.into_iter().filter(|folder| folder.exists()).collect()
}

/// Lists what will be deleted and asks. Logs alone are deleted without asking.
pub(super) fn confirm(cx: &Cx, cluster: &ClusterId, is_agreed: bool) -> Result<(), Failure> {
    let folders = folders(cx, cluster);
    let logs = cx.state.run_dir(cluster);
    let is_data = |folder: &PathBuf| *folder != logs && holds_files(folder);
    if !folders.iter().any(is_data) {
        return Ok(());
    }
    say(&format!("--purge deletes all that cluster {cluster} has stored on this machine:"));
    for folder in &folders {
        say(&format!("  {} ({})", folder.display(), render::bytes(size(folder))));
    }
    if is_agreed {
        return Ok(());
    }
    match ask::yes(
        &format!("delete it permanently? type the name of the cluster, {cluster}, to agree"),
        cluster.as_str(),
    ) {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::new(Exit::Usage, "nothing was deleted, and nothing was stopped")),
        None => Err(Failure::new(Exit::Usage, "--purge asks before it deletes, and there is no terminal")
            .hint(format!("`ctl down --cluster {cluster} --purge --yes` deletes without asking"))),
    }
}

/// The error of `--purge` without a name if no cluster runs but data of some is left.
pub(super) fn which(cx: &Cx) -> anyhow::Result<Option<Failure>> {
    let stopped: Vec<_> =
        cx.state.with_data()?.into_iter().filter(|cluster| !folders(cx, cluster).is_empty()).collect();
    let names: Vec<_> = stopped.iter().map(ClusterId::as_str).collect();
    Ok(names.first().map(|first| {
        Failure::new(Exit::Usage, "no cluster runs, and --purge must know which one is meant")
            .hint(format!("`ctl down --cluster {first} --purge` is one; with data are {}", names.join(", ")))
    }))
}

pub(super) fn delete(cx: &Cx, cluster: &ClusterId) -> anyhow::Result<()> {
    for folder in folders(cx, cluster) {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("deleting {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn holds_files(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Bytes of all files below a folder, as far as they can be read.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
