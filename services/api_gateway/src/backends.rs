//! `GET /svc/{service}/backends` on the agent's listener: where this gateway sends requests, and why a backend gets none.

use axum::response::Response;
use http::Method;
use plugin::http::{json, method_not_allowed};
use types::backends::{BackendPool, Backends};

use crate::gateway::Gateway;
use crate::table::{Target, Way};

/// The weight of an address that has none of its own.
const WEIGHT: u32 = 1;

impl Gateway {
    /// The members of all services, and the addresses of all routes.
    pub(crate) fn backends(&self) -> Backends {
        let services = self.mesh.services();
        Backends {
            node: self.node.clone(),
            services: services.iter().map(|service| self.mesh.backends(service)).collect(),
            routes: self.route_backends(),
        }
    }

    fn route_backends(&self) -> Vec<BackendPool> {
        let pool = |way: &Way| match &way.target {
            Target::Addresses { urls, weights } => {
                let weights = weights.iter().copied().chain(std::iter::repeat(WEIGHT));
                Some(self.mesh.backends_of_route(&way.label, urls.iter().zip(weights)))
            }
            Target::Service(..) | Target::Redirect(_) | Target::Answer { .. } => None,
        };
        self.table.ways().iter().filter_map(pool).collect()
    }
}

/// The answer to a request for the backends.
pub(crate) fn answer(gateway: &Gateway, method: &Method) -> Response {
    if *method != Method::GET && *method != Method::HEAD {
        return method_not_allowed("GET, HEAD");
    }
    json(serde_json::to_string(&gateway.backends()).expect("backends are plain data"))
}
