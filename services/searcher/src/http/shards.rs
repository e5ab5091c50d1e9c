//! Answers requests of other members for this member's shard.

use std::sync::Arc;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use plugin::http::{Answer, json, method_not_allowed, set_staleness};
use plugin::shard::{Read, ReadLevel};
use serde::Serialize;
use tokio::time::Instant;
use types::ShardId;

use super::inner::{InnerQuery, Verb};
use super::refusal::Refusal;
use super::suggest::Wanted;
use crate::gather::{Search, read_second};
use crate::search::{SearchError, SearchRequest};
use crate::service::SearcherService;

/// The largest body that is no write: searches as members write them for each other are longer than those of clients, and the
/// second round has the plan, too.
pub(crate) const MAX_INNER: usize = 16 * 1024 * 1024;

impl SearcherService {
    /// Answers a request of another member.
    pub(crate) async fn for_member(&self, shard: ShardId, verb: Verb, head: &Parts, body: Body) -> Answer {
        self.member.has(Some(shard))?;
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        let query = InnerQuery::parse(head.uri.query().unwrap_or_default());
        let query = query.map_err(|error| error.to_response())?;
        if query.level != ReadLevel::Any {
            self.member.owner_only()?;
        }
        match verb {
            Verb::Write => self.write_for_member(&query, head, body).await,
            Verb::Delete => self.delete_for_member(&query, head, body).await,
            Verb::Reindex => self.reindex_for_member(&query, head, body).await,
            Verb::Get => {
                let (body, _space) = self.read_body(head, body, MAX_INNER, &self.bodies.inner).await?;
                let index = self.index_of(&query).await?;
                let ids = super::get::ids(&body)?;
                Ok(answer(&self.get_here(&index, &ids, query.level).await?))
            }
            Verb::Prepare => {
                let (body, _space) = self.read_body(head, body, MAX_INNER, &self.bodies.inner).await?;
                let request = SearchRequest::from_wire(&body).map_err(SearchError::from);
                let search = self.search_of(&query, request.map_err(Refusal::from)?).await?;
                let (read, _) = self.prepare_here(&search).await?;
                Ok(answer(&read))
            }
            Verb::Execute => {
                let (body, _space) = self.read_body(head, body, MAX_INNER, &self.bodies.inner).await?;
                let (request, plan) = read_second(&body)?;
                let mut search = self.search_of(&query, request).await?;
                search.level = self.level_of_second(&query);
                let snapshot = self.snapshot(&search).await?;
                let read = self.execute_here(&search, snapshot, Arc::new(plan)).await?;
                Ok(answer(&read))
            }
            Verb::Suggest => {
                let (body, _space) = self.read_body(head, body, MAX_INNER, &self.bodies.inner).await?;
                let index = self.index_of(&query).await?;
                let deadline = Instant::now() + query.timeout;
                Ok(answer(&self.suggest_here(&index, Wanted::read(&body)?, query.level, deadline).await?))
            }
            Verb::Refresh | Verb::Compact => {
                self.member.owner_only()?;
                let index = self.index_of(&query).await?;
                Ok(answer(&self.do_here(&index, verb, query.timeout).await?))
            }
            Verb::States => {
                let indexes = self.catalog.at_least(query.catalog).await.map_err(Refusal::from)?;
                Ok(answer(&self.states_here(&indexes, Instant::now() + query.timeout).await?))
            }
            Verb::State => {
                let index = self.index_of(&query).await?;
                let deadline = Instant::now() + query.timeout;
                Ok(answer(&self.state_here(&index, query.level, deadline).await?))
            }
        }
    }

    /// The level of a second round. If this member has answered the first one at `strong`, under the same epoch, everything
    /// that was acknowledged before the search is visible here already.
    fn level_of_second(&self, query: &InnerQuery) -> ReadLevel {
        match query.level {
            ReadLevel::Strong if query.seen_by.is_some() && query.seen_by == self.shard.epoch() => {
                ReadLevel::Primary
            }
            level => level,
        }
    }

    async fn search_of(
        &self,
        query: &InnerQuery,
        request: SearchRequest,
    ) -> Result<Search, axum::response::Response> {
        let index = self.index_of(query).await?;
        let checked = request.check(&index.schema).map_err(SearchError::from);
        checked.map_err(Refusal::from)?;
        Ok(Search::new(index, request, query.level, Instant::now() + query.timeout))
    }
}

fn answer<T: Serialize>(read: &Read<T>) -> axum::response::Response {
    match serde_json::to_vec(&read.value) {
        Ok(body) => {
            let mut answer = json(body);
            if let Some(staleness) = read.staleness {
                set_staleness(answer.headers_mut(), staleness);
            }
            answer
        }
        Err(error) => Refusal::from(SearchError::Engine(format!("the answer is no JSON: {error}"))).into(),
    }
}
