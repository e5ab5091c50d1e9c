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
pub(crate) fn decide(failure: Failure, chances: Chances) -> Decision {
    let wanted = match failure {
        Failure::NotProcessed => Decision::Free,
        Failure::NotConnected if chances.has_one_owner => Decision::Free,
        Failure::NotConnected | Failure::NotSent => Decision::Paid,
        Failure::Broken if chances.may_repeat => Decision::Paid,
        Failure::Broken | Failure::Garbage | Failure::TimedOut | Failure::Aborted => Decision::Never,
    };
    match wanted {
        Decision::Free | Decision::Paid if !chances.can_replay => Decision::BodyDropped,
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
        ];
        for (failure, may_repeat, can_replay, has_one_owner, expected) in table {
            let chances = Chances { may_repeat, can_replay, has_one_owner };
            assert_eq!(decide(failure, chances), expected, "{failure:?} {chances:?}");
        }
    }
}
