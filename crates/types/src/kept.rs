//! The operator's last command, kept by the node.

use serde::{Deserialize, Serialize};

use crate::role::Role;

/// The operator's last command to a node: `role.json` in its data folder. It overrides flags and manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRole {
    /// The role.
    pub role: Role,
    /// Whether the role is kept but not run.
    #[serde(default)]
    pub drained: bool,
}

impl KeptRole {
    /// The name of its file.
    pub const FILE: &str = "role.json";
}
