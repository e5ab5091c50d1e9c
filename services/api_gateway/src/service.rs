//! The running gateway: start, change of settings, drain and stop.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use plugin::access_log::AccessLog;
use plugin::http::Guard;
use plugin::{
    Context, ExpectedHttp, Expects, Health, InFlight, ListenSetting, Prepared, Service, ServiceError,
    TargetSetting, Updated, prepared_as,
};
use tokio::time::Instant;

use crate::checks::Checks;
use crate::gateway::Gateway;
use crate::gateways;
use crate::listeners::{self, Listeners};
use crate::live::Live;
use crate::probes::Probes;
use crate::rate::Gateways;
use crate::reload::Parts;
use crate::routes;
use crate::settings::{ListenerPlan, Plan};
use crate::table::{Target, Way};
use crate::traffic::Traffic;

/// The hint for a request to a host that is not allowed.
const HOSTS: &str = "add it to `hosts` in the settings of api_gateway";

/// A running gateway.
#[derive(Debug)]
pub(crate) struct GatewayService {
    pub(crate) cx: Context,
    /// The state that requests use.
    pub(crate) live: Live,
    pub(crate) listeners: Listeners,
    /// What is counted of requests, whatever the settings are.
    traffic: Arc<Traffic>,
    /// Those that share the rate limits of its routes.
    gateways: Arc<Gateways>,
    pub(crate) access_log: AccessLog,
}

#[async_trait]
impl Prepared for Plan {
    fn listens(&self) -> Vec<ListenSetting> {
        let setting = |listener: &ListenerPlan| ListenSetting {
            pointer: listener.pointer("address"),
            name: listener.name.clone(),
            address: listener.address,
            expects: Expects {
                proxies: listener.proxy_protocol.then(|| listener.trust.clone()),
                http: Some(ExpectedHttp { tls: listener.is_tls(), http1: listener.http1 }),
            },
        };
        self.listeners.iter().map(setting).collect()
    }

    fn targets(&self) -> Vec<TargetSetting> {
        let setting = |way: &Way| {
            let Target::Service(service, _) = &way.target else { return None };
            let pointer = format!("/routes/{}/service", way.place);
            Some(TargetSetting { pointer, service: service.clone(), listener: None })
        };
        self.table.ways().iter().filter_map(setting).collect()
    }

    async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
        let Self { listeners, table, limits, hosts, access_log } = *self;
        let opened = listeners::open(&cx, listeners).await?;
        let mesh = cx.mesh.with_limits(limits);
        let mut service = GatewayService {
            live: Live::default(),
            listeners: Listeners::default(),
            traffic: Traffic::new(&cx.metrics),
            gateways: gateways::count(&cx),
            access_log: AccessLog::start(&cx, access_log),
            cx,
        };
        let arrivals = opened.iter().map(|opened| Arc::clone(opened.arrival())).collect();
        let tls = opened.iter().filter_map(|opened| opened.tls().cloned()).collect();
        // Before the first connection.
        service.live.replace(service.state(Parts { table, mesh, hosts, arrivals, tls }, None));
        service.live.declare(&service.cx.metrics);
        let (cx, log) = (&service.cx, &service.access_log);
        service.listeners = Listeners::serve(cx, opened, &service.live, log, service.listeners);
        Ok(Arc::new(service))
    }
}

impl GatewayService {
    /// A new state, whose probes and checks know what those of the state before it know, and end those.
    pub(crate) fn state(&self, parts: Parts, before: Option<&Gateway>) -> Gateway {
        let Parts { mut table, mesh, hosts, arrivals, tls } = parts;
        for rate in table.ways_mut().iter_mut().filter_map(|way| way.rate.as_mut()) {
            rate.share_with(&self.gateways);
        }
        let mut probes = Probes::new(&table, mesh.limits().connect);
        if let Some(before) = before {
            // Both would tell the same addresses what they have found.
            before.probing.cancel();
            probes = probes.knowing(&before.probes);
        }
        let checks = Checks::new(&table, before.map(|before| &*before.checks));
        let (probes, checks) = (Arc::new(probes), Arc::new(checks));
        // A draining gateway sends no probes, and neither does a state that was replaced.
        let stopping = self.listeners.draining().child_token();
        let (probing, probing_until) = (Arc::clone(&probes), stopping.clone());
        let (checking, checking_until) = (Arc::clone(&checks), stopping.clone());
        let shutdown = self.cx.shutdown.clone();
        self.cx.tasks.spawn("route probes", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                ((), ()) = async { tokio::join!(probing.run(probing_until), checking.run(checking_until)) } => {}
            }
            Ok(())
        });
        let listeners = arrivals.iter().map(|arrival| arrival.listener.as_str());
        Gateway {
            node: self.cx.node.clone(),
            traffic: self.traffic.table(listeners, &table, &mesh),
            in_flight: InFlight::default(),
            table,
            mesh,
            view: self.cx.view.clone(),
            guard: Guard::new(hosts, HOSTS),
            probes,
            checks,
            arrivals,
            tls,
            probing: stopping,
        }
    }
}

#[async_trait]
impl Service for GatewayService {
    fn routes(self: Arc<Self>) -> Router {
        routes::router(&self.live)
    }

    fn health(&self) -> Health {
        let now = self.live.now();
        Health::together([
            self.listeners.health(),
            now.checks.health(),
            now.probes.health(),
            self.access_log.health(),
        ])
    }

    async fn update(&self, prepared: Box<dyn Prepared>) -> Updated {
        match prepared_as::<Plan>(prepared) {
            Ok(plan) => self.reload(*plan).await,
            Err(error) => Updated::Failed(error),
        }
    }

    /// Readiness checks fail at once; a moment later answers carry `Connection: close`, and then new connections are refused.
    async fn drain(&self, deadline: Instant) {
        self.listeners.drain(deadline).await;
    }

    async fn stop(&self) -> Result<(), ServiceError> {
        self.listeners.stop().await;
        self.access_log.stop().await;
        Ok(())
    }
}
