//! A listing over all shards: asks each one's owner, and fails when one does not answer.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;
use types::{ErrorKind, Problem, ShardId};

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

/// Why a shard was not listed.
enum Unlisted {
    /// Ask again.
    Missing(String),
    /// It will be so again.
    Broken(Box<Problem>),
}

impl Unlisted {
    /// What its owner or this node answered, if that is final.
    fn of(problem: Problem) -> Self {
        let is_final = problem.status == StatusCode::INTERNAL_SERVER_ERROR.as_u16();
        if is_final { Self::Broken(Box::new(problem)) } else { Self::Missing(problem.detail) }
    }

    fn at(self, shard: ShardId) -> Problem {
        let told = |why: &str| format!("shard {shard} could not be listed: {why}");
        match self {
            Self::Missing(why) => Problem::new(ErrorKind::Unavailable, "shard-missing", told(&why))
                .hint("try again in a moment; GET /v1/claims shows who owns which shard"),
            Self::Broken(problem) => Problem { detail: told(&problem.detail), ..*problem },
        }
    }
}

impl StorageService {
    /// Lists the keys of all shards.
    pub(crate) async fn gather(&self, query: &Query) -> Result<Stale<Page>, Problem> {
        // What all give together is held here.
        let share = query.bytes / usize::try_from(self.shards.get()).unwrap_or(usize::MAX);
        let (whole, query) =
            (query.bytes, &Query { bytes: share.max(LEAST).min(query.bytes), ..query.clone() });
        let pages = join_all(self.all_shards().into_iter().map(|shard| async move {
            let may_answer = self.copy.is_none() || query.consistency == Consistency::Any;
            let page = if shard == self.shard && may_answer {
                self.page(query).await.map_err(|refusal| Unlisted::of(refusal.problem()))
            } else {
                let asked = timeout(PATIENCE, self.ask(shard, query)).await;
                asked.unwrap_or_else(|_| {
                    Err(Unlisted::Missing(format!("its owner did not answer within {PATIENCE:?}")))
                })
            };
            page.map_err(|why| why.at(shard))
        }))
        .await;
        let pages = pages.into_iter().collect::<Result<Vec<_>, _>>()?;
        // The whole is as far behind as that part which is furthest.
        let by = pages.iter().map(|page| page.by).reduce(|one, other| Some(one?.max(other?))).flatten();
        let pages = pages.into_iter().map(|page| page.value).collect();
        let merged = merge(pages, query.limit, whole);
        let value = merged.map_err(|error| Unlisted::Missing(error.to_string()).at(self.shard))?;
        Ok(Stale { value, by })
    }

    /// Some of the keys of this node's own shard.
    pub(crate) async fn page(&self, query: &Query) -> Result<Stale<Page>, Refusal> {
        match &self.copy {
            Some(copy) => copy.page(query).await,
            None => self.engine.page(query).await,
        }
    }

    async fn ask(&self, shard: ShardId, query: &Query) -> Result<Stale<Page>, Unlisted> {
        let missing = |why: &dyn std::fmt::Display| Unlisted::Missing(why.to_string());
        let uri = format!("/kv?{}", query.for_shard(shard));
        let request = Request::get(uri).body(Body::empty()).map_err(|error| missing(&error))?;
        let answer = self.mesh.send(&self.service, request).await.map_err(|error| missing(&error))?;
        let (status, by) = (answer.status(), told(answer.headers()));
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body: Bytes = body.map_err(|error| missing(&error))?.to_bytes();
        if status != StatusCode::OK {
            let problem = serde_json::from_slice::<Problem>(&body);
            let no_problem = |_| missing(&format!("its owner answered {status}"));
            return Err(problem.map_or_else(no_problem, Unlisted::of));
        }
        let value = serde_json::from_slice(&body);
        let value = value.map_err(|error| missing(&format!("its owner's answer is no listing: {error}")))?;
        Ok(Stale { value, by })
    }
}

#[cfg(test)]
mod tests;
