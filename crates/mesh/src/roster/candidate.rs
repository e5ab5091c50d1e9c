//! A member of a service, and what it may be sent.

use std::time::Duration;

use tokio::time::Instant;
use types::{Epoch, Generation, NodeId, Phase, Role, Target};

use crate::base_url::BaseUrl;

/// A member of a service.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(super) generation: Generation,
    pub(crate) url: BaseUrl,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(super) epoch: Option<Epoch>,
    /// It serves, and no other member owns its shard under a higher epoch.
    pub(super) is_serving: bool,
    /// It is a replica of a shard that another member owns.
    pub(super) is_replica: bool,
    /// The service is so large that this node uses others; it is for requests that none of those can take.
    pub(crate) is_spare: bool,
    /// Since when it has served.
    pub(super) serving_since: Option<Instant>,
    /// Set if it disappeared from the view and is kept in a panic.
    pub(crate) kept: Option<Kept>,
}

/// A member that is kept in a panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// When it disappeared.
    pub(crate) since: Instant,
    /// A connection that could not be opened at this time or later means that it is gone.
    pub(super) connects_from: Instant,
}

impl Candidate {
    /// Whether a request for this target may be sent to it now.
    pub(crate) fn serves(&self, target: Target) -> bool {
        let is_replica_enough = matches!(target, Target::Any | Target::ShardReplica(_));
        self.is_serving
            && fits(&self.role, target)
            && (is_replica_enough || !self.is_replica)
            && self.is_present()
    }

    /// Whether requests may be sent to it at all.
    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving && self.is_present()
    }

    /// Whether it is in the view, or is kept in a panic and has accepted every connection since.
    pub(crate) fn is_present(&self) -> bool {
        let refused_at = self.url.state().unreachable_at();
        self.kept.is_none_or(|kept| refused_at.is_none_or(|at| at < kept.connects_from))
    }

    /// Whether others can take its place. A shard has one owner, so a request for it waits instead.
    pub(crate) fn is_replaceable(&self) -> bool {
        self.role.shard().is_none() || self.is_replica
    }

    /// How long it has served.
    pub(crate) fn serving_for(&self, now: Instant) -> Duration {
        self.serving_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Whether a role is that of a target.
pub(super) fn fits(role: &Role, target: Target) -> bool {
    match target {
        Target::Any => true,
        Target::Shard(shard) | Target::ShardReplica(shard) => role.shard() == Some(shard),
        // A key whose shard is not known yet.
        Target::Key(_) | Target::KeyReplica(_) => false,
    }
}
