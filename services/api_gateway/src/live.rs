//! The state that requests use: one immutable [`Gateway`], replaced as a whole when settings change.
//!
//! A request takes it once, so it finishes with the settings with which it began.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use plugin::Metrics;

use crate::gateway::Gateway;

/// The present state. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live(Arc<OnceLock<ArcSwap<Gateway>>>);

impl Live {
    /// Sets or replaces the state.
    pub(crate) fn replace(&self, next: Gateway) {
        let next = Arc::new(next);
        match self.0.get() {
            Some(state) => state.store(next),
            // At the start, before the first request.
            None => drop(self.0.set(ArcSwap::new(next))),
        }
    }

    /// The present state.
    ///
    /// # Panics
    /// Before the first [`replace`](Self::replace), with which every gateway starts.
    pub(crate) fn now(&self) -> Arc<Gateway> {
        self.0.get().expect("a gateway sets its state before it serves").load_full()
    }

    /// Registers the metrics that are read from the state.
    pub(crate) fn declare(&self, metrics: &Metrics) {
        let live = self.clone();
        let help = "Routes none of whose addresses takes connections";
        metrics.observable_gauge("dead_routes", help, move || live.now().probes.dead_routes());
    }
}
