//! Reads whole bodies of requests, with a maximum size and a minimum rate, and counts them as they arrive.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, EXPECT};
use http::request::Parts;
use http::{HeaderName, StatusCode};
use http_body_util::BodyExt;
use mesh::MalformedBody;
use tokio::time::{Instant, timeout, timeout_at};
use types::{ErrorKind, Problem};

use super::{LeastRate, TooSlow, problem};
use crate::queue::{Arriving, QueueFull, Reserved};

/// How long a client may continue to send a refused body.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a body was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Send the body as it is, without this header.
    #[error("bodies are taken whole, without `{0}`")]
    Unsupported(HeaderName),
    /// Send less at once.
    #[error("the body has more than {most} bytes")]
    TooLarge {
        /// The limit.
        most: usize,
    },
    /// Send it without pausing, or in smaller parts.
    #[error(transparent)]
    TooSlow(#[from] TooSlow),
    /// Send it again, whole.
    #[error("the body broke off: {0}")]
    BrokenOff(String),
    /// Correct the client: the chunks that it sent are none.
    #[error("the body is malformed: {0}")]
    Malformed(String),
    /// Try again later: nothing was done.
    #[error(transparent)]
    Full(#[from] QueueFull),
}

impl BodyError {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        match MalformedBody::behind(error) {
            Some(malformed) => Self::Malformed(malformed.to_string()),
            None => Self::BrokenOff(error.to_string()),
        }
    }

    /// As problem details.
    pub fn to_problem(&self) -> Problem {
        let of = |kind, code, hint: &str| Problem::new(kind, code, self.to_string()).hint(hint);
        match self {
            Self::Unsupported(_) => {
                of(ErrorKind::Invalid, "unsupported-header", "send the body as it is, without this header")
            }
            Self::TooLarge { .. } => of(ErrorKind::TooLarge, "body-too-large", "send less at once"),
            Self::TooSlow(_) => {
                let hint = "send the body without pausing, or in smaller parts";
                let mut problem = of(ErrorKind::Timeout, "slow-body", hint);
                problem.status = StatusCode::REQUEST_TIMEOUT.as_u16();
                problem
            }
            Self::BrokenOff(_) => of(ErrorKind::Invalid, "broken-body", "send it again, whole"),
            Self::Malformed(_) => {
                of(ErrorKind::Invalid, "malformed-body", "send chunks as RFC 9112, section 7.1, has them")
            }
            Self::Full(_) => of(ErrorKind::Unavailable, "too-busy", "try again in a moment"),
        }
    }

    /// The refusal. If there was no space, it is marked as not processed.
    pub fn to_response(&self) -> Response {
        match self {
            Self::Full(_) => super::not_processed(&self.to_problem()),
            _ => problem(&self.to_problem()),
        }
    }
}

/// Refuses a body that is announced as too large, encoded or only a part of a value. It reads nothing of accepted bodies.
pub async fn accept_body(head: &Parts, body: Body, most: usize) -> Result<Body, BodyError> {
    for name in [CONTENT_RANGE, CONTENT_ENCODING] {
        if head.headers.contains_key(&name) {
            return Err(BodyError::Unsupported(name));
        }
    }
    let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    match announced {
        Some(announced) if announced > most => {
            // Many clients read no answer while they send, so short bodies are read to the end. A client that waits for
            // `100 Continue` gets its answer at once.
            if announced <= most.saturating_mul(4) && !head.headers.contains_key(EXPECT) {
                let _ = timeout(DRAIN, drain(body)).await;
            }
            Err(BodyError::TooLarge { most })
        }
        _ => Ok(body),
    }
}

async fn drain(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// Reads a body of at most `most` bytes into memory. It takes space in the queue as it arrives.
pub async fn read_body(
    mut body: Body,
    most: usize,
    mut space: Arriving,
) -> Result<(Bytes, Reserved), BodyError> {
    let mut rate = LeastRate::new(Instant::now());
    let mut whole = BytesMut::new();
    loop {
        let frame = timeout_at(rate.deadline(), body.frame()).await;
        let Some(frame) = frame.map_err(|_| rate.window_ended())? else { break };
        let frame = frame.map_err(|error| BodyError::of(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > most - whole.len() {
            return Err(BodyError::TooLarge { most });
        }
        let arrived_at = Instant::now();
        rate.arrived(data.len(), arrived_at);
        space.grow(data.len()).await?;
        rate.paused(arrived_at.elapsed());
        // Copied, since a slice of a few bytes would keep the whole buffer of its connection in memory.
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), space.arrived()))
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http::Request;

    use super::*;
    use crate::queue::QueueBytes;

    fn head(name: Option<HeaderName>) -> Parts {
        let mut request = Request::put("/kv/a");
        if let Some(name) = name {
            request = request.header(name, "x");
        }
        request.body(()).unwrap().into_parts().0
    }

    async fn read(body: Body, most: usize) -> Result<Bytes, BodyError> {
        let space = QueueBytes::new(64 * 1024).begin(0).await?;
        read_body(body, most, space).await.map(|(whole, _)| whole)
    }

    fn pieces(pieces: impl IntoIterator<Item = Result<&'static str, &'static str>>) -> Body {
        let pieces: Vec<_> = pieces.into_iter().map(|piece| piece.map_err(std::io::Error::other)).collect();
        Body::from_stream(stream::iter(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_up_to_its_limit() {
        assert_eq!(read(pieces([Ok("ab"), Ok(""), Ok("c")]), 3).await.unwrap(), "abc");
        assert_eq!(read(pieces([Ok("ab"), Ok("cd")]), 3).await, Err(BodyError::TooLarge { most: 3 }));
        let broken = read(pieces([Ok("ab"), Err("reset")]), 3).await.unwrap_err();
        assert_eq!((broken.to_problem().status, broken.to_problem().code()), (400, "broken-body"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_arriving_is_refused_after_ten_seconds() {
        let stalled = stream::iter([Ok::<_, std::io::Error>("ab")]).chain(stream::pending());
        let began = Instant::now();
        let error = read(Body::from_stream(stalled), 10).await.unwrap_err();
        assert_eq!((error.to_problem().status, error.to_problem().code()), (408, "slow-body"));
        assert_eq!(began.elapsed(), LeastRate::WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_finds_no_space_was_not_processed() {
        let error = read(Body::from(vec![0; 128 * 1024]), 1024 * 1024).await;
        assert!(error.is_ok(), "one that is larger than the queue takes all of it");
        let queue = QueueBytes::new(1024);
        let _held = queue.reserve(1024).unwrap();
        let error = BodyError::from(queue.begin(0).await.err().unwrap());
        assert!(error.to_response().headers().contains_key(types::api::NOT_PROCESSED));
    }

    #[tokio::test(start_paused = true)]
    async fn partial_and_oversized_bodies_are_refused_unread() {
        for name in [CONTENT_RANGE, CONTENT_ENCODING] {
            let refused = accept_body(&head(Some(name.clone())), Body::from("a"), 10).await;
            assert_eq!(refused.err(), Some(BodyError::Unsupported(name)));
        }
        let refused = accept_body(&head(None), Body::from("abcd"), 3).await;
        assert_eq!(refused.err(), Some(BodyError::TooLarge { most: 3 }));
        assert!(accept_body(&head(None), Body::from("abc"), 3).await.is_ok());
    }
}
