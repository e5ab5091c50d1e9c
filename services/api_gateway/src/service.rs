//! The running gateway: start, drain and stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use plugin::http::Guard;
use plugin::{Context, Health, Prepared, ServeLimits, Service, ServiceError, Stop, serve};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::gateway::Gateway;
use crate::in_flight::InFlight;
use crate::meters::Meters;
use crate::probes::Probes;
use crate::routes;
use crate::settings::Plan;

/// How long answers may still be written after the stop; the drain before it waits for requests to end.
const GRACE: Duration = Duration::from_secs(1);

/// How long no request may be in flight before idle connections are closed: a client whose last answer told it to close
/// may already have sent its next request.
const QUIET: Duration = Duration::from_millis(30);

/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `hosts` in the settings of api_gateway";

/// A running gateway.
#[derive(Debug)]
struct GatewayService {
    gateway: Arc<Gateway>,
    /// The state of its routes.
    probes: Arc<Probes>,
    stop: Stop,
    /// Cancelled once the listener and every connection are closed.
    closed: CancellationToken,
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<SocketAddr> {
        vec![self.listen]
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let listener = cx.listen("gateway", self.listen).await?;
        let probes = Arc::new(Probes::new(&self.table, self.limits.connect));
        let mesh = cx.mesh.with_limits(self.limits);
        let gateway = Arc::new(Gateway {
            node: cx.node.clone(),
            in_flight: InFlight::new(Meters::new(&cx.metrics, &mesh, &probes)),
            table: self.table,
            mesh,
            view: cx.view,
            guard: Guard::new(self.hosts, HOSTS),
            trust: self.trust,
            is_draining: AtomicBool::new(false),
        });
        let stop = Stop { accepting: CancellationToken::new(), serving: cx.shutdown.child_token() };
        let closed = CancellationToken::new();
        let limits = ServeLimits {
            connections: self.max_connections,
            grace: GRACE,
            node: Some(cx.node),
            ..ServeLimits::default()
        };
        let serving = serve(listener, routes::service::<Body>(Arc::clone(&gateway)), stop.clone(), limits);
        let on_close = closed.clone().drop_guard();
        cx.tasks.spawn("gateway listener", async move {
            let _on_close = on_close;
            serving.await;
            Ok(())
        });
        // A draining gateway sends no probes.
        let (probing, stopping) = (Arc::clone(&probes), stop.accepting.clone());
        let shutdown = cx.shutdown;
        cx.tasks.spawn("route probes", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = probing.run(stopping) => {}
            }
            Ok(())
        });
        Ok(Arc::new(GatewayService { gateway, probes, stop, closed }))
    }
}

#[async_trait]
impl Service for GatewayService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(Arc::clone(&self.gateway))
    }

    fn health(&self) -> Health {
        if self.closed.is_cancelled() && !self.stop.accepting.is_cancelled() {
            return Health::Failed("the listener has ended".to_owned());
        }
        self.probes.health()
    }

    /// Refuses new connections. Open ones get their answers, with `Connection: close`.
    async fn drain(&self, deadline: Instant) {
        self.gateway.is_draining.store(true, Ordering::SeqCst);
        self.stop.accepting.cancel();
        let in_flight = &self.gateway.in_flight;
        info!(in_flight = in_flight.count(), "draining the gateway");
        let quiet = tokio::time::timeout_at(deadline, in_flight.quiet(QUIET));
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            outcome = quiet => if outcome.is_err() {
                warn!(in_flight = in_flight.count(), "drain deadline reached before all requests ended");
            },
        }
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.stop.accepting.cancel();
        self.stop.serving.cancel();
        self.closed.cancelled().await;
        Ok(())
    }
}
