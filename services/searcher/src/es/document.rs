//! One document by its id, and several: `_doc`, `_create`, `_update`, `_source`, `_mget`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use mesh::shards::scatter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use types::ShardId;
use uuid::Uuid;

use super::bulk::lines::{document, update};
use super::bulk::{Planned, id_of};
use super::error::EsError;
use super::filter::Filter;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::unique;
use crate::catalog::{Index, check_name};
use crate::document::MAX_DOCUMENT;
use crate::http::{DocumentId, Found, GET_LIMIT, Item, Reason, Refusal};
use crate::service::SearcherService;
use crate::shard::{Change, Condition};

/// The most documents of one `_mget`.
const MAX_MGET: usize = 10_000;
/// The largest body of an `_mget`.
const MAX_BODY: usize = 1024 * 1024;
/// The parameters of a source.
const SOURCE: [&str; 3] = ["_source", "_source_includes", "_source_excludes"];

/// What of a source is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    All,
    None,
    Parts(Filter),
}

impl Wanted {
    fn of(parameters: &Parameters) -> Result<Self, EsError> {
        let includes = parameters.list("_source_includes").unwrap_or_default();
        let excludes = parameters.list("_source_excludes").unwrap_or_default();
        let has_lists = !includes.is_empty() || !excludes.is_empty();
        match parameters.text("_source") {
            None | Some("" | "true") if !has_lists => Ok(Self::All),
            None | Some("" | "true") => Ok(Self::Parts(Filter::of_source(includes, excludes))),
            Some("false") => Ok(Self::None),
            Some(_) => {
                let named = parameters.list("_source").unwrap_or_default();
                Ok(Self::Parts(Filter::of_source(named.into_iter().chain(includes), excludes)))
            }
        }
    }

    fn of_value(value: &Value) -> Result<Self, EsError> {
        let list = |value: &Value| -> Result<Vec<String>, EsError> {
            match value {
                Value::Null => Ok(Vec::new()),
                Value::String(text) => Ok(vec![text.clone()]),
                Value::Array(values) => {
                    let text = |value: &Value| value.as_str().map(str::to_owned);
                    let bad = || EsError::parsing("[_source] is a list of texts");
                    values.iter().map(|value| text(value).ok_or_else(bad)).collect()
                }
                _ => Err(EsError::parsing("[_source] is a flag, a text, a list or an object")),
            }
        };
        match value {
            Value::Bool(true) => Ok(Self::All),
            Value::Bool(false) => Ok(Self::None),
            Value::Object(members) => {
                let known = ["include", "includes", "exclude", "excludes"];
                if let Some(name) = members.keys().find(|name| !known.contains(&name.as_str())) {
                    return Err(EsError::parsing(format!("[_source] unknown field [{name}]")));
                }
                let member = |one: &str, other: &str| {
                    list(members.get(one).or_else(|| members.get(other)).unwrap_or(&Value::Null))
                };
                let (includes, excludes) = (member("includes", "include")?, member("excludes", "exclude")?);

                Ok(Self::Parts(Filter::of_source(
                    includes.iter().map(String::as_str),
                    excludes.iter().map(String::as_str),
                )))
            }
            value => {
                let includes = list(value)?;
                Ok(Self::Parts(Filter::of_source(includes.iter().map(String::as_str), [])))
            }
        }
    }

    fn apply(&self, source: Box<RawValue>) -> Option<Box<RawValue>> {
        match self {
            Self::All => Some(source),
            Self::None => None,
            // What a filter leaves of a valid document is valid.
            Self::Parts(filter) => RawValue::from_string(filter.apply(source.get())).ok(),
        }
    }
}

/// A document in an answer.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(flatten)]
    numbers: Option<Numbers>,
    found: bool,
    #[serde(rename = "_source", skip_serializing_if = "Option::is_none")]
    source: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize)]
struct Numbers {
    #[serde(rename = "_version")]
    version: u64,
    #[serde(rename = "_seq_no")]
    seq: u64,
    #[serde(rename = "_primary_term")]
    term: u64,
}

