//! The open listeners of a balancer: opened together, drained together, and added, changed and removed while the others go
//! on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::join_all;
use plugin::access_log::AccessLog;
use plugin::{AcceptLimits, Context, CoreListener, DrainingListener, InFlight, ServiceError, Tls};
use tokio::time::Instant;
use tracing::info;

use crate::admission::Admission;
use crate::connection::serve;
use crate::http;
use crate::keep;
use crate::listener::{Lasting, Listener, Live};
use crate::meters::ListenerMeters;
use crate::plan::{HttpPlan, LimitsPlan, ListenerPlan};
use crate::pool::Pool;
use crate::resolve::Lookup;

/// How many connections may be open beyond those that are forwarded or queued: they introduce themselves, or are refused.
const INTRODUCING: usize = 1024;
/// How long connections may take to end after the stop: they are reset at once.
const GRACE: Duration = Duration::from_secs(1);

/// A listener that is open and not served yet.
pub(crate) struct OpenListener {
    plan: ListenerPlan,
    socket: CoreListener,
    tls: Option<Tls>,
}

impl OpenListener {
    /// Opens a listener and reads its certificates. A missing certificate only degrades it.
    pub(crate) async fn open(plan: ListenerPlan, cx: &Context) -> Result<Self, ServiceError> {
        let socket = cx.listen_on_cores(&plan.name, scheme(&plan), plan.address)?;
        let tls = match plan.tls() {
            Some(wanted) => Some(wanted.open().await?),
            None => None,
        };
        Ok(Self { plan, socket, tls })
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

/// The scheme of a listener's URL.
pub(crate) fn scheme(plan: &ListenerPlan) -> &'static str {
    plan.http.as_ref().map_or("tcp", HttpPlan::scheme)
}

/// A listener that is served.
#[derive(Debug)]
pub(crate) struct Running {
    /// The address in the settings.
    pub(crate) wanted: SocketAddr,
    /// The address that it has bound.
    pub(crate) address: SocketAddr,
    /// In HTTP mode, whether it speaks HTTP/1.1, and HTTP/2.
    pub(crate) protocols: Option<(bool, bool)>,
    pub(crate) live: Live,
    draining: Arc<DrainingListener>,
}

impl Running {
    /// Serves an open listener.
    pub(crate) fn serve(cx: &Context, opened: OpenListener, log: &AccessLog, lookup: &Lookup) -> Self {
        let OpenListener { plan, socket, tls } = opened;
        let (wanted, address) = (plan.address, socket.address());
        let protocols = plan.http.as_ref().map(|http| (http.http1, http.http2));
        let accepting = accepting(&plan.limits);
        let lasting = Lasting {
            admission: Arc::new(Admission::new(plan.limits.clone())),
            meters: Arc::new(ListenerMeters::default()),
            log: log.clone(),
            in_flight: InFlight::default(),
            tls,
        };
        let listener = Listener::new(plan, lasting.clone(), None, cx);
        for pool in &listener.pools {
            keep_in_background(pool, cx, lookup);
        }
        let live: Live = Arc::new(ArcSwap::from_pointee(listener));
        let draining = match protocols {
            Some(spoken) => http::serve(cx, &live, socket, accepting, spoken),
            None => {
                let (meters, in_flight) = (lasting.meters.accepting.clone(), lasting.in_flight);
                let (serving, counted) = (Arc::clone(&live), in_flight.clone());
                let connection = move |stream, peer, stopping| {
                    serve(serving.load_full(), stream, peer, stopping, counted.enter())
                };
                let task = "load balancer";
                DrainingListener::connections(cx, task, socket, in_flight, accepting, meters, connection)
            }
        };
        Self { wanted, address, protocols, live, draining: Arc::new(draining) }
    }

    /// Goes on with other settings in the same mode, and with this TLS. Never fails and never waits.
    pub(crate) fn change(&mut self, plan: ListenerPlan, tls: Option<Tls>, cx: &Context, lookup: &Lookup) {
        self.wanted = plan.address;
        self.protocols = plan.http.as_ref().map(|http| (http.http1, http.http2));
        let before = self.live.load_full();
        before.lasting.admission.change(plan.limits.clone());
        let accepting = accepting(&plan.limits);
        if let Some(tls) = &tls {
            tls.rename(&plan.name);
        }
        let lasting = Lasting { tls, ..before.lasting.clone() };
        let next = Arc::new(Listener::new(plan, lasting, Some(&before), cx));
        for pool in next.without(&before) {
            keep_in_background(&pool, cx, lookup);
        }
        self.live.store(Arc::clone(&next));
        for pool in before.without(&next) {
            pool.retire();
        }
        match self.protocols {
            Some(spoken) => {
                let (limits, protocols) = http::served_with(cx, &self.live, accepting, spoken);
                self.draining.change(cx, &next.name, limits, protocols);
            }
            None => self.draining.rename(&next.name, accepting.connections),
        }
    }

