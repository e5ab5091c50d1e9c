//! Which member of a type may answer: what the plugins say, as data.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use types::{ServiceType, Target};

type TargetOf = dyn Fn(&ServiceType, &Parts) -> Target + Send + Sync;

/// Which member of each service type may answer a request: the plugins' `target` functions, as data.
#[derive(Clone)]
pub struct Targets(Arc<TargetOf>);

impl Targets {
    /// Asks the function. The path that it sees is the one below `/svc/{service_type}`.
    pub fn new(target: impl Fn(&ServiceType, &Parts) -> Target + Send + Sync + 'static) -> Self {
        Self(Arc::new(target))
    }

    /// Any member will do.
    pub fn any() -> Self {
        Self::new(|_, _| Target::Any)
    }

    pub(crate) fn of(&self, service: &ServiceType, head: &Parts) -> Target {
        (self.0)(service, head)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Targets")
    }
}
