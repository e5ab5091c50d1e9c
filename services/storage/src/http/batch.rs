//! Several changes at once: all of them or none, within one shard.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request};
use http_body_util::Full;
use plugin::Detach;
use plugin::http::conditions::{set_etag, version};
use plugin::http::query::only_shard;
use plugin::http::{Answer, json, method_not_allowed, problem, problem_with};
use plugin::shard::{Condition, Key, ShardMember};
use serde::Deserialize;
use serde_json::json;
use types::{ErrorKind, Problem, ShardId, Target};

use super::json_value::{self, JsonValue, JsonValueError};
use crate::data::change::{Change, Effect, Unmet};
use crate::engine::EngineError;
use crate::engine::expiry::{TtlError, ends_at};
use crate::service::StorageService;

/// The largest body of a batch.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// The largest number of operations in a batch.
const MOST: usize = 1_000;

/// A batch as the client sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    operations: Vec<Operation>,
}

/// An operation as the client sends it: one of `put`, `delete` and `check` names its key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Operation {
    put: Option<String>,
    delete: Option<String>,
    check: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    ttl: Option<String>,
    if_match: Option<String>,
    if_none_match: Option<bool>,
}

/// Why a batch is refused before its conditions are checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// Write JSON as documented.
    #[error("the batch can't be read: {0}")]
    Json(String),
    /// Send at least one operation, and no more than the limit.
    #[error("a batch has 1 to {MOST} operations, this one has {0}")]
    Number(usize),
    /// Change this operation.
    #[error("operation {index}: {why}")]
    Operation {
        /// The index of the operation, from 0.
        index: usize,
        /// What is wrong with the operation.
        why: OperationError,
    },
    /// Leave one of them out: the result of two would be undefined.
    #[error("operation {index} has the key `{key}` of operation {first}")]
    Twice {
        /// The later one.
        index: usize,
        /// The earlier one.
        first: usize,
        /// The key that both have.
        key: Key,
    },
}

/// What is wrong with an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OperationError {
    /// Name one key.
    #[error("it has one of `put`, `delete` and `check`, with the key")]
    NotOneKey,
    /// Leave the value out.
    #[error("only a `put` has a value, a content type or a `ttl`")]
    ValueWithoutPut,
    /// Write what to check.
    #[error("a `check` has `if_match` or `if_none_match`")]
    NothingChecked,
    /// Choose one of them.
    #[error("`if_match` and `if_none_match` are both given")]
    TwoConditions,
    /// Leave it out, or write `true`.
    #[error("`if_none_match` can only be `true`")]
    NotTrue,
    /// Write a version exactly as an answer showed it.
    #[error("`if_match` is a version or `*`, not `{0}`")]
    NotAVersion(String),
    /// See the message.
    #[error(transparent)]
    Ttl(#[from] TtlError),
    /// See the message.
    #[error(transparent)]
    Given(#[from] JsonValueError),
}

impl Operation {
    fn change(self, now_ms: u64, max_value: usize) -> Result<Change, OperationError> {
        let condition = condition(self.if_match, self.if_none_match)?;
        let value =
            JsonValue { text: self.value, base64: self.value_base64, content_type: self.content_type };
        let is_bare = value.is_none() && self.ttl.is_none();
        let change = match (self.put, self.delete, self.check) {
            (Some(key), None, None) => {
                let expires_ms = self.ttl.map(|ttl| ends_at(&ttl, now_ms)).transpose()?;
                Change::put(json_value::key(&key)?, &value.record(expires_ms, max_value)?)
            }
            (None, Some(_), None) | (None, None, Some(_)) if !is_bare => {
                return Err(OperationError::ValueWithoutPut);
            }
            (None, Some(key), None) => Change::delete(json_value::key(&key)?),
            (None, None, Some(key)) if condition.is_some() => {
                Change { key: json_value::key(&key)?, effect: Effect::Check, condition: None }
            }
            (None, None, Some(_)) => return Err(OperationError::NothingChecked),
            _ => return Err(OperationError::NotOneKey),
        };
        Ok(change.provided(condition))
    }
}

fn condition(
    if_match: Option<String>,
    if_none_match: Option<bool>,
) -> Result<Option<Condition>, OperationError> {
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(OperationError::TwoConditions),
        (None, Some(true)) => Ok(Some(Condition::Absent)),
        (None, Some(false)) => Err(OperationError::NotTrue),
        (Some(any), None) if any == "*" => Ok(Some(Condition::Present)),
        (Some(text), None) => version(&text)
            .map(|version| Some(Condition::Version(version)))
            .ok_or(OperationError::NotAVersion(text)),
    }
}

