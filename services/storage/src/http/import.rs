//! Stores many values at once: each line of a request is one, and each shard gets its lines in one write.
//!
//! All lines are parsed before anything is written, so nothing is written if one is bad. The parts of several shards
//! are written concurrently, and the request is answered once all are durable. An import is not atomic, but repeating
//! it does no harm.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Extensions, Method, Request};
use mesh::shards::{ShardError, scatter};
use plugin::Detach;
use plugin::http::{Answer, json, method_not_allowed, problem, problem_with};
use plugin::queue::Reserved;
use serde::{Deserialize, Serialize};
use serde_json::json;
use types::range::NumberIn;
use types::{ErrorKind, Problem, ShardId, Target};

use super::json_value::{self, JsonValue, JsonValueError};
use crate::data::change::Change;
use crate::service::StorageService;

/// The largest request: a value of the largest size as base64, and the rest of its line.
const MAX_BODY: usize = 12 * 1024 * 1024;
/// The largest number of lines in a request.
const MOST: usize = 10_000;
/// How long the shards may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The largest answer to a part.
const MAX_ANSWER: usize = 64 * 1024;

/// Milliseconds since 1970, until the end of the year 9999.
type ExpiresMs = NumberIn<1, 253_402_300_799_999>;

/// A line as the client sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenLine {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    expires_ms: Option<ExpiresMs>,
}

/// A parsed line.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Its bytes as received.
    pub(crate) text: &'a [u8],
    /// The change that it makes.
    pub(crate) change: Change,
}

/// Why an import is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImportError {
    /// Send fewer lines at once.
    #[error("there are more than {MOST} lines")]
    TooMany,
    /// Change this line.
    #[error("line {line}: {why}")]
    Line {
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with the line.
        why: LineError,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// Write one JSON object per line.
    #[error("it is no JSON object: one begins with a brace")]
    NoObject,
    /// Correct what the message names.
    #[error("{0}")]
    Json(String),
    /// See the message.
    #[error(transparent)]
    Given(#[from] JsonValueError),
}

/// Parses all lines, without empty ones. `expires` turns a time of day into data time.
pub(crate) fn parse(
    body: &[u8],
    max_value: usize,
    expires: impl Fn(NonZeroU64) -> NonZeroU64,
) -> Result<Vec<Line<'_>>, ImportError> {
    let mut lines = Vec::new();
    // Some programs begin a file with a byte order mark.
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    for (index, text) in body.split(|byte| *byte == b'\n').enumerate() {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if lines.len() == MOST {
            return Err(ImportError::TooMany);
        }
        let change =
            change(text, max_value, &expires).map_err(|why| ImportError::Line { line: index + 1, why })?;
        lines.push(Line { text, change });
    }
    Ok(lines)
}

fn change(
    text: &[u8],
    max_value: usize,
    expires: impl Fn(NonZeroU64) -> NonZeroU64,
) -> Result<Change, LineError> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(LineError::NoObject);
    }
    let given: GivenLine =
        serde_json::from_slice(text).map_err(|error| LineError::Json(in_one_line(&error)))?;
    let key = json_value::key(&given.key)?;
    let expires_ms = given.expires_ms.and_then(|at| NonZeroU64::new(at.get()));
    let value = JsonValue { text: given.value, base64: given.value_base64, content_type: given.content_type };
    Ok(Change::put(key, &value.record(expires_ms.map(expires), max_value)?))
}

/// What is wrong with the JSON, and at which column; each JSON text is one line, so its line number is left out.
fn in_one_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

impl StorageService {
    /// Answers an import.
    pub(crate) async fn import(&self, head: &Parts, body: Body) -> Answer {
        if head.method != Method::POST {
            return Err(method_not_allowed("POST"));
        }
        let asked = self.asked_shard(head)?;
        if asked.is_some() {
            self.member.has(asked)?;
            self.member.owner_only()?;
        }
        let (body, space) = self.read_body(head, body, MAX_BODY, 0).await?;
        let lines = parse(&body, self.max_value, |at| self.engine.in_data_time(at))
            .map_err(|error| refuse(&error))?;
        let imported = lines.len();
        let mut own = Vec::new();
        let mut others = BTreeMap::<ShardId, BytesMut>::new();
        for line in lines {
            let shard = self.member.shard_of(line.change.key.hash());
            if shard == self.member.shard && self.member.is_owner() {
                own.push(line.change);
            } else if asked.is_some() {
                return Err(self.member.elsewhere(shard));
            } else {
                let part = others.entry(shard).or_default();
                // Only between lines, so that no part is longer than the whole.
                if !part.is_empty() {
                    part.extend_from_slice(b"\n");
                }
                part.extend_from_slice(line.text);
            }
        }
        if others.is_empty() {
            drop(body);
            if !own.is_empty() {
                self.engine.import(own, space).await.map_err(|error| error.to_response())?;
            }
            return Ok(done(imported));
        }
        self.import_everywhere(own, others, space, &head.extensions).await?;
        Ok(done(imported))
    }

