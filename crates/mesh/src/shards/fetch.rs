//! Requests to the member that has a shard, with answers in JSON that fit into memory.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use types::{ServiceName, Target};

use super::ShardError;
use crate::{Mesh, MeshError};

/// The pause before resending a body that the mesh did not keep.
const PAUSE: Duration = Duration::from_millis(100);
/// The largest refusal.
const MAX_REFUSAL: usize = 64 * 1024;

impl Mesh {
    /// Sends a request to a member that may answer for the target, and parses its answer: JSON of at most `most` bytes, with
    /// status 200. Takes at most `limit` in all.
    ///
    /// A body too large for the mesh to keep is kept here, and sent again when it was not processed.
    pub async fn fetch<T: DeserializeOwned>(
        &self,
        service: &ServiceName,
        target: Target,
        request: Request<Bytes>,
        most: usize,
        limit: Duration,
    ) -> Result<Response<T>, ShardError> {
        let deadline = Instant::now() + limit;
        loop {
            let asking = self.fetch_once(service, target, request.clone(), most);
            match timeout_at(deadline, asking).await {
                Err(_) => return Err(ShardError::TimedOut(limit)),
                Ok(Err(ShardError::Unreached(MeshError::BodyTooLargeToResend { .. })))
                    if Instant::now() + PAUSE < deadline =>
                {
                    sleep(PAUSE).await;
                }
                Ok(outcome) => return outcome,
            }
        }
    }

    async fn fetch_once<T: DeserializeOwned>(
        &self,
        service: &ServiceName,
        target: Target,
        request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<T>, ShardError> {
        let answer = self.send_to(service, target, request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let most = if head.status == StatusCode::OK { most } else { MAX_REFUSAL };
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| ShardError::BadAnswer(error.to_string()))?.to_bytes();
        if head.status != StatusCode::OK {
            return Err(ShardError::of_answer(head.status, &body));
        }
        let value = serde_json::from_slice(&body);
        let value = value.map_err(|error| ShardError::BadAnswer(error.to_string()))?;
        Ok(Response::from_parts(head, value))
    }
}

#[cfg(test)]
mod tests {
    use types::{ErrorKind, Phase, Problem};

    use super::*;
    use crate::Limits;
    use crate::testing::{Upstream, echo, member, mesh, text};

    async fn fetch(answer: (u16, String), most: usize) -> Result<Vec<u32>, ShardError> {
        let upstream = Upstream::serving(move |_| {
            let (status, body) = answer.clone();
            async move {
                let mut answer = text(body);
                *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                answer
            }
        })
        .await;
        let (_view, mesh) = mesh([member("a", upstream.addr, Phase::Ready)], Limits::default());
        let request = Request::get("/numbers").body(Bytes::new()).unwrap();
        let answer = mesh.fetch(&echo(), Target::Any, request, most, Duration::from_secs(5)).await;
        answer.map(Response::into_body)
    }

    #[tokio::test]
    async fn an_answer_of_the_expected_form_is_parsed_and_any_other_is_an_error() {
        assert_eq!(fetch((200, "[1,2]".to_owned()), 5).await, Ok(vec![1, 2]));
        for (answer, most) in
            [((200, "[1,2]".to_owned()), 4), ((200, "{}".to_owned()), 9), ((502, "no".to_owned()), 9)]
        {
            let error = fetch(answer, most).await.unwrap_err();
            assert!(matches!(error, ShardError::BadAnswer(_)), "{error}");
        }
        let problem = Problem::new(ErrorKind::Conflict, "taken", "it is taken");
        let body = serde_json::to_string(&problem).unwrap();
        assert_eq!(fetch((409, body), 9).await, Err(ShardError::Refused(Box::new(problem))));
    }

    #[tokio::test]
    async fn the_wait_for_an_answer_is_limited() {
        let upstream = Upstream::serving(|_| std::future::pending()).await;
        let (_view, mesh) = mesh([member("a", upstream.addr, Phase::Ready)], Limits::default());
        let limit = Duration::from_millis(50);
        let request = Request::get("/numbers").body(Bytes::new()).unwrap();
        let answer = mesh.fetch::<u32>(&echo(), Target::Any, request, 9, limit).await;
        assert_eq!(answer.err(), Some(ShardError::TimedOut(limit)));
    }
}
