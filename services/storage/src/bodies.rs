//! Bodies of requests: taken whole, up to a bound, and not from pages of somebody else.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, EXPECT, ORIGIN};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;
use types::{ErrorKind, Problem};

use crate::answers::{invalid, refused};

/// How long what is refused may still be sent.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the body of a request may take.
const UPLOAD: Duration = Duration::from_secs(60);

/// The largest body of a batch.
pub(crate) const MAX_BATCH: usize = 8 * 1024 * 1024;

/// Refuses a `POST` that a page of somebody else may have made a browser send: it needs no leave for bodies that are not
/// said to be JSON (the Fetch standard, CORS-safelisted request-header), and names the page in `Origin`.
pub(crate) fn no_foreign_page(head: &Parts) -> Result<(), Response> {
    let named = head.headers.get(CONTENT_TYPE).and_then(|named| named.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim();
    let is_json =
        ["application/json", "application/x-ndjson"].iter().any(|json| essence.eq_ignore_ascii_case(json));
    if is_json || !head.headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let detail = "a browser sends this, and it is not said to be JSON, so any page may be behind it";
    let problem = Problem::new(ErrorKind::Invalid, "foreign-page", detail);
    Err(refused(&problem.hint("send `Content-Type: application/json`")))
}

/// How many bytes a body has, as far as it is known before it is read: at most so many.
pub(crate) async fn told(head: &Parts, body: Body, most: usize) -> Result<(usize, Body), Response> {
    for name in [CONTENT_RANGE, CONTENT_ENCODING] {
        if head.headers.contains_key(&name) {
            let detail = format!("bodies are taken whole, without `{name}`");
            return Err(invalid(
                "unsupported-header",
                &detail,
                "send the body as it is, without this header",
            ));
        }
    }
    let told = body.size_hint().exact().map(|told| usize::try_from(told).unwrap_or(usize::MAX));
    match told {
        Some(told) if told > most => {
            // Many clients hear no answer while they send; those with little to send may finish. One that waits to be
            // told to send hears at once.
            if told <= most.saturating_mul(4) && !head.headers.contains_key(EXPECT) {
                let _ = timeout(DRAIN, drain(body)).await;
            }
            Err(too_large(most))
        }
        told => Ok((told.unwrap_or(most), body)),
    }
}

async fn drain(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, Response> {
    let read = timeout(UPLOAD, Limited::new(body, most).collect()).await;
    let read = read.map_err(|_| {
        let detail = format!("the body did not come within {UPLOAD:?}");
        refused(&Problem::new(ErrorKind::Timeout, "slow-body", detail).hint("send less at once"))
    })?;
    let whole = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large(most)
        } else {
            invalid("broken-body", &format!("the body broke off: {error}"), "send it again, whole")
        }
    })?;
    Ok(whole.to_bytes())
}

fn too_large(most: usize) -> Response {
    let detail = format!("the body has more than {most} bytes");
    refused(
        &Problem::new(ErrorKind::TooLarge, "value-too-large", detail)
            .hint("cut it into several keys, or send fewer lines or operations at once"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_somebody_else_can_not_post() {
        for (origin, content_type, is_taken) in [
            (None, None, true),
            (None, Some("application/x-www-form-urlencoded"), true),
            (Some("https://evil.example"), None, false),
            (Some("https://evil.example"), Some("text/plain;charset=UTF-8"), false),
            (Some("https://shop.example"), Some("application/json; charset=utf-8"), true),
            (Some("null"), Some("application/x-ndjson"), true),
        ] {
            let mut request = http::Request::post("/batch");
            for (name, value) in [(ORIGIN, origin), (CONTENT_TYPE, content_type)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(no_foreign_page(&head).is_ok(), is_taken, "{origin:?} {content_type:?}");
        }
    }
}
