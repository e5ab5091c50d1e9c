//! Whether a request is sent again: after a failure or a refusal, as far as its body, its budget and its time allow.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Response;
use tokio::time::Instant;
use types::Target;

use super::Inner;
use super::goal::Goal;
use super::history::History;
use super::refusal::retry_after;
use crate::counts::RetryReason;
use crate::options::Repeated;
use crate::pool::Received;
use crate::retry::{Chances, Decision, Failure, decide, reason, repeat_after};
use crate::upload::Upload;

impl Inner {
    pub(super) fn chances(&self, goal: &Goal<'_>, upload: &Upload) -> Chances {
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
    pub(super) fn may_go_on(
        &self,
        failure: Failure,
        chances: Chances,
        (most, repeated): (u32, &Repeated<'_>),
        history: &mut History,
    ) -> bool {
        match decide(failure, chances, repeated) {
            Decision::Free => {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                self.counts.retried(reason(failure), history.upstream.as_ref());
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
            self.counts.retried(reason, history.upstream.as_ref());
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
    pub(super) fn repeats(
        &self,
        goal: &Goal<'_>,
        answer: &Response<Received>,
        upload: &Upload,
        (most, repeated): (u32, &Repeated<'_>),
        history: &mut History,
    ) -> Option<(Duration, RetryReason)> {
        let chances = self.chances(goal, upload);
        let after = || retry_after(answer.headers());
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
