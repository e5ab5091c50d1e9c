//! Which member of a type may answer: what the plugins say, as data.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use types::{ServiceType, Target};

type TargetOf = dyn Fn(&ServiceType, &Parts) -> Target + Send + Sync;
type MayRepeat = dyn Fn(&ServiceType, &Parts) -> bool + Send + Sync;

/// Which member of each service type may answer a request, and which requests may be repeated: what the plugins say.
#[derive(Clone)]
pub struct Targets {
    target: Arc<TargetOf>,
    may_repeat: Arc<MayRepeat>,
}

impl Targets {
    /// Asks the function. The path that it sees is the one below `/svc/{service_type}`.
    pub fn new(target: impl Fn(&ServiceType, &Parts) -> Target + Send + Sync + 'static) -> Self {
        Self { target: Arc::new(target), may_repeat: Arc::new(|_, head: &Parts| head.method.is_idempotent()) }
    }

    /// Asks another function too: whether a request may be sent again though it may have been acted on. Without it,
    /// what HTTP calls idempotent may.
    #[must_use]
    pub fn repeating(
        self,
        may_repeat: impl Fn(&ServiceType, &Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { may_repeat: Arc::new(may_repeat), ..self }
    }

    /// Any member will do.
    pub fn any() -> Self {
        Self::new(|_, _| Target::Any)
    }

    pub(crate) fn of(&self, service: &ServiceType, head: &Parts) -> Target {
        (self.target)(service, head)
    }

    pub(crate) fn may_repeat(&self, service: &ServiceType, head: &Parts) -> bool {
        (self.may_repeat)(service, head)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Targets")
    }
}
