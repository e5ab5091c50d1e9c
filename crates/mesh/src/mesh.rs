//! Sends a request until it is answered: choose a member, wait, send, classify the failure, retry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cluster::ClusterView;
use http::header::EXPECT;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use types::{ErrorKind, Problem, ServiceName, Target};

use crate::base_url::BaseUrl;
use crate::body::MeshBody;
use crate::budget::Budget;
use crate::choose::{Standing, choose};
use crate::error::MeshError;
use crate::head::{self, Source, is_not_processed, next_hop, owner_epoch, set_hops};
use crate::lease::{Gauge, InFlight};
use crate::limits::Limits;
use crate::retry::{Chances, Decision, Failure, decide};
use crate::roster::{Prospect, Roster};
use crate::targets::{Kind, Targets};
use crate::upload::{BoxError, Upload};
use crate::wire::{Failed, Head, Wire};

/// The pause before a request is sent to an address again, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 5..50;

/// How long a member that left the view may still take to answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The longest refusal that is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// Requests to other members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mesh(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roster: Arc<Roster>,
    targets: Targets,
    limits: Limits,
    wire: Wire,
    budget: Mutex<Budget>,
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
    },
    Addresses(&'a [BaseUrl]),
}

/// The history of one request.
#[derive(Default)]
struct History {
    /// The addresses it was sent to. Cleared after a pause once all were tried.
    tried: Vec<BaseUrl>,
    /// The number of attempts, not counting refusals without processing.
    attempts: u32,
    /// The time it waited, including pauses.
    waited: Duration,
    /// The last failure, unless it was a refusal without processing.
    failed: Option<MeshError>,
    /// The last refusal without processing.
    refusal: Option<Problem>,
}

