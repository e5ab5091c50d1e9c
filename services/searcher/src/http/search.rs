//! Answers searches.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Method;
use http::request::Parts;
use plugin::Detach;
use plugin::http::query::parameters;
use plugin::http::{Answer, CHUNK, json, method_not_allowed, set_staleness};
use plugin::shard::ReadLevel;
use serde::Serialize;

use super::refusal::Refusal;
use crate::gather::level_of;
use crate::search::{SearchError, SearchRequest};
use crate::service::SearcherService;

/// The largest search, in bytes.
pub(crate) const MAX_SEARCH: usize = 1024 * 1024;

impl SearcherService {
    /// Answers a search of what an expression names. If it is not the name of an index, each hit says which one has it.
    pub(crate) async fn search_request(&self, expression: &str, head: &Parts, body: Body) -> Answer {
        let (indexes, named) = self.indexes_to_search(expression).await?;
        let request = self.read_search(head, body).await?;
        let level = level_of(&request);
        let read = match named.as_slice() {
            [index] if index.name == expression => self.search(&indexes, index, request).await?,
            named => self.search_several(&indexes, named, request).await?,
        };
        let staleness = read.staleness.filter(|_| level == ReadLevel::Any);
        self.found(&read.value, staleness, head).await
    }

    /// The search in a request: in its query, or in its body.
    async fn read_search(&self, head: &Parts, body: Body) -> Result<SearchRequest, Response> {
        let query = head.uri.query().unwrap_or_default();
        let request = match head.method {
            Method::GET | Method::HEAD => SearchRequest::from_query(query),
            Method::POST => {
                parameters(query, &[])
                    .map_err(|error| error.hint("a search by `POST` is all in its body").to_response())?;
                let (body, _space) = self.read_body(head, body, MAX_SEARCH, &self.bodies.outer).await?;
                SearchRequest::from_json(&body)
            }
            _ => return Err(method_not_allowed("GET, HEAD, POST")),
        };
        Ok(request.map_err(|error| Refusal::from(SearchError::from(error)))?)
    }

    /// The answer with what was found. A large one takes space until the client has read it.
    pub(crate) async fn found(
        &self,
        found: &impl Serialize,
        staleness: Option<Duration>,
        head: &Parts,
    ) -> Answer {
        let text = serde_json::to_vec(found).expect("strings, numbers and valid JSON are written to memory");
        let mut answer = if text.len() <= CHUNK {
            json(text)
        } else {
            let no_space = "try again in a moment, or ask for less with `size` or `source`";
            let space = self.answers.take(text.len()).await.map_err(|error| error.to_response(no_space))?;
            space.json(text).map_err(|error| error.to_response(no_space))?
        };
        if let Some(staleness) = staleness {
            set_staleness(answer.headers_mut(), staleness);
        }
        // The answer is in memory, however slowly the client reads it.
        Detach::of(&head.extensions);
        Ok(answer)
    }
}
