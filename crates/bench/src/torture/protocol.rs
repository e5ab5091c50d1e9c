//! Requests of a service's API, and the outcomes that their answers stand for.
//!
//! The outcome is open if the request may have been carried out without a confirmation. Only an answer that states that
//! nothing was done counts as nothing.

pub(crate) mod documents;
pub(crate) mod keys;

use std::time::Duration;

use http::header::ETAG;
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use types::api;

use crate::torture::history::{Action, Key, Outcome};
use crate::wire::Answer;

pub(crate) type Body = Full<bytes::Bytes>;

/// A request for one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) key: Key,
    pub(crate) action: Action,
    pub(crate) reads: Reads,
    /// The length of the text that a put adds to its value.
    pub(crate) filling: usize,
    /// The epoch of the claim under which the version in the condition was written, if the condition names it.
    pub(crate) term: Option<u64>,
    /// When a write of a document is answered, if not once it is durable: `wait`, `true`.
    pub(crate) refresh: Option<&'static str>,
}

/// The meaning of an answer for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Outcome(Outcome),
    /// The request was certainly not carried out.
    Nothing,
    /// The outcome is unknown; a label for the counts.
    Open(String),
    /// An answer that the API does not allow.
    Unexpected(String),
    /// An answer that breaks a guarantee, whatever the other answers are.
    Wrong(String),
}

/// The read level of readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Reads {
    /// Linearizable reads
    Strong,
    /// Reads from an owner that does not check whether it still is the owner, so they may be stale
    Primary,
    /// Reads from replicas, which are slightly stale
    Any,
}

impl Reads {
    fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Primary => "primary",
            Self::Any => "any",
        }
    }
}

/// The staleness that an answer states.
pub(crate) fn staleness(answer: &Answer) -> Option<Duration> {
    let ms = answer.headers.get(api::STALENESS_MS)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(ms))
}

/// The meaning of answers that apply to any request.
fn refused(answer: &Answer) -> Option<Reply> {
    if answer.headers.contains_key(api::NOT_PROCESSED) || answer.status == StatusCode::MISDIRECTED_REQUEST {
        return Some(Reply::Nothing);
    }
    // The status and the problem's code distinguish kinds of failures.
    let is_open = answer.status.is_server_error() || answer.status == StatusCode::REQUEST_TIMEOUT;
    is_open.then(|| Reply::Open(format!("{} {}", answer.status.as_u16(), code(answer))))
}

fn version(headers: &HeaderMap) -> Option<u64> {
    headers.get(ETAG)?.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The code of a problem: the last part of its type.
fn code(answer: &Answer) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    let kind = problem.as_ref().and_then(|problem| problem["type"].as_str());
    kind.and_then(|kind| kind.rsplit(['/', ':', '#']).next()).unwrap_or_default().to_owned()
}

/// An answer, for tests.
#[cfg(test)]
fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers.collect(),
        body: body.to_owned().into(),
        trailers: None,
    }
}
