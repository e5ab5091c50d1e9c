//! What a node keeps of a person's word.

use serde::{Deserialize, Serialize};

use crate::role::Role;

/// What a person last asked of a node: `role.json` in its data folder. It counts for more than flags and manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRole {
    /// The role that it was given.
    pub role: Role,
    /// Whether the role is kept but not run.
    #[serde(default)]
    pub drained: bool,
}

impl KeptRole {
    /// The name of its file.
    pub const FILE: &str = "role.json";
}
