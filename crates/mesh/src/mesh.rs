//! Sends a request until it is answered: choose a member, wait, send, classify the failure, retry.

mod backends;
mod pick;
mod refusal;
mod series;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::ClusterView;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use types::{Problem, ServiceName, Target};

use crate::address::Outcome;
use crate::attempt::{Attempt, of_failure, of_status};
use crate::balance::Balance;
use crate::base_url::BaseUrl;
use crate::body::MeshBody;
use crate::budget::Budget;
use crate::counts::{Counts, RetryReason, UpstreamCounts};
use crate::deadline::{self, Deadline};
use crate::error::MeshError;
use crate::head::{self, Source, is_not_processed, next_hop, owner_epoch, set_hops};
use crate::lease::{Gauge, InFlight};
use crate::limits::Limits;
use crate::options::{Options, Repeated};
use crate::pool::{Addresses, Asked, Pools, Received};
use crate::retry::{Chances, Decision, Failure, decide, reason, repeat_after};
use crate::roster::Roster;
use crate::targets::{Kind, Targets};
use crate::trail::Trail;
use crate::upload::{BoxError, Upload};
use crate::upstream::{RoutePool, Upstream};
use crate::wire::{Failed, Head, Wire};
use refusal::{refusal, retry_after, whole};

pub use series::{UpstreamMember, UpstreamSeries};

/// How long a member that left the view may still take to answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How long nothing must have come on a shared connection before a request whose deadline passes says something about it.
const SILENCE: Duration = Duration::from_secs(1);

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

/// The possible destinations of a request.
enum Goal<'a> {
    Service {
        service: &'a ServiceName,
        target: Target,
        /// Whether it may be sent again although it may have been acted on.
        may_repeat: bool,
        balance: Balance<'a>,
    },
    Addresses {
        urls: &'a [BaseUrl],
        may_repeat: bool,
        /// The weight of each; empty if they weigh the same.
        weights: &'a [u32],
        balance: Balance<'a>,
        pool: Option<&'a RoutePool>,
    },
}

/// The history of one request. What few requests have is boxed: all of it is part of the state of every request.
#[derive(Default)]
struct History {
    /// The addresses it was sent to. Cleared after a pause once all were tried.
    tried: Vec<BaseUrl>,
    /// The number of attempts, not counting refusals without processing.
    attempts: u32,
    /// The time it waited, including pauses.
    waited: Duration,
    /// When the request must have been answered.
    deadline: Option<Deadline>,
    /// Until when the last address that was asked wants to be left alone.
    not_before: Option<Instant>,
    /// The last failure, unless it was a refusal without processing.
    failed: Option<Box<MeshError>>,
    /// The last refusal without processing.
    refusal: Option<Box<Problem>>,
    /// What is counted of requests like this.
    upstream: Option<Arc<Upstream>>,
}

/// Detaches a request's body from its attempt on drop, unless the attempt was answered.
struct DetachOnDrop<'a>(Option<&'a Upload>);

impl Drop for DetachOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.0 {
            upload.detach();
        }
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

    // Not `async`: the future would have room for the request twice.
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
        let upload = Upload::new(body, self.0.limits.replay);
        let deadline = Deadline::of(&parts, Instant::now());
        let head = Head::new(parts).map(Box::new);
        async move {
            let mut head = head?;
            head.host = options.host.cloned();
            head.is_handshake = options.websocket;
            let limits = options.limits(&self.0.limits);
            let goal = Goal::Service { service, target, may_repeat, balance: options.balance };
            self.0.deliver(&goal, &mut head, &upload, (deadline, options), &limits).await
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
    // Not `async`: the future would have room for the request twice.
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
        let mut upload = Upload::new(body, self.0.limits.replay);
        let deadline = Deadline::of(&parts, Instant::now());
        let may_repeat = parts.method.is_idempotent();
        let mut head = Head::new(parts).map(Box::new);
        if !urls.iter().all(|url| url.origin().may_be_shared()) {
            upload = upload.without_trailers();
            if let Ok(head) = &mut head {
                head::without_trailers(&mut head.headers);
            }
        }
        async move {
            let mut head = head?;
            head.host = options.host.cloned();
            head.is_handshake = options.websocket;
            let Options { weights, balance, pool, .. } = *options;
            let goal = Goal::Addresses { urls, may_repeat, weights, balance, pool };
            let limits = options.limits(&self.0.limits);
            self.0.deliver(&goal, &mut head, &upload, (deadline, options), &limits).await
        }
    }

    /// Whether a service exists, even without a member, or may exist as far as this node knows.
    pub fn may_exist(&self, service: &ServiceName) -> bool {
        matches!(self.0.targets.kind(service), Kind::Settled(_) | Kind::NotYetKnown)
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.0.wire
    }
}

