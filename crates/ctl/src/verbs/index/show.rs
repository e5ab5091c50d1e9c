//! `ctl index show`: what an index is, and how its shards are.

use std::collections::BTreeSet;

use client::ClientError;
use serde_json::Value;

use super::IndexName;
use crate::exit::{Exit, Failure};
use crate::out::{Format, say};
use crate::owner::{Twice, with_owner};
use crate::reach::{Cx, Reached};
use crate::render;
use crate::suggest;

pub(super) async fn run(
    reached: &Reached,
    index: &IndexName,
    format: Format,
    cx: &Cx,
) -> anyhow::Result<Exit> {
    let shown = fetch(reached, index).await?;
    cx.out.data(format, &shown, |shown| text(index, shown), |_| vec![index.to_string()])?;
    if shown.get("is_complete") == Some(&Value::Bool(false)) {
        say("incomplete: a shard did not answer");
        return Ok(Exit::Error);
    }
    Ok(Exit::Ok)
}

/// The index, or an error with a similar name.
pub(super) async fn fetch(reached: &Reached, index: &IndexName) -> anyhow::Result<Value> {
    let showing = async |member: &client::Client| member.index(index.as_str()).await;
    ask(reached, index, Twice::Harmless, showing).await
}

/// Sends a request about an index to a member. If there is no such index, the error suggests one.
pub(crate) async fn ask<T>(
    reached: &Reached,
    index: &IndexName,
    twice: Twice,
    request: impl AsyncFn(&client::Client) -> Result<T, ClientError>,
) -> anyhow::Result<T> {
    match with_owner(reached, None, twice, request).await {
        Err(error) if is_unknown(&error) => Err(unknown(reached, index).await),
        answer => answer,
    }
}

/// There is no such index.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Missing(#[source] Failure);

/// Whether an error of [`fetch`] says that there is no such index.
pub(super) fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Missing>().is_some()
}

fn is_unknown(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
    problem.is_some_and(|problem| problem.code() == "no-such-index")
}

async fn unknown(reached: &Reached, index: &IndexName) -> anyhow::Error {
    let listing = async |member: &client::Client| member.indexes().await;
    let indexes = with_owner(reached, None, Twice::Harmless, listing).await.unwrap_or_default();
    let names: Vec<_> = indexes.iter().map(|index| index.name.as_str()).collect();
    let hint = match names[..] {
        [] => "there are none; `ctl index create` makes one".to_owned(),
        _ => suggest::hint(index.as_str(), &names),
    };
    Missing(Failure::new(Exit::Error, format!("there is no index `{index}`")).hint(hint)).into()
}

/// The single values, then the fields, the rest of the definition and the shards. Pure.
fn text(index: &IndexName, shown: &Value) -> String {
    let mut parts = vec![head(index, shown)];
    let definition = shown.get("definition").and_then(Value::as_object);
    if let Some(fields) = definition.and_then(|definition| definition.get("fields")?.as_object()) {
        let row = |(name, field): (&String, &Value)| {
            let members = field.as_object().into_iter().flatten();
            let options = members.filter(|(key, _)| *key != "type");
            let options: Vec<_> = options.map(|(key, value)| format!("{key}: {}", cell(value))).collect();
            vec![name.clone(), field.get("type").map(cell).unwrap_or_default(), options.join(", ")]
        };
        let rows: Vec<_> = fields.iter().map(row).collect();
        if !rows.is_empty() {
            parts.push(render::table(&["FIELD", "TYPE", "OPTIONS"], &rows));
        }
    }
    if let Some(shards) = shown.get("shards").and_then(Value::as_array).filter(|shards| !shards.is_empty()) {
        parts.push(table(shards));
    }
    parts.join("\n\n")
}

/// `packages: 12 documents, 1.5 MiB`, and a line for each other value.
fn head(index: &IndexName, shown: &Value) -> String {
    let number = |key: &str| shown.get(key).and_then(Value::as_u64);
    let documents = number("documents")
        .map(|number| render::count(usize::try_from(number).unwrap_or(usize::MAX), "document"));
    let about: Vec<_> = documents.into_iter().chain(number("bytes").map(render::bytes)).collect();
    let mut lines = vec![match about[..] {
        [] => index.to_string(),
        _ => format!("{index}: {}", about.join(", ")),
    }];
    let definition = shown.get("definition").and_then(Value::as_object);
    let rest = definition.into_iter().flatten().filter(|(key, _)| *key != "fields");
    let others = shown.as_object().into_iter().flatten();
    let others = others.filter(|(key, value)| {
        let is_shown =
            ["name", "definition", "shards", "documents", "bytes", "is_complete"].contains(&key.as_str());
        !is_shown && !value.is_object()
    });
    for (key, value) in rest.chain(others).filter(|(_, value)| !is_empty(value)) {
        lines.push(format!("{}: {}", key.replace('_', " "), render::clean(&cell(value))));
    }
    lines.join("\n")
}

/// A row for each shard, with a column for everything that some of them tell; the number of the shard first.
fn table(shards: &[Value]) -> String {
    let keys: BTreeSet<&String> =
        shards.iter().filter_map(Value::as_object).flat_map(|shard| shard.keys()).collect();
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_key(|key| (*key != "shard", *key != "node", *key));
    let header: Vec<_> = keys.iter().map(|key| key.replace('_', " ").to_uppercase()).collect();
    let header: Vec<_> = header.iter().map(String::as_str).collect();
    let value = |shard: &Value, key: &str| match shard.get(key) {
        Some(Value::Number(bytes)) if key == "bytes" => bytes.as_u64().map(render::bytes).unwrap_or_default(),
        other => other.filter(|value| !is_empty(value)).map(cell).unwrap_or_default(),
    };
    let rows: Vec<Vec<_>> =
        shards.iter().map(|shard| keys.iter().map(|key| value(shard, key)).collect()).collect();
    render::table(&header, &rows)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A value as text: `a, b` for a list, `title: 3, body: 1` for an object.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| format!("{key}: {}", cell(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_index_is_shown_with_its_fields_and_its_shards() {
        let shown = json!({
            "name": "books", "uuid": "0198", "documents": 12, "bytes": 2048, "declared": true,
            "definition": {
                "fields": { "title": { "type": "text", "analyzer": "en" }, "year": { "type": "i64" } },
                "dynamic": "strict", "id": "isbn", "default_fields": { "title": 3.0, "body": 1.0 }, "synonyms": [],
            },
            "shards": [
                { "shard": 0, "documents": 7, "bytes": 1024, "node": "a" },
                { "shard": 1, "reason": "no owner" },
            ],
        });
        assert_eq!(
            text(&"books".parse().unwrap(), &shown),
            "\
books: 12 documents, 2.0 KiB
default fields: body: 1.0, title: 3.0
dynamic: strict
id: isbn
declared: true
uuid: 0198

FIELD  TYPE  OPTIONS
title  text  analyzer: en
year   i64

SHARD  NODE  BYTES    DOCUMENTS  REASON
0      a     1.0 KiB  7
1                                no owner"
        );
        assert_eq!(text(&"b".parse().unwrap(), &json!({})), "b");
    }
}
