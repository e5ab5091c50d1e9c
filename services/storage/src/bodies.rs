//! Bodies of requests: taken whole, up to a bound, at a least rate, and not from pages of somebody else.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, EXPECT, ORIGIN};
use http::request::Parts;
use http_body_util::BodyExt;
use plugin::{LeastRate, TooSlow};
use tokio::time::{Instant, timeout, timeout_at};
use types::{ErrorKind, Problem};

use crate::answers::{invalid, refused};
use crate::arrival::{NoRoom, Reserved};
use crate::engine::Engine;

/// How long what is refused may still be sent.
const DRAIN: Duration = Duration::from_secs(2);

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

/// Refuses a body that is said to be too large or to be only a part.
pub(crate) async fn check(head: &Parts, body: Body, most: usize) -> Result<Body, Response> {
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
    let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    match announced {
        Some(announced) if announced > most => {
            // Many clients hear no answer while they send; those with little to send may finish. One that waits to be
            // told to send hears at once.
            if announced <= most.saturating_mul(4) && !head.headers.contains_key(EXPECT) {
                let _ = timeout(DRAIN, drain(body)).await;
            }
            Err(too_large(most))
        }
        _ => Ok(body),
    }
}

async fn drain(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// Reads a body of at most `most` bytes into memory, taking room for it, and `besides`, as it arrives.
pub(crate) async fn read(
    engine: &Engine,
    mut body: Body,
    most: usize,
    besides: usize,
) -> Result<(Bytes, Reserved), Response> {
    let full = |NoRoom| engine.full().to_response();
    let mut room = engine.arriving(besides).await.map_err(|refusal| refusal.to_response())?;
    let mut rate = LeastRate::new(Instant::now());
    let mut whole = BytesMut::new();
    loop {
        let frame = timeout_at(rate.deadline(), body.frame()).await;
        let Some(frame) = frame.map_err(|_| too_slow(rate.window_ended()))? else { break };
        let frame = frame.map_err(|error| {
            invalid("broken-body", &format!("the body broke off: {error}"), "send it again, whole")
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > most - whole.len() {
            return Err(too_large(most));
        }
        let arrived_at = Instant::now();
        rate.arrived(data.len(), arrived_at);
        room.grow(data.len()).await.map_err(full)?;
        rate.paused(arrived_at.elapsed());
        // Copied, since a part of a few bytes would keep the whole buffer of its connection.
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), room.arrived()))
}

fn too_slow(error: TooSlow) -> Response {
    let mut problem = Problem::new(ErrorKind::Timeout, "slow-body", error.to_string())
        .hint("send the body without pausing, or in smaller parts");
    problem.status = StatusCode::REQUEST_TIMEOUT.as_u16();
    refused(&problem)
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
