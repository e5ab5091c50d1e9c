//! Indexes: listed, created, shown, deleted, refreshed, compacted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use mesh::BaseUrl;
use plugin::check_settings;
use plugin::http::query::parameters;
use plugin::http::{Answer, json, method_not_allowed, problem_with};
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;
use types::{ErrorKind, NodeId, Problem};
use uuid::Uuid;

use super::inner::{InnerQuery, Verb};
use super::path::is_read;
use super::refusal::{Refusal, how_to_change};
use crate::catalog::{AliasError, Change, CreateError, Index, Indexes, Record, create_by_request, delete};
use crate::definition::PartialDefinition;
use crate::gather::Failures;
use crate::search::Shards;
use crate::service::SearcherService;

/// The largest definition, in bytes.
pub(crate) const MAX_DEFINITION: usize = 1024 * 1024;
/// How long a refresh may take.
const REFRESH_LIMIT: Duration = Duration::from_secs(30);
/// How long a compaction may take. A member waits a minute for the answer of another one.
const COMPACT_LIMIT: Duration = Duration::from_secs(50);
/// How long another member may take to read the catalog.
const TELL_LIMIT: Duration = Duration::from_secs(3);

/// The answer of a shard that has only done something.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Done {}

impl SearcherService {
    /// Answers the request for the list of indexes.
    pub(crate) async fn list_indexes(&self, head: &Parts) -> Answer {
        if !is_read(&head.method) {
            return Err(method_not_allowed("GET, HEAD"));
        }
        no_parameters(head)?;
        let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
        let sizes = self.sizes(&indexes).await;
        let listed = indexes.all().map(|index| {
            let mut listed = json!({
                "name": index.name,
                "uuid": index.uuid,
                "fields": index.schema.definition.fields.len(),
                "declared": self.declared.has(&index.name),
            });
            let aliases: Vec<&str> = indexes.aliases_of(&index.name).map(|(alias, _)| alias).collect();
            if !aliases.is_empty() {
                listed["aliases"] = json!(aliases);
            }
            if !index.schema.definition.delete_after.is_never() {
                listed["delete_after"] = json!(index.schema.definition.delete_after);
            }
            if let Some(size) = sizes.as_ref().and_then(|sizes| sizes.get(&index.uuid)) {
                listed["documents"] = json!(size.documents);
                listed["bytes"] = json!(size.bytes);
            }
            listed
        });
        Ok(json(json!({ "indexes": listed.collect::<Vec<_>>() }).to_string()))
    }

