//! A running listener: its targets, its limits, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cluster::ClusterView;
use futures_util::FutureExt;
use ipnet::IpNet;
use plugin::access_log::AccessLog;
use plugin::{AcceptLimits, Context, DrainingListener, InFlight, Protocols, ServiceError};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::connection::serve;
use crate::http::{self, Front};
use crate::keep;
use crate::meters::ListenerMeters;
use crate::plan::{Forward, HttpPlan, ListenerPlan};
use crate::pool::Pool;
use crate::resolve::Lookup;
use crate::sni::Names;

/// How many connections may be open beyond those that are forwarded or queued: they introduce themselves, or are refused.
const INTRODUCING: usize = 1024;
/// How long connections may take to end after the stop: they are reset at once.
const GRACE: Duration = Duration::from_secs(1);

/// A running listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    /// The address in the settings.
    pub(crate) wanted: SocketAddr,
    /// The address that it has bound.
    pub(crate) address: SocketAddr,
    pub(crate) pools: Vec<Arc<Pool>>,
    pub(crate) names: Option<Names>,
    pub(crate) trust: Option<Vec<IpNet>>,
    pub(crate) forward: ArcSwap<Forward>,
    pub(crate) admission: Admission,
    pub(crate) meters: Arc<ListenerMeters>,
    pub(crate) log: AccessLog,
    /// In HTTP mode, as it was opened.
    pub(crate) http: Option<HttpPlan>,
    pub(crate) front: Option<Arc<Front>>,
}

impl Listener {
    /// Opens a listener, and begins to accept connections.
    pub(crate) async fn start(
        plan: ListenerPlan,
        cx: &Context,
        meters: Arc<ListenerMeters>,
        log: AccessLog,
        lookup: &Lookup,
    ) -> Result<(Arc<Self>, DrainingListener), ServiceError> {
        let scheme = plan.http.as_ref().map_or("tcp", HttpPlan::scheme);
        let socket = cx.listen_on_cores(&plan.name, scheme, plan.address)?;
        let address = socket.address();
        let limits = AcceptLimits {
            connections: plan
                .limits
                .connections
                .saturating_add(plan.limits.queue)
                .saturating_add(INTRODUCING),
            grace: GRACE,
        };
        let protocols = match &plan.http {
            Some(http) => Some(http::protocols(&plan.name, http, plan.trust.clone()).await?),
            None => None,
        };
        let tls = protocols.as_ref().and_then(|protocols| protocols.tls.clone());
        let front = plan.http.clone().map(|http| Arc::new(Front::new(http, cx, tls)));
        let pools = plan.targets.into_iter().enumerate().map(|(at, target)| {
            let seed = cx.seed.wrapping_add(at as u64);
            Arc::new(Pool::new(&plan.name, target, plan.forward.clone(), seed))
        });
        let listener = Arc::new(Self {
            name: plan.name.clone(),
            wanted: plan.address,
            address,
            pools: pools.collect(),
            names: plan.names,
            trust: plan.trust,
            forward: ArcSwap::from_pointee(plan.forward.clone()),
            admission: Admission::new(plan.limits),
            meters,
            log,
            http: plan.http,
            front: front.clone(),
        });
        for pool in &listener.pools {
            keep_in_background(pool, cx, cx.view.clone(), lookup);
        }
        let accepting = listener.meters.accepting.clone();
        if let (Some(front), Some(protocols)) = (front, protocols) {
            let protocols = Protocols { meters: accepting, ..protocols };
            let running = http::serve(cx, &listener, &front, socket, limits, protocols);
            return Ok((listener, running));
        }
        let in_flight = InFlight::default();
        let (counted, serving) = (in_flight.clone(), Arc::clone(&listener));
        let connection = move |stream, peer, stopping| {
            serve(Arc::clone(&serving), stream, peer, stopping, counted.enter())
        };
        let task = "load balancer";
        let running =
            DrainingListener::connections(cx, task, socket, in_flight, limits, accepting, connection);
        Ok((listener, running))
    }
}

fn keep_in_background(pool: &Arc<Pool>, cx: &Context, view: watch::Receiver<ClusterView>, lookup: &Lookup) {
    let mut keeping = Box::pin(keep::keep(Arc::clone(pool), view, Arc::clone(lookup)));
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
