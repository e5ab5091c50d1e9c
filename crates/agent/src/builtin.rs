//! The service types that come with Coterie.

use plugin::Registry;

/// The plugins that come with Coterie, if their features of this crate are enabled. [`Registry::new`] has none.
pub fn builtin() -> Registry {
    let registry = Registry::new();
    #[cfg(feature = "api_gateway")]
    let registry = registry.with(api_gateway::ApiGateway);
    #[cfg(feature = "load_balancer")]
    let registry = registry.with(load_balancer::LoadBalancer);
    #[cfg(feature = "searcher")]
    let registry = registry.with(searcher::Searcher);
    #[cfg(feature = "storage")]
    let registry = registry.with(storage::Storage);
    registry
}
