//! Calls from one agent to another: small, in memory both ways, sent once, to one address.
//!
//! This is the only client of the API that an agent uses. [`AgentError`] unites [`CallError`] and the refusals of the other
//! agent.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::api::{AgentSelf, HOPS, MemberView, Release};
use types::{ErrorKind, Generation, NodeId, Problem};

use crate::{CallError, Mesh};

/// The part of the time limit that is reserved for the answer's way back.
const ON_THE_WAY: Duration = Duration::from_millis(50);

/// Another agent, at its address.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    mesh: &'a Mesh,
    http: &'a str,
}

/// Why a call to another agent failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// No complete answer arrived. Unless the connection was refused, the call may have been acted on.
    #[error(transparent)]
    Unanswered(#[from] CallError),
    /// See the problem.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Check which program listens there: the answer is not from an agent.
    #[error("the answer is not from an agent: {0}")]
    NoAgent(String),
}

impl AgentError {
    /// The agent's refusal, if it answered.
    pub fn refusal(self) -> Option<Problem> {
        match self {
            Self::Refused(problem) => Some(*problem),
            Self::Unanswered(_) | Self::NoAgent(_) => None,
        }
    }
}

impl Mesh {
    /// The agent at an address, `http://10.0.0.7:7400`.
    pub fn agent<'a>(&'a self, http: &'a str) -> Agent<'a> {
        Agent { mesh: self, http }
    }
}

impl Agent<'_> {
    /// Its view of itself.
    pub async fn itself(&self, limit: Duration) -> Result<AgentSelf, AgentError> {
        self.get("/v1/agent/self".to_owned(), limit).await
    }

    /// A member in its view. It waits, within the limit, until it shows the member in this generation at this version.
    pub async fn member(
        &self,
        node: &NodeId,
        generation: Generation,
        version: u64,
        limit: Duration,
    ) -> Result<MemberView, AgentError> {
        let wait_ms = limit.saturating_sub(ON_THE_WAY).as_millis();
        let query = format!("generation={generation}&min_version={version}&wait_ms={wait_ms}");
        self.get(format!("/v1/members/{node}?{query}"), limit).await
    }

    /// Requests it to hand over a shard that it owns. `node` is its id.
    pub async fn release(&self, node: &NodeId, wish: &Release, limit: Duration) -> Result<(), AgentError> {
        self.post(&format!("/v1/members/{node}:release"), wish, limit).await
    }

    /// Offers it a shard that was released. `node` is its id.
    pub async fn offer(&self, node: &NodeId, offer: &Release, limit: Duration) -> Result<(), AgentError> {
        self.post(&format!("/v1/members/{node}:offer"), offer, limit).await
    }

    async fn get<T: DeserializeOwned>(&self, path: String, limit: Duration) -> Result<T, AgentError> {
        let answer = self.call(Method::GET, &path, Bytes::new(), limit).await?;
        serde_json::from_slice(&answer).map_err(|error| AgentError::NoAgent(error.to_string()))
    }

    async fn post(&self, path: &str, body: &impl Serialize, limit: Duration) -> Result<(), AgentError> {
        let body = serde_json::to_vec(body).expect("our own types always serialize");
        self.call(Method::POST, path, body.into(), limit).await.map(|_| ())
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, AgentError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.http));
        if !body.is_empty() {
            // For this node only: it must not forward the request.
            request = request.header(CONTENT_TYPE, "application/json").header(HOPS, "1");
        }
        let request = request.body(body).map_err(|error| CallError::Malformed(error.to_string()))?;
        let answer = self.mesh.call(request, limit).await?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        Err(match serde_json::from_slice(answer.body()) {
            Ok(problem) => AgentError::Refused(Box::new(problem)),
            Err(_) => AgentError::NoAgent(format!("its answer has the status {}", answer.status())),
        })
    }
}

/// A failed call as a problem of the agent that made it.
impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Refused(problem) => *problem,
            error => Self::new(ErrorKind::BadGateway, "member-unreachable", error.to_string())
                .hint("`ctl members` shows the live members"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::StatusCode;
    use http_body_util::BodyExt;
    use types::Epoch;

    use super::*;
    use crate::Limits;
    use crate::testing::{Upstream, closed_port, mesh, text};

    const LIMIT: Duration = Duration::from_secs(5);

    fn me() -> NodeId {
        "a".parse().unwrap()
    }

    fn wish() -> Release {
        Release {
            service: "storage".parse().unwrap(),
            shard: 0_u32.try_into().unwrap(),
            epoch: Epoch(3),
            to: "b".parse().unwrap(),
            dry_run: true,
        }
    }

    #[tokio::test]
    async fn a_command_reaches_the_agent_that_it_names_and_must_not_be_forwarded() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let upstream = Upstream::serving(move |request| {
            let log = Arc::clone(&log);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let hops = head.headers.get(HOPS).and_then(|hops| hops.to_str().ok()).map(str::to_owned);
                log.lock().unwrap().push((head.method, head.uri.to_string(), hops, body));
                text("{}")
            }
        })
        .await;
        let (_view, mesh) = mesh([], Limits::default());
        let http = format!("http://{}", upstream.addr);
        let agent = mesh.agent(&http);
        assert_eq!(agent.release(&me(), &wish(), LIMIT).await, Ok(()));
        assert_eq!(agent.offer(&me(), &wish(), LIMIT).await, Ok(()));
        let seen = seen.lock().unwrap();
        let body = serde_json::to_vec(&wish()).unwrap();
        for ((method, uri, hops, sent), path) in
            seen.iter().zip(["/v1/members/a:release", "/v1/members/a:offer"])
        {
            assert_eq!((method, uri.as_str(), hops.as_deref()), (&Method::POST, path, Some("1")));
            assert_eq!(sent, &body);
        }
    }

    #[tokio::test]
    async fn a_refusal_a_foreign_answer_and_no_answer_are_distinguished() {
        let problem = Problem::new(ErrorKind::Conflict, "busy", "it is changing its role");
        let body = serde_json::to_string(&problem).unwrap();
        for (status, body, expected) in [
            (409, body, AgentError::Refused(Box::new(problem))),
            (
                404,
                "<html>".to_owned(),
                AgentError::NoAgent("its answer has the status 404 Not Found".to_owned()),
            ),
        ] {
            let upstream = Upstream::serving(move |_| {
                let body = body.clone();
                async move {
                    let mut answer = text(body);
                    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                    answer
                }
            })
            .await;
            let (_view, mesh) = mesh([], Limits::default());
            let http = format!("http://{}", upstream.addr);
            assert_eq!(mesh.agent(&http).release(&me(), &wish(), LIMIT).await, Err(expected));
            assert!(mesh.agent(&http).itself(LIMIT).await.is_err());
        }
        let (_view, mesh) = mesh([], Limits::default());
        let gone = closed_port().await;
        let error = mesh.agent(gone.as_str()).itself(LIMIT).await.unwrap_err();
        assert_eq!(error, AgentError::Unanswered(CallError::Refused));
    }
}
