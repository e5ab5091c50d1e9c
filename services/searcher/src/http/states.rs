//! How much there is of an index: its documents and bytes at each shard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use plugin::http::query::parameters;
use plugin::http::{Answer, json};
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use types::ShardId;
use uuid::Uuid;

use super::inner::{InnerQuery, Verb};
use super::refusal::Refusal;
use crate::catalog::{Index, Indexes};
use crate::gather::{Failures, Search};
use crate::query_pool::PoolError;
use crate::search::{Cancel, SearchError, SearchRequest};
use crate::service::SearcherService;
use crate::shard::Snapshot;

/// How long the shards may take to answer what state they are in.
const STATE_LIMIT: Duration = Duration::from_secs(5);
/// How long a listing of all indexes waits for their sizes.
const SIZES_LIMIT: Duration = Duration::from_secs(1);

/// An index at one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ShardState {
    /// How many documents searches see.
    pub(crate) documents: u64,
    /// How many documents are still in segments though they were deleted or replaced.
    #[serde(default)]
    pub(crate) deleted: u64,
    segments: u64,
    /// The size of the segments, in bytes.
    pub(crate) bytes: u64,
    /// Whether the member that answered owns the shard.
    is_owner: bool,
}

/// All indexes at one shard.
pub(crate) type States = BTreeMap<Uuid, ShardState>;

impl SearcherService {
    /// The documents and bytes of each index at all shards; `None` unless all shards answer soon.
    pub(crate) async fn sizes(&self, indexes: &Indexes) -> Option<BTreeMap<Uuid, ShardState>> {
        let query = InnerQuery::of_all(indexes, SIZES_LIMIT);
        let here = || self.states_here(indexes, Instant::now() + SIZES_LIMIT);
        let (found, failures) = self.ask_all::<States, _>(Verb::States, &query, &Bytes::new(), here).await;
        let mut sizes = BTreeMap::<Uuid, ShardState>::new();
        for (uuid, state) in found.into_iter().flat_map(|(_, read)| read.value) {
            let sum = sizes.entry(uuid).or_default();
            sum.documents += state.documents;
            sum.bytes += state.bytes;
        }
        failures.is_empty().then_some(sizes)
    }

    /// All indexes at this member's shard, as of the last refresh.
    pub(crate) async fn states_here(
        &self,
        indexes: &Indexes,
        deadline: Instant,
    ) -> Result<Read<States>, Refusal> {
        let mut snapshots = Vec::new();
        for index in indexes.all() {
            let snapshot = timeout_at(deadline, self.shard.snapshot(index, ReadLevel::Primary)).await;
            let Ok(snapshot) = snapshot else { return Err(PoolError::TimedOut.refusal()) };
            snapshots.push(snapshot?.value);
        }
        let is_owner = self.member.is_owner();
        let work = move || {
            let states =
                snapshots.iter().map(|snapshot| Ok((snapshot.index.uuid, state(snapshot, is_owner)?)));
            states.collect::<Result<States, SearchError>>()
        };
        let states = self.query(deadline, &Cancel::default(), ReadLevel::Primary, work).await?;
        Ok(Read { value: states, staleness: None })
    }

    /// The state of an index at each shard, and the shards that did not say.
    pub(crate) async fn states(
        &self,
        indexes: &Indexes,
        index: &Arc<Index>,
        level: ReadLevel,
    ) -> (Vec<(ShardId, Read<ShardState>)>, Failures) {
        let query = InnerQuery::read(indexes, index, level, STATE_LIMIT);
        let here = || self.state_here(index, level, Instant::now() + STATE_LIMIT);
        self.ask_all::<ShardState, _>(Verb::State, &query, &Bytes::new(), here).await
    }

    /// Answers a request to show an index.
    pub(crate) async fn show_index(&self, indexes: &Indexes, index: &Arc<Index>, head: &Parts) -> Answer {
        let level = parameters(head.uri.query().unwrap_or_default(), &["consistency"]);
        let level = level.and_then(|found| match found.first() {
            Some((_, text)) => Ok(text.parse()?),
            None => Ok(ReadLevel::Primary),
        });
        let level = level.map_err(|error| error.to_response())?;
        let (states, failures) = self.states(indexes, index, level).await;
        let sum = |of: fn(&ShardState) -> u64| states.iter().map(|(_, read)| of(&read.value)).sum::<u64>();
        let shards = states.iter().map(|(shard, Read { value, staleness })| {
            let mut shown = json!({
                "shard": shard.as_u32(), "documents": value.documents, "segments": value.segments,
                "bytes": value.bytes, "answered_by": if value.is_owner { "owner" } else { "replica" },
            });
            if let Some(staleness) = staleness.filter(|_| level == ReadLevel::Any) {
                shown["staleness_ms"] = json!(u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX));
            }
            shown
        });
        let mut shards: Vec<Value> = shards.collect();
        shards.extend(failures.of(0).failed.iter().map(|failure| json!(failure)));
        shards.sort_by_key(|shard| shard["shard"].as_u64());
        let answer = json!({
            "name": index.name,
            "uuid": index.uuid,
            "declared": self.declared.has(&index.name),
            "aliases": indexes.aliases_of(&index.name).map(|(alias, _)| alias).collect::<Vec<_>>(),
            "definition": *index.schema.definition,
            "documents": sum(|state| state.documents),
            "bytes": sum(|state| state.bytes),
            "is_complete": failures.is_empty(),
            "shards": shards,
        });
        Ok(json(answer.to_string()))
    }

    /// An index at this member's shard.
    pub(crate) async fn state_here(
        &self,
        index: &Arc<Index>,
        level: ReadLevel,
        deadline: Instant,
    ) -> Result<Read<ShardState>, Refusal> {
        let request = SearchRequest::from_json(b"{}").map_err(SearchError::from)?;
        let search = Search::new(Arc::clone(index), request, level, deadline);
        let Read { value: snapshot, staleness } = self.snapshot(&search).await?;
        let is_owner = self.member.is_owner();
        let work = move || state(&snapshot, is_owner);
        let value = self.query(deadline, &search.cancel, level, work).await?;
        Ok(Read { value, staleness })
    }
}

/// How much there is of an index in a snapshot. Blocking.
fn state(snapshot: &Snapshot, is_owner: bool) -> Result<ShardState, SearchError> {
    let searcher = &snapshot.searcher;
    let usage = searcher.space_usage().map_err(|error| SearchError::Damaged(error.to_string()))?;
    let readers = searcher.segment_readers();
    Ok(ShardState {
        documents: searcher.num_docs(),
        deleted: readers.iter().map(|reader| u64::from(reader.num_deleted_docs())).sum(),
        segments: readers.len() as u64,
        bytes: usage.total().get_bytes(),
        is_owner,
    })
}
