//! What the runtime's errors have in common: each names itself for programs and says what to do next.
//!
//! An error inside the runtime knows no HTTP. The API renders it as problem details in one place (`api/error.rs`); the
//! supervisor shows it as the reason of a phase.

use std::borrow::Cow;

use plugin::{RegistryError, ServiceError};
use store::{Fault, OpenError, SpecError, StoreError};
use types::reason::NOT_STARTED;
use types::{ErrorKind, Reason};

/// An error that is shown to people and to programs. Its message says what happened.
pub(crate) trait Failure: std::error::Error {
    /// What the caller can do about it.
    fn explain(&self) -> Explanation;

    /// The error as the reason of a phase.
    fn reason(&self) -> Reason {
        Reason::new(self.explain().code.parse().unwrap_or(NOT_STARTED), self.to_string())
    }
}

/// What a caller can do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) kind: ErrorKind,
    /// Names the error for programs (kebab case).
    pub(crate) code: Cow<'static, str>,
    /// What a person can do next.
    pub(crate) hint: Option<String>,
}

impl Explanation {
    pub(crate) fn new(kind: ErrorKind, code: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, code: code.into(), hint: None }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    fn of_store(kind: ErrorKind, is_damaged: bool, hint: Option<String>) -> Self {
        let code = if is_damaged { "damaged-data" } else { STORE_UNAVAILABLE };
        Self { hint, ..Self::new(kind, code) }
    }
}

/// The code of an object store that did not do its part.
pub(crate) const STORE_UNAVAILABLE: &str = "store-unavailable";

impl Failure for OpenError {
    fn explain(&self) -> Explanation {
        Explanation::of_store(self.kind(), matches!(self, Self::Damaged { .. }), self.hint())
    }
}

impl Failure for StoreError {
    fn explain(&self) -> Explanation {
        Explanation::of_store(self.kind(), self.fault() == Fault::Damaged, self.hint())
    }
}

impl Failure for SpecError {
    fn explain(&self) -> Explanation {
        match self {
            Self::Changed { .. } => Explanation::new(ErrorKind::Changed, "changed")
                .hint("GET /v1/spec, apply your change to what it says, then try again"),
            Self::ShardsFixed { .. } => Explanation::new(ErrorKind::Conflict, "shards-fixed").hint(
                "the number determines which shard a key belongs to; for another number use another cluster",
            ),
            Self::TypeFixed { .. } => {
                Explanation { hint: self.hint(), ..Explanation::new(ErrorKind::Conflict, "type-fixed") }
            }
            Self::Similar { .. } => {
                Explanation { hint: self.hint(), ..Explanation::new(ErrorKind::Conflict, "similar-name") }
            }
            Self::Store(error) => error.explain(),
        }
    }
}

impl Failure for RegistryError {
    fn explain(&self) -> Explanation {
        match self {
            Self::UnknownType { .. } => Explanation::new(ErrorKind::Invalid, "unknown-service-type")
                .hint("GET /v1/services lists what this cluster can run"),
            Self::OtherType { .. } => {
                Explanation::new(ErrorKind::Invalid, "bad-service-type").hint("give the service another name")
            }
            Self::NoShards { .. } => {
                Explanation::new(ErrorKind::Invalid, "bad-shard").hint("leave the shard out")
            }
        }
    }
}

/// A service that could not be started.
impl Failure for ServiceError {
    fn explain(&self) -> Explanation {
        let hint = self.next_step().map(str::to_owned);
        Explanation { hint, ..Explanation::new(self.kind(), "role-not-started") }
    }
}
