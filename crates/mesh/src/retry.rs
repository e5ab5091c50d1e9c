//! Decides whether a failed request is sent again.
//!
//! Pure. The service type decides which requests may be repeated without harm.

use std::time::Duration;

use http::StatusCode;

use crate::counts::RetryReason;
use crate::options::Repeated;

/// The longest `Retry-After` that is waited for; an answer with a longer one is forwarded.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How an attempt failed before any part of an answer was forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be opened.
    NotConnected,
    /// The connection ended before any part of the request was written to it.
    NotSent,
    /// The member answered that it did not act on the request.
    NotProcessed,
    /// The connection ended; the request may have been acted on.
    Broken,
    /// The answer can't be parsed.
    Garbage,
    /// No answer arrived in time.
    TimedOut,
    /// The client did not send its whole body.
    Aborted,
    /// The request's own deadline passed.
    DeadlinePassed,
}

/// The decision about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it again without charge: no member has acted on it.
    Free,
    /// Send it again if the budget allows it.
    Paid,
    /// It could be sent again, but its body is no longer available.
    BodyDropped,
    /// Do not send it again.
    Never,
}

/// The state of a request that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chances {
    /// The request may be acted on twice.
    pub(crate) may_repeat: bool,
    /// All of the body that was sent is still kept.
    pub(crate) can_replay: bool,
    /// Only the owner of a shard may answer: there is no other member to overload, and a next owner to wait for.
    pub(crate) has_one_owner: bool,
}

/// Decides whether the request is sent again after a failure.
pub(crate) fn decide(failure: Failure, chances: Chances, repeated: &Repeated<'_>) -> Decision {
    let wanted = match failure {
        Failure::NotProcessed => Decision::Free,
        Failure::NotConnected if !repeated.connect => Decision::Never,
        Failure::NotConnected if chances.has_one_owner => Decision::Free,
        Failure::NotConnected | Failure::NotSent => Decision::Paid,
        Failure::Broken if chances.may_repeat && repeated.reset => Decision::Paid,
        Failure::Broken
        | Failure::Garbage
        | Failure::TimedOut
        | Failure::Aborted
        | Failure::DeadlinePassed => Decision::Never,
    };
    match wanted {
        Decision::Free | Decision::Paid if !chances.can_replay => Decision::BodyDropped,
        wanted => wanted,
    }
}

/// The reason to report if a request is sent again after this failure.
pub(crate) fn reason(failure: Failure) -> RetryReason {
    match failure {
        Failure::NotConnected => RetryReason::Connect,
        Failure::NotSent => RetryReason::Closed,
        Failure::NotProcessed => RetryReason::NotProcessed,
        Failure::Broken
        | Failure::Garbage
        | Failure::TimedOut
        | Failure::Aborted
        | Failure::DeadlinePassed => RetryReason::Reset,
    }
}

