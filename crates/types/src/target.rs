//! Which member of a service type may answer.

use crate::id::ShardId;

/// Which member may answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any ready member of the type.
    Any,
    /// A ready member that has this shard.
    Shard(ShardId),
}

/// Whether a role of a type has a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharding {
    /// No shard: every member is like the others.
    None,
    /// A shard that several members may have at once.
    Unowned,
}