/// Records the time when a role disappears, even if no request arrives just then. Ends with the view's owner or the
/// roster.
fn keep_watching(roster: &Arc<Roster>) {
    if tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    let mut changes = roster.changes();
    let roster = Arc::downgrade(roster);
    TokioExecutor::new().execute(async move {
        while changes.changed().await.is_ok() {
            let Some(roster) = roster.upgrade() else { return };
            roster.catalog();
        }
    });
}

/// Closes the idle connections to members that drain or left, as soon as the view shows it. Ends with the view's owner or
/// the pools.
fn close_retired(roster: &Roster, pools: &Arc<Pools>) {
    if tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    let (mut changes, pools) = (roster.changes(), Arc::downgrade(pools));
    TokioExecutor::new().execute(async move {
        let mut before = Addresses::default();
        loop {
            let addresses = Addresses::of(&changes.borrow_and_update());
            let Some(pools) = pools.upgrade() else { return };
            if addresses != before {
                pools.close(&addresses.to_close(&before), addresses.draining());
                before = addresses;
            }
            drop(pools);
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

impl Inner {
    async fn deliver(
        &self,
        goal: &Goal<'_>,
        head: &mut Head,
        upload: &Upload,
        (deadline, options): (Option<Deadline>, &Options<'_>),
        limits: &Limits,
    ) -> Result<Response<MeshBody>, MeshError> {
        let Options { trail, repeated, .. } = *options;
        next_hop(&head.headers).ok_or(MeshError::Loop)?;
        head::strip(&mut head.headers, Source::Trusted);
        set_hops(&mut head.headers);
        if head.is_handshake {
            head.key = Some(head::websocket::ask(&mut head.headers));
        }
        if head.headers.contains_key(EXPECT) && !upload.hold_back() {
            head.headers.remove(EXPECT);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.budget.deposit(Instant::now());

        let may_repeat = goal.may_repeat() && repeated.reset;
        let mut guard = DetachOnDrop(Some(upload));
        let mut history = History { deadline, upstream: self.upstream(goal), ..History::default() };
        loop {
            let chosen = self.next_address(goal, &mut history).await;
            if let Some(trail) = trail {
                trail.waited(history.waited);
            }
            let chosen = chosen?;
            let url = chosen.url;
            if let Some(trail) = trail {
                trail.sent_to(self.member(goal, &url));
            }
            let attempt = Attempt::new(&url, upload, chosen.is_probe);
            deadline::hand_on(&mut head.headers, history.time_left()?);
            let in_flight = InFlight::new(&url, &self.in_flight, history.upstream.clone());
            let asked = Asked::default();
            let sent = tokio::select! {
                biased;
                sent = Trail::follow(trail, self.wire.send(head, upload, &url, limits, may_repeat, &asked)) => sent,
                () = self.gone(goal, &url) => Err(gone(&url)),
                () = Deadline::passed(deadline) => Err(too_late(&url)),
            };
            note_connection(&url, sent.as_ref().err());
            match sent.as_ref().err().map(|failed| failed.failure) {
                Some(Failure::TimedOut) => asked.timed_out(Duration::ZERO),
                // Some clients give very little time.
                Some(Failure::DeadlinePassed) => asked.timed_out(SILENCE),
                _ => {}
            }
            let status = sent.as_ref().ok().map(Response::status);
            url.state().count(status);
            if let (Some(trail), Some(status)) = (trail, status) {
                trail.answered(status, in_flight.took());
            }
            if let Some(reason) = attempt.end(outcome(goal, &sent)) {
                self.judge(goal, &url, reason);
            }
            let failed = match sent {
                Ok(answer) if goal.is_member() && is_not_processed(&answer) => {
                    self.learn(goal, answer.headers());
                    let refusal = refusal(answer).await;
                    let failed = self.not_processed(&refusal);
                    history.refusal = Some(Box::new(refusal));
                    failed
                }
                Ok(answer) => {
                    let most = (limits.attempts, &repeated);
                    if let Some((pause, reason)) = self.repeats(goal, &answer, upload, most, &mut history) {
                        drop(in_flight);
                        if let Some(trail) = trail {
                            trail.retried(reason);
                        }
                        debug!(url = %url, status = %answer.status(), ?pause, "a request is refused for now");
                        history.not_before = Some(Instant::now() + pause);
                        history.tried.push(url);
                        // A connection whose answer was read can be used again.
                        tokio::select! {
                            biased;
                            () = Deadline::passed(deadline) => {}
                            _ = whole(answer) => {}
                        }
                        continue;
                    }
                    let held = (in_flight, upload.clone());
                    let answer = self.pass_on(goal, &url, answer, held, (limits.idle, deadline))?;
                    guard.0 = None;
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            drop(in_flight);
            debug!(url = %url, failure = ?failed.failure, error = %failed.error, "a request failed");
            let chances = self.chances(goal, upload);
            if !self.may_go_on(failed.failure, chances, (limits.attempts, &repeated), &mut history) {
                return Err(failed.error);
            }
            if let Some(trail) = trail {
                trail.retried(reason(failed.failure));
            }
            history.tried.push(url);
            history.failed = (failed.failure != Failure::NotProcessed).then(|| Box::new(failed.error));
        }
    }

    /// Waits until a member has left the view, then [`LAST_ANSWER`] longer. A machine that lost power closes no connections;
    /// only gossip shows that it is gone.
    async fn gone(&self, goal: &Goal<'_>, url: &BaseUrl) {
        let Goal::Service { service, .. } = *goal else {
            return std::future::pending().await;
        };
        let mut changes = self.roster.changes();
        loop {
            let catalog = self.roster.catalog();
            let mut members = catalog.members(service).iter();
            if !members.any(|member| member.url.is_same(url) && member.is_present()) {
                break;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // The view's owner is gone, so the view never changes again.
                    return std::future::pending().await;
                },
                () = ended(catalog.next_end()) => {}
            }
        }
        sleep_until(Instant::now() + LAST_ANSWER).await;
    }

    /// Records the shard's owner epoch if the refusal names it.
    fn learn(&self, goal: &Goal<'_>, headers: &HeaderMap) {
        if let Goal::Service { service, target, .. } = *goal
            && let Target::Shard(shard) = self.roster.catalog().resolve(service, target)
            && let Some(epoch) = owner_epoch(headers)
        {
            self.roster.learn(service, shard, epoch);
        }
    }

    fn not_processed(&self, refusal: &Problem) -> Failed {
        Failed {
            failure: Failure::NotProcessed,
            error: MeshError::BodyTooLargeToResend {
                last: Box::new(refusal.clone()),
                kept: self.limits.replay,
            },
        }
    }

    fn pass_on(
        &self,
        goal: &Goal<'_>,
        url: &BaseUrl,
        answer: Response<Received>,
        (in_flight, upload): (InFlight, Upload),
        (idle, deadline): (Duration, Option<Deadline>),
    ) -> Result<Response<MeshBody>, MeshError> {
        let (mut head, body) = answer.into_parts();
        let source = if goal.is_member() { Source::Trusted } else { Source::Untrusted };
        head::answer(&mut head, source)
            .map_err(|why| MeshError::BadAnswer { address: url.authority().to_owned(), why })?;
        upload.settle();
        let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            head.headers.remove(CONTENT_LENGTH);
            MeshBody::switched(body, in_flight, upload, idle)
        } else {
            MeshBody::new(body, in_flight, upload, idle, deadline)
        };
        Ok(Response::from_parts(head, body))
    }

    fn chances(&self, goal: &Goal<'_>, upload: &Upload) -> Chances {
        let can_replay = upload.can_replay();
        match *goal {
            Goal::Service { target, may_repeat, .. } => {
                let has_one_owner = matches!(target, Target::Shard(_) | Target::Key(_));
                Chances { may_repeat, can_replay, has_one_owner }
            }
            Goal::Addresses { may_repeat, .. } => Chances { may_repeat, can_replay, has_one_owner: false },
        }
    }

    /// Whether the request is sent again after a failure.
    fn may_go_on(
        &self,
        failure: Failure,
        chances: Chances,
        (most, repeated): (u32, &Repeated<'_>),
        history: &mut History,
    ) -> bool {
        match decide(failure, chances, repeated) {
            Decision::Free => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                self.counts.retried(reason(failure));
                true
            }
            Decision::Paid => self.pay(reason(failure), most, history),
            Decision::BodyDropped | Decision::Never => false,
        }
    }

    /// Pays for another attempt from the budget, if the request has one left.
    fn pay(&self, reason: RetryReason, most: u32, history: &mut History) -> bool {
        history.attempts += 1;
        if history.attempts >= most {
            return false;
        }
        let may = self.budget.withdraw(Instant::now());
        if may {
            self.retries.fetch_add(1, Ordering::Relaxed);
            self.counts.retried(reason);
        } else {
            self.counts.budget_was_exhausted();
            if let Some(upstream) = &history.upstream {
                upstream.budget_was_exhausted();
            }
        }
        may
    }

    /// Whether the request is sent again although it was answered: how long the address must be left alone before it gets it
    /// again, and why.
    fn repeats(
        &self,
        goal: &Goal<'_>,
        answer: &Response<Received>,
        upload: &Upload,
        (most, repeated): (u32, &Repeated<'_>),
        history: &mut History,
    ) -> Option<(Duration, RetryReason)> {
        let chances = self.chances(goal, upload);
        let after = retry_after(answer.headers());
        let (pause, reason) = repeat_after(answer.status(), after, chances, repeated)?;
        let has_time = history.deadline.is_none_or(|deadline| Instant::now() + pause < deadline.0)
            && history.waited + pause < self.limits.wait;
        if !has_time || !self.pay(reason, most, history) {
            return None;
        }
        // The connection may have read on in the meantime, beyond what is kept.
        upload.detach();
        upload.can_replay().then_some((pause, reason))
    }
}

/// What an attempt says about the address.
fn outcome(goal: &Goal<'_>, sent: &Result<Response<Received>, Failed>) -> Outcome {
    match sent {
        Ok(answer) if goal.is_member() && is_not_processed(answer) => Outcome::Unrelated,
        Ok(answer) => of_status(answer.status()),
        Err(failed) => of_failure(failed.failure),
    }
}

/// Notes whether a connection to the address existed.
fn note_connection(url: &BaseUrl, failed: Option<&Failed>) {
    match failed.map(|failed| failed.failure) {
        Some(Failure::NotConnected) => url.state().mark_unreachable(Instant::now()),
        // It may have passed while the connection was opened.
        Some(Failure::DeadlinePassed) => {}
        _ => url.mark_reached(),
    }
}

/// Waits for the end of a panic; forever without one.
async fn ended(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn too_late(url: &BaseUrl) -> Failed {
    let error = MeshError::DeadlinePassed { address: Some(url.authority().to_owned()) };
    Failed { failure: Failure::DeadlinePassed, error }
}

impl History {
    /// The time that is left until the request's deadline; `None` if it has none.
    fn time_left(&self) -> Result<Option<Duration>, MeshError> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.left(Instant::now());
        left.map(Some).ok_or(MeshError::DeadlinePassed { address: None })
    }
}

fn gone(url: &BaseUrl) -> Failed {
    let error =
        MeshError::Broken { address: url.authority().to_owned(), why: "the member is gone".to_owned() };
    Failed { failure: Failure::Broken, error }
}

impl Goal<'_> {
    fn unknown(&self) -> MeshError {
        match *self {
            Self::Service { service, .. } => MeshError::UnknownService { service: service.clone() },
            Self::Addresses { urls: [], .. } => MeshError::NoAddress,
            Self::Addresses { urls, .. } => {
                let why = |url: &BaseUrl| Some(format!("{} {}", url.authority(), url.state().why_down()?));
                MeshError::AllDown { why: urls.iter().filter_map(why).collect::<Vec<_>>().join(", ") }
            }
        }
    }

    /// Whether the request may be acted on twice.
    fn may_repeat(&self) -> bool {
        match *self {
            Self::Service { may_repeat, .. } | Self::Addresses { may_repeat, .. } => may_repeat,
        }
    }

    /// Whether a node of the cluster answers.
    fn is_member(&self) -> bool {
        matches!(self, Self::Service { .. })
    }
}

#[cfg(test)]
mod balance_tests;
#[cfg(test)]
mod owner_tests;
#[cfg(test)]
mod tests;
