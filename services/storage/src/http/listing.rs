//! Lists the keys of one shard, or of all of them, each from its owner or a replica. Fails if one does not answer.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use mesh::shards::{ShardError, scatter};
use plugin::Detach;
use plugin::http::ListQuery;
use plugin::http::conditions::etag;
use plugin::http::{
    Answer, CHUNK, NoSpace, Space, json, method_not_allowed, problem, set_staleness, staleness,
};
use plugin::shard::{Read, ReadLevel, merge};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use types::{Problem, ShardId, Target};

use super::buffers::no_space;
use super::path::is_read;
use crate::data::page::{Listed, Page};
use crate::engine::EngineError;
use crate::service::StorageService;

/// The time limit of a shard.
const LIMIT: Duration = Duration::from_secs(10);
/// The largest answer of a shard: a page has at most 4 MiB before its last key, whose value has at most 8 MiB, and each
/// byte may take two in JSON.
const MAX_ANSWER: usize = 24 * 1024 * 1024;
/// The least that is requested of a shard, in bytes.
const LEAST: usize = 64 * 1024;

impl StorageService {
    /// Answers a listing.
    pub(crate) async fn listing(&self, head: &Parts) -> Answer {
        if !is_read(&head.method) {
            return Err(method_not_allowed("GET, HEAD"));
        }
        let query = ListQuery::parse(head.uri.query().unwrap_or_default());
        let query = query.map_err(|error| error.to_response())?;
        self.member.has(query.shard)?;
        if query.shard.is_some() && query.level != ReadLevel::Any {
            self.member.owner_only()?;
        }
        let buffer = if query.shard.is_some() { &self.buffers.pages } else { &self.buffers.gathered };
        let space = buffer.take(query.cost()).await.map_err(no_space)?;
        let page = match query.shard {
            Some(_) => self.page(&query).await.map_err(|error| error.to_reader(query.level))?,
            None => self.all_pages(&query).await.map_err(|refusal| problem(&refusal))?,
        };
        let mut answer = written(&page.value, space).map_err(no_space)?;
        if let Some(staleness) = page.staleness.filter(|_| query.level == ReadLevel::Any) {
            set_staleness(answer.headers_mut(), staleness);
        }
        // The answer is in memory.
        Detach::of(&head.extensions);
        Ok(answer)
    }

    /// Some of the keys of this node's own shard.
    async fn page(&self, query: &ListQuery) -> Result<Read<Page>, EngineError> {
        match &self.replica {
            Some(replica) => replica.scan(&query.range).await,
            None => self.engine.scan(&query.range, query.level).await,
        }
    }

    /// Some of the keys of all shards.
    async fn all_pages(&self, query: &ListQuery) -> Result<Read<Page>, Problem> {
        // The pages of all shards are held here together.
        let whole = query.range.bytes;
        let share = whole / usize::try_from(self.member.shards.get()).unwrap_or(usize::MAX);
        let mut part = query.clone();
        part.range.bytes = share.max(LEAST).min(whole);
        let part = &part;
        let asked = scatter(self.member.all_shards(), LIMIT, |shard| async move {
            let may_answer = self.member.is_owner() || part.level == ReadLevel::Any;
            if shard == self.member.shard && may_answer {
                let page = self.page(part).await;
                return page.map_err(|error| ShardError::Refused(Box::new(error.problem())));
            }
            self.page_of(shard, part).await
        });
        let pages = asked
            .await
            .into_iter()
            .map(|(shard, page)| page.map_err(|error| error.to_problem(shard, "listed")));
        let pages = Read::all(pages.collect::<Result<Vec<_>, _>>()?);
        let merged = merge(pages.value, query.range.limit, whole);
        let value = merged.map_err(|error| {
            ShardError::BadAnswer(error.to_string()).to_problem(self.member.shard, "listed")
        })?;
        Ok(Read { value, staleness: pages.staleness })
    }

    async fn page_of(&self, shard: ShardId, query: &ListQuery) -> Result<Read<Page>, ShardError> {
        let uri = format!("/kv?{}", query.for_shard(shard, query.range.bytes));
        let request = Request::get(uri).body(Bytes::new());
        let request = request.map_err(|error| ShardError::BadAnswer(error.to_string()))?;
        let target =
            if query.level == ReadLevel::Any { Target::ShardReplica(shard) } else { Target::Shard(shard) };
        let page = self.mesh.fetch(&self.member.service, target, request, MAX_ANSWER, LIMIT).await?;
        let staleness = staleness(page.headers());
        Ok(Read { value: page.into_body(), staleness })
    }
}

/// The page as an answer. Fails if it needs more space than there is.
fn written(page: &Page, mut space: Space) -> Result<Response, NoSpace> {
    let body = serde_json::to_vec(page).expect("a page is strings and numbers");
    let length = body.len();
    let mut answer = if length <= CHUNK {
        json(body)
    } else if space.try_grow(length) {
        json(space.body(body.into()))
    } else {
        return Err(NoSpace);
    };
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(answer)
}

/// Adds the version as an entity tag.
impl Serialize for Listed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Listed", 8)?;
        fields.serialize_field("key", &self.key)?;
        fields.serialize_field("size", &self.size)?;
        fields.serialize_field("version", &self.version)?;
        fields.serialize_field("etag", &etag(self.version))?;
        fields.serialize_field("content_type", &self.content_type)?;
        if let Some(at) = &self.expires_ms {
            fields.serialize_field("expires_ms", at)?;
        }
        if let Some(text) = &self.value {
            fields.serialize_field("value", text)?;
        }
        if let Some(base64) = &self.value_base64 {
            fields.serialize_field("value_base64", base64)?;
        }
        fields.end()
    }
}

#[cfg(test)]
mod tests;
