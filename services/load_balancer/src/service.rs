//! The running balancer: start, health, drain and stop.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use futures_util::future::join_all;
use plugin::access_log::AccessLog;
use plugin::{Context, DrainingListener, Health, Prepared, Service, ServiceError, Tls, Updated, prepared_as};
use tokio::time::Instant;
use types::{ErrorKind, ReasonCode, ServiceName};

use crate::listener::Listener;
use crate::plan::Plan;
use crate::resolve::{Lookup, system};
use crate::{meters, routes};

/// A listener's target has no backend that gets connections.
const NO_BACKEND: ReasonCode = ReasonCode::new("no-backend");
/// The number of targets that the health reason names.
const NAMED: usize = 3;

/// A running balancer.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) cx: Context,
    pub(crate) listeners: Vec<(Arc<Listener>, DrainingListener)>,
    pub(crate) access_log: AccessLog,
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        Ok(Arc::new(Balancer::start(*self, &cx, &system()).await?))
    }
}

impl Balancer {
    pub(crate) async fn start(plan: Plan, cx: &Context, lookup: &Lookup) -> Result<Self, ServiceError> {
        for listener in &plan.listeners {
            for target in &listener.targets {
                leads_elsewhere(&listener.name, target.source.service(), cx)?;
            }
            let service = listener.http.as_ref().and_then(|http| http.service.as_ref());
            leads_elsewhere(&listener.name, service.map(|(service, _)| service), cx)?;
        }
        let names: Vec<_> = plan.listeners.iter().map(|listener| listener.name.clone()).collect();
        let meters = meters::register(&cx.metrics, &names);
        let access_log = AccessLog::start(cx, plan.access_log);
        let mut listeners: Vec<(Arc<Listener>, DrainingListener)> = Vec::new();
        for (plan, meters) in plan.listeners.into_iter().zip(meters) {
            match Listener::start(plan, cx, Arc::clone(&meters), access_log.clone(), lookup).await {
                Ok((listener, running)) => {
                    meters.belong_to(&listener);
                    listeners.push((listener, running));
                }
                Err(error) => {
                    // Those that are open already must not accept connections for a service that did not start.
                    join_all(listeners.iter().map(|(_, running)| running.stop())).await;
                    access_log.stop().await;
                    return Err(error);
                }
            }
        }
        Ok(Self { cx: cx.clone(), listeners, access_log })
    }
}

/// A balancer whose target is its own service would forward to itself for ever.
pub(crate) fn leads_elsewhere(
    listener: &str,
    target: Option<&ServiceName>,
    cx: &Context,
) -> Result<(), ServiceError> {
    match target {
        Some(service) if cx.role.service() == Some(&cx.view.borrow().normalized(service.clone())) => {
            let message = format!("listener `{listener}` would forward to its own service `{service}`");
            Err(ServiceError::new(ErrorKind::Invalid, message).hint("name another service in its settings"))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Service for Balancer {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(self)
    }

    fn health(&self) -> Health {
        for (_, running) in &self.listeners {
            match running.health() {
                Health::Ready => {}
                trouble => return trouble,
            }
        }
        let certificates =
            self.listeners.iter().filter_map(|(listener, _)| listener.front.as_ref()?.tls.as_ref());
        if let Some(trouble) = certificates.map(Tls::health).find(|health| *health != Health::Ready) {
            return trouble;
        }
        let troubles = self.listeners.iter().flat_map(|(listener, _)| {
            listener.pools.iter().filter_map(|pool| {
                let hosts = pool.target.load().hosts.join(", ");
                let of = if hosts.is_empty() { String::new() } else { format!(" ({hosts})") };
                Some(format!("listener {}{of}: {}", listener.name, pool.trouble()?))
            })
        });
        let troubles: Vec<_> = troubles.collect();
        if troubles.is_empty() {
            return self.access_log.health();
        }
        let more = troubles.len().saturating_sub(NAMED);
        let mut text = troubles.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
        if more > 0 {
            text += &format!("; {more} more");
        }
        Health::degraded(NO_BACKEND, text)
    }

    async fn update(&self, prepared: Box<dyn Prepared>) -> Updated {
        match prepared_as::<Plan>(prepared) {
            Ok(plan) => self.reload(*plan),
            Err(error) => Updated::Failed(error),
        }
    }

    /// Refuses new connections once nobody comes any more. Open ones live until they end, or until `timeouts.drain`.
    async fn drain(&self, deadline: Instant) {
        let now = Instant::now();
        let draining = self.listeners.iter().map(|(listener, running)| {
            let own = now.checked_add(listener.forward.load().drain);
            running.drain(own.map_or(deadline, |own| own.min(deadline)))
        });
        join_all(draining).await;
    }

    /// Resets the connections that are left.
    async fn stop(&self) -> Result<(), ServiceError> {
        join_all(self.listeners.iter().map(|(_, running)| running.stop())).await;
        self.access_log.stop().await;
        Ok(())
    }
}
