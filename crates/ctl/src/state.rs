//! The state folder: what ctl keeps about the clusters on this machine.
//!
//! `run/<cluster>/` holds the record, the logs and the agents' settings; `data/<cluster>/<node>/` belongs to the agent;
//! `store/<cluster>/` is the object store of a cluster whose manifest names no other.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use etcetera::BaseStrategy;
use types::{ClusterId, NodeId};

use crate::exit::{Exit, Failure};

/// The least space that a start needs.
const NEEDED_BYTES: usize = 256 * 1024;

/// The root folder: `$COTERIE_STATE_DIR`, else `$XDG_STATE_HOME/coterie`.
#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let root = match std::env::var_os("COTERIE_STATE_DIR").filter(|root| !root.is_empty()) {
            Some(root) => manifest::absolute(Path::new(&root)).context("the working folder can't be read")?,
            None => {
                let base = etcetera::choose_base_strategy()?;
                base.state_dir().unwrap_or_else(|| base.data_dir()).join("coterie")
            }
        };
        if root.to_str().is_none() {
            // Records, settings files and the store's URL contain it as text.
            let message = format!("the path of the state folder, {}, is not in UTF-8", root.display());
            return Err(Failure::new(Exit::Usage, message)
                .hint("name another folder with COTERIE_STATE_DIR")
                .into());
        }
        Ok(Self::at(root))
    }

    /// Fails if the run folder of a cluster can't be written to, or its disk is full: a start would fail halfway.
    pub(crate) fn has_room(&self, cluster: &ClusterId) -> Result<(), Failure> {
        let run_dir = self.run_dir(cluster);
        let probe = run_dir.join(format!("room{}", std::process::id()));
        let written =
            std::fs::create_dir_all(&run_dir).and_then(|()| std::fs::write(&probe, [0; NEEDED_BYTES]));
        let removed = std::fs::remove_file(&probe);
        written.and(removed).map_err(|error| {
            // Removed only if it is empty.
            let _ = std::fs::remove_dir(&run_dir);
            Failure::new(Exit::Error, format!("{} can't be written: {error}", run_dir.display()))
                .hint("nothing was started; make room there, or name another folder with COTERIE_STATE_DIR")
        })
    }

    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The run folder of a cluster.
    pub(crate) fn run_dir(&self, cluster: &ClusterId) -> PathBuf {
        self.root.join("run").join(cluster.as_str())
    }

    /// The folder above the data folders of a cluster's nodes.
    pub(crate) fn cluster_data_dir(&self, cluster: &ClusterId) -> PathBuf {
        self.root.join("data").join(cluster.as_str())
    }

    /// The data folder of a node.
    pub(crate) fn data_dir(&self, cluster: &ClusterId, node: &NodeId) -> PathBuf {
        self.cluster_data_dir(cluster).join(node.as_str())
    }

    /// The store of clusters that name no other, with a folder for each.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Every cluster that has a run folder, by name.
    pub(crate) fn clusters(&self) -> io::Result<Vec<ClusterId>> {
        named_below(&self.root.join("run"))
    }

    /// Every cluster that has data folders or a store here, by name.
    pub(crate) fn with_data(&self) -> io::Result<Vec<ClusterId>> {
        let mut clusters = named_below(&self.root.join("data"))?;
        clusters.extend(named_below(&self.store())?);
        clusters.sort();
        clusters.dedup();
        Ok(clusters)
    }
}

/// The error, with the path that it concerns.
pub(crate) fn of_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The folders whose names are cluster names.
fn named_below(folder: &Path) -> io::Result<Vec<ClusterId>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(of_path(folder, &error)),
    };
    let mut clusters = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        clusters.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    clusters.sort();
    Ok(clusters)
}
