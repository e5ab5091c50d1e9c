//! What a node is assigned: its role, what the role runs with, and what the node does with the role's shard.

use plugin::{Claim, Duty};
use types::{Post, Reason, Role};

use crate::node::cluster_store::Terms;
use crate::takeover::claim_watch::ClaimWatch;

/// The state of a node that belongs to its role. A role change replaces it as a whole; a change that fails restores the old
/// one.
pub(super) struct Assignment {
    pub(super) role: Role,
    /// What the role runs with, once the spec has been read.
    pub(super) terms: Option<Terms>,
    pub(super) duty: ShardDuty,
    /// Why the node has this role, if no operator commanded it.
    pub(super) note: Option<Reason>,
}

/// What a node does with the shard of its role.
pub(super) enum ShardDuty {
    /// Nothing: the shard has no owner, or the node has not taken it yet.
    None,
    /// It owns the shard.
    Primary(ClaimWatch),
    /// It has a replica of the shard.
    Replica,
}

impl Assignment {
    pub(super) fn new(role: Role) -> Self {
        Self { role, terms: None, duty: ShardDuty::None, note: None }
    }
}

impl ShardDuty {
    pub(super) fn claim_watch(&self) -> Option<&ClaimWatch> {
        match self {
            Self::Primary(watch) => Some(watch),
            Self::None | Self::Replica => None,
        }
    }

    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim_watch().map(ClaimWatch::claim)
    }

    /// Whether this node has the claim, and is not known to have lost it.
    pub(super) fn is_held(&self) -> bool {
        self.claim().is_some_and(|claim| claim.new_owner().is_none())
    }

    /// Removes the claim and returns it; the duty is none afterwards. A replica stays one.
    pub(super) fn take_claim(&mut self) -> Option<ClaimWatch> {
        match std::mem::replace(self, Self::None) {
            Self::Primary(watch) => Some(watch),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(super) fn is_replica(&self) -> bool {
        matches!(self, Self::Replica)
    }

    /// Whether others may take the shard, since the store has not answered this owner for too long.
    pub(super) fn is_resigned(&self) -> bool {
        self.claim_watch().is_some_and(|watch| watch.is_resigned)
    }

    /// The duty as a service sees it.
    pub(super) fn of_service(&self) -> Duty {
        match self {
            Self::None => Duty::None,
            Self::Primary(watch) => Duty::Primary(watch.claim().clone()),
            Self::Replica => Duty::Replica,
        }
    }

    /// The duty as members see it.
    pub(super) fn post(&self) -> Option<Post> {
        match self {
            Self::None => None,
            Self::Primary(_) => Some(Post::Primary),
            Self::Replica => Some(Post::Replica),
        }
    }
}
