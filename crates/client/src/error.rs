//! What can go wrong with a call, told apart by what the caller can do about it.

use std::error::Error;
use std::time::Duration;

use types::Problem;

/// Why a call brought no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The text is no URL of an agent; write `http://host:port`.
    #[error("`{url}` is not the URL of an agent: {why}")]
    BadUrl {
        /// The text.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing answers there; try another agent.
    #[error("no agent answers at {url}: {why}")]
    Unreachable {
        /// The address that was tried.
        url: String,
        /// The reason in words: `connection refused`.
        why: String,
        /// Whether there never was a connection, so that nothing can have been done.
        is_unsent: bool,
    },
    /// The connection stands but the answer did not come in time; whether the request was carried out is unknown.
    #[error("{url} did not answer within {limit:?}")]
    Timeout {
        /// The address that was asked.
        url: String,
        /// How long the answer was waited for.
        limit: Duration,
    },
    /// The agent says what is wrong, and often what to do.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// What answers there does not speak this API, or another version of it.
    #[error("unexpected answer from {url}, status {status}: {excerpt}")]
    Unexpected {
        /// The address that was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
    },
}

impl ClientError {
    /// Whether another agent might do better: this one could not be reached or did not answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// The problem, where the agent answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::BadUrl { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Unexpected { .. } => None,
        }
    }

    pub(crate) fn transport(url: &str, limit: Duration, error: &reqwest::Error) -> Self {
        if error.is_timeout() && !error.is_connect() {
            return Self::Timeout { url: url.to_owned(), limit };
        }
        Self::Unreachable { url: url.to_owned(), why: in_words(error), is_unsent: error.is_connect() }
    }
}

/// The innermost cause says it best: reqwest's own words repeat the URL.
fn in_words(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if let Some(io) = cause.downcast_ref::<std::io::Error>() {
        return match io.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            std::io::ErrorKind::TimedOut => "no connection in time".to_owned(),
            _ => io.to_string(),
        };
    }
    if error.is_timeout() {
        return "no connection in time".to_owned();
    }
    cause.to_string()
}