fn shown<'a>(index: &'a str, id: &'a str, found: Option<Found>, wanted: &Wanted) -> Shown<'a> {
    let numbers =
        found.as_ref().map(|found| Numbers { version: found.version, seq: found.seq, term: found.term });
    let is_found = found.is_some();
    let source = found.and_then(|found| wanted.apply(found.source));
    Shown { index, id, numbers, found: is_found, source }
}

impl SearcherService {
    /// Answers `_doc` and `_create`; without an id, one is generated.
    pub(crate) async fn es_document(
        &self,
        index: &str,
        id: Option<&str>,
        is_create: bool,
        head: &Parts,
        body: Body,
    ) -> Answer {
        match (&head.method, id) {
            (&Method::GET | &Method::HEAD, Some(id)) if !is_create => self.es_get(index, id, head).await,
            (&Method::DELETE, Some(id)) if !is_create => {
                let known = ["refresh", "if_seq_no", "if_primary_term"];
                let parameters = Parameters::parse(head.uri.query(), &known)?;
                let (indexes, index) = self.es_index_for_delete(index).await?;
                let id = id_of(&index, &Change::Delete, Some(id))?;
                let item = Item { id, change: Change::Delete, condition: parameters.condition()? };
                self.es_change(head, Planned { indexes, index, item }, &parameters).await
            }
            _ => {
                let allowed = if id.is_some() { &[Method::PUT, Method::POST][..] } else { &[Method::POST] };
                allow(head, allowed)?;
                let known = ["refresh", "if_seq_no", "if_primary_term", "op_type", "require_alias"];
                let parameters = Parameters::parse(head.uri.query(), &known)?;
                if parameters.flag("require_alias")? == Some(true) {
                    return Err(EsError::unsupported("require_alias"));
                }
                let is_create = match parameters.text("op_type") {
                    None => is_create || id.is_none(),
                    Some("create") => true,
                    Some("index") => is_create,
                    Some(other) => {
                        return Err(EsError::illegal(format!(
                            "opType must be 'create' or 'index', found: [{other}]"
                        )));
                    }
                };
                let condition = match (parameters.condition()?, is_create) {
                    (Some(_), true) if id.is_some() => {
                        let problem = "create operations do not support compare and set";
                        return Err(EsError::invalid(&[problem.to_owned()]));
                    }
                    (condition @ Some(_), _) => condition,
                    (None, true) => Some(Condition::Absent),
                    (None, false) => None,
                };
                let (body, _space) = self.es_body(head, body, self.max_body.min(MAX_DOCUMENT)).await?;
                let change = Change::Put(document(&body).map_err(|reason| EsError::from(&reason))?);
                let (indexes, index) = self.es_index_to_write(index).await?;
                let id = id_of(&index, &change, id)?;
                let item = Item { id, change, condition };
                self.es_change(head, Planned { indexes, index, item }, &parameters).await
            }
        }
    }

