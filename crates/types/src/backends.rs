//! `GET /svc/{gateway}/backends`: the addresses that a gateway sends requests to, and why each one gets requests or not.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// The backends of one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Backends {
    /// The node of the gateway.
    pub node: NodeId,
    /// The members of each service, by its name.
    pub services: Vec<BackendPool>,
    /// The addresses of each route.
    pub routes: Vec<BackendPool>,
}

/// The backends among which a request is balanced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendPool {
    /// The name of the service, or the route.
    pub name: String,
    /// Whether most members have disappeared at once, so that they are kept for a while.
    #[serde(default)]
    pub panic: bool,
    /// Why no backend gets anything, in words; absent if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The backends.
    pub backends: Vec<Backend>,
}

/// An address, as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Backend {
    /// The URL below which requests are sent.
    pub address: String,
    /// The member, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Whether it gets requests.
    pub state: BackendState,
    /// Why it is in this state, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When the state ends, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Requests from this node whose answers have not ended.
    pub in_flight: u32,
    /// The estimated response time in milliseconds; absent before the first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<f64>,
    /// Its share of the requests relative to the others now: less in slow start, and 0 while it gets none.
    pub weight: f64,
}

/// Whether a backend gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It does.
    Serving,
    /// It is new and gets a growing part of its share.
    SlowStart,
    /// The last connection to it could not be opened. After a moment it is tried again. The address of a route stays unreachable
    /// until that succeeds; a member does not.
    Unreachable,
    /// Its active checks fail.
    Down,
    /// It failed too often. After `until_ms` a single request finds out whether it works again.
    Ejected,
    /// It ends its role and gets no new requests.
    Draining,
    /// It does not serve.
    NotServing,
}

impl BackendState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Serving,
        Self::SlowStart,
        Self::Unreachable,
        Self::Down,
        Self::Ejected,
        Self::Draining,
        Self::NotServing,
    ];

    /// The state as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::SlowStart => "slow_start",
            Self::Unreachable => "unreachable",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::NotServing => "not_serving",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_name() {
        for state in BackendState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
