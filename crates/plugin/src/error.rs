//! The error type of services.

use std::fmt;

use store::DataLogError;
use types::{ErrorKind, Problem};

/// Why a service could not do something, and what the caller can do about it.
#[derive(Debug)]
pub struct ServiceError {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ServiceError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The machine or another service prevents it; a later attempt may succeed.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// There is a bug, or the machine is broken.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Adds a hint on what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person can do next.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// As problem details, with a code for programs (kebab case).
    pub fn to_problem(&self, code: &str) -> Problem {
        let problem = Problem::new(self.kind, code, self.to_string());
        match &self.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl From<DataLogError> for ServiceError {
    fn from(error: DataLogError) -> Self {
        let hint = match &error {
            DataLogError::Store(store) => store.hint(),
            DataLogError::Fenced { .. } | DataLogError::Trimmed { .. } | DataLogError::TooLong(_) => None,
        };
        Self { kind: error.kind(), message: error.to_string(), hint, source: None }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for ServiceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
