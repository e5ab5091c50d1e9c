//! Requests that write several documents at once, or those that a search finds.

use std::collections::BTreeMap;

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::json;

use super::{INDEX, not_done, source, token, unexpected};
use crate::torture::history::{Key, Outcome};
use crate::torture::protocol::{Body, Reply};
use crate::wire::Answer;

/// The request that puts several documents, a line for each.
pub(crate) fn bulk(
    base: &str,
    puts: &[(Key, u64)],
    filling: usize,
    refresh: Option<&'static str>,
) -> http::Result<Request<Body>> {
    let lines = puts.iter().map(|(key, value)| source(*key, *value, filling).to_string());
    let parameters = refresh.map(|refresh| format!("?refresh={refresh}")).unwrap_or_default();
    Request::post(format!("{base}/{INDEX}/docs{parameters}"))
        .header(CONTENT_TYPE, "application/x-ndjson")
        .body(Full::new(lines.collect::<Vec<_>>().join("\n").into()))
}

/// What became of each line.
pub(crate) fn bulk_replies(answer: &Answer, lines: usize) -> Vec<Reply> {
    #[derive(Deserialize)]
    struct Lines {
        indexed: usize,
        refused: Vec<RefusedLine>,
    }
    #[derive(Deserialize)]
    struct RefusedLine {
        line: usize,
        status: u16,
        code: String,
        detail: String,
    }
    if let Some(reply) = not_done(answer) {
        return vec![reply; lines];
    }
    let found: Option<Lines> =
        serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == StatusCode::OK);
    let Some(Lines { indexed, refused }) = found else { return vec![unexpected(answer); lines] };
    if indexed + refused.len() != lines {
        return vec![Reply::Wrong(format!("{lines} lines were sent: {}", answer.excerpt())); lines];
    }
    let refused: BTreeMap<usize, RefusedLine> =
        refused.into_iter().map(|refused| (refused.line, refused)).collect();
    let reply = |line| match refused.get(&line) {
        None => Reply::Outcome(Outcome::Acknowledged),
        Some(RefusedLine { status, code, detail, .. }) => match (*status, code.as_str()) {
            (429 | 507, _) | (503, "shard-missing" | "not-open" | "not-the-owner" | "too-busy") => {
                Reply::Nothing
            }
            (503, "outcome-unknown" | "not-durable-in-time") => Reply::Open(format!("{status} {code}")),
            // It was written.
            (504, "not-visible-in-time") => Reply::Outcome(Outcome::Acknowledged),
            (503, _) => Reply::Open(format!("{status} {code}")),
            _ => Reply::Unexpected(format!("line {line}: {status} {code} {detail}")),
        },
    };
    (1..=lines).map(reply).collect()
}

/// The request that deletes the document with this value.
pub(super) fn delete_found(base: &str, value: u64) -> http::Result<Request<Body>> {
    let query = json!({ "q": format!("token:{}", token(value)) });
    super::with_json(Request::post(format!("{base}/{INDEX}/delete")), &query)
}

/// Whether the document was deleted. One that was replaced after the search had found it was not.
pub(super) fn deleted_found(answer: &Answer) -> Reply {
    #[derive(Deserialize)]
    struct Deleted {
        deleted: usize,
        conflicts: usize,
        timed_out: bool,
        shards: super::Shards,
    }
    let found: Option<Deleted> =
        serde_json::from_slice(&answer.body).ok().filter(|_| answer.status == StatusCode::OK);
    match found {
        None => unexpected(answer),
        Some(Deleted { deleted: 2.., .. }) => {
            Reply::Wrong(format!("a token is in one document: {}", answer.excerpt()))
        }
        Some(Deleted { deleted: 1, .. }) => Reply::Outcome(Outcome::Deleted),
        Some(Deleted { timed_out, shards, .. }) if timed_out || !shards.failed.is_empty() => {
            Reply::Open("partly done".to_owned())
        }
        Some(Deleted { conflicts: 0, .. }) => Reply::Outcome(Outcome::Missing),
        Some(_) => Reply::Nothing,
    }
}
