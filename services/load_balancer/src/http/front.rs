//! What a listener in HTTP mode has besides the parts of every listener.

use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterView;
use http::header::HeaderValue;
use ipnet::IpNet;
use mesh::{Mesh, Turns};
use plugin::Context;
use plugin::http::Guard;
use plugin::retry::Retries;
use tokio::sync::watch;
use types::{NodeId, Problem, ServiceName};

use crate::plan::HttpPlan;

/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `hosts` of the listener in the settings of load_balancer";

/// What a listener in HTTP mode has besides the parts of every listener.
#[derive(Debug)]
pub(crate) struct Front {
    pub(super) node: NodeId,
    pub(crate) mesh: Mesh,
    pub(super) view: watch::Receiver<ClusterView>,
    /// The service whose API is the target, and who may reach it. Without it the target is the listener's pool.
    pub(crate) service: Option<(ServiceName, Guard)>,
    pub(super) trust: Vec<IpNet>,
    pub(super) retries: Retries,
    /// How long a connection may be idle between requests.
    pub(super) keep_alive: Duration,
    /// How long a client may take nothing of an answer.
    pub(super) send_timeout: Duration,
    pub(super) turns: Arc<Turns>,
}

impl Front {
    /// With these settings. What the one before knows and has open is kept as far as they allow it.
    pub(crate) fn new(plan: HttpPlan, cx: &Context, before: Option<&Self>) -> Self {
        let HttpPlan { trust, service, limits, retries, keep_alive, send_timeout, .. } = plan;
        let mesh = before.map(|before| &before.mesh).filter(|mesh| *mesh.limits() == limits).cloned();
        Self {
            node: cx.node.clone(),
            mesh: mesh.unwrap_or_else(|| cx.mesh.with_limits(limits)),
            view: cx.view.clone(),
            service: service.map(|(service, hosts)| (service, Guard::new(hosts, HOSTS))),
            trust,
            retries,
            keep_alive,
            send_timeout,
            turns: before.map(|before| Arc::clone(&before.turns)).unwrap_or_default(),
        }
    }

    /// The problem, completed with the node and the request's id.
    pub(super) fn signed(&self, problem: Problem, id: &HeaderValue) -> Problem {
        Problem {
            node: Some(self.node.to_string()),
            request_id: id.to_str().ok().map(ToOwned::to_owned),
            ..problem
        }
    }
}
