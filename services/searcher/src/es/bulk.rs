//! `_bulk`: many changes of documents in several indexes, each with an outcome of its own.
//!
//! Any member takes the request and sends each shard its items, those of one id in their order.

pub(crate) mod lines;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use futures_util::future::join_all;
use http::Method;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use mesh::shards::{ShardError as Unanswered, scatter};
use plugin::Detach;
use plugin::http::BodyError;
use plugin::queue::Reserved;
use plugin::shard::ReadLevel;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use types::ShardId;
use uuid::Uuid;

use self::lines::{Action, Entry};
use super::error::EsError;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::search::millis;
use crate::catalog::{Index, Indexes, check_name};
use crate::document::id::document_id;
use crate::http::{DocumentId, InnerQuery, Item, ItemOutcome, Reason, Refusal, write_limit};
use crate::query_pool::panicked;
use crate::service::SearcherService;
use crate::shard::{Change, Outcome, Refresh};

/// How much of a compressed body is decompressed at a time.
const STEP: usize = 64 * 1024;

/// What became of a change that was written, or had nothing to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    seq: u64,
    term: u64,
    version: u64,
    outcome: Outcome,
    /// Whether searches show it, if the request wanted to wait until they do.
    is_visible: bool,
}

impl Done {
    pub(crate) fn status(self) -> u16 {
        match self.outcome {
            Outcome::Created => 201,
            Outcome::Updated | Outcome::Deleted | Outcome::Noop => 200,
            Outcome::NotFound => 404,
        }
    }

    /// As the members of an answer.
    pub(crate) fn to_json(self, index: &str, id: &str, refresh: Refresh) -> Value {
        let result = match self.outcome {
            Outcome::Created => "created",
            Outcome::Updated => "updated",
            Outcome::Deleted => "deleted",
            Outcome::Noop => "noop",
            Outcome::NotFound => "not_found",
        };
        let shards = if self.outcome == Outcome::Noop { 0 } else { 1 };
        let mut shown = json!({
            "_index": index, "_id": id, "_version": self.version, "result": result,
            "_shards": { "total": shards, "successful": shards, "failed": 0 },
            "_seq_no": self.seq, "_primary_term": self.term,
        });
        // An error would make clients repeat what is done.
        if refresh == Refresh::Now || !self.is_visible {
            shown["forced_refresh"] = json!(self.is_visible);
        }
        shown
    }
}

/// A change of a document of an index that exists.
pub(crate) struct Planned {
    pub(crate) indexes: Arc<Indexes>,
    pub(crate) index: Arc<Index>,
    pub(crate) item: Item,
}

/// The changes of an index that belong to one shard, with their positions in the request.
type Part = (Arc<Index>, Vec<usize>, Vec<Item>);

