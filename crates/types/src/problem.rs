//! Errors over HTTP: problem details as in RFC 9457.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a caller can do about an error; each kind has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Change the request: 400.
    Invalid,
    /// Not allowed from here: 403.
    Forbidden,
    /// Ask for something that exists: 404.
    NotFound,
    /// Another command or state prevents it; check, then try again: 409.
    Conflict,
    /// The resource has changed since you read it: 412.
    Changed,
    /// Send less: 413.
    TooLarge,
    /// Send it to the node that the answer names: 421.
    Misdirected,
    /// Send less at a time, and try again later; nothing was done: 429.
    TooManyRequests,
    /// Try again later; nothing was done: 503.
    Unavailable,
    /// A member behind this one did not answer properly: 502.
    BadGateway,
    /// A member behind this one did not answer in time: 504.
    Timeout,
    /// Make room on the disk, or delete data: 507.
    InsufficientStorage,
    /// A bug or a broken machine: 500.
    Internal,
}

impl ErrorKind {
    /// The HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Changed => 412,
            Self::TooLarge => 413,
            Self::Misdirected => 421,
            Self::TooManyRequests => 429,
            Self::Unavailable => 503,
            Self::BadGateway => 502,
            Self::Timeout => 504,
            Self::InsufficientStorage => 507,
            Self::Internal => 500,
        }
    }
}

/// The body of every error answer, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Names the problem for programs: `urn:coterie:problem:unknown-member`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The problem in a few words, the same for every occurrence.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What happened, this time.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The node that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The id of the request, a UUID v7, also in the `X-Request-Id` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// The media type of a problem.
    pub const MEDIA_TYPE: &str = "application/problem+json";
    /// The URN prefix of every code.
    const TYPE_PREFIX: &str = "urn:coterie:problem:";

    /// A problem with a code for programs (kebab case) and a detail for people.
    pub fn new(kind: ErrorKind, code: &str, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("{}{code}", Self::TYPE_PREFIX),
            title: code.replace('-', " "),
            status: kind.status(),
            detail: detail.into(),
            hint: None,
            node: None,
            request_id: None,
        }
    }

    /// The same with a hint on what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code for programs: `unknown-member`.
    pub fn code(&self) -> &str {
        self.type_uri.strip_prefix(Self::TYPE_PREFIX).unwrap_or(&self.type_uri)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}