    /// What drains it, and when that has to have an end, counted from now.
    fn to_drain(&self) -> (Arc<DrainingListener>, Instant) {
        let now = Instant::now();
        // A time that the clock can't express is longer than any other limit.
        let until = now.checked_add(self.live.load().forward.drain).unwrap_or(now + LONG);
        (Arc::clone(&self.draining), until)
    }
}

/// Longer than a role may drain.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// How connections are accepted.
fn accepting(limits: &LimitsPlan) -> AcceptLimits {
    AcceptLimits {
        connections: most(limits),
        grace: GRACE,
        setting: Some("limits.connections and limits.queue"),
    }
}

/// The most connections that are open at once.
fn most(limits: &LimitsPlan) -> usize {
    limits.connections.saturating_add(limits.queue).saturating_add(INTRODUCING)
}

/// The listeners of a balancer. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listeners(Arc<Mutex<All>>);

#[derive(Debug, Default)]
pub(crate) struct All {
    /// In the order of the settings.
    pub(crate) running: Vec<Running>,
    /// Those that were removed and whose connections have not all ended, and when these are reset.
    removed: Vec<(Arc<DrainingListener>, Instant)>,
}

impl Listeners {
    /// Holds all of them. For a moment only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state of each one.
    pub(crate) fn now(&self) -> Vec<Arc<Listener>> {
        self.lock().running.iter().map(|running| running.live.load_full()).collect()
    }

    /// `Failed` if a listener has ended.
    pub(crate) fn ended(&self) -> Option<plugin::Health> {
        let all = self.lock();
        let mut health = all.running.iter().map(|running| running.draining.health());
        health.find(|health| *health != plugin::Health::Ready)
    }

    /// Refuses new connections on a listener that was removed, lets the open ones end for as long as it drains, and resets
    /// those that are left. The drain has begun when this returns; a task does the rest, and ends early with the service.
    pub(crate) fn remove(&self, removed: &Running, cx: &Context) {
        let now = removed.live.load_full();
        info!(listener = now.name, address = %removed.address, "removing a listener");
        let (draining, until) = removed.to_drain();
        draining.begin_drain();
        self.lock().removed.push((Arc::clone(&draining), until));
        let (all, shutdown) = (self.clone(), cx.shutdown.clone());
        cx.tasks.spawn("removed listener", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = draining.drain(until) => {}
            }
            draining.stop().await;
            now.pools.iter().for_each(|pool| pool.retire());
            all.lock().removed.retain(|(other, _)| !Arc::ptr_eq(other, &draining));
            Ok(())
        });
    }

    /// Refuses new connections on all listeners. Open ones live until they end, until their listener's limit for a drain, or
    /// until the deadline; those of removed listeners, too.
    pub(crate) async fn drain(&self, deadline: Instant) {
        let all: Vec<_> = {
            let all = self.lock();
            all.running.iter().map(Running::to_drain).chain(all.removed.iter().cloned()).collect()
        };
        join_all(all.iter().map(|(listener, until)| listener.drain((*until).min(deadline)))).await;
    }

    /// Resets every connection. Idempotent.
    pub(crate) async fn stop(&self) {
        let all: Vec<_> = {
            let all = self.lock();
            let removed = all.removed.iter().map(|(listener, _)| Arc::clone(listener));
            all.running.iter().map(|running| Arc::clone(&running.draining)).chain(removed).collect()
        };
        join_all(all.iter().map(|listener| listener.stop())).await;
    }
}

/// Keeps the backends of a target up to date, and checks them, until it is retired and its last connection has ended.
fn keep_in_background(pool: &Arc<Pool>, cx: &Context, lookup: &Lookup) {
    let detector = cx.mesh.limits().detector;
    let mut keeping = Box::pin(keep::keep(Arc::clone(pool), cx.view.clone(), Arc::clone(lookup), detector));
    // What settings and gossip name is known before the first connection comes, which may be at once, on another thread.
    let _ = (&mut keeping).now_or_never();
    let checking = keep::checks(Arc::clone(pool));
    let shutdown = cx.shutdown.clone();
    cx.tasks.spawn("load balancer backends", async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = keeping => {}
            () = checking => {}
        }
        Ok(())
    });
}