    /// Answers a request for an index itself.
    pub(crate) async fn index_itself(&self, name: &str, head: &Parts, body: Body) -> Answer {
        match head.method {
            Method::GET | Method::HEAD => {
                let (indexes, index) = self.index_named(name).await?;
                self.show_index(&indexes, &index, head).await
            }
            Method::PUT => self.create_index(name, head, body).await,
            Method::DELETE => self.delete_index(name, head).await,
            _ => Err(method_not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    async fn create_index(&self, name: &str, head: &Parts, body: Body) -> Answer {
        no_parameters(head)?;
        let (body, _space) = self.read_body(head, body, MAX_DEFINITION, &self.bodies.outer).await?;
        let wanted = definition(&body)?;
        if self.declared.has(name) && wanted.delete_after.is_some_and(|delete_after| !delete_after.is_never())
        {
            let refusal = declared(name).hint("take it out of `indexes` in the settings first");
            return Err(Refusal::plain(refusal).into());
        }
        let uuid = Uuid::now_v7();
        let change = |record: &_| -> Result<_, CreateError> {
            let change = create_by_request(record, name, &wanted, &BTreeMap::new(), uuid)?;
            let has_changed = change != Change::Nothing;
            Ok((change, has_changed))
        };
        let (indexes, has_changed) = self.catalog.change(change).await.map_err(|error| {
            let mut refusal = Refusal::from(error);
            if refusal.problem.code() == "index-exists" {
                refusal.problem.hint = Some(how_to_change(name, self.member.service.as_str()));
            }
            refusal
        })?;
        let found = indexes.named(name).map_or(Uuid::nil(), |index| index.uuid);
        let is_created = found == uuid;
        if has_changed && (!is_created || indexes.aliases_of(name).next().is_some()) {
            // Documents with the new fields, and reads of its aliases, may arrive at other members right after this.
            self.tell(indexes.number).await;
        }
        let answer = json!({
            "name": name, "uuid": found, "created": is_created, "extended": has_changed && !is_created,
        });
        let mut answer = json(answer.to_string());
        if is_created {
            *answer.status_mut() = StatusCode::CREATED;
        }
        Ok(answer)
    }

    async fn delete_index(&self, name: &str, head: &Parts) -> Answer {
        no_parameters(head)?;
        if self.declared.has(name) {
            let refusal = declared(name)
                .hint("take it out of `indexes` in the settings first, or delete its documents");
            return Err(Refusal::plain(refusal).into());
        }
        let change = |record: &Record| -> Result<_, AliasError> {
            if record.aliases.contains_key(name) {
                return Err(AliasError::IsAlias(name.to_owned()));
            }
            let (next, uuid) = delete(record, name)?;
            Ok((Change::To(next), uuid))
        };
        let (indexes, uuid) = self.catalog.change(change).await.map_err(Refusal::from)?;
        let unreached = self.tell(indexes.number).await;
        Ok(json(json!({ "name": name, "uuid": uuid, "deleted": true, "unreached": unreached }).to_string()))
    }

    /// Makes every other member read the catalog. Returns those that did not; they find out by themselves.
    pub(crate) async fn tell(&self, number: u64) -> Vec<NodeId> {
        let peers: Vec<_> = {
            let view = self.cx.view.borrow();
            let peers = view.of_service(&self.member.service).filter(|member| member.id != self.cx.node);
            peers.map(|member| (member.id.clone(), member.http.clone())).collect()
        };
        let telling = peers.into_iter().map(|(node, url)| async move {
            let uri = format!("/svc/{}/_catalog?number={number}", self.member.service);
            let request = Request::post(uri).body(Full::<Bytes>::default());
            let request = request.expect("a name and a number need no escape");
            let is_told = match url.parse::<BaseUrl>() {
                Ok(url) => {
                    let sent = timeout(TELL_LIMIT, self.cx.mesh.send_to_any(&[url], request)).await;
                    sent.is_ok_and(|sent| sent.is_ok_and(|answer| answer.status() == StatusCode::OK))
                }
                Err(_) => false,
            };
            (node, is_told)
        });
        join_all(telling).await.into_iter().filter(|(_, is_told)| !is_told).map(|(node, _)| node).collect()
    }

    /// Answers another member that has changed the catalog.
    pub(crate) async fn told(&self, head: &Parts) -> Answer {
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        let found = parameters(head.uri.query().unwrap_or_default(), &["number"]);
        let number = found.and_then(|found| match found.first() {
            Some((name, text)) => super::parameter::number(name, text),
            None => Ok(0),
        });
        let number = number.map_err(|error| error.to_response())?;
        let indexes = self.catalog.at_least(number).await.map_err(Refusal::from)?;
        Ok(json(json!({ "number": indexes.number }).to_string()))
    }

    /// Makes all shards do something to an index, or to those of an alias, and fails if one does not.
    pub(crate) async fn at_every_owner(&self, name: &str, verb: Verb, head: &Parts) -> Answer {
        let (indexes, named) = self.indexes_to_read(name).await?;
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        no_parameters(head)?;
        let could_not_be = if verb == Verb::Compact { "compacted" } else { "refreshed" };
        // A refresh is the shard's, for all its indexes.
        let asked = if verb == Verb::Refresh { named.get(..1).unwrap_or_default() } else { &named[..] };
        let mut shards = Shards::default();
        for index in asked {
            let failures = self.each_owner(&indexes, index, verb).await;
            let of_index = failures.of(self.member.all_shards().len());
            if let Some(refusal) = failures.refusal(could_not_be) {
                return Err(problem_with(&refusal.problem, "shards", json!(of_index)));
            }
            shards.add(of_index);
        }
        Ok(json(json!({ "shards": shards }).to_string()))
    }

    /// Makes all shards refresh or compact an index. Returns those that did not.
    pub(crate) async fn each_owner(&self, indexes: &Indexes, index: &Arc<Index>, verb: Verb) -> Failures {
        let limit = if verb == Verb::Compact { COMPACT_LIMIT } else { REFRESH_LIMIT };
        let query = InnerQuery::read(indexes, index, ReadLevel::Primary, limit);
        let here = || self.do_here(index, verb, limit);
        self.ask_all::<Done, _>(verb, &query, &Bytes::new(), here).await.1
    }

    /// Refreshes or compacts this member's shard.
    pub(crate) async fn do_here(
        &self,
        index: &Arc<Index>,
        verb: Verb,
        limit: Duration,
    ) -> Result<Read<Done>, Refusal> {
        let work = async {
            match verb {
                Verb::Compact => self.shard.compact(index).await,
                _ => self.shard.refresh().await,
            }
        };
        let done = timeout(limit, work).await.map_err(|_| {
            let detail = format!("it was not done within {limit:?}");
            let problem = Problem::new(ErrorKind::Timeout, "not-done-in-time", detail);
            Refusal::plain(problem.hint("it may still be under way; ask again later"))
        })?;
        done?;
        Ok(Read { value: Done {}, staleness: None })
    }
}

/// The definition in the body of a request; without a body, one that declares nothing.
fn definition(body: &[u8]) -> Result<PartialDefinition, Refusal> {
    let bad = |detail: String, hint: &str| Refusal::invalid("bad-definition", &detail, hint);
    let hint = r#"send for example {"fields": {"title": {"type": "text"}}}"#;
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let value: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON: {error}"), hint))?;
    if !value.is_object() {
        return Err(bad("a definition is a JSON object".to_owned(), hint));
    }
    let check = |definition: PartialDefinition| definition.check().map(|()| definition);
    let definition = check_settings(&value, check).map_err(|error| {
        let hints = error.mistakes.iter().find_map(|mistake| mistake.hint.clone());
        bad(error.to_string(), hints.as_deref().unwrap_or(hint))
    })?;
    Ok(definition)
}

/// The refusal of what a declared index can't take.
fn declared(name: &str) -> Problem {
    let detail = format!("the settings of the service declare the index `{name}`");
    Problem::new(ErrorKind::Conflict, "declared-index", detail)
}

/// Refuses parameters where there are none.
pub(super) fn no_parameters(head: &Parts) -> Result<(), axum::response::Response> {
    let found = parameters(head.uri.query().unwrap_or_default(), &[]);
    found.map(drop).map_err(|error| error.hint("leave the parameters out").to_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_an_object_and_its_mistakes_are_shown_with_their_place() {
        assert_eq!(definition(b" ").unwrap(), PartialDefinition::default());
        let one = definition(br#"{"fields": {"a": {"type": "text"}}}"#).unwrap();
        assert_eq!(one.fields.len(), 1);
        for (body, words) in [
            ("[]", "JSON object"),
            ("{", "no JSON"),
            (r#"{"fields": {"a": {"type": "txt"}}}"#, "txt"),
            (r#"{"feilds": {}}"#, "feilds"),
            (r#"{"fields": {"_id": {"type": "text"}}}"#, "_id"),
            (r#"{"fields": {"a": {"type": "text", "anlyzer": "en"}}}"#, "anlyzer"),
        ] {
            let refusal = definition(body.as_bytes()).unwrap_err();
            assert_eq!((refusal.problem.status, refusal.problem.code()), (400, "bad-definition"));
            assert!(refusal.problem.detail.contains(words), "{body}: {}", refusal.problem);
            assert!(refusal.problem.hint.is_some());
        }
    }
}
