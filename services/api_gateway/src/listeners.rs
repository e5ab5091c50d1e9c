//! The listeners of a gateway: opened together, drained together.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ipnet::IpNet;
use plugin::access_log::AccessLog;
use plugin::{
    Context, CoreListener, DrainingListener, Health, InFlight, ListenerMeters, Protocols, ServeLimits,
    ServiceError, Tls,
};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::routes;
use crate::settings::ListenerPlan;

/// How long answers may still be written after the stop; the drain before it waits for requests to end.
const GRACE: Duration = Duration::from_secs(1);

/// What requests need of the listener on which they arrived. They have it as an extension.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The name of the listener.
    pub(crate) listener: String,
    /// The proxies whose forwarding headers are trusted.
    pub(crate) trust: Vec<IpNet>,
    /// The path of readiness checks.
    pub(crate) ready: Option<String>,
    /// What is counted of the listener.
    pub(crate) meters: ListenerMeters,
}

/// A listener that is open and not served yet.
pub(crate) struct OpenListener {
    plan: ListenerPlan,
    socket: CoreListener,
    tls: Option<Tls>,
}

/// Opens all listeners and reads their certificates. Fails if one of them can't be opened; a missing certificate only
/// degrades its listener.
pub(crate) async fn open(cx: &Context, plans: Vec<ListenerPlan>) -> Result<Vec<OpenListener>, ServiceError> {
    let mut opened = Vec::new();
    for plan in plans {
        let socket = cx.listen_on_cores(&plan.name, plan.scheme(), plan.address)?;
        opened.push(OpenListener { plan, socket, tls: None });
    }
    for listener in opened.iter_mut().filter(|listener| listener.plan.is_tls()) {
        let plan = &listener.plan;
        let offered = [("h2", plan.http2), ("http/1.1", plan.http1)];
        let alpn: Vec<_> =
            offered.iter().filter(|(_, is_offered)| *is_offered).map(|(name, _)| *name).collect();
        listener.tls = Some(Tls::open(&plan.name, plan.certificates.clone(), &alpn).await?);
    }
    Ok(opened)
}

/// The running listeners of a gateway.
#[derive(Debug)]
pub(crate) struct Listeners {
    running: Vec<(DrainingListener, Option<Tls>)>,
}

impl Listeners {
    /// Serves the gateway on all listeners.
    pub(crate) fn serve(
        cx: &Context,
        opened: Vec<OpenListener>,
        gateway: &Arc<Gateway>,
        in_flight: &InFlight,
        log: &AccessLog,
    ) -> Self {
        let (mut running, mut metered) = (Vec::new(), Vec::new());
        for OpenListener { plan, socket, tls } in opened {
            let meters = ListenerMeters::default();
            metered.push((plan.name.clone(), meters.clone(), tls.clone()));
            let limits = ServeLimits {
                connections: plan.max_connections,
                grace: GRACE,
                node: Some(cx.node.clone()),
                ..ServeLimits::of_service_listener()
            };
            let proxies = plan.proxy_protocol.then(|| plan.trust.clone());
            let arrival = Arc::new(Arrival {
                listener: plan.name.clone(),
                trust: plan.trust,
                ready: plan.ready,
                meters: meters.clone(),
            });
            let on_refused = routes::on_refused(gateway, &arrival, log);
            let protocols = Protocols {
                http1: plan.http1,
                http2: plan.http2,
                tls: tls.clone(),
                proxies,
                meters,
                on_refused,
            };
            let service = routes::on_listener(Arc::clone(gateway), arrival, log.clone());
            let listener = DrainingListener::named(
                cx,
                &plan.name,
                socket,
                in_flight.clone(),
                limits,
                protocols,
                service,
            );
            if let Some(tls) = tls.clone() {
                let (shutdown, stopping) = (cx.shutdown.clone(), listener.draining());
                cx.tasks.spawn("certificates", async move {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => {}
                        () = stopping.cancelled() => {}
                        () = tls.watch() => {}
                    }
                    Ok(())
                });
            }
            running.push((listener, tls));
        }
        ListenerMeters::register(&cx.metrics, metered);
        Self { running }
    }

    /// Cancelled when the drain begins.
    pub(crate) fn draining(&self) -> tokio_util::sync::CancellationToken {
        self.running.first().map(|(listener, _)| listener.draining()).unwrap_or_default()
    }

    /// `Failed` if a listener has ended, else `Degraded` if one has trouble with its certificates.
    pub(crate) fn health(&self) -> Health {
        let ended = self.running.iter().map(|(listener, _)| listener.health());
        let certificates = self.running.iter().filter_map(|(_, tls)| tls.as_ref()).map(Tls::health);
        ended.chain(certificates).find(|health| *health != Health::Ready).unwrap_or(Health::Ready)
    }

    /// Refuses new connections on all listeners, and waits for the requests in flight, or until the deadline.
    pub(crate) async fn drain(&self, deadline: Instant) {
        join_all(self.running.iter().map(|(listener, _)| listener.drain(deadline))).await;
    }

    /// Closes every connection, within the grace. Idempotent.
    pub(crate) async fn stop(&self) {
        join_all(self.running.iter().map(|(listener, _)| listener.stop())).await;
    }
}
