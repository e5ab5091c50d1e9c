//! Decides whether a failed request is sent again.
//!
//! Pure. The service type decides which requests may be repeated without harm.

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
}

/// The decision about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it again without charge: no member has acted on it.
    Free,
    /// Send it again if the budget allows it.
    Paid,
    /// It could be sent again, but its body is no longer available.
    BodyIsGone,
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

/// The decision about a failure.
pub(crate) fn verdict(failure: Failure, chances: Chances) -> Verdict {
    let wanted = match failure {
        Failure::NotProcessed => Verdict::Free,
        Failure::NotConnected if chances.has_one_owner => Verdict::Free,
        Failure::NotConnected | Failure::NotSent => Verdict::Paid,
        Failure::Broken if chances.may_repeat => Verdict::Paid,
        Failure::Broken | Failure::Garbage | Failure::TimedOut | Failure::Aborted => Verdict::Never,
    };
    match wanted {
        Verdict::Free | Verdict::Paid if !chances.can_replay => Verdict::BodyIsGone,
        wanted => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_are_safe_to_repeat_are_sent_again() {
        use Failure::{Aborted, Broken, Garbage, NotConnected, NotProcessed, NotSent, TimedOut};
        let table = [
            (NotConnected, false, true, false, Verdict::Paid),
            (NotConnected, true, true, true, Verdict::Free),
            (NotConnected, false, true, true, Verdict::Free),
            (NotConnected, true, false, true, Verdict::BodyIsGone),
            (NotConnected, false, false, false, Verdict::BodyIsGone),
            (NotSent, false, true, false, Verdict::Paid),
            (NotProcessed, true, true, false, Verdict::Free),
            (NotProcessed, false, true, true, Verdict::Free),
            (NotProcessed, true, false, false, Verdict::BodyIsGone),
            (Broken, true, true, false, Verdict::Paid),
            (Broken, true, false, false, Verdict::BodyIsGone),
            (Broken, false, true, true, Verdict::Never),
            (Broken, false, false, false, Verdict::Never),
            (Garbage, true, true, false, Verdict::Never),
            (TimedOut, true, true, true, Verdict::Never),
            (Aborted, true, true, false, Verdict::Never),
        ];
        for (failure, may_repeat, can_replay, has_one_owner, expected) in table {
            let chances = Chances { may_repeat, can_replay, has_one_owner };
            assert_eq!(verdict(failure, chances), expected, "{failure:?} {chances:?}");
        }
    }
}
