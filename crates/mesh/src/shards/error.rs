//! Why a shard did not answer.

use std::time::Duration;

use http::StatusCode;
use types::{ErrorKind, Problem, ShardId};

use crate::MeshError;

/// Why a shard did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// Ask again in a moment: no member that has it was reached, or none answered.
    #[error(transparent)]
    Unreached(#[from] MeshError),
    /// See what the member says.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Look at the member's log: its answer is not what was asked for.
    #[error("its owner's answer can't be used: {0}")]
    BadAnswer(String),
    /// Ask again, or wait longer.
    #[error("its owner did not answer within {0:?}")]
    TimedOut(Duration),
}

impl ShardError {
    /// What a member answered instead: the problem in the body, or else the status alone.
    pub(crate) fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(problem) => Self::Refused(Box::new(problem)),
            Err(_) => Self::BadAnswer(format!("it has the status {status}")),
        }
    }

    /// Whether asking again will have the same outcome: what is stored is damaged.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.status == StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            Self::Unreached(_) | Self::BadAnswer(_) | Self::TimedOut(_) => false,
        }
    }

    /// As problem details for a request that needed this shard: `shard 2 could not be listed: …`. The member's own words
    /// where they are final, else 503 `shard-missing`.
    pub fn to_problem(&self, shard: ShardId, could_not_be: &str) -> Problem {
        let detail = format!("shard {shard} could not be {could_not_be}: {self}");
        match self {
            Self::Refused(problem) if self.is_final() => Problem { detail, ..(**problem).clone() },
            _ => missing(detail),
        }
    }
}

/// A shard is missing for what was asked.
pub(crate) fn missing(detail: String) -> Problem {
    Problem::new(ErrorKind::Unavailable, "shard-missing", detail)
        .hint("try again in a moment; GET /v1/claims shows who owns which shard")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asking_again_can_not_change_is_passed_on_as_it_is() {
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
