//! The last role command that a node keeps, read from the data folders of nodes that do not run.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Context;
use types::{KeptRole, NodeId};

use crate::state::State;

/// The kept role of each of these nodes that has one. A damaged file is skipped: its agent reports it.
pub(crate) fn roles<'a>(
    state: &State,
    cluster: &types::ClusterId,
    nodes: impl IntoIterator<Item = &'a NodeId>,
) -> BTreeMap<NodeId, KeptRole> {
    let kept = |node: &NodeId| {
        let text = std::fs::read(state.data_dir(cluster, node).join(KeptRole::FILE)).ok()?;
        Some((node.clone(), serde_json::from_slice(&text).ok()?))
    };
    nodes.into_iter().filter_map(kept).collect()
}

/// Removes the kept role of a node that does not run.
pub(crate) fn forget(data_dir: &Path) -> anyhow::Result<()> {
    let path = data_dir.join(KeptRole::FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
