//! Whether a request that failed is sent again.
//!
//! Pure. What may be repeated without harm follows RFC 9110, sections 9.2.2 and 7.6.3.

use http::Method;

/// How sending a request failed before any of an answer was passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be opened.
    NotConnected,
    /// The connection ended before anything of the request was written to it.
    NotSent,
    /// The member says that it did not act on the request.
    NotProcessed,
    /// The connection ended; the request may have been acted on.
    Broken,
    /// The answer can't be understood.
    Garbage,
    /// No answer came in time.
    TimedOut,
    /// The client did not send its body to the end.
    Aborted,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it again, at no cost: it was refused for good reason.
    Free,
    /// Send it again if the budget allows it.
    Paid,
    /// It could be sent again, but the body is gone.
    BodyIsGone,
    /// Don't.
    Never,
}

/// What to do about a failure. `can_replay` says whether all of the body that was sent is still there.
pub(crate) fn verdict(failure: Failure, method: &Method, can_replay: bool) -> Verdict {
    let wanted = match failure {
        Failure::NotProcessed => Verdict::Free,
        Failure::NotConnected | Failure::NotSent => Verdict::Paid,
        Failure::Broken if is_idempotent(method) => Verdict::Paid,
        Failure::Broken | Failure::Garbage | Failure::TimedOut | Failure::Aborted => Verdict::Never,
    };
    match wanted {
        Verdict::Free | Verdict::Paid if !can_replay => Verdict::BodyIsGone,
        wanted => wanted,
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_do_no_harm_is_sent_again() {
        use Failure::{Aborted, Broken, Garbage, NotConnected, NotProcessed, NotSent, TimedOut};
        let table = [
            (NotConnected, Method::GET, true, Verdict::Paid),
            (NotConnected, Method::POST, true, Verdict::Paid),
            (NotConnected, Method::POST, false, Verdict::BodyIsGone),
            (NotSent, Method::POST, true, Verdict::Paid),
            (NotProcessed, Method::GET, true, Verdict::Free),
            (NotProcessed, Method::POST, true, Verdict::Free),
            (NotProcessed, Method::PUT, false, Verdict::BodyIsGone),
            (Broken, Method::GET, true, Verdict::Paid),
            (Broken, Method::HEAD, true, Verdict::Paid),
            (Broken, Method::PUT, true, Verdict::Paid),
            (Broken, Method::DELETE, true, Verdict::Paid),
            (Broken, Method::OPTIONS, true, Verdict::Paid),
            (Broken, Method::TRACE, true, Verdict::Paid),
            (Broken, Method::PUT, false, Verdict::BodyIsGone),
            (Broken, Method::POST, true, Verdict::Never),
            (Broken, Method::POST, false, Verdict::Never),
            (Broken, Method::PATCH, true, Verdict::Never),
            (Broken, Method::from_bytes(b"BREW").unwrap(), true, Verdict::Never),
            (Garbage, Method::GET, true, Verdict::Never),
            (TimedOut, Method::GET, true, Verdict::Never),
            (Aborted, Method::PUT, true, Verdict::Never),
        ];
        for (failure, method, can_replay, expected) in table {
            let found = verdict(failure, &method, can_replay);
            assert_eq!(found, expected, "{failure:?} {method} can_replay={can_replay}");
        }
    }
}
