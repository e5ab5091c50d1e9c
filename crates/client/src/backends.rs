//! Where a gateway or a load balancer sends requests or connections, and why a backend gets none.

use serde::Deserialize;
use types::NodeId;
use types::backends::{Backend, BackendPool, BackendState, Backends};

use crate::call::Client;
use crate::error::ClientError;

/// The answer of a gateway or of a load balancer.
#[derive(Debug, Deserialize)]
struct Answer {
    node: NodeId,
    /// Of a gateway.
    #[serde(default)]
    services: Vec<BackendPool>,
    /// Of a gateway.
    #[serde(default)]
    routes: Vec<BackendPool>,
    /// Of a load balancer.
    #[serde(default)]
    listeners: Vec<Listener>,
}

#[derive(Debug, Deserialize)]
struct Listener {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    why: Option<String>,
    backends: Vec<OfBalancer>,
}

/// A backend as a load balancer shows it.
#[derive(Debug, Deserialize)]
struct OfBalancer {
    /// Empty if its name has none.
    address: String,
    named: String,
    #[serde(default)]
    member: Option<NodeId>,
    state: String,
    #[serde(default)]
    why: Option<String>,
    weight: f64,
    connections: u32,
}

impl Client {
    /// The backends of the gateway or load balancer on this node, which must run the service of this client; see
    /// [`with_service`](Self::with_service). Each listener of a load balancer is one of the routes.
    pub async fn backends(&self) -> Result<Backends, ClientError> {
        let answer: Answer = self.json(self.get(&format!("/svc/{}/backends", self.service()))).await?;
        Ok(answer.into())
    }
}

impl From<Answer> for Backends {
    fn from(answer: Answer) -> Self {
        let Answer { node, services, mut routes, listeners } = answer;
        for listener in listeners {
            routes.extend(listener.targets.into_iter().map(|target| target.pool(&listener.name)));
        }
        Self { node, services, routes }
    }
}

impl Target {
    fn pool(self, listener: &str) -> BackendPool {
        let name = match self.hosts.is_empty() {
            true => listener.to_owned(),
            false => format!("{listener} ({})", self.hosts.join(", ")),
        };
        let backends = self.backends.into_iter().map(Backend::from).collect();
        BackendPool { name, panic: false, why: self.why, backends }
    }
}

impl From<OfBalancer> for Backend {
    fn from(backend: OfBalancer) -> Self {
        let state = match backend.state.as_str() {
            "up" => BackendState::Serving,
            "down" => BackendState::Down,
            "unreachable" => BackendState::Unreachable,
            "ejected" => BackendState::Ejected,
            "draining" => BackendState::Draining,
            _ => BackendState::NotServing,
        };
        Self {
            address: if backend.address.is_empty() { backend.named } else { backend.address },
            node: backend.member,
            state,
            why: backend.why,
            until_ms: None,
            in_flight: backend.connections,
            estimate_ms: None,
            weight: backend.weight,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_load_balancers_listeners_are_pools() {
        let answer = json!({"node": "n", "listeners": [{"name": "db", "mode": "tcp", "targets": [
            {"hosts": ["a.example"], "backends": [
                {"address": "10.0.0.1:80", "named": "db:80", "member": "m", "state": "up", "weight": 2, "connections": 3},
                {"address": "", "named": "b:80", "state": "unresolved", "why": "is not found", "weight": 0, "connections": 0},
            ]},
            {"why": "no member runs nope", "backends": []},
        ]}]});
        let backends = Backends::from(serde_json::from_value::<Answer>(answer).unwrap());
        let [first, second] = &backends.routes[..] else { panic!("{backends:?}") };
        assert_eq!((first.name.as_str(), second.name.as_str()), ("db (a.example)", "db"));
        assert_eq!(second.why.as_deref(), Some("no member runs nope"));
        let [up, lost] = &first.backends[..] else { panic!("{first:?}") };
        assert_eq!((up.state, up.in_flight, up.weight), (BackendState::Serving, 3, 2.0));
        assert_eq!(up.node.as_ref().map(NodeId::as_str), Some("m"));
        assert_eq!((lost.state, lost.address.as_str()), (BackendState::NotServing, "b:80"));
        assert_eq!(lost.why.as_deref(), Some("is not found"));
    }
}