/// The next destination of a request.
enum Pick {
    To(BaseUrl),
    /// Every candidate was tried already.
    OnlyTried,
    /// No member serves it.
    NoMember(Prospect),
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
        let roster = Arc::new(Roster::new(view));
        keep_watching(&roster);
        Self::over(roster, targets, limits)
    }

    /// A mesh with the same members, other limits and its own connections.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self::over(Arc::clone(&self.0.roster), self.0.targets.clone(), limits)
    }

    fn over(roster: Arc<Roster>, targets: Targets, limits: Limits) -> Self {
        let budget = Budget::new(limits.retry_percent, limits.retry_floor, Instant::now());
        Self(Arc::new(Inner {
            roster,
            targets,
            wire: Wire::new(&limits),
            budget: Mutex::new(budget),
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
        let (parts, body) = request.into_parts();
        let target = self.0.targets.of(service, &parts);
        self.send_to(service, target, Request::from_parts(parts, body)).await
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
        let (parts, body) = request.into_parts();
        let may_repeat = self.0.targets.may_repeat(service, &parts);
        let upload = Upload::new(body, self.0.limits.replay);
        let head = Head::new(parts)?;
        self.0.deliver(&Goal::Service { service, target, may_repeat }, head, &upload).await
    }

    /// Sends a request to one of several addresses and streams the answer. Path and query are appended byte for byte,
    /// and trailers are dropped. The addresses are not trusted: headers reserved for the cluster are removed from their
    /// answers, and their claim not to have processed a request is ignored.
    pub async fn send_to_any<B>(
        &self,
        urls: &[BaseUrl],
        request: Request<B>,
    ) -> Result<Response<MeshBody>, MeshError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let upload = Upload::new(body, self.0.limits.replay).without_trailers();
        let mut head = Head::new(parts)?;
        head::without_trailers(&mut head.headers);
        self.0.deliver(&Goal::Addresses(urls), head, &upload).await
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

impl Inner {
    async fn deliver(
        &self,
        goal: &Goal<'_>,
        mut head: Head,
        upload: &Upload,
    ) -> Result<Response<MeshBody>, MeshError> {
        next_hop(&head.headers).ok_or(MeshError::Loop)?;
        head::strip(&mut head.headers, Source::Trusted);
        set_hops(&mut head.headers);
        if head.headers.contains_key(EXPECT) && !upload.hold_back() {
            head.headers.remove(EXPECT);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.budget().deposit(Instant::now());

        let mut guard = DetachOnDrop(Some(upload));
        let mut history = History::default();
        loop {
            let url = match self.pick(goal, &history.tried)? {
                Pick::To(url) => url,
                Pick::OnlyTried | Pick::NoMember(_) => self.wait_for_address(goal, &mut history).await?,
            };
            let in_flight = InFlight::new(&url, &self.in_flight);
            let sent = tokio::select! {
                biased;
                sent = self.wire.send(&head, upload, &url, &self.limits) => sent,
                () = self.gone(goal, &url) => Err(gone(&url)),
            };
            let is_reached = !matches!(&sent, Err(failed) if failed.failure == Failure::NotConnected);
            if is_reached {
                url.mark_reached();
            }
            let failed = match sent {
                Ok(answer) if goal.is_member() && is_not_processed(&answer) => {
                    self.learn(goal, answer.headers());
                    let refusal = refusal(answer).await;
                    let failed = self.not_processed(&refusal);
                    history.refusal = Some(refusal);
                    failed
                }
                Ok(answer) => {
                    let answer = self.pass_on(goal, &url, answer, in_flight, upload.clone())?;
                    guard.0 = None;
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            drop(in_flight);
            debug!(url = %url, failure = ?failed.failure, error = %failed.error, "a request failed");
            if failed.failure == Failure::NotConnected {
                url.mark_unreachable(Instant::now());
            }
            let chances = self.chances(goal, &head.method, upload);
            if !self.may_go_on(failed.failure, chances, &mut history.attempts) {
                return Err(failed.error);
            }
            history.tried.push(url);
            history.failed = (failed.failure != Failure::NotProcessed).then_some(failed.error);
        }
    }

    /// Waits until a member has left the view, then [`LAST_ANSWER`] longer. A machine that lost power closes no connections;
    /// only gossip shows that it is gone.
    async fn gone(&self, goal: &Goal<'_>, url: &BaseUrl) {
        let Goal::Service { service, .. } = *goal else {
            return std::future::pending().await;
        };
        let mut changes = self.roster.changes();
        while self.roster.catalog().members(service).iter().any(|member| member.url.is_same(url)) {
            if changes.changed().await.is_err() {
                // The view's owner is gone, so the view never changes again.
                return std::future::pending().await;
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
        answer: Response<Incoming>,
        in_flight: InFlight,
        upload: Upload,
    ) -> Result<Response<MeshBody>, MeshError> {
        let (mut head, body) = answer.into_parts();
        let source = if goal.is_member() { Source::Trusted } else { Source::Untrusted };
        head::answer(&mut head, source)
            .map_err(|why| MeshError::BadAnswer { address: url.authority().to_owned(), why })?;
        upload.settle();
        let body = MeshBody::new(body, in_flight, upload, self.limits.idle);
        Ok(Response::from_parts(head, body))
    }

    fn chances(&self, goal: &Goal<'_>, method: &Method, upload: &Upload) -> Chances {
        let can_replay = upload.can_replay();
        match *goal {
            Goal::Service { target, may_repeat, .. } => {
                let has_one_owner = matches!(target, Target::Shard(_) | Target::Key(_));
                Chances { may_repeat, can_replay, has_one_owner }
            }
            Goal::Addresses(_) => {
                Chances { may_repeat: method.is_idempotent(), can_replay, has_one_owner: false }
            }
        }
    }

    /// Whether the request is sent again after a failure.
    fn may_go_on(&self, failure: Failure, chances: Chances, attempts: &mut u32) -> bool {
        match decide(failure, chances) {
            Decision::Free => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                true
            }
            Decision::Paid => {
                *attempts += 1;
                let may = *attempts < self.limits.attempts && self.budget().withdraw(Instant::now());
                self.retries.fetch_add(u64::from(may), Ordering::Relaxed);
                may
            }
            Decision::BodyDropped | Decision::Never => false,
        }
    }

    /// Chooses the next destination of the request.
    fn pick(&self, goal: &Goal<'_>, tried: &[BaseUrl]) -> Result<Pick, MeshError> {
        let now = Instant::now();
        let standing = |url: &BaseUrl| Standing {
            tried: tried.iter().any(|tried| tried.is_same(url)),
            avoided: url.is_avoided(now, self.limits.avoid),
            in_flight: url.in_flight(),
        };
        let mut random = rand::rng();
        let url = match *goal {
            Goal::Addresses(urls) => choose(urls.len(), |at| Some(standing(&urls[at])), &mut random)
                .map(|at| urls[at].clone())
                .ok_or(MeshError::NoAddress)?,
            Goal::Service { service, target, .. } => {
                let catalog = self.roster.catalog();
                let target = catalog.resolve(service, target);
                let members = catalog.members(service);
                let standing_of = |at: usize| {
                    let member = &members[at];
                    member.serves(target).then(|| standing(&member.url))
                };
                match choose(members.len(), standing_of, &mut random) {
                    Some(at) => members[at].url.clone(),
                    None => {
                        let kind = self.targets.kind(service);
                        return Ok(Pick::NoMember(catalog.prospect(service, target, &kind, now)));
                    }
                }
            }
        };
        Ok(if tried.iter().any(|tried| tried.is_same(&url)) { Pick::OnlyTried } else { Pick::To(url) })
    }

    /// Waits until the request has a destination: for a serving member, or for a pause if every candidate was tried.
    async fn wait_for_address(&self, goal: &Goal<'_>, history: &mut History) -> Result<BaseUrl, MeshError> {
        let before = history.waited;
        let began = Instant::now();
        let mut changes = self.roster.changes();
        let mut place = None;
        loop {
            let pick = self.pick(goal, &history.tried)?;
            history.waited = before + began.elapsed();
            let limit = match pick {
                Pick::NoMember(_) if self.has_resigned(goal) => {
                    self.limits.wait_for_new_owner.min(self.limits.wait)
                }
                _ => self.limits.wait,
            };
            let deadline = began + limit.saturating_sub(before);
            let is_late = Instant::now() >= deadline;
            match pick {
                Pick::To(url) => return Ok(url),
                Pick::NoMember(Prospect::Never) => return Err(goal.unknown()),
                Pick::OnlyTried if is_late => {
                    let refused = history
                        .refusal
                        .take()
                        .map(|last| MeshError::Refused { last: Box::new(last), waited: history.waited });
                    let failed = history.failed.take().or(refused);
                    return Err(failed.unwrap_or_else(|| self.refused(goal, history.waited)));
                }
                Pick::NoMember(Prospect::Soon) if is_late => return Err(self.refused(goal, history.waited)),
                Pick::NoMember(Prospect::IfAssigned) => return Err(self.refused(goal, history.waited)),
                Pick::OnlyTried | Pick::NoMember(Prospect::Soon) => {}
            }
            if place.is_none() {
                place = self.waiting.enter_below(self.limits.waiting);
            }
            if place.is_none() {
                return Err(MeshError::QueueFull { waiting: self.limits.waiting });
            }
            if matches!(pick, Pick::OnlyTried) {
                let pause = Duration::from_millis(rand::rng().random_range(PAUSE_MS));
                sleep_until(deadline.min(Instant::now() + pause)).await;
                history.tried.clear();
            } else {
                tokio::select! {
                    biased;
                    changed = changes.changed() => {
                        // The view's owner is gone, so no member will appear.
                        changed.map_err(|_closed| self.refused(goal, history.waited))?;
                    }
                    () = sleep_until(deadline) => {}
                }
            }
        }
    }

    /// Whether the owner of the shard has resigned and no other node owns it yet.
    fn has_resigned(&self, goal: &Goal<'_>) -> bool {
        let Goal::Service { service, target, .. } = *goal else { return false };
        self.roster.catalog().resigned(service, target).is_some()
    }

    fn refused(&self, goal: &Goal<'_>, waited: Duration) -> MeshError {
        let Goal::Service { service, target, .. } = *goal else { return MeshError::NoAddress };
        let (service, catalog) = (service.clone(), self.roster.catalog());
        let spare = catalog.spare(&service, &self.targets.kind(&service)).cloned();
        match catalog.resolve(&service, target) {
            Target::Shard(shard) => {
                let last = catalog.last_owner(&service, shard).cloned();
                let resigned = catalog.resigned(&service, target).cloned();
                MeshError::NoOwner { service, shard, last, resigned, spare, waited }
            }
            Target::Any | Target::Key(_) | Target::KeyReplica(_) | Target::ShardReplica(_) => {
                MeshError::NoServingMember { service, spare, waited }
            }
        }
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
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
            Self::Addresses(_) => MeshError::NoAddress,
        }
    }

    /// Whether a node of the cluster answers.
    fn is_member(&self) -> bool {
        matches!(self, Self::Service { .. })
    }
}

/// The problem with which a member refused a request without processing it.
async fn refusal(answer: Response<Incoming>) -> Problem {
    let status = answer.status();
    let read = Limited::new(answer.into_body(), MAX_REFUSAL).collect();
    let body = tokio::time::timeout(LAST_ANSWER, read).await.ok().and_then(Result::ok);
    let problem = body.and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
    problem.unwrap_or_else(|| {
        let detail = format!("the member refused the request with {status}");
        Problem::new(ErrorKind::Unavailable, "refused", detail).hint("try again in a moment")
    })
}

#[cfg(test)]
mod owner_tests;
#[cfg(test)]
mod tests;
