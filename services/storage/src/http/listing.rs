//! Lists the keys of one shard, or of all of them, each from its owner or a replica. Fails if one does not answer.

use http::request::Parts;
use plugin::Detach;
use plugin::http::conditions::etag;
use plugin::http::{Answer, ListQuery, method_not_allowed, problem, set_staleness};
use plugin::shard::{Read, ReadLevel};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use types::Problem;

use super::buffers::no_space;
use super::path::is_read;
use crate::data::page::{Listed, Page};
use crate::engine::EngineError;
use crate::service::StorageService;

/// The largest answer of a shard: a page has at most 4 MiB before its last key, whose value has at most 8 MiB, and each
/// byte may take two in JSON.
const MAX_ANSWER: usize = 24 * 1024 * 1024;

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
        let body = serde_json::to_vec(&page.value).expect("a page is strings and numbers");
        let mut answer = space.json(body).map_err(no_space)?;
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
        let own = |part| async move { self.page(&part).await.map_err(|error| error.problem()) };
        self.member.list_all(&self.mesh, "/kv", query, MAX_ANSWER, own).await
    }
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
