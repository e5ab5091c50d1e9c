//! One attempt to send a request to an address: what its outcome says about the address.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::address::Outcome;
use crate::base_url::BaseUrl;
use crate::outlier::EjectionReason;
use crate::retry::Failure;
use crate::upload::Upload;

/// What an answer with this status says about the address.
pub(crate) fn of_status(status: StatusCode) -> Outcome {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => Outcome::ServiceError,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Unavailable
        }
        StatusCode::TOO_MANY_REQUESTS => Outcome::Overloaded,
        _ => Outcome::Answered,
    }
}

/// What a failure says about the address.
pub(crate) fn of_failure(failure: Failure) -> Outcome {
    match failure {
        Failure::NotConnected | Failure::Broken | Failure::Garbage | Failure::TimedOut => Outcome::Failed,
        // Servers close idle connections as they like.
        Failure::NotSent | Failure::NotProcessed | Failure::Aborted => Outcome::Unrelated,
        Failure::DeadlinePassed => Outcome::Cancelled,
    }
}

/// An attempt. Dropped without [`end`](Self::end), the caller has given up.
#[must_use]
pub(crate) struct Attempt<'a> {
    url: &'a BaseUrl,
    upload: &'a Upload,
    began: Instant,
    is_probe: bool,
    has_ended: bool,
}

impl<'a> Attempt<'a> {
    /// `is_probe`: the address is ejected, and this attempt is to find out whether it works again.
    pub(crate) fn new(url: &'a BaseUrl, upload: &'a Upload, is_probe: bool, began: Instant) -> Self {
        url.state().asked(began);
        Self { url, upload, began, is_probe, has_ended: false }
    }

    /// Records the outcome. Returns the reason if the address should be ejected.
    pub(crate) fn end(mut self, outcome: Outcome) -> Option<EjectionReason> {
        self.has_ended = true;
        self.record(outcome)
    }

    fn record(&self, outcome: Outcome) -> Option<EjectionReason> {
        let now = Instant::now();
        let state = self.url.state();
        let reason = state.record(outcome, self.took(now), now);
        if self.is_probe {
            state.release_probe();
        }
        reason
    }

    /// How long the address has taken. A client that sends a long body slowly is not the address's fault.
    fn took(&self, now: Instant) -> Duration {
        let sent = self.upload.progress().map_or(self.began, |progress| progress.at.max(self.began));
        now.saturating_duration_since(sent)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.url.state().count(None);
            self.record(Outcome::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signs_of_trouble_count_against_an_address() {
        for (status, expected) in [
            (200, Outcome::Answered),
            (304, Outcome::Answered),
            (404, Outcome::Answered),
            (429, Outcome::Overloaded),
            (500, Outcome::ServiceError),
            (501, Outcome::Answered),
            (502, Outcome::Unavailable),
            (503, Outcome::Unavailable),
            (504, Outcome::Unavailable),
            (507, Outcome::Answered),
        ] {
            assert_eq!(of_status(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
        for (failure, expected) in [
            (Failure::NotConnected, Outcome::Failed),
            (Failure::NotSent, Outcome::Unrelated),
            (Failure::NotProcessed, Outcome::Unrelated),
            (Failure::Broken, Outcome::Failed),
            (Failure::Garbage, Outcome::Failed),
            (Failure::TimedOut, Outcome::Failed),
            (Failure::Aborted, Outcome::Unrelated),
            (Failure::DeadlinePassed, Outcome::Cancelled),
        ] {
            assert_eq!(of_failure(failure), expected, "{failure:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_is_given_up_counts_with_the_time_that_it_took() {
        let url: BaseUrl = "http://a".parse().unwrap();
        let first = Attempt::new(&url, &Upload::Empty, false, Instant::now());
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(first.end(Outcome::Answered), None);
        let second = Attempt::new(&url, &Upload::Empty, false, Instant::now());
        tokio::time::advance(Duration::from_secs(3)).await;
        drop(second);
        assert_eq!(url.state().micros(Instant::now()), Some(3e6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_leaves_room_for_the_next() {
        let url: BaseUrl = "http://a".parse().unwrap();
        assert!(url.state().claim_probe());
        drop(Attempt::new(&url, &Upload::Empty, true, Instant::now()));
        assert!(url.state().claim_probe());
    }
}
