//! The errors of a call, distinguished by what the caller can do about them.

use std::error::Error;
use std::time::Duration;

use types::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The text is not the URL of an agent; write `http://host:port`.
    #[error("`{url}` is not the URL of an agent: {why}")]
    BadUrl {
        /// The text that was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No agent answers at this address; try another one.
    #[error("no agent answers at {url}: {why}")]
    Unreachable {
        /// The address that was tried.
        url: String,
        /// The reason, like `connection refused`.
        why: String,
        /// Whether no connection was opened, so that the request was certainly not carried out.
        is_unsent: bool,
    },
    /// A connection was opened, but the answer did not arrive in time; the request may have been carried out.
    #[error("{url} did not answer within {limit:?}")]
    Timeout {
        /// The URL of the request.
        url: String,
        /// The limit that was exceeded.
        limit: Duration,
    },
    /// The agent answered with a problem, often with a hint.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is longer than any of the API; ask for less at once.
    #[error("the answer from {url} has more than {limit} bytes")]
    TooLong {
        /// The URL of the request.
        url: String,
        /// The limit that was exceeded.
        limit: usize,
    },
    /// The server at this address does not speak this API, or speaks another version of it.
    #[error("unexpected answer from {url}, status {status}: {excerpt}")]
    Unexpected {
        /// The URL of the request.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        excerpt: String,
    },
}

impl ClientError {
    /// Whether to try another agent: this one could not be reached or did not answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. })
    }

    /// The problem, if the agent answered with one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::BadUrl { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::TooLong { .. }
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

/// The innermost cause, without the URL that reqwest adds.
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
