//! `_delete_by_query`: deletes what a query finds.
//!
//! Unlike Elasticsearch's, it sees everything that was acknowledged before, and it does not end at the first conflict.

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::dsl;
use super::error::EsError;
use super::names::Rule;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::search::{millis, now};
use super::unique;
use crate::http::{DELETE_LIMIT, Deleted, Verb};
use crate::search::Dsl;
use crate::service::SearcherService;
use crate::shard::Refresh;

/// The largest body.
const MAX_BODY: usize = 1024 * 1024;
/// The parameters. Those that only limit how fast it goes have no effect.
const KNOWN: [&str; 8] = [
    "conflicts",
    "refresh",
    "scroll_size",
    "requests_per_second",
    "wait_for_completion",
    "scroll",
    "search_timeout",
    "slices",
];

/// The query in a body, as JSON text.
fn query_of(body: &[u8]) -> Result<String, EsError> {
    let members: Map<String, Value> = unique::read(body)
        .map_err(|error| EsError::parsing(format!("the body is no JSON object: {error}")))?;
    if let Some(unknown) = members.keys().find(|name| *name != "query") {
        return Err(EsError::parsing(format!("[delete_by_query] unsupported field [{unknown}]")));
    }
    match members.get("query") {
        Some(query) if !query.is_null() => Ok(query.to_string()),
        _ => Err(EsError::invalid(&["query is missing".to_owned()])),
    }
}

impl SearcherService {
    /// Answers `_delete_by_query`.
    pub(crate) async fn es_delete_by_query(&self, name: &str, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::POST])?;
        let began = Instant::now();
        let parameters = Parameters::parse(head.uri.query(), &KNOWN)?;
        if parameters.flag("wait_for_completion")? == Some(false) {
            return Err(EsError::unsupported("wait_for_completion=false"));
        }
        let proceeds = match parameters.text("conflicts") {
            None | Some("abort") => false,
            Some("proceed") => true,
            Some(other) => {
                return Err(EsError::illegal(format!(
                    "conflicts may only be \"proceed\" or \"abort\" but was [{other}]"
                )));
            }
        };
        let is_refreshed = parameters.refresh()? != Refresh::Durable;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let query = query_of(&body)?;
        let now = now();
        let value: Value =
            serde_json::from_str(&query).map_err(|error| EsError::parsing(error.to_string()))?;
        dsl::parse(&value, now)?;
        let (indexes, named) = self.es_indexes(Some(name), Rule::of(&parameters)?).await?;
        let dsl = Dsl { query, filters: Vec::new(), now, index: 0, has_query: true, has_numbers: false };
        let members = Map::from_iter([("dsl".to_owned(), json!(dsl))]);
        let mut sum = Deleted::default();
        let mut failures = Vec::new();
        for index in &named {
            let (deleted, shards) = self.delete_everywhere(&indexes, index, &members, DELETE_LIMIT).await?;
            sum.deleted += deleted.deleted;
            sum.conflicts += deleted.conflicts;
            sum.timed_out |= deleted.timed_out;
            failures.extend(shards.failed.into_iter().map(|failure| {
                json!({
                    "shard": failure.shard.as_u32(), "index": index.name, "status": 503,
                    "reason": { "type": "unavailable_shards_exception", "reason": failure.reason },
                })
            }));
        }
        if is_refreshed && let Some(index) = named.first() {
            let refreshed = self.each_owner(&indexes, index, Verb::Refresh).await;
            if let Some(refusal) = refreshed.refusal("refreshed") {
                return Err(refusal.into());
            }
        }
        let has_failed = !failures.is_empty();
        let body = json!({
            "took": millis(began.elapsed()),
            "timed_out": sum.timed_out,
            "total": sum.deleted + sum.conflicts,
            "deleted": sum.deleted,
            "batches": u64::from(sum.deleted > 0),
            "version_conflicts": sum.conflicts,
            "noops": 0,
            "retries": { "bulk": 0, "search": 0 },
            "throttled_millis": 0,
            "requests_per_second": -1.0,
            "throttled_until_millis": 0,
            "failures": failures,
        });
        let status = match (has_failed, sum.conflicts > 0 && !proceeds) {
            (true, _) => 503,
            (false, true) => 409,
            (false, false) => 200,
        };
        Ok(Reply::json(&body).status(status))
    }
}
