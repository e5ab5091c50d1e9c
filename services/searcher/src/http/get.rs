//! Reads documents of one shard by their ids, here or at its owner.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh::shards::ShardError as Unanswered;
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use types::{ErrorKind, Problem, ShardId};

use super::inner::{InnerQuery, Verb};
use super::refusal::Refusal;
use crate::catalog::{Index, Indexes};
use crate::service::SearcherService;
use crate::shard::FoundDocument;

/// How long a shard may take.
pub(crate) const GET_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of documents in an answer of a shard.
const MAX_FOUND: usize = 32 * 1024 * 1024;

/// A document that was found by its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Found {
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    pub(crate) source: Box<RawValue>,
}

impl From<FoundDocument> for Found {
    fn from(found: FoundDocument) -> Self {
        let FoundDocument { seq, term, version, source } = found;
        Self { seq, term, version, source }
    }
}

/// The ids in the request of another member.
pub(crate) fn ids(body: &[u8]) -> Result<Vec<String>, Refusal> {
    let hint = "members write these requests for each other";
    serde_json::from_slice(body).map_err(|error| Refusal::invalid("bad-ids", &error, hint))
}

impl SearcherService {
    /// Documents of a shard, one result for each id. They are as fresh as a read that begins now.
    pub(crate) async fn get_at(
        &self,
        shard: ShardId,
        indexes: &Indexes,
        index: &Arc<Index>,
        ids: &[String],
    ) -> Result<Vec<Option<Found>>, Unanswered> {
        let query = InnerQuery::read(indexes, index, ReadLevel::Strong, GET_LIMIT);
        let body = Bytes::from(serde_json::to_vec(ids).expect("strings are written to memory"));
        let here = self.get_here(index, ids, query.level);
        let found = self.ask::<Vec<Option<Found>>>(shard, Verb::Get, &query, body, here).await?.value;
        if found.len() != ids.len() {
            let detail = format!("it has {} results for {} ids", found.len(), ids.len());
            return Err(Unanswered::BadAnswer(detail));
        }
        Ok(found)
    }

    /// Documents of this member's shard.
    pub(crate) async fn get_here(
        &self,
        index: &Arc<Index>,
        ids: &[String],
        level: ReadLevel,
    ) -> Result<Read<Vec<Option<Found>>>, Refusal> {
        let (mut found, mut bytes, mut staleness) = (Vec::with_capacity(ids.len()), 0_usize, None);
        for (number, id) in ids.iter().enumerate() {
            // The first read confirms the claim; the others see everything that it saw.
            let level = if number > 0 && level == ReadLevel::Strong { ReadLevel::Primary } else { level };
            let read = self.shard.get(index, id, level).await?;
            staleness = staleness.max(read.staleness);
            bytes += read.value.as_ref().map_or(0, |found| found.source.get().len());
            if bytes > MAX_FOUND {
                let detail = format!("the documents of one shard have more than {MAX_FOUND} bytes");
                let problem = Problem::new(ErrorKind::TooLarge, "answer-too-large", detail);
                return Err(Refusal::plain(problem.hint("ask for fewer documents at once")));
            }
            found.push(read.value.map(Found::from));
        }
        Ok(Read { value: found, staleness })
    }
}
