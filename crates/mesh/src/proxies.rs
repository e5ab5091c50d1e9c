//! The service types whose own listeners take their clients' requests: no proxy leads to their API on the nodes (ADR 24).
//!
//! Below `/svc/{service}` such a service shows operators where it sends requests: addresses of members, limits, names of keys.
//! Gateways and balancers are often the only nodes that strangers reach, so neither forwards requests there. One rule for both,
//! and independent of the plugins of the node that asks: any node may see a member of a type that it can't run.

use types::{ServiceName, ServiceType};

/// The types.
const PROXIES: [&str; 2] = ["api_gateway", "load_balancer"];

/// Whether members of this type are no destination of a proxy's requests.
pub fn is_proxy(service_type: &ServiceType) -> bool {
    PROXIES.contains(&service_type.as_str())
}

/// The same for a service of which nothing but its name is known.
pub fn is_named_after_proxy(service: &ServiceName) -> bool {
    service.default_type().is_some_and(|service_type| is_proxy(&service_type))
}

/// What a proxy says about requests and settings that would lead to such a service.
pub fn proxy_refusal(service: &ServiceName) -> String {
    format!("the API of `{service}` on its nodes is for operators; clients have its listeners")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_and_balancers_are_proxies_however_their_names_are_spelt() {
        for (name, expected) in [
            ("api_gateway", true),
            ("api-gateway", true),
            ("load_balancer", true),
            ("storage", false),
            ("edge", false),
            ("2nd", false),
        ] {
            assert_eq!(is_named_after_proxy(&name.parse().unwrap()), expected, "{name}");
        }
    }
}