/// Parses a batch into changes.
pub(crate) fn parse(body: &[u8], now_ms: u64, max_value: usize) -> Result<Vec<Change>, BatchError> {
    let given: Batch = serde_json::from_slice(body).map_err(|error| BatchError::Json(error.to_string()))?;
    let number = given.operations.len();
    if !(1..=MOST).contains(&number) {
        return Err(BatchError::Number(number));
    }
    let mut seen = BTreeMap::new();
    let mut changes = Vec::with_capacity(number);
    for (index, operation) in given.operations.into_iter().enumerate() {
        let change =
            operation.change(now_ms, max_value).map_err(|why| BatchError::Operation { index, why })?;
        if let Some(first) = seen.insert(change.key.clone(), index) {
            return Err(BatchError::Twice { index, first, key: change.key });
        }
        changes.push(change);
    }
    Ok(changes)
}

impl StorageService {
    /// Answers a batch: from this node's own shard if the keys are in it, else by forwarding it to their owner.
    pub(crate) async fn batch(&self, head: &Parts, body: Body) -> Answer {
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        let asked = self.asked_shard(head)?;
        if asked.is_some() {
            self.member.owner_only()?;
        }
        let (body, space) = self.read_body(head, body, MAX_BODY, 0).await?;
        let changes = parse(&body, self.engine.now_ms(), self.max_value).map_err(|error| {
            let hint = r#"{"operations":[{"put":"key","value":"text"},{"delete":"key","if_match":"17"}]}"#;
            let refusal = Problem::new(ErrorKind::Invalid, "bad-batch", error.to_string());
            problem(&refusal.hint(format!("a batch looks like {hint}")))
        })?;
        let shard = self.shard_of(&changes)?;
        if asked.is_some_and(|asked| asked != shard) {
            return Err(self.member.elsewhere(shard));
        }
        if shard != self.member.shard || !self.member.is_owner() {
            return if asked.is_some() {
                Err(self.member.elsewhere(shard))
            } else {
                // The owner of the keys answers, so the request does not need this member's shard.
                Detach::of(&head.extensions);
                self.forward(shard, body).await
            };
        }
        let keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
        match self.engine.batch(changes, space).await {
            Ok(written) => {
                let mut answer = json(json!({ "version": written }).to_string());
                if let Some(version) = written {
                    set_etag(answer.headers_mut(), version);
                }
                Ok(answer)
            }
            Err(EngineError::Unmet(unmet)) => Err(failed(&keys, unmet)),
            Err(error) => Err(error.to_response()),
        }
    }

    /// The shard that has all keys.
    fn shard_of(&self, changes: &[Change]) -> Result<ShardId, Response> {
        let mut shards = BTreeMap::<ShardId, BTreeSet<String>>::new();
        for change in changes {
            shards.entry(self.member.shard_of(change.key.hash())).or_default().insert(change.key.to_string());
        }
        if let (1, Some((shard, _))) = (shards.len(), shards.first_key_value()) {
            return Ok(*shard);
        }
        let detail = format!("the keys are in {} shards; a batch is atomic within one", shards.len());
        let refusal = Problem::new(ErrorKind::Invalid, "several-shards", detail)
            .hint("keys with the same text in their first braces are kept together: {user/1}/name");
        let shards: Vec<_> =
            shards.iter().map(|(shard, keys)| json!({ "shard": shard, "keys": keys })).collect();
        Err(problem_with(&refusal, "shards", json!(shards)))
    }

    async fn forward(&self, shard: ShardId, body: Bytes) -> Answer {
        let request = Request::post(format!("/batch?shard={shard}")).body(Full::new(body));
        let request = request.expect("a path with a number is a path");
        ShardMember::passed_on(self.mesh.send_to(&self.member.service, Target::Shard(shard), request).await)
    }

    /// The shard that a batch or an import names for all of its keys.
    pub(crate) fn asked_shard(&self, head: &Parts) -> Result<Option<ShardId>, Response> {
        let asked = only_shard(head.uri.query().unwrap_or_default()).map_err(|error| error.to_response())?;
        self.member.existing(asked)
    }
}

