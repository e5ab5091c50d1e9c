//! Why the cluster's store, or what it states of a service, can't be used.

use std::num::NonZeroU32;
use std::time::Duration;

use plugin::RegistryError;
use store::{OpenError, SpecError, StoreError};
use types::api::StoreInfo;
use types::{ErrorKind, NodeId, ServiceName, ShardRef};

use crate::failure::{Explanation, Failure, STORE_UNAVAILABLE};
use crate::node::services::{AmbiguousService, TypeError};
use crate::node::shard_count::ShardCountError;

/// Why the cluster's store can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreAccessError {
    /// It could not be opened; this is tried again each time.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A request to it failed.
    #[error(transparent)]
    Request(#[from] StoreError),
    /// Try again later.
    #[error("the store did not answer within {0:?}")]
    NoAnswer(Duration),
    /// Start that node with the same store.
    #[error(transparent)]
    Other(#[from] OtherStore),
}

/// A live member uses another store.
#[derive(Debug, thiserror::Error)]
#[error(
    "{me} uses the store {} at {}, {node} the store {} at {}",
    ours.id, ours.url, theirs.id, theirs.url
)]
pub(crate) struct OtherStore {
    pub(crate) me: NodeId,
    pub(crate) ours: StoreInfo,
    pub(crate) node: NodeId,
    pub(crate) theirs: StoreInfo,
}

/// Why this agent can't run a role.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    /// The service's type does not allow it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Name the service.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousService),
    /// The type of the service is not known.
    #[error(transparent)]
    Type(#[from] TypeError),
}

/// Why it is not known what a role runs with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TermsError {
    /// The type of the service is not known.
    #[error(transparent)]
    Type(#[from] TypeError),
    /// The service's type does not allow the role.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The agent's flags contradict the spec, or do not suffice for the first one.
    #[error(transparent)]
    Shards(#[from] ShardCountError),
    /// The spec can't be read.
    #[error(transparent)]
    Store(#[from] StoreAccessError),
    /// The first spec can't be written.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Name a shard that exists.
    #[error("{}", no_such_shard(shard, *shards))]
    NoSuchShard {
        shard: ShardRef,
        /// How many shards the service has.
        shards: NonZeroU32,
    },
    /// Create the service again.
    #[error("{0} was removed: it has no spec")]
    Removed(ServiceName),
    /// Try again.
    #[error("others kept changing the spec of {0}")]
    Contended(ServiceName),
}

fn no_such_shard(ShardRef { service, shard }: &ShardRef, shards: NonZeroU32) -> String {
    match shards.get() {
        1 => format!("{service} has one shard, 0: there is no shard {shard}"),
        shards => format!("{service} has shards 0 to {}: there is no shard {shard}", shards - 1),
    }
}

impl Failure for StoreAccessError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Open(error) => error.explain(),
            Self::Request(error) => error.explain(),
            Self::NoAnswer(_) => Explanation::new(ErrorKind::Unavailable, STORE_UNAVAILABLE),
            Self::Other(error) => error.explain(),
        }
    }
}

impl Failure for OtherStore {
    fn explain(&self) -> Explanation {
        Explanation::new(ErrorKind::Conflict, "another-store").hint(
            "one cluster has one store, and no node takes a shard while there are two: one of these nodes was \
             started with the wrong --store",
        )
    }
}

impl Failure for RoleError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Registry(error) => error.explain(),
            Self::Ambiguous(error) => error.explain(),
            Self::Type(error) => error.explain(),
        }
    }
}

impl Failure for TermsError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Type(error) => error.explain(),
            Self::Registry(error) => error.explain(),
            Self::Shards(error) => error.explain(),
            Self::Store(error) => error.explain(),
            Self::Spec(error) => error.explain(),
            Self::NoSuchShard { .. } => Explanation::new(ErrorKind::Invalid, "no-such-shard").hint(
                "the first node of a service sets the number (`agent --shards N`, 1 without it), unless `ctl up` did; \
                 that never changes",
            ),
            Self::Removed(_) => Explanation::new(ErrorKind::NotFound, "no-spec"),
            Self::Contended(_) => {
                Explanation::new(ErrorKind::Unavailable, "contended").hint("try again in a moment")
            }
        }
    }
}
