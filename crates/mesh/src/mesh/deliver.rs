//! Sends one request until it is answered: attempt by attempt, classifies what comes back, and hands the answer on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, Response, StatusCode};
use tokio::time::{Instant, sleep_until};
use tracing::debug;
use types::{Problem, Target};

use super::Inner;
use super::goal::Goal;
use super::history::History;
use super::refusal::{refusal, whole};
use crate::address::Outcome;
use crate::attempt::{Attempt, of_failure, of_status};
use crate::base_url::BaseUrl;
use crate::body::MeshBody;
use crate::deadline::{self, Deadline};
use crate::error::MeshError;
use crate::head::{self, Source, is_not_processed, next_hop, owner_epoch, set_hops};
use crate::lease::InFlight;
use crate::limits::Limits;
use crate::options::Options;
use crate::pool::{Asked, Received};
use crate::retry::{Failure, reason};
use crate::trail::Trail;
use crate::upload::Upload;
use crate::wire::{Failed, Head};

/// How long a member that left the view may still take to answer.
pub(super) const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How long nothing must have come on a shared connection before a request whose deadline passes says something about it.
const SILENCE: Duration = Duration::from_secs(1);

/// Detaches a request's body from its attempt on drop, unless the attempt was answered.
struct DetachOnDrop<'a>(Option<&'a Upload>);

impl Drop for DetachOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.0 {
            upload.detach();
        }
    }
}

impl Inner {
    pub(super) async fn deliver(
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
            let attempt = Attempt::new(&url, upload, chosen.is_probe, chosen.at);
            if let Some(left) = history.time_left()? {
                deadline::hand_on(&mut head.headers, left);
            }
            let in_flight = InFlight::new(&url, &self.in_flight, history.upstream.clone(), chosen.at);
            let asked = Asked::by(history.upstream.as_ref(), chosen.at);
            let sent = tokio::select! {
                biased;
                sent = Trail::follow(trail, self.wire.send(head, upload, &url, limits, may_repeat, &asked)) => sent,
                () = self.gone(goal, &url) => Err(gone(&url)),
                () = Deadline::passed(deadline) => Err(too_late(&url)),
            };
            if asked.is_connected() {
                url.mark_reached();
            }
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
            // Nobody reads the body until the next attempt: that is no time in which its client is slow.
            upload.detach();
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
}

/// What an attempt says about the address.
fn outcome(goal: &Goal<'_>, sent: &Result<Response<Received>, Failed>) -> Outcome {
    match sent {
        Ok(answer) if goal.is_member() && is_not_processed(answer) => Outcome::Unrelated,
        Ok(answer) => of_status(answer.status()),
        Err(failed) => of_failure(failed.failure),
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

fn gone(url: &BaseUrl) -> Failed {
    let error =
        MeshError::Broken { address: url.authority().to_owned(), why: "the member is gone".to_owned() };
    Failed { failure: Failure::Broken, error }
}
