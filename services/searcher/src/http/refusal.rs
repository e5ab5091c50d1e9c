//! The engine's errors as answers.

mod catalog;

use axum::response::Response;
use mesh::shards::ShardError as Unanswered;
use plugin::http::{BodyError, not_processed, problem, retry_later};
use plugin::shard::ReadLevel;
use serde::{Deserialize, Serialize};
use types::{ErrorKind, Problem};

pub(crate) use self::catalog::how_to_change;
use crate::search::SearchError;
use crate::shard::ShardError;

/// Why a request is refused: the problem, and what its sender may do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    pub(crate) kind: RefusalKind,
}

/// What the sender of a refused request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// See the problem.
    Plain,
    /// Nothing was done here, and another member may do it.
    Elsewhere,
    /// Nothing was done; send it again later, more slowly.
    Later,
}

impl Refusal {
    pub(crate) fn plain(problem: Problem) -> Self {
        Self { problem, kind: RefusalKind::Plain }
    }

    pub(crate) fn elsewhere(problem: Problem) -> Self {
        Self { problem, kind: RefusalKind::Elsewhere }
    }

    pub(crate) fn later(problem: Problem) -> Self {
        Self { problem, kind: RefusalKind::Later }
    }

    pub(crate) fn invalid(code: &str, detail: &(impl ToString + ?Sized), hint: &str) -> Self {
        Self::plain(Problem::new(ErrorKind::Invalid, code, detail.to_string()).hint(hint))
    }

    /// The same for a read: one that accepts stale data is answered by another member better than by damaged data.
    pub(crate) fn of_read(self, level: ReadLevel) -> Self {
        match level {
            ReadLevel::Any if [DAMAGED, LOCAL_DAMAGE].contains(&self.problem.code()) => {
                Self::elsewhere(self.problem)
            }
            ReadLevel::Any | ReadLevel::Primary | ReadLevel::Strong => self,
        }
    }
}

/// The code of a shard whose stored data is damaged.
const DAMAGED: &str = "damaged-data";
/// The code of a shard with a damaged local file.
const LOCAL_DAMAGE: &str = "damaged-local-files";
/// What to do about it.
const LOCAL_DAMAGE_HINT: &str = "try again in a moment: the member verifies its files, and fetches damaged ones from the store; check its disk";

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::Plain => problem(&refusal.problem),
            RefusalKind::Elsewhere => not_processed(&refusal.problem),
            RefusalKind::Later => retry_later(problem(&refusal.problem)),
        }
    }
}

impl From<ShardError> for Refusal {
    fn from(error: ShardError) -> Self {
        let of = |kind, code, hint: &str| Problem::new(kind, code, error.to_string()).hint(hint);
        match error {
            ShardError::Elsewhere(_) => Self::elsewhere(of(
                ErrorKind::Unavailable,
                "not-the-owner",
                "ask again; GET /v1/claims shows the owner",
            )),
            ShardError::Opening(_) => {
                Self::elsewhere(of(ErrorKind::Unavailable, "not-open", "try again in a moment"))
            }
            ShardError::Behind(_) => Self::later(of(
                ErrorKind::TooManyRequests,
                "too-far-behind",
                "send it again later and more slowly, or raise `max_behind`",
            )),
            ShardError::NoSpace(_) => Self::plain(of(
                ErrorKind::InsufficientStorage,
                "no-space",
                "make room on the disk, delete indexes, or raise `disk`",
            )),
            ShardError::Damaged(_) => Self::plain(of(
                ErrorKind::Internal,
                DAMAGED,
                "the object store has damaged files: restore them from a copy",
            )),
            ShardError::LocalDamage(_) => {
                Self::plain(of(ErrorKind::Internal, LOCAL_DAMAGE, LOCAL_DAMAGE_HINT))
            }
            ShardError::Panicked(_) => Self::plain(of(
                ErrorKind::Internal,
                "query-panicked",
                "this is a bug, unless a local file is damaged: the log of the member has the place",
            )),
            ShardError::OutcomeUnknown(_) => Self::plain(of(
                ErrorKind::Unavailable,
                "not-durable-in-time",
                "read the document to see whether it was written; repeating the write with its id does no harm",
            )),
            ShardError::NotVisible(_) => Self::plain(of(
                ErrorKind::Timeout,
                "not-visible-in-time",
                "the write is done, so do not repeat it; searches show it once its segments are on the store",
            )),
            ShardError::Unavailable(_) => {
                Self::plain(of(ErrorKind::Unavailable, "store-unavailable", "try again in a moment"))
            }
            ShardError::NoIndex(_) => {
                Self::plain(of(ErrorKind::NotFound, "no-such-index", "`GET /` lists the indexes"))
            }
        }
    }
}

