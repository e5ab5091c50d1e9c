//! The service types that this agent can run: one line each.

use plugin::Registry;

/// Every plugin of this agent.
pub(crate) fn registry() -> Registry {
    Registry::new().with(api_gateway::ApiGateway).with(storage::Storage)
}
