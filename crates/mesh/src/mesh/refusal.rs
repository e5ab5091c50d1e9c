//! Reads the answer of a server that refuses a request for now.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Limited};
use types::{ErrorKind, Problem};

use super::deliver::LAST_ANSWER;
use crate::pool::Received;

/// The longest refusal that is read, in bytes.
const MAX_REFUSAL: usize = 64 * 1024;

/// The problem with which a member refused a request without processing it.
pub(super) async fn refusal(answer: Response<Received>) -> Problem {
    let status = answer.status();
    let problem = whole(answer).await.and_then(|body| serde_json::from_slice(&body).ok());
    problem.unwrap_or_else(|| {
        let detail = format!("the member refused the request with {status}");
        Problem::new(ErrorKind::Unavailable, "refused", detail).hint("try again in a moment")
    })
}

/// The body of a refusal; `None` if it is too long or does not arrive in time.
pub(super) async fn whole(answer: Response<Received>) -> Option<Bytes> {
    let read = Limited::new(answer.into_body(), MAX_REFUSAL).collect();
    let body = tokio::time::timeout(LAST_ANSWER, read).await.ok()?.ok()?;
    Some(body.to_bytes())
}

/// The seconds of a `Retry-After`. The form with a date is not read: clocks differ.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
