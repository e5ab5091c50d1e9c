//! `_reindex`: copies documents into another index.
//!
//! Unlike Elasticsearch's, it never replaces a document that is newer than the one that is copied, and it does not end at the
//! first conflict.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use http::Method;
use http::request::Parts;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::dsl;
use super::error::EsError;
use super::parameters::Parameters;
use super::path::allow;
use super::reply::{Answer, Reply};
use super::search::{millis, now};
use super::unique;
use crate::http::{Copied, REINDEX_LIMIT, Reindex, Total, Verb};
use crate::search::Dsl;
use crate::service::SearcherService;
use crate::shard::Refresh;

/// The largest body.
const MAX_BODY: usize = 1024 * 1024;
/// The parameters. Those that only limit how fast it goes have no effect.
const KNOWN: [&str; 5] = ["refresh", "requests_per_second", "wait_for_completion", "scroll", "slices"];

/// What a body asks for.
#[derive(Debug, PartialEq)]
struct Wanted {
    source: String,
    target: String,
    /// JSON text.
    query: Option<String>,
    only_new: bool,
    /// Whether conflicts are only counted.
    proceeds: bool,
}

fn object<'a>(
    members: &'a Map<String, Value>,
    name: &str,
    known: &[&str],
) -> Result<&'a Map<String, Value>, EsError> {
    let object = match members.get(name) {
        Some(Value::Object(object)) => object,
        Some(_) => return Err(EsError::parsing(format!("[reindex] [{name}] is no object"))),
        None => return Err(EsError::invalid(&[format!("[{name}] is missing")])),
    };
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(unsupported(&format!("{name}.{unknown}"), known)),
        None => Ok(object),
    }
}

fn unsupported(path: &str, known: &[&str]) -> EsError {
    EsError::illegal(format!("[{path}] of [reindex] is not supported; there are {}", known.join(", ")))
}

/// The one index that a part of the body names.
fn index(object: &Map<String, Value>, of: &str) -> Result<String, EsError> {
    let one = match object.get("index") {
        Some(Value::Array(list)) if of == "source" && list.len() == 1 => list.first(),
        one => one,
    };
    match one {
        Some(Value::String(name)) if !name.contains(['*', ',']) => Ok(name.clone()),
        Some(_) => Err(EsError::illegal(format!("[{of}.index] names one index; several are not supported"))),
        None => Err(EsError::invalid(&[format!("[{of}.index] is missing")])),
    }
}

fn parse(body: &[u8]) -> Result<Wanted, EsError> {
    let members: Map<String, Value> = unique::read(body)
        .map_err(|error| EsError::parsing(format!("the body is no JSON object: {error}")))?;
    let known = ["source", "dest", "conflicts"];
    if let Some(unknown) = members.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(unsupported(unknown, &known));
    }
    // `size` is only how many are read at a time.
    let source = object(&members, "source", &["index", "query", "size"])?;
    let dest = object(&members, "dest", &["index", "op_type"])?;
    let only_new = match dest.get("op_type").map(Value::as_str) {
        None | Some(Some("index")) => false,
        Some(Some("create")) => true,
        Some(_) => return Err(EsError::illegal("[dest.op_type] is [index] or [create]")),
    };
    let proceeds = match members.get("conflicts").map(Value::as_str) {
        None | Some(Some("abort")) => false,
        Some(Some("proceed")) => true,
        Some(_) => return Err(EsError::illegal("[conflicts] is [abort] or [proceed]")),
    };
    let query = source.get("query").filter(|query| !query.is_null()).map(Value::to_string);
    Ok(Wanted { source: index(source, "source")?, target: index(dest, "dest")?, query, only_new, proceeds })
}

impl SearcherService {
    /// Answers `_reindex`.
    pub(crate) async fn es_reindex(&self, head: &Parts, body: Body) -> Answer {
        allow(head, &[Method::POST])?;
        let began = Instant::now();
        let parameters = Parameters::parse(head.uri.query(), &KNOWN)?;
        if parameters.flag("wait_for_completion")? == Some(false) {
            return Err(EsError::unsupported("wait_for_completion=false"));
        }
        let is_refreshed = parameters.refresh()? != Refresh::Durable;
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let wanted = parse(&body)?;
        let now = now();
        let mut search = Map::new();
        if let Some(query) = wanted.query {
            let value: Value =
                serde_json::from_str(&query).map_err(|error| EsError::parsing(error.to_string()))?;
            dsl::parse(&value, now)?;
            let dsl = Dsl { query, filters: Vec::new(), now, index: 0, has_numbers: false, has_query: true };
            search.insert("dsl".to_owned(), json!(dsl));
        }
        let (_, source) = self.es_index(&wanted.source).await?;
        let (indexes, target) = self.es_index_to_write(&wanted.target).await?;
        let order = Reindex {
            source,
            target: Arc::clone(&target),
            search,
            only_new: wanted.only_new,
            after: BTreeMap::new(),
            timeout: REINDEX_LIMIT,
        };
        let Total { copied, seqs: _, shards } = self.reindex_everywhere(&indexes, &order).await?;
        if is_refreshed {
            let refreshed = self.each_owner(&indexes, &target, Verb::Refresh).await;
            if let Some(refusal) = refreshed.refusal("refreshed") {
                return Err(refusal.into());
            }
        }
        let (status, body) = shown(&copied, wanted.only_new, wanted.proceeds, &target.name, &shards.failed);
        Ok(Reply::json(&with_took(body, millis(began.elapsed()))).status(status))
    }
}

