//! A listing over all shards: asks each one's owner, and fails when one does not answer.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use types::{Problem, ShardId};

use crate::consistency::{Consistency, Stale, told};
use crate::page::{Page, Query, merge};
use crate::refusal::Refusal;
use crate::service::StorageService;

/// How long a shard may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer of a shard: a page has at most 4 MiB before its last key, and that one has 8 MiB, of which each
/// byte may take two.
const MAX_ANSWER: usize = 24 * 1024 * 1024;
/// What a shard is always asked for.
const LEAST: usize = 64 * 1024;

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard} could not be listed: {why}")]
pub(crate) struct Missing {
    shard: ShardId,
    why: String,
}

impl StorageService {
    /// Lists the keys of all shards.
    pub(crate) async fn gather(&self, query: &Query) -> Result<Stale<Page>, Missing> {
        // What all give together is held here.
        let share = query.bytes / usize::try_from(self.shards.get()).unwrap_or(usize::MAX);
        let (whole, query) =
            (query.bytes, &Query { bytes: share.max(LEAST).min(query.bytes), ..query.clone() });
        let pages = join_all(self.all_shards().into_iter().map(|shard| async move {
            let may_answer = self.copy.is_none() || query.consistency == Consistency::Any;
            let page = if shard == self.shard && may_answer {
                self.page(query).await.map_err(|refusal| refusal.to_string())
            } else {
                let asked = timeout(PATIENCE, self.ask(shard, query)).await;
                asked.unwrap_or_else(|_| Err(format!("its owner did not answer within {PATIENCE:?}")))
            };
            page.map_err(|why| Missing { shard, why })
        }))
        .await;
        let pages = pages.into_iter().collect::<Result<Vec<_>, _>>()?;
        // The whole is as far behind as that part which is furthest.
        let by = pages.iter().map(|page| page.by).reduce(|one, other| Some(one?.max(other?))).flatten();
        let pages = pages.into_iter().map(|page| page.value).collect();
        let merged = merge(pages, query.limit, whole);
        let value = merged.map_err(|error| Missing { shard: self.shard, why: error.to_string() })?;
        Ok(Stale { value, by })
    }

    /// Some of the keys of this node's own shard.
    pub(crate) async fn page(&self, query: &Query) -> Result<Stale<Page>, Refusal> {
        match &self.copy {
            Some(copy) => copy.page(query).await,
            None => self.engine.page(query).await,
        }
    }

    async fn ask(&self, shard: ShardId, query: &Query) -> Result<Stale<Page>, String> {
        let uri = format!("/kv?{}", query.for_shard(shard));
        let request = Request::get(uri).body(Body::empty()).map_err(|error| error.to_string())?;
        let answer = self.mesh.send(&self.service, request).await.map_err(|error| error.to_string())?;
        let (status, by) = (answer.status(), told(answer.headers()));
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body: Bytes = body.map_err(|error| error.to_string())?.to_bytes();
        if status != StatusCode::OK {
            let problem = serde_json::from_slice::<Problem>(&body);
            return Err(
                problem.map_or_else(|_| format!("its owner answered {status}"), |problem| problem.detail)
            );
        }
        let value = serde_json::from_slice(&body);
        let value = value.map_err(|error| format!("its owner's answer is no listing: {error}"))?;
        Ok(Stale { value, by })
    }
}

#[cfg(test)]
mod tests;
