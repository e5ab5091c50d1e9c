//! A native search over several indexes, each by itself, and what was found merged.
//!
//! Statistics are those of each index, so a word that is rare in one of them counts more there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use plugin::shard::Read;
use tokio::time::Instant;

use super::{Gathered, Search, level_of};
use crate::catalog::{Index, Indexes};
use crate::http::Refusal;
use crate::query_pool::QueryPool;
use crate::search::{Answer, SearchError, SearchRequest, Shards, merge};
use crate::service::SearcherService;

/// How many indexes are searched at a time.
const AT_A_TIME: usize = 4;

impl SearcherService {
    /// Searches some indexes. Each hit says which index has it.
    pub(crate) async fn search_several(
        &self,
        indexes: &Indexes,
        named: &[Arc<Index>],
        request: SearchRequest,
    ) -> Result<Read<Answer>, Refusal> {
        match named {
            [] => Ok(Read { value: Answer::default(), staleness: None }),
            [index] => {
                let mut read = self.search(indexes, index, request).await?;
                for hit in &mut read.value.hits {
                    hit.index = Some(index.name.clone());
                }
                Ok(read)
            }
            [first, ..] => self.merge_several(indexes, named, first, request).await,
        }
    }

    async fn merge_several(
        &self,
        indexes: &Indexes,
        named: &[Arc<Index>],
        first: &Arc<Index>,
        request: SearchRequest,
    ) -> Result<Read<Answer>, Refusal> {
        let began = Instant::now();
        let (level, deadline) = (level_of(&request), began + request.timeout);
        let mut searches = Vec::with_capacity(named.len());
        for (number, index) in (0..).zip(named) {
            let request = request.of_index(number);
            request.check(&index.schema).map_err(|error| {
                let message = format!("in the index `{}`: {}", index.name, error.message);
                SearchError::from(crate::query::QueryError { message, ..error })
            })?;
            searches.push(Search::new(Arc::clone(index), request, level, deadline));
        }
        let searching: Vec<_> = searches.iter().map(|search| self.find(indexes, search)).collect();
        let found: Vec<Gathered> = stream::iter(searching).buffered(AT_A_TIME).try_collect().await?;
        let mut shards = Shards::default();
        let (mut parts, mut has_timed_out, mut staleness) = (Vec::new(), false, Some(Duration::ZERO));
        for (index, gathered) in named.iter().zip(found) {
            let mut of_index = gathered.failures.of(self.member.all_shards().len());
            for failure in &mut of_index.failed {
                failure.reason = format!("in the index `{}`: {}", index.name, failure.reason);
            }
            shards.add(of_index);
            has_timed_out |= gathered.failures.has_timed_out();
            staleness = staleness.and_then(|most| Some(most.max(gathered.staleness?)));
            parts.extend(gathered.found);
        }
        let schema = Arc::clone(&first.schema);
        let is_soon = !request.has_aggregations();
        let merged = QueryPool::finish(is_soon, move || merge(&request, &schema, parts)).await;
        let mut answer = merged.map_err(|error| error.refusal())??;
        for hit in &mut answer.hits {
            // The position of a hit has the number of its index above that of its shard.
            let position = hit.sort.last().and_then(serde_json::Value::as_u64).unwrap_or_default();
            let number = usize::try_from(position >> 16).unwrap_or(usize::MAX);
            hit.index = named.get(number).map(|index| index.name.clone());
        }
        answer.shards = shards;
        answer.timed_out |= has_timed_out;
        answer.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Read { value: answer, staleness })
    }
}