    /// Answers `_update`.
    pub(crate) async fn es_update(&self, index: &str, id: &str, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::POST])?;
        let known = ["refresh", "if_seq_no", "if_primary_term", "retry_on_conflict", "require_alias", "lang"];
        let parameters = Parameters::parse(head.uri.query(), &known)?;
        if parameters.flag("require_alias")? == Some(true) {
            return Err(EsError::unsupported("require_alias"));
        }
        if parameters.text("lang").is_some() {
            return Err(EsError::unsupported("script"));
        }
        parameters.number("retry_on_conflict")?;
        let (body, _space) = self.es_body(head, body, self.max_body.min(2 * MAX_DOCUMENT)).await?;
        let change = update(&body)?.map_err(|reason| EsError::from(&reason))?;
        let (indexes, index) = self.es_index_to_write(index).await?;
        let id = id_of(&index, &change, Some(id))?;
        let item = Item { id, change, condition: parameters.condition()? };
        self.es_change(head, Planned { indexes, index, item }, &parameters).await
    }

    /// Makes one change.
    async fn es_change(&self, head: &Parts, planned: Planned, parameters: &Parameters) -> Answer {
        let refresh = parameters.refresh()?;
        let (index, id) = (Arc::clone(&planned.index), planned.item.id.clone());
        let mut results = self.es_write(head, vec![(0, planned)], refresh).await;
        match results.pop() {
            Some((_, Ok(done))) => {
                let body = done.to_json(&index.name, id.as_str(), refresh);
                Ok(Reply::json(&body).status(done.status()))
            }
            Some((_, Err(error))) => Err(error.of_index(&index.name)),
            None => Err(EsError::new(503, "unavailable_shards_exception", "nothing says what became of it")),
        }
    }

    /// Answers a read of a document.
    async fn es_get(&self, index: &str, id: &str, head: &Parts) -> Answer {
        let known = [&SOURCE[..], &["refresh"]].concat();
        let parameters = Parameters::parse(head.uri.query(), &known)?;
        parameters.flag("refresh")?;
        let wanted = Wanted::of(&parameters)?;
        let (index, found) = self.es_found(index, id).await?;
        let status = if found.is_some() { 200 } else { 404 };
        Ok(Reply::json(&shown(&index.name, id, found, &wanted)).status(status))
    }

    /// Answers `_source`.
    pub(crate) async fn es_source(&self, index: &str, id: &str, head: &Parts) -> Answer {
        allow(head, &[Method::GET, Method::HEAD])?;
        let known = [&SOURCE[..], &["refresh"]].concat();
        let parameters = Parameters::parse(head.uri.query(), &known)?;
        let wanted = Wanted::of(&parameters)?;
        if wanted == Wanted::None {
            return Err(EsError::invalid(&["fetching source can not be disabled".to_owned()]));
        }
        let (index, found) = self.es_found(index, id).await?;
        match found.and_then(|found| wanted.apply(found.source)) {
            Some(source) => Ok(Reply::json(&source)),
            None => {
                let reason = format!("Document not found [{}]/[{id}]", index.name);
                Err(EsError::new(404, "resource_not_found_exception", reason))
            }
        }
    }

    async fn es_found(&self, index: &str, id: &str) -> Result<(Arc<Index>, Option<Found>), EsError> {
        let (indexes, index) = self.es_index(index).await?;
        let id = DocumentId::new(id).map_err(|error| EsError::illegal(error.to_string()))?;
        let shard = self.member.shard_of(id.hash());
        let found = self.get_at(shard, &indexes, &index, &[id.as_str().to_owned()]).await;
        let mut found = found.map_err(|error| unread(shard, &error))?;
        Ok((index, found.pop().flatten()))
    }

    /// Answers `_mget`.
    pub(crate) async fn es_mget(&self, index: Option<&str>, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::GET, Method::POST])?;
        let known = [&SOURCE[..], &["refresh"]].concat();
        let parameters = Parameters::parse(head.uri.query(), &known)?;
        let wanted = Wanted::of(&parameters)?;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let asked = asked(&body, index, &wanted)?;
        let names: Vec<&str> = asked.iter().map(|asked| asked.index.as_str()).collect();
        let indexes = self.es_knowing(&names).await?;
        let mut found_indexes: BTreeMap<&str, Result<Arc<Index>, EsError>> = BTreeMap::new();
        let mut results: Vec<Option<Result<Option<Found>, EsError>>> = vec![];
        let mut parts: BTreeMap<(ShardId, Uuid), Vec<(usize, String)>> = BTreeMap::new();
        for (number, asked) in asked.iter().enumerate() {
            let found = found_indexes.entry(&asked.index).or_insert_with(|| {
                check_name(&asked.index).map_err(|error| EsError::bad_name(&asked.index, &error))?;
                Ok(indexes.one(&asked.index)?)
            });
            let id = DocumentId::new(asked.id.as_str());
            match (&*found, id) {
                (Ok(index), Ok(id)) => {
                    let shard = self.member.shard_of(id.hash());
                    parts.entry((shard, index.uuid)).or_default().push((number, asked.id.clone()));
                    results.push(None);
                }
                (Err(error), _) => results.push(Some(Err(error.clone()))),
                (_, Err(error)) => results.push(Some(Err(EsError::illegal(error.to_string())))),
            }
        }
        let by_uuid: BTreeMap<Uuid, Arc<Index>> =
            found_indexes.values().flatten().map(|index| (index.uuid, Arc::clone(index))).collect();
        let shards: std::collections::BTreeSet<ShardId> = parts.keys().map(|(shard, _)| *shard).collect();
        let read = scatter(shards, GET_LIMIT, |shard| {
            let (parts, by_uuid, indexes) = (&parts, &by_uuid, &indexes);
            async move {
                let mut read = Vec::new();
                for ((_, uuid), wanted) in parts.range((shard, Uuid::nil())..=(shard, Uuid::max())) {
                    let index = &by_uuid[uuid];
                    let ids: Vec<String> = wanted.iter().map(|(_, id)| id.clone()).collect();
                    let found = self.get_at(shard, indexes, index, &ids).await;
                    match found {
                        Ok(found) => read
                            .extend(wanted.iter().map(|(number, _)| *number).zip(found.into_iter().map(Ok))),
                        Err(error) => {
                            let error = unread(shard, &error);
                            read.extend(wanted.iter().map(|(number, _)| (*number, Err(error.clone()))));
                        }
                    }
                }
                Ok(read)
            }
        });
        for (_, read) in read.await {
            for (number, result) in read.unwrap_or_default() {
                results[number] = Some(result);
            }
        }
        let lost =
            || Err(EsError::new(503, "unavailable_shards_exception", "the shard did not answer in time"));
        let docs = asked.iter().zip(results).map(|(asked, result)| {
            let shown = match result.unwrap_or_else(lost) {
                Ok(found) => {
                    let index = found_indexes.get(asked.index.as_str()).and_then(|found| found.as_ref().ok());
                    let name = index.map_or(asked.index.as_str(), |index| &index.name);
                    serde_json::value::to_raw_value(&shown(name, &asked.id, found, &asked.wanted))
                }
                Err(error) => serde_json::value::to_raw_value(
                    &json!({ "_index": asked.index, "_id": asked.id, "error": error.to_json()["error"] }),
                ),
            };
            shown.expect("strings, numbers and valid JSON are written to memory")
        });
        let docs: Vec<Box<RawValue>> = docs.collect();
        #[derive(Serialize)]
        struct Docs {
            docs: Vec<Box<RawValue>>,
        }
        Ok(Reply::json(&Docs { docs }))
    }
}

