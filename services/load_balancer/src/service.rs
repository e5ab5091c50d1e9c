//! The running balancer: start, health, drain and stop.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use plugin::{
    Context, Health, ListenSetting, Prepared, Service, ServiceError, TargetSetting, Tls, Updated, prepared_as,
};
use tokio::time::Instant;
use types::ReasonCode;

use crate::balancer::Balancer;
use crate::listener::Listener;
use crate::plan::{ListenerPlan, Plan};
use crate::resolve::system;
use crate::routes;

/// A listener's target has no backend that gets connections.
const NO_BACKEND: ReasonCode = ReasonCode::new("no-backend");
/// The number of targets that the health reason names.
const NAMED: usize = 3;

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<ListenSetting> {
        let setting = |(at, listener): (usize, &ListenerPlan)| ListenSetting {
            pointer: format!("/listeners/{at}/address"),
            name: listener.name.clone(),
            address: listener.address,
            expects: listener.expects(),
        };
        self.listeners.iter().enumerate().map(setting).collect()
    }

    fn targets(&self) -> Vec<TargetSetting> {
        self.listeners.iter().enumerate().flat_map(|(at, listener)| listener.target_settings(at)).collect()
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        Ok(Arc::new(Balancer::start(*self, &cx, &system()).await?))
    }
}

/// Degraded while a target has no backend that gets connections.
fn without_backend(listeners: &[Arc<Listener>]) -> Health {
    let troubles = listeners.iter().flat_map(|listener| {
        listener.pools.iter().filter_map(|pool| {
            let hosts = pool.target.load().hosts.join(", ");
            let of = if hosts.is_empty() { String::new() } else { format!(" ({hosts})") };
            Some(format!("listener {}{of}: {}", listener.name, pool.trouble()?))
        })
    });
    let troubles: Vec<_> = troubles.collect();
    if troubles.is_empty() {
        return Health::Ready;
    }
    let more = troubles.len().saturating_sub(NAMED);
    let mut text = troubles.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text += &format!("; {more} more");
    }
    Health::degraded(NO_BACKEND, text)
}

#[async_trait]
impl Service for Balancer {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(self)
    }

    fn health(&self) -> Health {
        if let Some(trouble) = self.listeners.ended() {
            return trouble;
        }
        let listeners = self.listeners.now();
        let certificates = listeners.iter().filter_map(|listener| listener.lasting.tls.as_ref());
        Health::together([
            Health::together(certificates.map(Tls::health)),
            without_backend(&listeners),
            self.access_log.health(),
        ])
    }

    async fn update(&self, prepared: Box<dyn Prepared>) -> Updated {
        match prepared_as::<Plan>(prepared) {
            Ok(plan) => self.reload(*plan).await,
            Err(error) => Updated::Failed(error),
        }
    }

    /// Refuses new connections once nobody comes any more. Open ones live until they end, or until `timeouts.drain`.
    async fn drain(&self, deadline: Instant) {
        self.listeners.drain(deadline).await;
    }

    /// Resets the connections that are left.
    async fn stop(&self) -> Result<(), ServiceError> {
        self.listeners.stop().await;
        self.access_log.stop().await;
        Ok(())
    }
}
