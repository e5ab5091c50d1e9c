//! Why a shard did not answer.

use std::time::Duration;

use http::StatusCode;
use types::{ErrorKind, Problem, ShardId};

use crate::MeshError;

/// Why a shard did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// Try again soon: no member that has the shard was reached, or none answered.
    #[error(transparent)]
    Unreached(#[from] MeshError),
    /// See the member's problem.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Check the member's log: its answer has an unexpected form.
    #[error("its owner's answer can't be used: {0}")]
    BadAnswer(String),
    /// Try again, or wait longer.
    #[error("its owner did not answer within {0:?}")]
    TimedOut(Duration),
}

impl ShardError {
    /// The error of a member's refusal: the problem in the body, or else only the status.
    pub(crate) fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(problem) => Self::Refused(Box::new(problem)),
            Err(_) => Self::BadAnswer(format!("it has the status {status}")),
        }
    }

    /// Whether a retry has the same result, because the stored data is damaged.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status == StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            Self::Unreached(_) | Self::BadAnswer(_) | Self::TimedOut(_) => false,
        }
    }

    /// The error as problem details for a request that needed this shard: `shard 2 could not be listed: …`. The member's
    /// own problem if it is final, else 503 `shard-missing`.
    pub fn to_problem(&self, shard: ShardId, could_not_be: &str) -> Problem {
        let detail = format!("shard {shard} could not be {could_not_be}: {self}");
        match self {
            Self::Refused(problem) if self.is_final() => Problem { detail, ..(**problem).clone() },
            _ => missing(detail),
        }
    }
}

/// The problem of a request for which a shard is missing.
pub(crate) fn missing(detail: String) -> Problem {
    Problem::new(ErrorKind::Unavailable, "shard-missing", detail)
        .hint("try again in a moment; GET /v1/claims shows who owns which shard")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_final_problem_of_a_member_is_forwarded() {
        let shard = ShardId::try_from(2).unwrap();
        let damaged =
            Problem::new(ErrorKind::Internal, "damaged-data", "a file is cut short").hint("restore it");
        let busy = Problem::new(ErrorKind::Unavailable, "too-busy", "all space is taken");
        for (error, status, code, detail) in [
            (ShardError::Refused(Box::new(damaged)), 500, "damaged-data", "a file is cut short"),
            (ShardError::Refused(Box::new(busy)), 503, "shard-missing", "all space is taken"),
            (MeshError::NoAddress.into(), 503, "shard-missing", "there is no address to send the request to"),
            (
                ShardError::TimedOut(Duration::from_secs(10)),
                503,
                "shard-missing",
                "its owner did not answer within 10s",
            ),
            (
                ShardError::of_answer(StatusCode::BAD_GATEWAY, b"<html>"),
                503,
                "shard-missing",
                "its owner's answer can't be used: it has the status 502 Bad Gateway",
            ),
        ] {
            let problem = error.to_problem(shard, "listed");
            assert_eq!((problem.status, problem.code()), (status, code));
            assert_eq!(problem.detail, format!("shard 2 could not be listed: {detail}"));
            assert!(problem.hint.is_some());
        }
    }
}