/// How long the server that sent this answer must be left alone before the request is sent to it again, and why it is; `None`
/// if the answer is forwarded instead. `retry_after` reads its `Retry-After`, for which most answers need no look.
pub(crate) fn repeat_after(
    status: StatusCode,
    retry_after: impl FnOnce() -> Option<Duration>,
    chances: Chances,
    repeated: &Repeated<'_>,
) -> Option<(Duration, RetryReason)> {
    let is_refusal = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    let is_listed = repeated.codes.contains(&status);
    if !is_refusal && !is_listed {
        return None;
    }
    let retry_after = retry_after();
    let reason = match retry_after {
        Some(_) if is_refusal => RetryReason::Overloaded,
        _ if is_listed => RetryReason::Status,
        _ => return None,
    };
    let after = retry_after.unwrap_or_default();
    (chances.may_repeat && chances.can_replay && after <= LONGEST_RETRY_AFTER).then_some((after, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_are_safe_to_repeat_are_sent_again() {
        use Failure::{
            Aborted, Broken, DeadlinePassed, Garbage, NotConnected, NotProcessed, NotSent, TimedOut,
        };
        let table = [
            (NotConnected, false, true, false, Decision::Paid),
            (NotConnected, true, true, true, Decision::Free),
            (NotConnected, false, true, true, Decision::Free),
            (NotConnected, true, false, true, Decision::BodyDropped),
            (NotConnected, false, false, false, Decision::BodyDropped),
            (NotSent, false, true, false, Decision::Paid),
            (NotProcessed, true, true, false, Decision::Free),
            (NotProcessed, false, true, true, Decision::Free),
            (NotProcessed, true, false, false, Decision::BodyDropped),
            (Broken, true, true, false, Decision::Paid),
            (Broken, true, false, false, Decision::BodyDropped),
            (Broken, false, true, true, Decision::Never),
            (Broken, false, false, false, Decision::Never),
            (Garbage, true, true, false, Decision::Never),
            (TimedOut, true, true, true, Decision::Never),
            (Aborted, true, true, false, Decision::Never),
            (DeadlinePassed, true, true, true, Decision::Never),
        ];
        for (failure, may_repeat, can_replay, has_one_owner, expected) in table {
            let chances = Chances { may_repeat, can_replay, has_one_owner };
            assert_eq!(decide(failure, chances, &Repeated::default()), expected, "{failure:?} {chances:?}");
        }
    }

    #[test]
    fn a_route_says_which_failures_are_repeated() {
        use Failure::{Broken, NotConnected, NotProcessed, NotSent};
        let table = [
            (NotConnected, true, false, Decision::Paid),
            (NotConnected, false, true, Decision::Never),
            (Broken, false, true, Decision::Paid),
            (Broken, true, false, Decision::Never),
            (NotSent, false, false, Decision::Paid),
            (NotProcessed, false, false, Decision::Free),
        ];
        for (failure, connect, reset, expected) in table {
            let repeated = Repeated { connect, reset, codes: &[] };
            let chances = Chances { may_repeat: true, can_replay: true, has_one_owner: false };
            assert_eq!(decide(failure, chances, &repeated), expected, "{failure:?} {repeated:?}");
        }
    }

    #[test]
    fn an_answer_with_a_status_that_is_repeated_is_repeated_under_the_same_conditions() {
        let ms = Duration::from_millis;
        let codes = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_FOUND];
        let repeated = Repeated { codes: &codes, ..Repeated::default() };
        let (status, overloaded) = (RetryReason::Status, RetryReason::Overloaded);
        for (code, retry_after, may_repeat, can_replay, expected) in [
            (502, None, true, true, Some((ms(0), status))),
            (404, None, true, true, Some((ms(0), status))),
            (503, None, true, true, Some((ms(0), status))),
            (503, Some(ms(500)), true, true, Some((ms(500), overloaded))),
            (502, Some(ms(500)), true, true, Some((ms(500), status))),
            (502, Some(ms(1_001)), true, true, None),
            (503, Some(ms(1_001)), true, true, None),
            (502, None, false, true, None),
            (502, None, true, false, None),
            (504, None, true, true, None),
            (200, None, true, true, None),
        ] {
            let chances = Chances { may_repeat, can_replay, has_one_owner: false };
            let status = StatusCode::from_u16(code).unwrap();
            let found = repeat_after(status, || retry_after, chances, &repeated);
            assert_eq!(found, expected, "{code} {retry_after:?} {chances:?}");
        }
    }

    #[test]
    fn a_short_retry_after_of_a_refusal_is_respected_if_the_request_may_be_repeated() {
        let ms = Duration::from_millis;
        for (status, retry_after, may_repeat, can_replay, expected) in [
            (503, Some(ms(1_000)), true, true, Some(ms(1_000))),
            (429, Some(ms(0)), true, true, Some(ms(0))),
            (503, Some(ms(1_001)), true, true, None),
            (503, None, true, true, None),
            (503, Some(ms(1_000)), false, true, None),
            (503, Some(ms(1_000)), true, false, None),
            (500, Some(ms(1_000)), true, true, None),
            (200, Some(ms(1_000)), true, true, None),
        ] {
            let chances = Chances { may_repeat, can_replay, has_one_owner: false };
            let status = StatusCode::from_u16(status).unwrap();
            let found = repeat_after(status, || retry_after, chances, &Repeated::default());
            let expected = expected.map(|after| (after, RetryReason::Overloaded));
            assert_eq!(found, expected, "{status} {retry_after:?} {chances:?}");
        }
    }
}