fn with_took(mut body: Value, took: u64) -> Value {
    body["took"] = json!(took);
    body
}

/// The answer, and its status.
fn shown(
    copied: &Copied,
    only_new: bool,
    proceeds: bool,
    index: &str,
    failed: &[crate::search::ShardFailure],
) -> (u16, Value) {
    let (conflicts, noops) = if only_new { (copied.skipped, 0) } else { (0, copied.skipped) };
    let of_document = copied.refusals.iter().map(|refused| {
        json!({
            "index": index, "id": refused.id, "status": refused.status,
            "cause": { "type": "mapper_parsing_exception", "reason": refused.detail },
        })
    });
    let of_shard = failed.iter().map(|failure| {
        json!({
            "shard": failure.shard.as_u32(), "index": index, "status": 503,
            "reason": { "type": "unavailable_shards_exception", "reason": failure.reason },
        })
    });
    let failures: Vec<Value> = of_document.chain(of_shard).collect();
    let body = json!({
        "timed_out": copied.timed_out,
        "total": copied.created + copied.updated + copied.skipped + copied.refused,
        "created": copied.created,
        "updated": copied.updated,
        "deleted": 0,
        "batches": u64::from(copied.created + copied.updated > 0),
        "version_conflicts": conflicts,
        "noops": noops,
        "retries": { "bulk": 0, "search": 0 },
        "throttled_millis": 0,
        "requests_per_second": -1.0,
        "throttled_until_millis": 0,
        "failures": failures,
    });
    let status = match (failed.is_empty(), copied.refused > 0, conflicts > 0 && !proceeds) {
        (false, _, _) => 503,
        (true, true, _) => 400,
        (true, false, true) => 409,
        (true, false, false) => 200,
    };
    (status, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let body =
            br#"{"source": {"index": ["a"], "query": {"match_all": {}}, "size": 9}, "dest": {"index": "b"}}"#;
        let wanted = parse(body).unwrap();
        assert_eq!((wanted.source.as_str(), wanted.target.as_str()), ("a", "b"));
        assert_eq!((wanted.only_new, wanted.proceeds), (false, false));
        for (body, words) in [
            ("[]", "no JSON object"),
            ("{}", "[source] is missing"),
            (r#"{"source": {"index": "a"}}"#, "[dest] is missing"),
            (r#"{"source": {}, "dest": {"index": "b"}}"#, "[source.index] is missing"),
            (
                r#"{"source": {"index": ["a", "b"]}, "dest": {"index": "c"}}"#,
                "[source.index] names one index",
            ),
            (r#"{"source": {"index": "a*"}, "dest": {"index": "c"}}"#, "[source.index] names one index"),
            (r#"{"source": {"index": "a", "remote": {}}, "dest": {"index": "b"}}"#, "[source.remote]"),
            (r#"{"source": {"index": "a", "_source": []}, "dest": {"index": "b"}}"#, "[source._source]"),
            (r#"{"source": {"index": "a"}, "dest": {"index": "b", "pipeline": "p"}}"#, "[dest.pipeline]"),
            (r#"{"source": {"index": "a"}, "dest": {"index": "b", "op_type": "x"}}"#, "[dest.op_type] is"),
            (r#"{"source": {"index": "a"}, "dest": {"index": "b"}, "script": {}}"#, "[script] of [reindex]"),
            (
                r#"{"source": {"index": "a"}, "dest": {"index": "b"}, "max_docs": 1}"#,
                "[max_docs] of [reindex]",
            ),
            (r#"{"source": {"index": "a"}, "dest": {"index": "b"}, "conflicts": 1}"#, "[conflicts] is"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            let shown = error.to_json().to_string();
            assert!(error.status == 400 && shown.contains(words), "{body}: {shown}");
        }
    }
}
