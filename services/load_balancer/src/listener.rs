//! A running listener: its targets, its limits, and its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterView;
use ipnet::IpNet;
use plugin::{AcceptLimits, Context, DrainingListener, InFlight, ServiceError};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::connection::serve;
use crate::keep;
use crate::meters::ListenerMeters;
use crate::plan::{Forward, ListenerPlan};
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
    /// The address that it has bound.
    pub(crate) address: SocketAddr,
    pub(crate) pools: Vec<Arc<Pool>>,
    pub(crate) names: Option<Names>,
    pub(crate) trust: Option<Vec<IpNet>>,
    pub(crate) forward: Forward,
    pub(crate) admission: Admission,
    pub(crate) meters: Arc<ListenerMeters>,
}

impl Listener {
    /// Opens a listener, and begins to accept connections.
    pub(crate) async fn start(
        plan: ListenerPlan,
        cx: &Context,
        meters: Arc<ListenerMeters>,
        lookup: &Lookup,
    ) -> Result<(Arc<Self>, DrainingListener), ServiceError> {
        let socket = cx.listen(&plan.name, "tcp", plan.address).await?;
        let address =
            socket.local_addr().map_err(|error| ServiceError::internal("no address").source(error))?;
        let limits = AcceptLimits {
            connections: plan
                .limits
                .connections
                .saturating_add(plan.limits.queue)
                .saturating_add(INTRODUCING),
            grace: GRACE,
        };
        let pools = plan.targets.into_iter().enumerate().map(|(at, target)| {
            let seed = cx.seed.wrapping_add(at as u64);
            Arc::new(Pool::new(&plan.name, target, plan.forward.clone(), seed))
        });
        let listener = Arc::new(Self {
            name: plan.name.clone(),
            address,
            pools: pools.collect(),
            names: plan.names,
            trust: plan.trust,
            forward: plan.forward.clone(),
            admission: Admission::new(plan.limits),
            meters,
        });
        for pool in &listener.pools {
            keep_in_background(pool, cx, cx.view.clone(), lookup);
        }
        let in_flight = InFlight::default();
        let (counted, serving) = (in_flight.clone(), Arc::clone(&listener));
        let connection = move |stream, peer, stopping| {
            serve(Arc::clone(&serving), stream, peer, stopping, counted.enter())
        };
        let running =
            DrainingListener::connections(cx, "load balancer", socket, in_flight, limits, connection);
        Ok((listener, running))
    }
}

fn keep_in_background(pool: &Arc<Pool>, cx: &Context, view: watch::Receiver<ClusterView>, lookup: &Lookup) {
    let keeping = keep::keep(Arc::clone(pool), view, Arc::clone(lookup));
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
