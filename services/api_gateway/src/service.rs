//! The running gateway: start, drain and stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use plugin::http::Guard;
use plugin::{Context, DrainingListener, Health, InFlight, Prepared, ServeLimits, Service, ServiceError};
use tokio::time::Instant;

use crate::backends;
use crate::gateway::Gateway;
use crate::meters::Meters;
use crate::probes::Probes;
use crate::routes;
use crate::settings::Plan;

/// How long answers may still be written after the stop; the drain before it waits for requests to end.
const GRACE: Duration = Duration::from_secs(1);

/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `hosts` in the settings of api_gateway";

/// A running gateway.
#[derive(Debug)]
struct GatewayService {
    gateway: Arc<Gateway>,
    listener: DrainingListener,
    /// The state of its routes.
    probes: Arc<Probes>,
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<SocketAddr> {
        vec![self.listen]
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let listener = cx.listen("gateway", "http", self.listen).await?;
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
        let limits = ServeLimits {
            connections: self.max_connections,
            grace: GRACE,
            node: Some(cx.node.clone()),
            ..ServeLimits::default()
        };
        let service = routes::service::<Body>(Arc::clone(&gateway));
        let listener = DrainingListener::http(&cx, "gateway", listener, in_flight, limits, service);
        // A draining gateway sends no probes.
        let (probing, stopping) = (Arc::clone(&probes), listener.draining());
        let shutdown = cx.shutdown.clone();
        cx.tasks.spawn("route probes", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = probing.run(stopping) => {}
            }
            Ok(())
        });
        Ok(Arc::new(GatewayService { gateway, listener, probes }))
    }
}

#[async_trait]
impl Service for GatewayService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(Arc::clone(&self.gateway))
    }

    fn health(&self) -> Health {
        match self.listener.health() {
            Health::Ready => self.probes.health(),
            trouble => trouble,
        }
    }

    /// Refuses new connections. Open ones get their answers, with `Connection: close`.
    async fn drain(&self, deadline: Instant) {
        self.listener.drain(deadline).await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.listener.stop().await;
        Ok(())
    }
}
