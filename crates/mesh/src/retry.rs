//! Whether a request that failed is sent again.
//!
//! Pure. What may be repeated without harm is for the service type to say.

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

/// What is known of a request when it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chances {
    /// It may be acted on twice.
    pub(crate) may_repeat: bool,
    /// All of the body that was sent is still there.
    pub(crate) can_replay: bool,
    /// Nobody but the owner of a shard may answer it: there is nobody else to bother, and a successor to wait for.
    pub(crate) has_one_owner: bool,
}

/// What to do about a failure.
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
    fn only_what_can_do_no_harm_is_sent_again() {
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
