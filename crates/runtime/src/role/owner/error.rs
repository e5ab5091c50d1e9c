//! Why a node did not get a shard.

use std::fmt;

use cluster::ClusterView;
use types::api::Release;
use types::{Epoch, ErrorKind, Holder, NodeId, Problem, Role, ShardRef};

use super::new_owner;
use crate::failure::{Explanation, Failure};
use crate::node::cluster_store::StoreAccessError;
use crate::takeover::twins::Twin;

/// Why a node did not get a shard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    /// Another node owns it: be a replica, or stand by.
    #[error(transparent)]
    Owned(Box<Owned>),
    /// Another node was faster: be a replica, or stand by.
    #[error("another node took {shard} first: {note}")]
    TakenFirst { shard: ShardRef, note: String },
    /// This node has refused it recently, and there are other candidates: stand by.
    #[error("{shard} is left to others: {note}")]
    LeftToOthers { shard: ShardRef, note: String },
    /// Its owner is alive in another cluster on the same store.
    #[error(transparent)]
    Twin(#[from] Twin),
    /// Its owner does not hand it over.
    #[error(transparent)]
    Refused(#[from] HandOverRefused),
    /// Its claim changed at each attempt: try again.
    #[error("the owner of {0} keeps changing")]
    Contended(ShardRef),
    /// The store can't be used: try again later.
    #[error(transparent)]
    Store(#[from] StoreAccessError),
    /// The former owner has released it, and this node did not get it.
    #[error("{cause}; {shard} has no owner now")]
    Ownerless {
        cause: Box<AcquireError>,
        shard: ShardRef,
        /// How it gets an owner.
        hint: String,
    },
    /// A bug: only a role with a shard can own one.
    #[error("{0} has no shard that could be owned")]
    NoShard(Role),
}

impl AcquireError {
    /// Whether the claim is known not to be this node's.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Owned(_)
            | Self::TakenFirst { .. }
            | Self::LeftToOthers { .. }
            | Self::Twin(_)
            | Self::Refused(_)
            | Self::Contended(_) => true,
            Self::Store(error) => matches!(error, StoreAccessError::Other(_)),
            Self::Ownerless { .. } | Self::NoShard(_) => false,
        }
    }

    /// The same error, which also reports that the shard has no owner now.
    pub(crate) fn ownerless(self, shard: &ShardRef, view: &ClusterView) -> Self {
        Self::Ownerless { cause: Box::new(self), shard: shard.clone(), hint: new_owner(view, shard) }
    }
}

impl Failure for AcquireError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Owned(error) => error.explain(),
            Self::TakenFirst { .. } => Explanation::new(ErrorKind::Conflict, "owned"),
            Self::LeftToOthers { .. } => Explanation::new(ErrorKind::Conflict, "refused-here")
                .hint("another node takes it over; this one tries again after a while"),
            Self::Twin(twin) => twin.explain(),
            Self::Refused(error) => error.explain(),
            Self::Contended(_) => {
                Explanation::new(ErrorKind::Conflict, "contended").hint("try again in a moment")
            }
            Self::Store(error) => error.explain(),
            Self::Ownerless { cause, hint, .. } => cause.explain().hint(hint.as_str()),
            Self::NoShard(_) => Explanation::new(ErrorKind::Internal, "no-shard"),
        }
    }
}

/// Another node owns the shard.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(super) shard: ShardRef,
    pub(super) holder: Holder,
    /// Whether the view shows that it honours its claim.
    pub(super) honoured: bool,
    /// Whether it has defended its claim on the store.
    pub(super) defended: bool,
    /// The address in its claim.
    pub(super) http: Option<String>,
    pub(super) me: NodeId,
}

impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, holder, .. } = self;
        write!(f, "{shard} is owned by {} (epoch {})", holder.node, holder.epoch)?;
        if self.honoured {
            return Ok(());
        }
        if let Some(http) = &self.http {
            write!(f, " at {http}")?;
        }
        f.write_str(match self.defended {
            true => ", which is not seen here and defends it on the store",
            false => ", which is not seen to run it",
        })
    }
}

