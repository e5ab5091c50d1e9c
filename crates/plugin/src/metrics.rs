//! A place for a service's metrics, shown on `/metrics` while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::{Metric, Registry};

/// A set of metrics with a common prefix. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty set; every name in it gets this prefix: `coterie_api_gateway`.
    pub fn new(prefix: &str) -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix(prefix))) }
    }

    /// Adds a metric; it is shared with the caller, who changes it.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric);
    }

    /// Writes the set in the OpenMetrics text format, without the closing line.
    pub fn encode(&self, out: &mut String) -> Result<(), std::fmt::Error> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode_registry(out, &registry)
    }
}
