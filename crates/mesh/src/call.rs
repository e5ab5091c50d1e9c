//! Control calls to one address, held in memory both ways.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::CallError;
use crate::mesh::Mesh;
use crate::upload::AttemptBody;
use crate::wire::{is_refused, root_cause};

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

impl Mesh {
    /// Makes a small control call to one address, an absolute URL. Body and answer are held in memory; the answer has
    /// at most 1 MiB. The call is sent once and takes at most `timeout` in all.
    pub async fn call(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        tokio::time::timeout(timeout, self.exchange(request))
            .await
            .unwrap_or(Err(CallError::TimedOut(timeout)))
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let mut request = request.map(|body| AttemptBody::Whole((!body.is_empty()).then_some(body)));
        let host = request
            .uri()
            .authority()
            .filter(|_| request.uri().scheme_str() == Some("http"))
            .and_then(|authority| authority.as_str().parse().ok())
            .ok_or_else(|| CallError::Malformed(format!("`{}` is not an http:// URL", request.uri())))?;
        request.headers_mut().insert(http::header::HOST, host);
        let response = self.wire().request(request).await.map_err(|error| {
            if is_refused(&error) { CallError::Refused } else { CallError::Unreachable(root_cause(&error)) }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                CallError::TooLarge(MAX_ANSWER)
            } else {
                CallError::Unreachable(root_cause(&*error))
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}
