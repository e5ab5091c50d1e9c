//! The running gateway: start, drain and stop.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use plugin::http::Guard;
use plugin::{Context, Health, InFlight, Prepared, Service, ServiceError};
use tokio::time::Instant;

use crate::access_log::AccessLog;
use crate::backends;
use crate::gateway::Gateway;
use crate::listeners::{self, Listeners};
use crate::meters::Meters;
use crate::probes::Probes;
use crate::routes;
use crate::settings::Plan;

/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `hosts` in the settings of api_gateway";

/// A running gateway.
#[derive(Debug)]
struct GatewayService {
    gateway: Arc<Gateway>,
    listeners: Listeners,
    /// The state of its routes.
    probes: Arc<Probes>,
    access_log: Option<AccessLog>,
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let opened = listeners::open(&cx, self.listeners).await?;
        let probes = Arc::new(Probes::new(&self.table, self.limits.connect));
        let mesh = cx.mesh.with_limits(self.limits);
        let in_flight = InFlight::default();
        let gateway = Arc::new(Gateway {
            node: cx.node.clone(),
            meters: Arc::new(Meters::new(&cx.metrics, &mesh, &probes)),
            in_flight: in_flight.clone(),
            table: self.table,
            mesh,
            view: cx.view.clone(),
            guard: Guard::new(self.hosts, HOSTS),
            trust: self.trust,
        });
        backends::declare(&cx.metrics, &gateway);
        let access_log = self.access_log.map(|plan| AccessLog::start(&cx, plan));
        let listeners = Listeners::serve(&cx, opened, &gateway, &in_flight, access_log.as_ref());
        // A draining gateway sends no probes.
        let (probing, stopping) = (Arc::clone(&probes), listeners.draining());
        let shutdown = cx.shutdown.clone();
        cx.tasks.spawn("route probes", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = probing.run(stopping) => {}
            }
            Ok(())
        });
        Ok(Arc::new(GatewayService { gateway, listeners, probes, access_log }))
    }
}

#[async_trait]
impl Service for GatewayService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(Arc::clone(&self.gateway))
    }

    fn health(&self) -> Health {
        let of_log = || self.access_log.as_ref().map_or(Health::Ready, AccessLog::health);
        match (self.listeners.health(), self.probes.health()) {
            (Health::Ready, Health::Ready) => of_log(),
            (Health::Ready, trouble) | (trouble, _) => trouble,
        }
    }

    /// Refuses new connections. Open ones get their answers, with `Connection: close`.
    async fn drain(&self, deadline: Instant) {
        self.listeners.drain(deadline).await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.listeners.stop().await;
        if let Some(log) = &self.access_log {
            log.stop().await;
        }
        Ok(())
    }
}