    /// Writes all parts concurrently.
    async fn import_everywhere(
        &self,
        own: Vec<Change>,
        others: BTreeMap<ShardId, BytesMut>,
        space: Reserved,
        request: &Extensions,
    ) -> Result<(), Response> {
        let parts: BTreeMap<_, _> = others.into_iter().map(|(shard, part)| (shard, part.freeze())).collect();
        let elsewhere = scatter(parts.keys().copied(), LIMIT, |shard| {
            let part = parts.get(&shard).cloned().unwrap_or_default();
            async move { self.import_at(shard, part).await }
        });
        // The space is held until the write for which it was taken ends.
        let (own_space, _held) = if own.is_empty() { (None, Some(space)) } else { (Some(space), None) };
        let here = async {
            let written = match own_space {
                Some(space) => self.engine.import(own, space).await,
                None => Ok(None),
            };
            // Other members write the rest, so a role that ends does not wait for them.
            Detach::of(request);
            written.err().map(|error| format!("shard {}: {error}", self.member.shard))
        };
        let (here, elsewhere) = tokio::join!(here, elsewhere);
        let elsewhere = elsewhere
            .into_iter()
            .filter_map(|(shard, written)| written.err().map(|error| format!("shard {shard}: {error}")));
        let failed: Vec<_> = here.into_iter().chain(elsewhere).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let detail = format!("not all is stored: {}", failed.join("; "));
        let refusal = Problem::new(ErrorKind::Unavailable, "import-incomplete", detail);
        Err(problem(&refusal.hint("send all of it again; lines that are already stored are stored again")))
    }

    /// Sends lines to the owner of their shard.
    async fn import_at(&self, shard: ShardId, lines: Bytes) -> Result<(), ShardError> {
        let request = Request::post(format!("/import?shard={shard}")).body(lines);
        let request = request.expect("a path with a number is a path");
        let service = &self.member.service;
        let done =
            self.mesh.fetch::<Imported>(service, Target::Shard(shard), request, MAX_ANSWER, LIMIT).await;
        done.map(|_| ())
    }
}

/// The answer of an import.
#[derive(Debug, Serialize, Deserialize)]
struct Imported {
    imported: usize,
}

fn refuse(error: &ImportError) -> Response {
    let hint = r#"each line is like {"key":"user/1","value":"text"}; `ctl kv export` writes them"#;
    let detail = error.to_string();
    match error {
        ImportError::TooMany => {
            let refusal = Problem::new(ErrorKind::TooLarge, "too-many-lines", detail);
            problem(&refusal.hint("send them in several requests"))
        }
        ImportError::Line { line, .. } => {
            let refusal = Problem::new(ErrorKind::Invalid, "bad-line", detail).hint(hint);
            problem_with(&refusal, "line", json!(line))
        }
    }
}

fn done(imported: usize) -> Response {
    json(json!(Imported { imported }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_values_and_empty_ones_are_skipped() {
        let body = b"{\"key\":\"a%20b\",\"value\":\"1\"}\r\n\n  \n{\"key\":\"b\",\"value_base64\":\"AP8=\",\"expires_ms\":7}";
        let lines = parse(body, 10, |at| at).unwrap();
        let keys: Vec<_> = lines.iter().map(|line| line.change.key.to_string()).collect();
        assert_eq!(keys, ["a%20b", "b"]);
        assert!(parse(b"", 10, |at| at).unwrap().is_empty());
        let marked = "\u{feff}{\"key\":\"a\",\"value\":\"\"}";
        assert_eq!(parse(marked.as_bytes(), 10, |at| at).unwrap().len(), 1, "the byte order mark is skipped");
    }

    #[test]
    fn a_bad_line_is_reported_with_its_number() {
        for (line, words) in [
            ("{", "column"),
            ("[]", "no JSON object"),
            ("\u{feff}{}", "no JSON object"),
            ("{\"key\":\"a\"}", "no value"),
            ("{\"value\":\"a\"}", "missing field `key`"),
            ("{\"key\":\"a\",\"valu\":\"a\"}", "unknown field `valu`"),
            ("{\"key\":\"a\",\"value\":\"12345678901\"}", "11 bytes"),
            ("{\"key\":\"%\",\"value\":\"\"}", "hexadecimal"),
            ("{\"key\":\"a\",\"value\":\"\",\"expires_ms\":0}", "a whole number from 1 to 253402300799999"),
            ("{\"key\":\"a\",\"value\":\"1\"} x", "trailing"),
        ] {
            let body = format!("{{\"key\":\"a\",\"value\":\"1\"}}\n\n{line}\n");
            match parse(body.as_bytes(), 10, |at| at) {
                Err(ImportError::Line { line: 3, why }) => {
                    assert!(why.to_string().contains(words), "{line}: {why}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        let many = "{\"key\":\"a\",\"value\":\"1\"}\n".repeat(MOST + 1);
        assert_eq!(parse(many.as_bytes(), 10, |at| at).err(), Some(ImportError::TooMany));
    }
}
