//! A member for tests that answers as the test says, and is the only member in its own view.

use std::sync::{Arc, Mutex};

use client::Client;
use http_body_util::BodyExt;
use mesh::testing::{Upstream, text};
use serde_json::Value;
use types::api::Members;
use types::{Phase, Problem};

use crate::reach::Reached;
use crate::render;

/// An answer to a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    retry_after: Option<u32>,
    body: String,
}

impl Answer {
    pub(crate) fn json(value: &Value) -> Self {
        Self { status: 200, retry_after: None, body: value.to_string() }
    }

    pub(crate) fn problem(problem: &Problem) -> Self {
        Self { status: problem.status, retry_after: None, body: serde_json::to_string(problem).unwrap() }
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

/// A member of a service.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) reached: Reached,
    _server: Upstream,
}

impl Fake {
    /// A member that has this role. Requests to its service are answered by the function, which gets `GET /path?query` below
    /// the service, and the body.
    pub(crate) async fn new(
        role: &str,
        answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let mut member = render::tests::member("n", role, Phase::Ready);
        let service = member.state.as_ref().and_then(|state| state.role.service()).unwrap().clone();
        let below = format!("/svc/{service}");
        let view = Arc::new(Mutex::new(String::new()));
        let (shown, answer) = (Arc::clone(&view), Arc::new(answer));
        let server = Upstream::serving(move |request| {
            let (shown, answer, below) = (Arc::clone(&shown), Arc::clone(&answer), below.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let path = head.uri.to_string();
                let Some(path) = path.strip_prefix(&below) else {
                    return text(shown.lock().unwrap().clone());
                };
                let answer = answer(&format!("{} {path}", head.method), &String::from_utf8_lossy(&body));
                let mut response = text(answer.body);
                *response.status_mut() = answer.status.try_into().unwrap();
                let media_type = if answer.status < 400 { "application/json" } else { Problem::MEDIA_TYPE };
                response.headers_mut().insert("content-type", media_type.parse().unwrap());
                if let Some(seconds) = answer.retry_after {
                    response.headers_mut().insert("retry-after", seconds.into());
                }
                response
            }
        })
        .await;
        member.http = server.url().to_string();
        let members = Members {
            cluster: "demo".parse().unwrap(),
            viewed_by: "n".parse().unwrap(),
            members: vec![member],
        };
        *view.lock().unwrap() = serde_json::to_string(&members).unwrap();
        let client = Client::new(&server.url().to_string()).unwrap().with_service(service);
        Self { reached: Reached { client, record: None }, _server: server }
    }
}
