//! Answers that the listener itself sends.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use mesh::head::{HeadError, REQUEST_ID, request_id};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;
use types::{Problem, api};

use super::ServeLimits;

const NODE: HeaderName = HeaderName::from_static(api::NODE);
/// The methods that the server as a whole supports.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// How long a client may take to receive the last refusal of its connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Refuses a request because of its head, with the error's [`named`] problem. The connection is closed, since the bytes that
/// follow can't be trusted.
pub(super) fn refuse(error: &HeadError, problem: &Problem) -> Response<Body> {
    let mut answer = signed(problem);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if matches!(error, HeadError::Trace | HeadError::Tunnel) {
        answer.headers_mut().insert(ALLOW, METHODS);
    }
    answer
}

/// The answer to `OPTIONS *`.
pub(super) fn options() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    answer.headers_mut().insert(ALLOW, METHODS);
    answer
}

/// A [`named`] problem as bytes to send, with `Connection: close`.
pub(super) fn raw_problem(problem: &Problem, is_head: bool) -> Bytes {
    let (body, answer) = (serde_json::to_vec(problem).unwrap_or_default(), signed(problem));
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut raw =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default())
            .into_bytes();
    for (name, value) in answer.headers() {
        raw.extend_from_slice(name.as_str().as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value.as_bytes());
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(
        format!("{CONTENT_LENGTH}: {}\r\n{CONNECTION}: close\r\n\r\n", body.len()).as_bytes(),
    );
    if !is_head {
        raw.extend_from_slice(&body);
    }
    raw.into()
}

/// The problem with the node, and with an id for the request.
pub(super) fn named(problem: &Problem, limits: &ServeLimits) -> Problem {
    let id = request_id(&http::HeaderMap::new());
    Problem {
        node: limits.node.as_ref().map(ToString::to_string),
        request_id: id.to_str().ok().map(ToOwned::to_owned),
        ..problem.clone()
    }
}

/// The answer for a [`named`] problem, whose head has the node and the id of the request as well.
pub(super) fn signed(problem: &Problem) -> Response<Body> {
    let mut answer = crate::http::problem(problem);
    let headers = answer.headers_mut();
    for (name, text) in [(REQUEST_ID, &problem.request_id), (NODE, &problem.node)] {
        if let Some(value) = text.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    }
    answer
}

/// Writes the last answer of a connection, a refusal, and closes it. The client may still be sending: without reading
/// that, the connection would be reset, and the client could lose the answer (RFC 9112, section 9.6).
///
/// Boxed: few connections are refused, and the others need no room for it.
pub(super) fn write_refusal<T>(mut stream: T, refusal: Bytes) -> BoxFuture<'static, ()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Box::pin(async move {
        let writing = async {
            stream.write_all(&refusal).await?;
            stream.shutdown().await?;
            let mut discarded = [0; 4 * 1024];
            while stream.read(&mut discarded).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(REFUSAL_TIMEOUT, writing).await {
            debug!(%error, "a refusal could not be sent to the client");
        }
    })
}
