//! The running balancer: start, health, drain and stop.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use plugin::access_log::AccessLog;
use plugin::{
    Context, Health, ListenSetting, Prepared, Service, ServiceError, TargetSetting, Tls, Updated, prepared_as,
};
use tokio::time::Instant;
use types::{ErrorKind, ReasonCode, ServiceName};

use crate::listener::Listener;
use crate::listeners::{Listeners, OpenListener, Running};
use crate::plan::{ListenerPlan, Plan};
use crate::resolve::{Lookup, system};
use crate::{meters, routes};

/// A listener's target has no backend that gets connections.
const NO_BACKEND: ReasonCode = ReasonCode::new("no-backend");
/// The number of targets that the health reason names.
const NAMED: usize = 3;

/// A running balancer.
pub(crate) struct Balancer {
    pub(crate) cx: Context,
    pub(crate) listeners: Listeners,
    pub(crate) access_log: AccessLog,
    /// How names of backends are resolved.
    pub(crate) lookup: Lookup,
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balancer").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<ListenSetting> {
        let setting = |(at, listener): (usize, &ListenerPlan)| ListenSetting {
            pointer: format!("/listeners/{at}/address"),
            name: listener.name.clone(),
            address: listener.address,
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

impl Balancer {
    pub(crate) async fn start(plan: Plan, cx: &Context, lookup: &Lookup) -> Result<Self, ServiceError> {
        leads_elsewhere(&plan, cx)?;
        let mut opened = Vec::new();
        for plan in plan.listeners {
            opened.push(OpenListener::open(plan, cx).await?);
        }
        let listeners = Listeners::default();
        meters::register(&cx.metrics, &listeners);
        let access_log = AccessLog::start(cx, plan.access_log);
        let serve = |opened| Running::serve(cx, opened, &access_log, lookup);
        listeners.lock().running = opened.into_iter().map(serve).collect();
        Ok(Self { cx: cx.clone(), listeners, access_log, lookup: Arc::clone(lookup) })
    }
}

/// A balancer whose target is its own service would forward to itself for ever.
pub(crate) fn leads_elsewhere(plan: &Plan, cx: &Context) -> Result<(), ServiceError> {
    let own =
        |service: &&ServiceName| cx.role.service() == Some(&cx.view.borrow().normalized((*service).clone()));
    for listener in &plan.listeners {
        let targets = listener.targets.iter().filter_map(|target| target.source.service());
        let api = listener.http.as_ref().and_then(|http| Some(&http.service.as_ref()?.0));
        if let Some(service) = targets.chain(api).find(own) {
            let message =
                format!("listener `{}` would forward to its own service `{service}`", listener.name);
            return Err(
                ServiceError::new(ErrorKind::Invalid, message).hint("name another service in its settings")
            );
        }
    }
    Ok(())
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
