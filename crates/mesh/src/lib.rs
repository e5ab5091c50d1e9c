//! Requests to members: pick one, wait while a role moves, retry what was not processed, stream both ways.

use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterView;
use tokio::sync::watch;
use types::{ServiceType, Target};

/// Which member of each service type may answer a request: the plugins' `target` functions, as data.
#[derive(Clone)]
pub struct Targets(Arc<dyn Fn(&ServiceType, &http::request::Parts) -> Target + Send + Sync>);

impl Targets {
    /// Asks the function.
    pub fn new(
        target: impl Fn(&ServiceType, &http::request::Parts) -> Target + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(target))
    }

    /// Any member will do.
    pub fn any() -> Self {
        Self::new(|_, _| Target::Any)
    }
}

impl std::fmt::Debug for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Targets")
    }
}

/// Limits of the requests that a mesh sends.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// placeholder
    pub wait: Duration,
}

/// Requests to other members.
#[derive(Debug, Clone)]
pub struct Mesh {}

impl Mesh {
    /// A mesh over a view.
    pub fn new(_view: watch::Receiver<ClusterView>, _targets: Targets, _limits: Limits) -> Self {
        Self {}
    }
}
