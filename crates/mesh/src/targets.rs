//! The plugins' rules for which member may answer a request.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use types::{ServiceName, ServiceType, Target};

type TargetOf = dyn Fn(&ServiceName, &Parts) -> Target + Send + Sync;
type MayRepeat = dyn Fn(&ServiceName, &Parts) -> bool + Send + Sync;
type KindOf = dyn Fn(&ServiceName) -> Kind + Send + Sync;

/// What this node knows about a service's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The service exists and has this type.
    Settled(ServiceType),
    /// The service is not known to exist. If it does, its name is its type.
    Assumed(ServiceType),
    /// The service may exist: the services of the cluster are not known yet.
    NotYetKnown,
    /// The service does not exist.
    Unknown,
}

/// Which member of each service may answer a request, and which requests may be repeated, according to the
/// plugins.
#[derive(Clone)]
pub struct Targets {
    target: Arc<TargetOf>,
    may_repeat: Arc<MayRepeat>,
    kind: Arc<KindOf>,
}

impl Targets {
    /// Uses `target` to choose. It gets the path below `/svc/{service}`.
    pub fn new(target: impl Fn(&ServiceName, &Parts) -> Target + Send + Sync + 'static) -> Self {
        Self {
            target: Arc::new(target),
            may_repeat: Arc::new(|_, head: &Parts| head.method.is_idempotent()),
            kind: Arc::new(|service: &ServiceName| {
                service.default_type().map_or(Kind::Unknown, Kind::Assumed)
            }),
        }
    }

    /// Also uses `kind` to look up the type of a service. Without it, a service has the type that it is named after.
    #[must_use]
    pub fn of_kinds(self, kind: impl Fn(&ServiceName) -> Kind + Send + Sync + 'static) -> Self {
        Self { kind: Arc::new(kind), ..self }
    }

    /// Uses `may_repeat` to decide whether a request may be sent again although it may have been acted on. The default
    /// is HTTP's idempotent methods.
    #[must_use]
    pub fn repeating(
        self,
        may_repeat: impl Fn(&ServiceName, &Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { may_repeat: Arc::new(may_repeat), ..self }
    }

    /// Any member may answer any request.
    pub fn any() -> Self {
        Self::new(|_, _| Target::Any)
    }

    pub(crate) fn of(&self, service: &ServiceName, head: &Parts) -> Target {
        (self.target)(service, head)
    }

    pub(crate) fn kind(&self, service: &ServiceName) -> Kind {
        (self.kind)(service)
    }

    pub(crate) fn may_repeat(&self, service: &ServiceName, head: &Parts) -> bool {
        (self.may_repeat)(service, head)
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Targets")
    }
}
