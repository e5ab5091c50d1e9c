//! Why a command was not carried out, or a role not begun.

use plugin::{RegistryError, ServiceError, SettingsError};
use types::{ErrorKind, Role, ShardRef};

use crate::failure::{Explanation, Failure};
use crate::node::cluster_store::{StoreAccessError, TermsError};
use crate::node::identity::DataDirError;
use crate::role::owner::{AcquireError, NotTheOwner};

/// Why a role can't be started. Nothing was disturbed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// It is not known what it runs with.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// The service's type does not allow it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Correct the settings in the spec.
    #[error("the settings of {titled}: {error}")]
    Settings {
        /// The service with its type.
        titled: String,
        error: SettingsError,
    },
    /// A bug of the plugin.
    #[error("checking the settings of {0} panicked")]
    Panicked(String),
}

impl Failure for PrepareError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Terms(error) => error.explain(),
            Self::Registry(error) => error.explain(),
            Self::Settings { .. } => Explanation::new(ErrorKind::Invalid, "bad-settings"),
            Self::Panicked(_) => Explanation::new(ErrorKind::Internal, "bad-settings"),
        }
    }
}

/// Why a role does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BeginError {
    /// It can't be started.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// Its shard could not be acquired.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreAccessError),
    /// Its service did not start.
    #[error(transparent)]
    Start(#[from] ServiceError),
}

impl Failure for BeginError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Prepare(error) => error.explain(),
            Self::Acquire(error) => error.explain(),
            Self::Store(error) => error.explain(),
            Self::Start(error) => error.explain(),
        }
    }
}

/// Why a command was not carried out. The node is what it was before, as far as the message does not say otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// Start the node again.
    #[error("the node is leaving the cluster")]
    Leaving,
    /// Try again.
    #[error("the node is carrying out another command: {0}")]
    Busy(String),
    /// The command could not be recorded in the data folder: make room.
    #[error("{}", with_source(.0))]
    NotKept(DataDirError),
    /// A bug: an offer is no change.
    #[error("{0} is taken by the node that it was offered to")]
    BadOrder(ShardRef),
    /// Look who owns the shard.
    #[error(transparent)]
    NotTheOwner(#[from] NotTheOwner),
    /// The new role can't be started.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The shard of the new role could not be acquired.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// Try again when the store answers.
    #[error("the store did not note the release")]
    NotReleased,
    /// The service of the new role did not start.
    #[error("{role} could not be started: {error}")]
    NotStarted { role: Role, error: ServiceError },
    /// The node returned to its old role.
    #[error("{cause}; {present}")]
    WentBack {
        cause: Box<ChangeError>,
        /// What the node is now.
        present: String,
    },
    /// The shard of the new role was taken and is released again.
    #[error("{cause}; {shard} has no owner now")]
    Ownerless {
        cause: Box<ChangeError>,
        shard: ShardRef,
        /// How it gets an owner.
        hint: String,
    },
}

impl ChangeError {
    /// The same error, which also reports what the node is now.
    pub(super) fn went_back(self, present: String) -> Self {
        Self::WentBack { cause: Box::new(self), present }
    }
}

impl Failure for ChangeError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Leaving => Explanation::new(ErrorKind::Conflict, "leaving")
                .hint("wait until it is gone, then start it again if you need it"),
            Self::Busy(_) => Explanation::new(ErrorKind::Conflict, "busy").hint("try again in a moment"),
            Self::NotKept(error) => Explanation::new(ErrorKind::Unavailable, "not-kept").hint(match error {
                DataDirError::Damaged { .. } => "nothing was changed",
                _ => "nothing was changed; make room or the folder writable, then try again",
            }),
            Self::BadOrder(_) => Explanation::new(ErrorKind::Internal, "bad-order"),
            Self::NotTheOwner(error) => error.explain(),
            Self::Prepare(error) => error.explain(),
            Self::Acquire(error) => error.explain(),
            Self::NotReleased => Explanation::new(ErrorKind::Unavailable, "not-released")
                .hint("try again when the store answers"),
            Self::NotStarted { error, .. } => error.explain(),
            Self::WentBack { cause, .. } => cause.explain(),
            Self::Ownerless { cause, hint, .. } => cause.explain().hint(hint.as_str()),
        }
    }
}

/// The message of an error, with its source if that is not part of it.
fn with_source(error: &DataDirError) -> String {
    let message = error.to_string();
    match std::error::Error::source(error).map(ToString::to_string) {
        Some(source) if !message.contains(&source) => format!("{message}: {source}"),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_code_when_more_is_reported_with_it() {
        let shard: ShardRef = "storage/0".parse().unwrap();
        let error = ServiceError::unavailable("no disk").hint("add one");
        let not_started = ChangeError::NotStarted { role: Role::from(&shard), error };
        let cause = Box::new(not_started.went_back("the node is standby again, ready".to_owned()));
        let error = ChangeError::Ownerless { cause, shard, hint: "give it to b".to_owned() };
        assert_eq!(
            error.to_string(),
            "storage/0 could not be started: no disk; the node is standby again, ready; storage/0 has no owner now"
        );
        let explanation = error.explain();
        assert_eq!((explanation.kind, &*explanation.code), (ErrorKind::Unavailable, "role-not-started"));
        assert_eq!(
            explanation.hint.as_deref(),
            Some("give it to b"),
            "what to do about the shard comes first"
        );
        assert_eq!(error.reason().code.as_str(), "role-not-started");
    }
}
