//! Where ctl keeps what it knows of the clusters on this machine.
//!
//! `run/<cluster>/` holds the record, the logs and the agents' settings; `data/<cluster>/<node>/` is the agents' own;
//! `store/<cluster>/` is the object store of a cluster whose manifest names no other.

use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use types::{ClusterId, NodeId};

/// The root of it all: `$COTERIE_STATE_DIR`, else `$XDG_STATE_HOME/coterie`.
#[derive(Debug, Clone)]
pub(crate) struct State {
    root: PathBuf,
}

impl State {
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        if let Some(root) = std::env::var_os("COTERIE_STATE_DIR").filter(|root| !root.is_empty()) {
            return Ok(Self::at(std::path::absolute(root)?));
        }
        let base = etcetera::choose_base_strategy()?;
        let state = base.state_dir().unwrap_or_else(|| base.data_dir());
        Ok(Self::at(state.join("coterie")))
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

    /// The store of clusters that name no other: a folder below it for each.
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

/// The folders whose names are those of clusters.
fn named_below(folder: &Path) -> io::Result<Vec<ClusterId>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut clusters = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        clusters.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    clusters.sort();
    Ok(clusters)
}
