//! The running gateway: start, drain and stop.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use plugin::access_log::AccessLog;
use plugin::http::Guard;
use plugin::{Context, Health, InFlight, Prepared, Service, ServiceError};
use tokio::time::Instant;

use crate::checks::Checks;
use crate::gateway::Gateway;
use crate::listeners::{self, Listeners};
use crate::probes::Probes;
use crate::routes;
use crate::settings::Plan;
use crate::traffic::Traffic;

/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `hosts` in the settings of api_gateway";

/// A running gateway.
#[derive(Debug)]
struct GatewayService {
    gateway: Arc<Gateway>,
    listeners: Listeners,
    /// The state of its routes.
    probes: Arc<Probes>,
    checks: Arc<Checks>,
    access_log: AccessLog,
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let names: Vec<_> = self.listeners.iter().map(|listener| listener.name.clone()).collect();
        let opened = listeners::open(&cx, self.listeners).await?;
        let probes = Arc::new(Probes::new(&self.table, self.limits.connect));
        let checks = Arc::new(Checks::new(&self.table));
        let mesh = cx.mesh.with_limits(self.limits);
        let in_flight = InFlight::default();
        let traffic = Traffic::new(&cx.metrics);
        let dead = Arc::clone(&probes);
        let help = "Routes none of whose addresses takes connections";
        cx.metrics.observable_gauge("dead_routes", help, move || dead.dead_routes());
        let gateway = Arc::new(Gateway {
            node: cx.node.clone(),
            traffic: traffic.table(names.iter().map(String::as_str), &self.table, &mesh),
            in_flight: in_flight.clone(),
            table: self.table,
            mesh,
            view: cx.view.clone(),
            guard: Guard::new(self.hosts, HOSTS),
        });
        let access_log = AccessLog::start(&cx, self.access_log);
        let listeners = Listeners::serve(&cx, opened, &gateway, &in_flight, &access_log);
        // A draining gateway sends no probes.
        let (checking, checking_until) = (Arc::clone(&checks), listeners.draining());
        let (probing, stopping) = (Arc::clone(&probes), listeners.draining());
        let shutdown = cx.shutdown.clone();
        cx.tasks.spawn("route probes", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                ((), ()) = async { tokio::join!(probing.run(stopping), checking.run(checking_until)) } => {}
            }
            Ok(())
        });
        Ok(Arc::new(GatewayService { gateway, listeners, probes, checks, access_log }))
    }
}

#[async_trait]
impl Service for GatewayService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(&self.gateway)
    }

    fn health(&self) -> Health {
        [self.listeners.health(), self.checks.health(), self.probes.health(), self.access_log.health()]
            .into_iter()
            .find(|health| *health != Health::Ready)
            .unwrap_or(Health::Ready)
    }

    /// Refuses new connections. Open ones get their answers, with `Connection: close`.
    async fn drain(&self, deadline: Instant) {
        self.listeners.drain(deadline).await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.listeners.stop().await;
        self.access_log.stop().await;
        Ok(())
    }
}
