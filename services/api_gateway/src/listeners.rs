//! The listeners of a gateway: opened together, drained together, and changed while the others go on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use ipnet::IpNet;
use plugin::access_log::AccessLog;
use plugin::{
    Context, CoreListener, DrainingListener, Health, InFlight, ListenerMeters, OnRefused, PerClient,
    Protocols, ServeLimits, ServiceError, Tls,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::live::Live;
use crate::routes;
use crate::settings::ListenerPlan;

/// How long answers may still be written after the stop; the drain before it waits for requests to end.
const GRACE: Duration = Duration::from_secs(1);

/// Tells listeners apart whose names and settings may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenerId(u64);

impl ListenerId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What requests need of the listener on which they arrived. They have it as an extension.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) id: ListenerId,
    /// The name of the listener.
    pub(crate) listener: String,
    /// The proxies whose forwarding headers are trusted.
    pub(crate) trust: Vec<IpNet>,
    /// The path of readiness checks.
    pub(crate) ready: Option<String>,
    /// The requests of the listener.
    pub(crate) in_flight: InFlight,
    /// What is counted of the listener.
    pub(crate) meters: ListenerMeters,
}

impl Arrival {
    pub(crate) fn new(
        id: ListenerId,
        plan: &ListenerPlan,
        in_flight: InFlight,
        meters: ListenerMeters,
    ) -> Self {
        Self {
            id,
            listener: plan.name.clone(),
            trust: plan.trust.clone(),
            ready: plan.ready.clone(),
            in_flight,
            meters,
        }
    }
}

/// A listener that is open and not served yet.
pub(crate) struct OpenListener {
    plan: ListenerPlan,
    arrival: Arc<Arrival>,
    socket: CoreListener,
    tls: Option<Tls>,
}

/// Opens listeners and reads their certificates. Fails if one of them can't be opened; a missing certificate only degrades
/// its listener.
pub(crate) async fn open(cx: &Context, plans: Vec<ListenerPlan>) -> Result<Vec<OpenListener>, ServiceError> {
    let mut opened = Vec::new();
    for plan in plans {
        let socket = cx.listen_on_cores(&plan.name, plan.scheme(), plan.address)?;
        let (in_flight, meters) = (InFlight::default(), ListenerMeters::default());
        let arrival = Arc::new(Arrival::new(ListenerId::next(), &plan, in_flight, meters));
        opened.push(OpenListener { plan, arrival, socket, tls: None });
    }
    for OpenListener { plan, tls, .. } in &mut opened {
        if let Some(wanted) = plan.tls() {
            *tls = Some(wanted.open().await?);
        }
    }
    Ok(opened)
}

impl OpenListener {
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn arrival(&self) -> &Arc<Arrival> {
        &self.arrival
    }
}

/// A listener that is served.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) plan: ListenerPlan,
    /// The address that it has bound.
    pub(crate) address: SocketAddr,
    pub(crate) arrival: Arc<Arrival>,
    /// The same for requests that come when the state has no such listener any more.
    last: Arc<ArcSwap<Arrival>>,
    pub(crate) tls: Option<Tls>,
    listener: Arc<DrainingListener>,
}

impl Running {
    /// Serves the gateway on an open listener.
    pub(crate) fn serve(cx: &Context, opened: OpenListener, live: &Live, log: &AccessLog) -> Self {
        let OpenListener { plan, arrival, socket, tls } = opened;
        let address = socket.address();
        let last = Arc::new(ArcSwap::new(Arc::clone(&arrival)));
        let on_refused = routes::on_refused(live, &last, log);
        let (limits, protocols) = served_with(cx, &plan, &arrival, tls.as_ref(), on_refused);
        let service = routes::on_listener(live.clone(), Arc::clone(&last), log.clone());
        let in_flight = arrival.in_flight.clone();
        let listener = DrainingListener::named(cx, &plan.name, socket, in_flight, limits, protocols, service);
        Self { plan, address, arrival, last, tls, listener: Arc::new(listener) }
    }

    /// The same listener with other settings. They count for new requests; what concerns connections counts for new ones, once
    /// they are [applied](Self::apply).
    pub(crate) fn renewed(self, plan: ListenerPlan, tls: Option<Tls>) -> Self {
        let Arrival { id, in_flight, meters, .. } = &*self.arrival;
        let arrival = Arc::new(Arrival::new(*id, &plan, in_flight.clone(), meters.clone()));
        Self { plan, arrival, tls, ..self }
    }