/// Lists each operation whose condition did not hold.
fn failed(keys: &[Key], unmet: Vec<Unmet>) -> Response {
    let failed: Vec<_> = unmet
        .iter()
        .map(|unmet| {
            let key = keys.get(unmet.index).map(ToString::to_string);
            json!({ "operation": unmet.index, "key": key, "version": unmet.version })
        })
        .collect();
    let words: Vec<_> = unmet
        .iter()
        .take(10)
        .filter_map(|unmet| {
            let key = keys.get(unmet.index)?;
            Some(match unmet.version {
                Some(version) => format!("operation {}: `{key}` has version {version}", unmet.index),
                None => format!("operation {}: `{key}` has no value", unmet.index),
            })
        })
        .collect();
    let more = if unmet.len() > words.len() { "; …" } else { "" };
    let detail = format!("conditions do not hold: {}{more}", words.join("; "));
    let refusal = EngineError::Unmet(unmet).problem();
    problem_with(&Problem { detail, ..refusal }, "failed", json!(failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &serde_json::Value) -> Result<Vec<Change>, BatchError> {
        parse(json.to_string().as_bytes(), 0, 10)
    }

    #[test]
    fn a_batch_means_what_it_says() {
        let changes = parsed(&json!({"operations": [
            {"put": "a%20b", "value": "1", "ttl": "30s", "if_none_match": true},
            {"put": "b", "value_base64": "AP8=", "content_type": "a/b", "if_match": "17"},
            {"delete": "c", "if_match": "*"},
            {"check": "d", "if_match": "5"},
        ]}))
        .unwrap();
        let keys: Vec<_> = changes.iter().map(|change| change.key.to_string()).collect();
        assert_eq!(keys, ["a%20b", "b", "c", "d"]);
        let conditions: Vec<_> = changes.iter().filter_map(|change| change.condition).collect();
        assert_eq!(
            conditions,
            [Condition::Absent, Condition::Version(17), Condition::Present, Condition::Version(5)]
        );
        assert!(matches!(changes[0].effect, Effect::Put(_, Some(at)) if at.get() == 30_000));
        assert!(matches!(changes[1].effect, Effect::Put(_, None)));
        assert_eq!((&changes[2].effect, &changes[3].effect), (&Effect::Delete, &Effect::Check));
    }

    #[test]
    fn a_mistake_is_reported_with_its_place() {
        let why = |operation| match parsed(&json!({"operations": [{"delete": "ok"}, operation]})) {
            Err(BatchError::Operation { index: 1, why }) => why.to_string(),
            other => panic!("{other:?}"),
        };
        for (operation, words) in [
            (json!({}), "one of"),
            (json!({"put": "a", "delete": "b", "value": "1"}), "one of"),
            (json!({"put": "a"}), "no value"),
            (json!({"put": "a", "value": "1", "value_base64": "MQ=="}), "both"),
            (json!({"put": "a", "value": "12345678901"}), "11 bytes"),
            (json!({"put": "a", "value": "1", "ttl": "1"}), "no time to live"),
            (json!({"put": "", "value": "1"}), "empty"),
            (json!({"delete": "a", "value": "1"}), "only a `put`"),
            (json!({"check": "a"}), "`if_match` or"),
            (json!({"check": "a", "if_match": "\"5\""}), "not `\"5\"`"),
            (json!({"check": "a", "if_match": "5", "if_none_match": true}), "both"),
            (json!({"check": "a", "if_none_match": false}), "only be `true`"),
        ] {
            let said = why(operation.clone());
            assert!(said.contains(words), "{operation}: {said}");
        }
        assert!(matches!(parsed(&json!({"operations": []})), Err(BatchError::Number(0))));
        assert!(matches!(parsed(&json!({"operation": []})), Err(BatchError::Json(_))));
        assert!(matches!(parsed(&json!({"operations": [{"putt": "a"}]})), Err(BatchError::Json(_))));
        let many: Vec<_> = (0..1_001).map(|number| json!({ "delete": number.to_string() })).collect();
        assert_eq!(parsed(&json!({ "operations": many })), Err(BatchError::Number(1_001)));
        let twice = parsed(
            &json!({"operations": [{"delete": "a"}, {"delete": "b"}, {"check": "%61", "if_match": "1"}]}),
        );
        assert!(matches!(twice, Err(BatchError::Twice { index: 2, first: 0, .. })));
    }
}
