//! Requests to members and addresses: the entries of the mesh, and what all of its requests share.

mod backends;
mod deliver;
mod follow;
mod goal;
mod history;
mod pick;
mod refusal;
mod retries;
mod series;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cluster::ClusterView;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tokio::sync::watch;
use tokio::time::Instant;
use types::{ServiceName, Target};

use crate::base_url::BaseUrl;
use crate::body::MeshBody;
use crate::budget::Budget;
use crate::counts::{Counts, UpstreamCounts};
use crate::deadline::Deadline;
use crate::error::MeshError;
use crate::head;
use crate::lease::Gauge;
use crate::limits::Limits;
use crate::min_rate::MinRate;
use crate::options::Options;
use crate::roster::Roster;
use crate::targets::{Kind, Targets};
use crate::upload::{BoxError, Upload};
use crate::wire::{Head, Wire};
use follow::{close_retired, keep_watching};
use goal::Goal;

pub use series::{UpstreamMember, UpstreamSeries};

/// Requests to other members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mesh(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roster: Arc<Roster>,
    targets: Targets,
    limits: Limits,
    wire: Wire,
    budget: Budget,
    /// The totals of all meshes with these members.
    counts: Arc<Counts>,
    /// Held while it is decided whether an address is ejected: that depends on the other addresses.
    ejecting: Arc<Mutex<()>>,
    in_flight: Gauge,
    waiting: Gauge,
    requests: AtomicU64,
    retries: AtomicU64,
    refusals: AtomicU64,
}

/// The counts of a mesh: totals since its start, and the requests in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests; a retried one counts once.
    pub requests: u64,
    /// Retries that were paid from the budget.
    pub retries: u64,
    /// Refusals by members that did not process the request.
    pub refusals: u64,
    /// Requests whose answers have not ended.
    pub in_flight: usize,
    /// Requests that wait for a serving member.
    pub waiting: usize,
}

/// A request that is to be delivered.
struct Outgoing {
    head: Box<Head>,
    upload: Upload,
    deadline: Option<Deadline>,
}

impl Outgoing {
    fn new<B>(mut parts: Parts, body: B, options: &Options<'_>, limits: &Limits) -> Result<Self, MeshError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let deadline = Deadline::take(&mut parts);
        let mut head = Box::new(Head::new(parts)?);
        head.host = options.host.cloned();
        head.is_handshake = options.websocket;
        // What comes after a WebSocket's handshake is no body.
        let min_rate = match options.websocket {
            true => MinRate::default(),
            false => options.min_rate.unwrap_or(limits.min_rate),
        };
        Ok(Self { head, upload: Upload::new(body, limits.replay).at_least(min_rate), deadline })
    }

    /// The same request for a server that gets no trailers.
    fn without_trailers(mut self) -> Self {
        head::without_trailers(&mut self.head.headers);
        Self { upload: self.upload.without_trailers(), ..self }
    }
}

impl Mesh {
    /// A mesh over a view. Within a Tokio runtime it also observes changes of the view between requests.
    pub fn new(view: watch::Receiver<ClusterView>, targets: Targets, limits: Limits) -> Self {
        let roster = Arc::new(Roster::new(view, limits.detector));
        keep_watching(&roster);
        Self::over(roster, targets, limits, Arc::default(), Arc::default())
    }

