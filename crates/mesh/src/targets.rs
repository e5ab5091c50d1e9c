//! The plugins' rules for which member may answer a request.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use types::{ServiceType, Target};

type TargetOf = dyn Fn(&ServiceType, &Parts) -> Target + Send + Sync;
type MayRepeat = dyn Fn(&ServiceType, &Parts) -> bool + Send + Sync;

/// Which member of each service type may answer a request, and which requests may be repeated, according to the
/// plugins.
#[derive(Clone)]
pub struct Targets {
    target: Arc<TargetOf>,
    may_repeat: Arc<MayRepeat>,
}

impl Targets {
    /// Uses `target` to choose. The path that it sees is the one below `/svc/{service_type}`.
    pub fn new(target: impl Fn(&ServiceType, &Parts) -> Target + Send + Sync + 'static) -> Self {
        Self { target: Arc::new(target), may_repeat: Arc::new(|_, head: &Parts| head.method.is_idempotent()) }
    }

    /// Uses `may_repeat` to decide whether a request may be sent again although it may have been acted on. The default
    /// is HTTP's idempotent methods.
    #[must_use]
    pub fn repeating(
        self,
        may_repeat: impl Fn(&ServiceType, &Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { may_repeat: Arc::new(may_repeat), ..self }
    }

    /// Any member may answer any request.
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