    /// Gives new connections the present settings.
    pub(crate) fn apply(&self, cx: &Context, live: &Live, log: &AccessLog) {
        let Self { plan, arrival, last, tls, listener, .. } = self;
        last.store(Arc::clone(arrival));
        if let Some(tls) = tls {
            tls.rename(&plan.name);
        }
        let on_refused = routes::on_refused(live, last, log);
        let (limits, protocols) = served_with(cx, plan, arrival, tls.as_ref(), on_refused);
        listener.change(cx, &plan.name, limits, protocols);
    }
}

/// The limits and protocols of a listener.
fn served_with(
    cx: &Context,
    plan: &ListenerPlan,
    arrival: &Arrival,
    tls: Option<&Tls>,
    on_refused: OnRefused,
) -> (ServeLimits, Protocols) {
    let limits = ServeLimits {
        keep_alive: plan.keep_alive,
        send_timeout: plan.send_timeout,
        connections: plan.max_connections,
        connections_setting: Some("max_connections"),
        per_client: plan
            .max_connections_per_client
            .map(|connections| PerClient { connections, exempt: plan.trust.clone() }),
        grace: GRACE,
        node: Some(cx.node.clone()),
        ..ServeLimits::of_service_listener()
    };
    let protocols = Protocols {
        name: plan.name.as_str().into(),
        http1: plan.http1,
        http2: plan.http2,
        tls: tls.cloned(),
        proxies: plan.proxy_protocol.then(|| plan.trust.clone()),
        meters: arrival.meters.clone(),
        on_refused,
    };
    (limits, protocols)
}

/// The listeners of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    running: Arc<Mutex<Vec<Running>>>,
    /// Those that were removed and that still drain.
    removed: Arc<Mutex<Vec<Arc<DrainingListener>>>>,
    draining: CancellationToken,
}

impl Listeners {
    /// Serves the gateway on all listeners.
    pub(crate) fn serve(
        cx: &Context,
        opened: Vec<OpenListener>,
        live: &Live,
        log: &AccessLog,
        empty: Self,
    ) -> Self {
        let listeners = empty;
        let running = opened.into_iter().map(|opened| Running::serve(cx, opened, live, log)).collect();
        *listeners.lock() = running;
        let shared = Arc::clone(&listeners.running);
        ListenerMeters::register(&cx.metrics, move || {
            let running = locked(&shared);
            let each = running
                .iter()
                .map(|one| (one.plan.name.clone(), one.arrival.meters.clone(), one.tls.clone()));
            each.collect()
        });
        listeners
    }

    /// The listeners now; hold the lock for a moment only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        locked(&self.running)
    }

    /// Cancelled when the drain begins.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// `Failed` if a listener has ended, else `Degraded` with the troubles that listeners have with their certificates.
    pub(crate) fn health(&self) -> Health {
        let running = self.lock();
        let ended = running.iter().map(|one| one.listener.health());
        let certificates = running.iter().filter_map(|one| one.tls.as_ref()).map(Tls::health);
        Health::together(ended.chain(certificates))
    }

    /// Drains a listener that was removed, for a time, and closes the connections that are left. The drain has begun when this
    /// returns; a task does the rest, and ends early with the service.
    pub(crate) fn remove(&self, cx: &Context, one: Running, time: Duration) {
        let (listener, removed, deadline) = (one.listener, Arc::clone(&self.removed), Instant::now() + time);
        listener.begin_drain();
        locked(&removed).push(Arc::clone(&listener));
        let shutdown = cx.shutdown.clone();
        cx.tasks.spawn("removed listener", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = listener.drain(deadline) => {}
            }
            listener.stop().await;
            locked(&removed).retain(|other| !Arc::ptr_eq(other, &listener));
            Ok(())
        });
    }

    /// Those that serve, and those that were removed.
    fn all(&self) -> Vec<Arc<DrainingListener>> {
        let running: Vec<_> = self.lock().iter().map(|one| Arc::clone(&one.listener)).collect();
        let removed = locked(&self.removed).clone();
        running.into_iter().chain(removed).collect()
    }

    /// Drains all listeners, together with those that were removed before.
    pub(crate) async fn drain(&self, deadline: Instant) {
        self.draining.cancel();
        let all = self.all();
        join_all(all.iter().map(|listener| listener.drain(deadline))).await;
    }

    /// Closes every connection, within the grace. Idempotent.
    pub(crate) async fn stop(&self) {
        self.draining.cancel();
        let all = self.all();
        join_all(all.iter().map(|listener| listener.stop())).await;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
