//! Control calls to one address, held in memory both ways.

use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

use crate::base_url::BaseUrl;
use crate::error::CallError;
use crate::mesh::Mesh;
use crate::pool::SendError;
use crate::upload::Upload;
use crate::wire::{Head, root_cause};

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
        let malformed = || CallError::Malformed(format!("`{}` is not an http:// URL", request.uri()));
        let authority = request.uri().authority().ok_or_else(malformed)?;
        if request.uri().scheme() != Some(&Scheme::HTTP) {
            return Err(malformed());
        }
        let url: BaseUrl = format!("http://{authority}").parse().map_err(|_| malformed())?;
        let (parts, body) = request.into_parts();
        let head = Head::new(parts).map_err(|error| CallError::Malformed(error.to_string()))?;
        let upload = Upload::new(Full::new(body), MAX_ANSWER);
        let response = self.wire().request(&head, &upload, &url).await.map_err(|error| match error {
            SendError::Connect(error) if error.is_refused() => CallError::Refused,
            SendError::Connect(error) => CallError::Unreachable(error.to_string()),
            error @ SendError::NoWebSockets => CallError::Unreachable(error.to_string()),
            SendError::NotSent(error) | SendError::Sent(error) => CallError::Unreachable(root_cause(&error)),
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
