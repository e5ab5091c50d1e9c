//! Stores many documents at once: `POST /{index}/docs`, a document in each line.
//!
//! Any member takes the request and sends each shard its lines. A line that is refused does not prevent the others; the
//! answer lists the refused ones, in the order of their lines.

mod lines;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use mesh::shards::scatter;
use plugin::Detach;
use plugin::http::query::parameters;
use plugin::http::{Answer, json, method_not_allowed};
use plugin::shard::ReadLevel;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use types::{ErrorKind, Problem, ShardId};

use super::inner::InnerQuery;
use super::parameter;
use super::path::DocumentId;
use super::refusal::{Reason, Refusal};
use super::write::{BESIDE_ITEM, Item, ItemOutcome};
use crate::query_pool::panicked;
use crate::service::SearcherService;
use crate::shard::{Change, Refresh};
use lines::{Line, Lines, RefusedLine};
pub(crate) use lines::{MAX_LINES, is_object, one_line};

type ByShard<T> = BTreeMap<ShardId, Vec<T>>;

/// How long the shards may take until all is durable.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long they may take until all is visible, or they report that it is not. A member waits a minute for the answer of
/// another one.
const VISIBLE_LIMIT: Duration = Duration::from_secs(50);
/// How many bytes the items of a request take beside the documents, with ids that were generated, at most.
pub(crate) const MAX_BESIDE: usize = MAX_LINES * (BESIDE_ITEM + 36);

/// How long the shards may take for a request with documents.
pub(crate) fn write_limit(refresh: Refresh) -> Duration {
    match refresh {
        Refresh::Durable => WRITE_LIMIT,
        Refresh::Wait | Refresh::Now => VISIBLE_LIMIT,
    }
}

impl SearcherService {
    /// Answers a bulk request.
    pub(crate) async fn bulk(&self, name: &str, head: &Parts, body: Body) -> Answer {
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        let refresh =
            refresh_of(head.uri.query().unwrap_or_default()).map_err(|error| error.to_response())?;
        let body = self.prepare_write(name, head, body, self.max_body, lines::has_document).await?;
        let (indexes, index) = self.index_to_write(name).await?;
        let (body, _space) = self.read_body(head, body, self.max_body, &self.bodies.outer).await?;
        let definition = Arc::clone(&index.schema.definition);
        let split = spawn_blocking(move || lines::split(&body, &definition)).await;
        let Lines { documents, mut refused } =
            split.map_err(|error| panicked(error).refusal())?.map_err(|error| {
                let problem = Problem::new(ErrorKind::TooLarge, "too-many-lines", error.to_string());
                Refusal::plain(problem.hint("send them in several requests"))
            })?;
        let (labels, mut items) = self.by_shard(documents);
        let limit = write_limit(refresh);
        let query = InnerQuery { refresh, ..InnerQuery::read(&indexes, &index, ReadLevel::Primary, limit) };
        if !items.contains_key(&self.member.shard) {
            // Other members write everything, so a role that ends does not wait for them.
            Detach::of(&head.extensions);
        }
        let outcomes = scatter(labels.keys().copied(), limit, |shard| {
            let (items, query, index) = (items.remove(&shard).unwrap_or_default(), &query, &index);
            async move { self.write_at(shard, index, items, query).await }
        });
        let mut indexed = 0_usize;
        for (shard, outcomes) in outcomes.await {
            let labels = &labels[&shard];
            let outcomes = outcomes.unwrap_or_else(|error| {
                let mut reason = Reason::of_write(&error);
                reason.detail = format!("shard {shard}: {}", reason.detail);
                vec![ItemOutcome::Refused(reason); labels.len()]
            });
            for ((number, id), outcome) in labels.iter().zip(outcomes) {
                match outcome {
                    ItemOutcome::Written { not_visible: None, .. } => indexed += 1,
                    ItemOutcome::Refused(reason) | ItemOutcome::Written { not_visible: Some(reason), .. } => {
                        let id = Some(id.as_str().to_owned());
                        refused.push(RefusedLine { number: *number, id, reason });
                    }
                }
            }
        }
        refused.sort_by_key(|line| line.number);
        let refused: Vec<Value> = refused.into_iter().map(shown).collect();
        Ok(json(json!({ "indexed": indexed, "refused": refused }).to_string()))
    }

    /// The documents of each shard in their order, and beside them their lines and ids.
    fn by_shard(&self, documents: Vec<Line>) -> (ByShard<(usize, DocumentId)>, ByShard<Item>) {
        let (mut labels, mut items) = (ByShard::<(usize, DocumentId)>::new(), ByShard::<Item>::new());
        for Line { number, id, source } in documents {
            let shard = self.member.shard_of(id.hash());
            labels.entry(shard).or_default().push((number, id.clone()));
            let change = Change::Put(source);
            items.entry(shard).or_default().push(Item { id, change, condition: None });
        }
        (labels, items)
    }
}

fn refresh_of(query: &str) -> Result<Refresh, plugin::http::query::QueryError> {
    let found = parameters(query, &["refresh"])?;
    found.first().map_or(Ok(Refresh::default()), |(_, text)| parameter::refresh(text))
}

fn shown(line: RefusedLine) -> Value {
    let RefusedLine { number, id, reason: Reason { status, code, detail } } = line;
    let mut shown = json!({ "line": number, "status": status, "code": code, "detail": detail });
    if let Some(id) = id {
        shown["id"] = Value::String(id);
    }
    shown
}