impl From<SearchError> for Refusal {
    fn from(error: SearchError) -> Self {
        let detail = error.to_string();
        match error {
            SearchError::Query(error) => {
                let detail = match error.at {
                    Some(at) => format!("at character {at}: {}", error.message),
                    None => error.message,
                };
                let hint = error.hint.unwrap_or_else(|| "correct the query".to_owned());
                Self::invalid("bad-search", &detail, &hint)
            }
            SearchError::Cancelled => Self::plain(
                Problem::new(ErrorKind::Timeout, "query-timeout", detail)
                    .hint("allow more time with `timeout`, or ask for less"),
            ),
            SearchError::Damaged(_) => Self::plain(
                Problem::new(ErrorKind::Internal, "damaged-local-files", detail).hint(LOCAL_DAMAGE_HINT),
            ),
            SearchError::Engine(_) => Self::plain(
                Problem::new(ErrorKind::Internal, "search-failed", detail)
                    .hint("try again; the log of the member may say more"),
            ),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let problem = error.to_problem();
        match error {
            BodyError::Full(_) => Self::elsewhere(problem),
            _ => Self::plain(problem),
        }
    }
}

/// Why a line of a bulk request was refused, or a shard did not do its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    /// The status that a request of its own would have got.
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
}

impl Reason {
    pub(crate) fn of(problem: &Problem) -> Self {
        Self { status: problem.status, code: problem.code().to_owned(), detail: problem.detail.clone() }
    }

    /// The reason for everything that was sent to a shard, when it is not known what became of it or nothing was done.
    pub(crate) fn of_write(error: &Unanswered) -> Self {
        let of = |code: &str| Self { status: 503, code: code.to_owned(), detail: error.to_string() };
        match error {
            Unanswered::Refused(problem) => Self::of(problem),
            // Nothing was sent.
            Unanswered::Unreached(error) if error.to_problem().status == 503 => of("shard-missing"),
            Unanswered::Unreached(_) | Unanswered::BadAnswer(_) | Unanswered::TimedOut(_) => {
                of("outcome-unknown")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use types::api;

    use super::*;
    use crate::catalog::NoSuchIndex;
    use crate::query::QueryError;

    #[test]
    fn each_error_has_its_status_and_only_what_another_member_may_do_is_marked_as_not_processed() {
        let why = || "why".to_owned();
        for (error, status, is_untouched) in [
            (ShardError::Elsewhere(why()), 503, true),
            (ShardError::Opening(why()), 503, true),
            (ShardError::Behind(why()), 429, false),
            (ShardError::NoSpace(why()), 507, false),
            (ShardError::Damaged(why()), 500, false),
            (ShardError::LocalDamage(why()), 500, false),
            (ShardError::Panicked(why()), 500, false),
            (ShardError::OutcomeUnknown(why()), 503, false),
            (ShardError::NotVisible(why()), 504, false),
            (ShardError::Unavailable(why()), 503, false),
            (ShardError::NoIndex(why()), 404, false),
        ] {
            let refusal = Refusal::from(error.clone());
            assert!(refusal.problem.hint.is_some(), "{error}");
            let answer = Response::from(refusal);
            assert_eq!(answer.status(), status, "{error}");
            assert_eq!(answer.headers().contains_key(api::NOT_PROCESSED), is_untouched, "{error}");
            assert_eq!(answer.headers().contains_key("retry-after"), status == 429, "{error}");
        }
        let damaged = Refusal::from(ShardError::Damaged(why()));
        assert_eq!(damaged.clone().of_read(ReadLevel::Any).kind, RefusalKind::Elsewhere);
        assert_eq!(damaged.of_read(ReadLevel::Strong).kind, RefusalKind::Plain);
    }

    #[test]
    fn a_mistake_in_a_query_is_shown_with_its_place() {
        let error = QueryError { message: "a quote is not closed".to_owned(), at: Some(3), hint: None };
        let problem = Refusal::from(SearchError::Query(error)).problem;
        assert_eq!((problem.status, problem.detail.as_str()), (400, "at character 3: a quote is not closed"));
        assert_eq!(Refusal::from(SearchError::Cancelled).problem.status, 504);
        assert_eq!(Refusal::from(SearchError::Engine("x".to_owned())).problem.status, 500);
    }

    #[test]
    fn the_reason_of_a_line_tells_a_shard_that_did_nothing_from_one_that_may_have() {
        let busy = Problem::new(ErrorKind::TooManyRequests, "too-far-behind", "wait");
        for (error, status, code) in [
            (Unanswered::Refused(Box::new(busy)), 429, "too-far-behind"),
            (mesh::MeshError::QueueFull { waiting: 1 }.into(), 503, "shard-missing"),
            (
                mesh::MeshError::Broken { address: "a:1".to_owned(), why: "reset".to_owned() }.into(),
                503,
                "outcome-unknown",
            ),
            (Unanswered::TimedOut(Duration::from_secs(1)), 503, "outcome-unknown"),
        ] {
            let reason = Reason::of_write(&error);
            assert_eq!((reason.status, reason.code.as_str()), (status, code), "{error}");
        }
    }

    #[test]
    fn an_unknown_index_suggests_a_similar_one() {
        let problem = Refusal::from(NoSuchIndex::among("pakages", ["packages"])).problem;
        assert_eq!((problem.status, problem.code()), (404, "no-such-index"));
        assert_eq!(problem.hint.as_deref(), Some("did you mean `packages`?"));
    }
}
