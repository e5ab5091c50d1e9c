//! A shard of a service.

use std::fmt;
use std::str::FromStr;

use crate::id::{ServiceName, ShardId};
use crate::role::{Role, RoleError};

/// One shard of one service: `storage/0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardRef {
    /// The service.
    pub service: ServiceName,
    /// The shard.
    pub shard: ShardId,
}

/// Why a text does not name a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardRefError {
    /// The name or the number is malformed.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// Add the shard: `storage/0`.
    #[error("`{0}` names no shard; a shard is written `storage/0`")]
    NoShard(String),
}

impl ShardRef {
    /// The shard of a service.
    pub fn new(service: ServiceName, shard: ShardId) -> Self {
        Self { service, shard }
    }
}

/// `storage/0`.
impl fmt::Display for ShardRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.service, self.shard))
    }
}

impl FromStr for ShardRef {
    type Err = ShardRefError;
    fn from_str(text: &str) -> Result<Self, ShardRefError> {
        text.parse::<Role>()?.shard_ref().ok_or_else(|| ShardRefError::NoShard(text.to_owned()))
    }
}

/// The role of a node that runs the shard.
impl From<ShardRef> for Role {
    fn from(ShardRef { service, shard }: ShardRef) -> Self {
        Self::Service { service, shard: Some(shard) }
    }
}

impl From<&ShardRef> for Role {
    fn from(shard: &ShardRef) -> Self {
        shard.clone().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_written_as_its_role_is() {
        let shard: ShardRef = "sessions/7".parse().unwrap();
        assert_eq!((shard.service.as_str(), shard.shard.as_u32()), ("sessions", 7));
        assert_eq!(shard.to_string(), "sessions/7");
        assert_eq!(Role::from(&shard).to_string(), "sessions/7");
        assert_eq!(Role::from(&shard).shard_ref(), Some(shard));
    }

    #[test]
    fn a_text_without_a_shard_is_refused() {
        for (text, reason) in [
            ("storage", "`storage` names no shard; a shard is written `storage/0`"),
            ("standby", "`standby` names no shard; a shard is written `storage/0`"),
        ] {
            assert_eq!(text.parse::<ShardRef>().unwrap_err().to_string(), reason);
        }
        for text in ["standby/0", "storage/x", "/0", ""] {
            assert!(matches!(text.parse::<ShardRef>(), Err(ShardRefError::Role(_))), "{text}");
        }
    }
}