    /// A mesh with the same members, other limits and its own connections.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        let Inner { roster, targets, counts, ejecting, .. } = &*self.0;
        Self::over(Arc::clone(roster), targets.clone(), limits, Arc::clone(counts), Arc::clone(ejecting))
    }

    fn over(
        roster: Arc<Roster>,
        targets: Targets,
        limits: Limits,
        counts: Arc<Counts>,
        ejecting: Arc<Mutex<()>>,
    ) -> Self {
        let budget = Budget::new(limits.retry_percent, limits.retry_floor, Instant::now());
        let wire = Wire::new(&limits, &counts);
        close_retired(&roster, wire.pools());
        Self(Arc::new(Inner {
            roster,
            targets,
            wire,
            budget,
            counts,
            ejecting,
            limits,
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }))
    }

    /// The mesh's limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The present counts.
    pub fn stats(&self) -> Stats {
        let inner = &self.0;
        Stats {
            requests: inner.requests.load(Ordering::Relaxed),
            retries: inner.retries.load(Ordering::Relaxed),
            refusals: inner.refusals.load(Ordering::Relaxed),
            in_flight: inner.in_flight.value(),
            waiting: inner.waiting.value(),
        }
    }

    /// The totals of this mesh and all others with the same members.
    pub fn upstream_counts(&self) -> UpstreamCounts {
        self.0.counts.now()
    }

    /// Sends a request to a serving member of a service and streams the answer.
    ///
    /// The request's path and query are those below `/svc/{service}`; they are forwarded byte for byte.
    pub async fn send<B>(
        &self,
        service: &ServiceName,
        request: Request<B>,
    ) -> Result<Response<MeshBody>, MeshError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_with(service, &Options::default(), request).await
    }

    /// The same with options.
    pub fn send_with<'a, B>(
        &'a self,
        service: &'a ServiceName,
        options: &'a Options<'_>,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<MeshBody>, MeshError>> + Send + 'a
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let target = self.0.targets.of(service, &parts);
        self.send_service(service, target, options, (parts, body))
    }

    /// The same to a member that may answer for a target, independently of the request's head.
    pub async fn send_to<B>(
        &self,
        service: &ServiceName,
        target: Target,
        request: Request<B>,
    ) -> Result<Response<MeshBody>, MeshError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_service(service, target, &Options::default(), request.into_parts()).await
    }

    // Not `async`: the future would have room for the request twice. Inlined, it is built where it is polled.
    #[inline]
    fn send_service<'a, B>(
        &'a self,
        service: &'a ServiceName,
        target: Target,
        options: &'a Options<'_>,
        (parts, body): (Parts, B),
    ) -> impl Future<Output = Result<Response<MeshBody>, MeshError>> + Send + 'a
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let may_repeat = self.0.targets.may_repeat(service, &parts);
        let outgoing = Outgoing::new(parts, body, options, &self.0.limits);
        async move {
            let Outgoing { head, upload, deadline } = &mut outgoing?;
            let limits = options.limits(&self.0.limits);
            let goal = Goal::Service { service, target, may_repeat, balance: options.balance };
            self.0.deliver(&goal, head, upload, (*deadline, options), &limits).await
        }
    }

    /// Sends a request to one of several addresses and streams the answer. Path and query are appended byte for byte,
    /// and trailers are dropped unless all addresses speak HTTP/2 or TLS. The addresses are not trusted: headers reserved
    /// for the cluster are removed from their answers, and their claim not to have processed a request is ignored.
    pub async fn send_to_any<B>(
        &self,
        urls: &[BaseUrl],
        request: Request<B>,
    ) -> Result<Response<MeshBody>, MeshError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_to_any_with(urls, &Options::default(), request).await
    }

    /// The same with options.
    // Not `async`: the future would have room for the request twice. Inlined, it is built where it is polled.
    #[inline]
    pub fn send_to_any_with<'a, B>(
        &'a self,
        urls: &'a [BaseUrl],
        options: &'a Options<'_>,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<MeshBody>, MeshError>> + Send + 'a
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let may_repeat = parts.method.is_idempotent();
        let mut outgoing = Outgoing::new(parts, body, options, &self.0.limits);
        if !urls.iter().all(|url| url.origin().may_be_shared()) {
            outgoing = outgoing.map(Outgoing::without_trailers);
        }
        async move {
            let Outgoing { head, upload, deadline } = &mut outgoing?;
            let Options { weights, balance, pool, .. } = *options;
            let goal = Goal::Addresses { urls, may_repeat, weights, balance, pool };
            let limits = options.limits(&self.0.limits);
            self.0.deliver(&goal, head, upload, (*deadline, options), &limits).await
        }
    }

    /// Whether a service exists, even without a member, or may exist as far as this node knows.
    pub fn may_exist(&self, service: &ServiceName) -> bool {
        matches!(self.0.targets.kind(service), Kind::Settled(_) | Kind::NotYetKnown)
    }

    /// Whether a service is a gateway or a balancer, whose members get no requests from this one.
    pub fn is_proxy(&self, service: &ServiceName) -> bool {
        self.0.is_proxy(service)
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.0.wire
    }
}

#[cfg(test)]
mod balance_tests;
#[cfg(test)]
mod owner_tests;
#[cfg(test)]
mod tests;
