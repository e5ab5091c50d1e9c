//! What is answered when the data can't be had now.

use axum::body::Body;
use http::Response;
use plugin::response;
use types::{ErrorKind, Problem};

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Wait: the data is being opened, or closed. Nothing was done.
    #[error("the data is not open: {0}")]
    NotOpen(String),
    /// Ask again: the shard has gone to another node. Nothing was done.
    #[error("the shard has gone to another node: {0}")]
    Passed(String),
    /// Wait: so many writes wait for the object store that no more are taken. Nothing was done.
    #[error("too much waits to be written to the object store{}", because(.0.as_ref()))]
    Full(Option<String>),
    /// Look before writing again: it may still become durable.
    #[error("the write is not durable yet and may still become so: {0}")]
    Unsettled(String),
    /// Ask again later.
    #[error("the object store could not be read in time: {0}")]
    Unread(String),
    /// Stored bytes can't be understood.
    #[error("{0}")]
    Damaged(String),
}

fn because(why: Option<&String>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

impl Refusal {
    fn problem(&self) -> Problem {
        let detail = self.to_string();
        let unavailable = |code| Problem::new(ErrorKind::Unavailable, code, detail.clone());
        match self {
            Self::NotOpen(_) => unavailable("not-open").hint("try again in a moment"),
            Self::Passed(_) => unavailable("not-the-owner").hint("ask again; GET /v1/claims shows the owner"),
            Self::Full(_) => unavailable("too-busy").hint("try again in a moment, or raise `write_queue`"),
            Self::Unsettled(_) => unavailable("not-durable-in-time")
                .hint("read the key to see whether it was written; writing the same again does no harm"),
            Self::Unread(_) => unavailable("not-read-in-time").hint("try again in a moment"),
            Self::Damaged(_) => Problem::new(ErrorKind::Internal, "unreadable-value", detail.clone())
                .hint("put the key again, or delete it"),
        }
    }

    /// The answer.
    pub(crate) fn to_response(&self) -> Response<Body> {
        match self {
            Self::NotOpen(_) | Self::Passed(_) | Self::Full(_) => response::not_processed(&self.problem()),
            Self::Unsettled(_) | Self::Unread(_) | Self::Damaged(_) => response::problem(&self.problem()),
        }
    }
}
