//! What happened to one request, for an access log.
//!
//! The caller gives a [`Trail`] in [`Options`](crate::Options) and reads it when the exchange has ended. Without one, nothing
//! is noted and nothing allocated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::Either;
use http::StatusCode;

use crate::counts::RetryReason;

tokio::task_local! {
    /// The trail of the attempt that this task makes.
    static CURRENT: Trail;
}

/// What happened to one request. Cheap to clone; clones are the same trail.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Traced>>);

/// What is known of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    /// The member, or the name of the address, by default host and port, that it was sent to last.
    pub member: Option<String>,
    /// How often it was sent.
    pub attempts: u32,
    /// Why it was sent again the last time.
    pub retry_reason: Option<RetryReason>,
    /// How long it waited for a member, with the pauses before it was sent again; `None` if it did not.
    pub queued: Option<Duration>,
    /// How long opening a connection took, all attempts together; `None` if open ones were used.
    pub connect: Option<Duration>,
    /// The time from the last attempt's begin to the head of its answer.
    pub first_byte: Option<Duration>,
    /// The status of the last answer.
    pub status: Option<StatusCode>,
}

impl Trail {
    /// What is known now.
    pub fn read(&self) -> Traced {
        self.lock().clone()
    }

    pub(crate) fn sent_to(&self, member: String) {
        let mut traced = self.lock();
        traced.member = Some(member);
        traced.attempts += 1;
        (traced.first_byte, traced.status) = (None, None);
    }

    pub(crate) fn answered(&self, status: StatusCode, took: Duration) {
        let mut traced = self.lock();
        (traced.first_byte, traced.status) = (Some(took), Some(status));
    }

    pub(crate) fn retried(&self, reason: RetryReason) {
        self.lock().retry_reason = Some(reason);
    }

    pub(crate) fn waited(&self, waited: Duration) {
        if !waited.is_zero() {
            self.lock().queued = Some(waited);
        }
    }

    /// Polls an attempt so that [`connected`] finds this trail. Not `async`, which would have room for the attempt twice.
    pub(crate) fn follow<F: Future>(
        trail: Option<&Self>,
        attempt: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        match trail {
            Some(trail) => Either::Left(CURRENT.scope(trail.clone(), attempt)),
            None => Either::Right(attempt),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Traced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes in the trail of this task's attempt, if it has one, how long opening a connection took.
pub(crate) fn connected(took: Duration) {
    let _ = CURRENT.try_with(|trail| *trail.lock().connect.get_or_insert_default() += took);
}

/// Notes in the trail of this task's attempt, if it has one, that the request was sent again over a new connection.
pub(crate) fn resent(reason: RetryReason) {
    let _ = CURRENT.try_with(|trail| {
        let mut traced = trail.lock();
        traced.attempts += 1;
        traced.retry_reason = Some(reason);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_noted_in_the_trail_of_its_attempt_alone() {
        let (one, other) = (Trail::default(), Trail::default());
        let ms = Duration::from_millis(2);
        Trail::follow(Some(&one), async {
            connected(ms);
            tokio::task::yield_now().await;
            connected(ms);
        })
        .await;
        Trail::follow(Some(&other), async { resent(RetryReason::Closed) }).await;
        assert_eq!((other.read().attempts, other.read().retry_reason), (1, Some(RetryReason::Closed)));
        Trail::follow(None, async { connected(ms) }).await;
        assert_eq!((one.read().connect, other.read().connect), (Some(2 * ms), None));
    }
}