impl std::error::Error for Owned {}

impl Failure for Owned {
    fn explain(&self) -> Explanation {
        let Self { shard, me, .. } = self;
        Explanation::new(ErrorKind::Conflict, "owned").hint(format!(
            "`ctl set-service {me} {} --shard {} --take` moves it without losing anything",
            shard.service, shard.shard
        ))
    }
}

/// The owner of a shard answered that it does not hand the shard over.
#[derive(Debug, thiserror::Error)]
#[error("{owner} does not hand {shard} over: {problem}")]
pub(crate) struct HandOverRefused {
    pub(super) owner: NodeId,
    pub(super) shard: ShardRef,
    /// Its answer.
    pub(super) problem: Box<Problem>,
}

/// The owner's reason, as a conflict.
impl Failure for HandOverRefused {
    fn explain(&self) -> Explanation {
        let code = self.problem.code().to_owned();
        Explanation { hint: self.problem.hint.clone(), ..Explanation::new(ErrorKind::Conflict, code) }
    }
}

/// A node is asked for a shard that it does not own.
#[derive(Debug, thiserror::Error)]
#[error("{me} does not own {shard} under epoch {epoch}")]
pub(crate) struct NotTheOwner {
    me: NodeId,
    shard: ShardRef,
    epoch: Epoch,
}

impl NotTheOwner {
    pub(crate) fn new(me: &NodeId, wanted: &Release) -> Self {
        Self { me: me.clone(), shard: wanted.shard_ref(), epoch: wanted.epoch }
    }
}

impl Failure for NotTheOwner {
    fn explain(&self) -> Explanation {
        Explanation::new(ErrorKind::Changed, "not-the-owner").hint("GET /v1/claims says who owns what")
    }
}

#[cfg(test)]
mod tests {
    use types::Generation;

    use super::*;

    #[test]
    fn the_owner_of_a_shard_is_named_with_what_is_known_of_it() {
        let holder = Holder { node: "a".parse().unwrap(), generation: Generation(1), epoch: Epoch(3) };
        let there = Some("http://a");
        for (honoured, defended, http, text) in [
            (true, false, there, "storage/0 is owned by a (epoch 3)"),
            (true, true, None, "storage/0 is owned by a (epoch 3)"),
            (false, false, None, "storage/0 is owned by a (epoch 3), which is not seen to run it"),
            (
                false,
                false,
                there,
                "storage/0 is owned by a (epoch 3) at http://a, which is not seen to run it",
            ),
            (
                false,
                true,
                there,
                "storage/0 is owned by a (epoch 3) at http://a, which is not seen here and defends it on the store",
            ),
        ] {
            let http = http.map(str::to_owned);
            let (shard, me, holder) = ("storage/0".parse().unwrap(), "b".parse().unwrap(), holder.clone());
            let error = AcquireError::Owned(Box::new(Owned { shard, holder, honoured, defended, http, me }));
            assert_eq!(error.to_string(), text);
            assert!(error.is_settled());
            let hint = error.explain().hint.unwrap();
            assert!(hint.starts_with("`ctl set-service b storage --shard 0 --take`"), "{hint}");
        }
    }

    #[test]
    fn the_word_of_an_owner_that_refuses_is_passed_on() {
        let problem =
            Problem::new(ErrorKind::Unavailable, "not-released", "the store did not note it").hint("wait");
        let (owner, shard) = ("a".parse().unwrap(), "storage/0".parse::<ShardRef>().unwrap());
        let error = HandOverRefused { owner, shard: shard.clone(), problem: Box::new(problem) };
        assert_eq!(error.to_string(), "a does not hand storage/0 over: the store did not note it");
        let Explanation { kind, code, hint } = error.explain();
        assert_eq!((kind, &*code, hint.as_deref()), (ErrorKind::Conflict, "not-released", Some("wait")));
        assert!(
            !AcquireError::from(StoreAccessError::NoAnswer(std::time::Duration::from_secs(5))).is_settled()
        );
    }
}
