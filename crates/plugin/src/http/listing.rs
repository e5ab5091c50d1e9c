//! Listings of all shards: a page of each, from its owner or a replica, merged into one. Fails if a shard does not answer.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mesh::Mesh;
use mesh::shards::{ShardError, scatter};
use serde::de::DeserializeOwned;
use types::{Problem, ShardId, Target};

use super::{ListQuery, staleness};
use crate::shard::{Listed, Page, Read, ReadLevel, ShardMember, merge};

/// The time limit of a shard.
const LIMIT: Duration = Duration::from_secs(10);
/// The least that is requested of a shard, in bytes.
const LEAST: usize = 64 * 1024;

impl ShardMember {
    /// A page of the keys of all shards. `own` answers for this member's shard. For every other one, its owner or a replica
    /// is sent a `GET` of `path` with the query, and answers with a [`Page`] of at most `most` bytes.
    pub async fn list_all<T, F>(
        &self,
        mesh: &Mesh,
        path: &str,
        query: &ListQuery,
        most: usize,
        own: impl Fn(ListQuery) -> F,
    ) -> Result<Read<Page<T>>, Problem>
    where
        T: Listed + DeserializeOwned,
        F: Future<Output = Result<Read<Page<T>>, Problem>>,
    {
        // The pages of all shards are held here together.
        let whole = query.range.bytes;
        let share = whole / usize::try_from(self.shards.get()).unwrap_or(usize::MAX);
        let mut part = query.clone();
        part.range.bytes = share.max(LEAST).min(whole);
        let (part, own) = (&part, &own);
        let asked = scatter(self.all_shards(), LIMIT, |shard| async move {
            let may_answer = self.is_owner() || part.level == ReadLevel::Any;
            if shard == self.shard && may_answer {
                return own(part.clone()).await.map_err(|problem| ShardError::Refused(Box::new(problem)));
            }
            self.page_of(shard, mesh, path, part, most).await
        });
        let pages = asked
            .await
            .into_iter()
            .map(|(shard, page)| page.map_err(|error| error.to_problem(shard, "listed")));
        let pages = Read::all(pages.collect::<Result<Vec<_>, _>>()?);
        let merged = merge(pages.value, query.range.limit, whole);
        let value = merged
            .map_err(|error| ShardError::BadAnswer(error.to_string()).to_problem(self.shard, "listed"))?;
        Ok(Read { value, staleness: pages.staleness })
    }

    async fn page_of<T: DeserializeOwned>(
        &self,
        shard: ShardId,
        mesh: &Mesh,
        path: &str,
        query: &ListQuery,
        most: usize,
    ) -> Result<Read<Page<T>>, ShardError> {
        let uri = format!("{path}?{}", query.for_shard(shard, query.range.bytes));
        let request = Request::get(uri).body(Bytes::new());
        let request = request.map_err(|error| ShardError::BadAnswer(error.to_string()))?;
        let target =
            if query.level == ReadLevel::Any { Target::ShardReplica(shard) } else { Target::Shard(shard) };
        let page = mesh.fetch(&self.service, target, request, most, LIMIT).await?;
        let staleness = staleness(page.headers());
        Ok(Read { value: page.into_body(), staleness })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::State;
    use axum::response::Response;
    use axum::routing::get;
    use http::request::Parts;
    use serde_json::{Value, json};
    use types::{ServiceType, Sharding};

    use super::*;
    use crate::http::{json as answer, problem};
    use crate::testing::ShardCluster;
    use crate::{Context, Health, NoSettings, Plugin, Prepared, Service, ServiceError, SettingsError};

    /// Shard 0 has the names a and c, shard 1 has b and d.
    struct Names;

    struct Shard {
        member: ShardMember,
        mesh: Mesh,
    }

    impl Plugin for Names {
        fn service_type(&self) -> ServiceType {
            "names".parse().unwrap()
        }

        fn about(&self) -> &'static str {
            "lists names"
        }

        fn sharding(&self) -> Sharding {
            Sharding::Owned
        }

        fn target(&self, head: &Parts) -> Target {
            let shard = ListQuery::parse(head.uri.query().unwrap_or_default()).unwrap().shard;
            shard.map_or(Target::Any, Target::Shard)
        }

        fn prepare(&self, settings: &Value) -> Result<Box<dyn Prepared>, SettingsError> {
            crate::parse_settings::<NoSettings>(settings)?;
            Ok(Box::new(Self))
        }
    }

    #[crate::async_trait]
    impl Prepared for Names {
        async fn start(self: Box<Self>, cx: Context) -> Result<Arc<dyn Service>, ServiceError> {
            Ok(Arc::new(Shard { member: ShardMember::of(&cx)?, mesh: cx.mesh }))
        }
    }

    impl Shard {
        fn page(&self, query: &ListQuery) -> Read<Page<String>> {
            let names = [["a", "c"], ["b", "d"]][self.member.shard.as_u32() as usize];
            let after = query.range.after.clone().unwrap_or_default();
            let keys = names.into_iter().filter(|name| name.as_bytes() > &after[..]).map(str::to_owned);
            Read { value: Page { keys: keys.collect(), next: None }, staleness: None }
        }

        async fn list(State(shard): State<Arc<Self>>, head: Parts) -> Result<Response, Response> {
            let query = ListQuery::parse(head.uri.query().unwrap_or_default()).unwrap();
            let page = if query.shard.is_some() {
                shard.page(&query)
            } else {
                let own = |part| std::future::ready(Ok(shard.page(&part)));
                let listed = shard.member.list_all(&shard.mesh, "/names", &query, 1024, own).await;
                listed.map_err(|refusal| problem(&refusal))?
            };
            Ok(answer(json!(page.value).to_string()))
        }
    }

    impl Service for Shard {
        fn routes(self: Arc<Self>) -> Router {
            Router::new().route("/names", get(Self::list)).with_state(self)
        }

        fn health(&self) -> Health {
            Health::Ready
        }
    }

    #[tokio::test]
    async fn any_member_lists_the_keys_of_all_shards_in_order() {
        let cluster = ShardCluster::start(Arc::new(Names), &json!({}), NonZeroU32::new(2).unwrap()).await;
        for member in ["node-0", "node-1"] {
            for (query, expected) in [
                ("limit=3", json!({ "keys": ["a", "b", "c"], "next": "c" })),
                ("after=c", json!({ "keys": ["d"], "next": null })),
            ] {
                let (member, path) = (member.parse().unwrap(), format!("/names?{query}"));
                let answer = cluster.call_at(&member, "GET", &path, "").await;
                let page: Value = serde_json::from_slice(answer.body()).unwrap();
                assert_eq!(page, expected, "{member}");
            }
        }
        cluster.stop().await;
    }
}
