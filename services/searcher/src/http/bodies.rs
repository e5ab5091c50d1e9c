//! Bodies of requests: whole, within a limit for each and for all that are in memory at a time.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use plugin::http::{BodyError, accept_body, read_body};
use plugin::queue::{QueueBytes, Reserved};

use super::bulk::MAX_BESIDE;
use super::indexes::MAX_DEFINITION;
use super::refusal::Refusal;
use super::search::MAX_SEARCH;
use super::shards::MAX_INNER;
use crate::service::SearcherService;

/// What a queue takes for each body in addition to its bytes, at most.
const BESIDE_BODY: usize = 1024;

/// The memory of a member for bodies of requests.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// Those of clients.
    pub(crate) outer: QueueBytes,
    /// Those of other members, which hold space for them in the same way there: they never wait for bodies of clients.
    pub(crate) inner: QueueBytes,
}

impl Bodies {
    /// Space for two of the largest bodies of clients, and for one of the largest of other members: no body is larger than
    /// the space that it takes.
    pub(crate) fn new(max_body: usize) -> Self {
        let outer = max_body.saturating_mul(2).max(MAX_SEARCH).max(MAX_DEFINITION);
        let inner = largest_write(max_body).max(MAX_INNER);
        let space = |bytes: usize| QueueBytes::new(bytes.saturating_add(BESIDE_BODY));
        Self { outer: space(outer), inner: space(inner) }
    }
}

/// The largest request to write documents that another member sends: the documents of one request of a client, without
/// white space, with their ids, which are in them or generated.
pub(crate) fn largest_write(max_body: usize) -> usize {
    max_body.saturating_mul(2).saturating_add(MAX_BESIDE)
}

impl SearcherService {
    /// Reads a body of at most `most` bytes, which takes space as it arrives.
    pub(crate) async fn read_body(
        &self,
        head: &Parts,
        body: Body,
        most: usize,
        space: &QueueBytes,
    ) -> Result<(Bytes, Reserved), Response> {
        Ok(self.whole_body(head, body, most, space).await?)
    }

    /// The same, with the refusal as a value.
    pub(crate) async fn whole_body(
        &self,
        head: &Parts,
        body: Body,
        most: usize,
        space: &QueueBytes,
    ) -> Result<(Bytes, Reserved), Refusal> {
        let body = accept_body(head, body, most).await?;
        let space = space.begin(0).await.map_err(BodyError::from)?;
        Ok(read_body(body, most, space).await?)
    }
}