impl SearcherService {
    /// Answers `_bulk`.
    pub(crate) async fn es_bulk(&self, index: Option<&str>, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::POST, Method::PUT])?;
        let began = Instant::now();
        let parameters = Parameters::parse(head.uri.query(), &["refresh", "require_alias"])?;
        if parameters.flag("require_alias")? == Some(true) {
            return Err(EsError::unsupported("require_alias"));
        }
        let refresh = parameters.refresh()?;
        let (body, _space) = self.es_body(head, body, self.max_body).await?;
        let named = index.map(str::to_owned);
        let decoded = spawn_blocking(move || lines::decode(&body, named.as_deref())).await;
        let mut entries = decoded.map_err(Refusal::from_panic)??;
        let planned = self.plan(&mut entries).await?;
        let mut results: Vec<Option<Result<Done, EsError>>> = Vec::with_capacity(entries.len());
        let mut labels = Vec::with_capacity(entries.len());
        let mut writes = Vec::new();
        for (number, (entry, planned)) in entries.iter().zip(planned).enumerate() {
            match planned {
                Ok(planned) => {
                    let id = planned.item.id.as_str().to_owned();
                    labels.push((planned.index.name.clone(), Some(id)));
                    results.push(None);
                    writes.push((number, planned));
                }
                Err(error) => {
                    labels.push((entry.index.clone(), entry.id.clone()));
                    results.push(Some(Err(error)));
                }
            }
        }
        for (number, result) in self.es_write(head, writes, refresh).await {
            results[number] = Some(result);
        }
        let mut has_errors = false;
        let items = entries.iter().zip(labels).zip(results).map(|((entry, (index, id)), result)| {
            let result = result.unwrap_or_else(|| {
                Err(EsError::new(503, "unavailable_shards_exception", "nothing says what became of it"))
            });
            let shown = match result {
                Ok(done) => {
                    let mut shown = done.to_json(&index, id.as_deref().unwrap_or_default(), refresh);
                    shown["status"] = json!(done.status());
                    shown
                }
                Err(error) => {
                    has_errors = true;
                    json!({ "_index": index, "_id": id, "status": error.status, "error": error.cause() })
                }
            };
            json!({ entry.action.name(): shown })
        });
        let items: Vec<Value> = items.collect();
        Ok(Reply::json(&json!({ "errors": has_errors, "took": millis(began.elapsed()), "items": items })))
    }

    /// Finds the index and the id of each entry, all in one record of the catalog, after indexes that are missing were created
    /// if that is allowed.
    async fn plan(&self, entries: &mut [Entry]) -> Result<Vec<Result<Planned, EsError>>, EsError> {
        // By name: whether a write may create the index.
        let mut names: BTreeMap<&str, bool> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.change.is_ok()) {
            *names.entry(&entry.index).or_default() |= entry.action != Action::Delete;
        }
        let all: Vec<&str> = names.keys().copied().collect();
        let mut indexes = self.es_knowing(&all).await?;
        let mut refused: BTreeMap<String, EsError> = BTreeMap::new();
        for (name, may_create) in names {
            if may_create && !indexes.has(name) {
                match self.es_auto_create(name, &indexes).await {
                    Ok(latest) => indexes = latest,
                    Err(error) => drop(refused.insert(name.to_owned(), error)),
                }
            }
        }
        let find = |name: &str| match refused.get(name) {
            Some(error) => Err(error.clone()),
            None => {
                check_name(name).map_err(|error| EsError::bad_name(name, &error))?;
                Ok(indexes.to_write(name)?)
            }
        };
        let mut found: BTreeMap<&str, Result<Arc<Index>, EsError>> = BTreeMap::new();
        let mut planned = Vec::with_capacity(entries.len());
        for entry in entries {
            // Taken out, so that no document is in memory twice.
            let change = match std::mem::replace(&mut entry.change, Ok(Change::Delete)) {
                Ok(change) => change,
                Err(reason) => {
                    planned.push(Err(EsError::from(&reason)));
                    continue;
                }
            };
            let entry = &*entry;
            let index = found.entry(&entry.index).or_insert_with(|| find(&entry.index));
            let item = index.clone().and_then(|index| {
                let id = id_of(&index, &change, entry.id.as_deref())?;
                let item = Item { id, change, condition: entry.condition };
                Ok(Planned { indexes: Arc::clone(&indexes), index, item })
            });
            planned.push(item);
        }
        Ok(planned)
    }

    /// Writes changes at the owners of their shards. Returns the result of each with its position.
    pub(crate) async fn es_write(
        &self,
        head: &Parts,
        writes: Vec<(usize, Planned)>,
        refresh: Refresh,
    ) -> Vec<(usize, Result<Done, EsError>)> {
        let latest = writes.iter().map(|(_, planned)| &planned.indexes).max_by_key(|indexes| indexes.number);
        let Some(latest) = latest.cloned() else { return Vec::new() };
        let (latest, limit) = (&*latest, write_limit(refresh));
        let mut parts: BTreeMap<ShardId, BTreeMap<Uuid, Part>> = BTreeMap::new();
        for (number, Planned { index, item, .. }) in writes {
            let shard = self.member.shard_of(item.id.hash());
            let part = parts.entry(shard).or_default().entry(index.uuid);
            let (_, numbers, items) = part.or_insert_with(|| (index, Vec::new(), Vec::new()));
            numbers.push(number);
            items.push(item);
        }
        if !parts.contains_key(&self.member.shard) {
            // Other members write everything, so a role that ends does not wait for them.
            Detach::of(&head.extensions);
        }
        let positions: BTreeMap<ShardId, Vec<usize>> = parts
            .iter()
            .map(|(shard, parts)| (*shard, parts.values().flat_map(|part| part.1.clone()).collect()))
            .collect();
        let written = scatter(positions.keys().copied(), limit, |shard| {
            let parts = parts.remove(&shard).unwrap_or_default();
            async move {
                let writing = parts.into_values().map(|(index, _, items)| async move {
                    let count = items.len();
                    let query = InnerQuery::read(latest, &index, ReadLevel::Primary, limit);
                    let query = InnerQuery { refresh, ..query };
                    let outcomes = self.write_at(shard, &index, items, &query).await;
                    outcomes.unwrap_or_else(|error| vec![ItemOutcome::Refused(reason(shard, &error)); count])
                });
                Ok(join_all(writing).await.concat())
            }
        });
        let mut results = Vec::new();
        for (shard, outcomes) in written.await {
            let numbers = &positions[&shard];
            let outcomes = outcomes
                .unwrap_or_else(|error| vec![ItemOutcome::Refused(reason(shard, &error)); numbers.len()]);
            results.extend(numbers.iter().zip(outcomes).map(|(number, outcome)| {
                let result = match outcome {
                    ItemOutcome::Written { seq, term, version, outcome, not_visible } => {
                        Ok(Done { seq, term, version, outcome, is_visible: not_visible.is_none() })
                    }
                    ItemOutcome::Refused(reason) => Err(EsError::from(&reason)),
                };
                (*number, result)
            }));
        }
        results
    }

    /// Reads a body, which may be compressed with gzip. `most` limits its bytes before and after that.
    pub(crate) async fn es_body(
        &self,
        head: &Parts,
        body: Body,
        most: usize,
    ) -> Result<(Bytes, Vec<Reserved>), EsError> {
        let encoding = head.headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
        let is_gzip = match encoding.as_deref() {
            None | Some(b"identity") => false,
            Some(b"gzip" | b"x-gzip") => true,
            Some(other) => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(EsError::unsupported(&format!("Content-Encoding: {other}")));
            }
        };
        let mut plain = head.clone();
        plain.headers.remove(CONTENT_ENCODING);
        let (body, space) = self.whole_body(&plain, body, most, &self.bodies.outer).await?;
        if !is_gzip {
            return Ok((body, vec![space]));
        }
        let mut arriving =
            self.bodies.outer.begin(0).await.map_err(|error| Refusal::from(BodyError::from(error)))?;
        let mut decoder = MultiGzDecoder::new(&*body);
        let (mut whole, mut step) = (Vec::new(), vec![0; STEP]);
        loop {
            let read = decoder.read(&mut step);
            let read =
                read.map_err(|error| EsError::new(400, "parse_exception", format!("no gzip: {error}")))?;
            if read == 0 {
                break;
            }
            if read > most - whole.len() {
                return Err(Refusal::from(BodyError::TooLarge { most }).into());
            }
            arriving.grow(read).await.map_err(|error| Refusal::from(BodyError::from(error)))?;
            whole.extend_from_slice(&step[..read]);
            // Decompression must not keep other requests of this thread waiting.
            tokio::task::yield_now().await;
        }
        Ok((whole.into(), vec![space, arriving.arrived()]))
    }
}