/// The refusal of a read.
fn unread(shard: ShardId, error: &mesh::shards::ShardError) -> EsError {
    match error {
        mesh::shards::ShardError::Refused(problem) => Refusal::plain((**problem).clone()).into(),
        error => EsError::from(&Reason::of(&error.to_problem(shard, "read"))),
    }
}

/// A document that an `_mget` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    index: String,
    id: String,
    wanted: Wanted,
}

/// Reads the body of an `_mget`.
fn asked(body: &[u8], index: Option<&str>, wanted: &Wanted) -> Result<Vec<Asked>, EsError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(default)]
        docs: Vec<Doc>,
        #[serde(default)]
        ids: Vec<String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        #[serde(rename = "_index")]
        index: Option<String>,
        #[serde(rename = "_id")]
        id: Value,
        #[serde(rename = "_source")]
        source: Option<Value>,
    }
    let Body { docs, ids } =
        unique::read(body).map_err(|error| EsError::parsing(format!("no _mget: {error}")))?;
    if docs.is_empty() && ids.is_empty() {
        return Err(EsError::invalid(&["no documents to get".to_owned()]));
    }
    if docs.len() + ids.len() > MAX_MGET {
        return Err(EsError::illegal(format!("at most {MAX_MGET} documents can be got at once")));
    }
    let missing = || EsError::invalid(&["index is missing for doc".to_owned()]);
    let of_docs = docs.into_iter().map(|doc| {
        let id = match doc.id {
            Value::String(id) => id,
            Value::Number(number) => number.to_string(),
            _ => return Err(EsError::parsing("[_id] is a text")),
        };
        let wanted = doc.source.as_ref().map_or_else(|| Ok(wanted.clone()), Wanted::of_value)?;
        let index = doc.index.or_else(|| index.map(str::to_owned)).ok_or_else(missing)?;
        Ok(Asked { index, id, wanted })
    });
    let of_ids = ids.into_iter().map(|id| {
        let index = index.map(str::to_owned).ok_or_else(missing)?;
        Ok(Asked { index, id, wanted: wanted.clone() })
    });
    of_docs.collect::<Vec<_>>().into_iter().chain(of_ids).collect()
}