/// The id of a document: the given one, the one in the field that the definition names, or a new one.
pub(crate) fn id_of(index: &Index, change: &Change, given: Option<&str>) -> Result<DocumentId, EsError> {
    let source = match change {
        Change::Put(source) => Some(source.get()),
        Change::Merge { patch, .. } => Some(patch.get()),
        Change::Delete => None,
    };
    let bad = |error: &dyn std::fmt::Display| EsError::illegal(error.to_string());
    let id = match (source, given) {
        (Some(source), given) => {
            document_id(&index.schema.definition, source, given).map_err(|error| bad(&error))?
        }
        (None, given) => given.unwrap_or_default().to_owned(),
    };
    DocumentId::new(id).map_err(|error| bad(&error))
}

fn reason(shard: ShardId, error: &Unanswered) -> Reason {
    let mut reason = Reason::of_write(error);
    reason.detail = format!("shard {shard}: {}", reason.detail);
    reason
}

impl Refusal {
    fn from_panic(error: tokio::task::JoinError) -> Self {
        panicked(error).refusal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_durable_but_not_visible_in_time_is_answered_as_done() {
        let done = |is_visible| Done { seq: 7, term: 2, version: 1, outcome: Outcome::Created, is_visible };
        for (is_visible, refresh, forced) in [
            (true, Refresh::Durable, Value::Null),
            (true, Refresh::Wait, Value::Null),
            (true, Refresh::Now, json!(true)),
            (false, Refresh::Wait, json!(false)),
            (false, Refresh::Now, json!(false)),
        ] {
            let shown = done(is_visible).to_json("a", "1", refresh);
            assert_eq!((&shown["result"], &shown["forced_refresh"]), (&json!("created"), &forced));
            assert_eq!(done(is_visible).status(), 201);
        }
    }
}
