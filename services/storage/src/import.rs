//! Many values at once, fast: each line of a request is one, and each shard gets its lines in one write.
//!
//! Lines are read before anything is written, so a bad one spoils nothing. The parts of several shards are written
//! beside each other; it is answered once all are durable. It is not atomic, but repeating it does no harm.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Extensions, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use plugin::Detach;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};
use types::range::NumberIn;
use types::{ErrorKind, Problem, ShardId};

use crate::answers::{extended, not_allowed, refused};
use crate::arrival::Reserved;
use crate::bodies::{check, no_foreign_page, read};
use crate::change::Change;
use crate::given::{self, GivenError, Value};
use crate::routes::Answer;
use crate::service::StorageService;

/// The largest request: the largest value as base64, and what else is in its line.
const MAX_BODY: usize = 12 * 1024 * 1024;
/// Lines in a request.
const MOST: usize = 10_000;
/// How long the shards may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A pause before a part is sent again.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest answer to a part.
const MAX_ANSWER: usize = 64 * 1024;

/// Milliseconds since 1970, up to the end of the year 9999.
type ExpiresMs = NumberIn<1, 253_402_300_799_999>;

/// A line as it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    key: String,
    value: Option<String>,
    value_base64: Option<String>,
    content_type: Option<String>,
    expires_ms: Option<ExpiresMs>,
}

/// What one line says.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// As it came.
    pub(crate) text: &'a [u8],
    /// What it means.
    pub(crate) change: Change,
}

/// Why a line, or the number of them, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImportError {
    /// Send fewer at once.
    #[error("there are more than {MOST} lines")]
    TooMany,
    /// Change this line.
    #[error("line {line}: {why}")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// What is wrong with it.
        why: LineError,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// Write one JSON object a line.
    #[error("it is no JSON object: one begins with a brace")]
    NoObject,
    /// Change what it says there.
    #[error("{0}")]
    Json(String),
    /// See the message.
    #[error(transparent)]
    Given(#[from] GivenError),
}

/// Reads all lines; empty ones are passed over. `expires` turns a time of day into data time.
pub(crate) fn parse(
    body: &[u8],
    max_value: usize,
    expires: impl Fn(NonZeroU64) -> NonZeroU64,
) -> Result<Vec<Line<'_>>, ImportError> {
    let mut lines = Vec::new();
    // Some programs begin a file with a mark of its encoding.
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
    let given: Given = serde_json::from_slice(text).map_err(|error| LineError::Json(in_one_line(&error)))?;
    let key = given::key(&given.key)?;
    let expires_ms = given.expires_ms.and_then(|at| NonZeroU64::new(at.get()));
    let value = Value { text: given.value, base64: given.value_base64, content_type: given.content_type };
    Ok(Change::put(key, &value.record(expires_ms.map(expires), max_value)?))
}

/// What is wrong with the JSON, and where in the line; that it is the first line of it says nothing.
fn in_one_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

impl StorageService {
    /// Imports lines.
    pub(crate) async fn import(&self, head: &Parts, body: Body) -> Answer {
        if head.method != Method::POST {
            return Err(not_allowed("POST"));
        }
        no_foreign_page(head)?;
        let asked = self.only_shard(head)?;
        if let Some(shard) = asked.filter(|asked| *asked != self.shard) {
            return Err(self.elsewhere(shard));
        }
        if asked.is_some() {
            self.owner_only()?;
        }
        let body = check(head, body, MAX_BODY).await?;
        let (body, room) = read(&self.engine, body, MAX_BODY, 0).await?;
        let lines = parse(&body, self.max_value, |at| self.engine.in_data_time(at))
            .map_err(|error| refuse(&error))?;
        let imported = lines.len();
        let mut own = Vec::new();
        let mut others = BTreeMap::<ShardId, BytesMut>::new();
        for line in lines {
            let shard = line.change.key.hash().shard(self.shards);
            if shard == self.shard && self.copy.is_none() {
                own.push(line.change);
            } else if asked.is_some() {
                return Err(self.elsewhere(shard));
            } else {
                let part = others.entry(shard).or_default();
                // Between them only, so that no part is longer than the whole.
                if !part.is_empty() {
                    part.extend_from_slice(b"\n");
                }
                part.extend_from_slice(line.text);
            }
        }
        if others.is_empty() {
            drop(body);
            if !own.is_empty() {
                self.engine.import(own, room).await.map_err(|refusal| refusal.to_response())?;
            }
            return Ok(done(imported));
        }
        self.import_everywhere(own, others, room, &head.extensions).await?;
        Ok(done(imported))
    }

    /// Writes all parts beside each other.
    async fn import_everywhere(
        &self,
        own: Vec<Change>,
        others: BTreeMap<ShardId, BytesMut>,
        room: Reserved,
        request: &Extensions,
    ) -> Result<(), Response> {
        let parts = others.into_iter().map(|(shard, part)| async move {
            self.import_at(shard, part.freeze()).await.map_err(|why| format!("shard {shard}: {why}"))
        });
        // The room is held until the end of what it was taken for.
        let (own_room, _held) = if own.is_empty() { (None, Some(room)) } else { (Some(room), None) };
        let here = async {
            let written = match own_room {
                Some(room) => self.engine.import(own, room).await,
                None => Ok(None),
            };
            // The rest is for other members to write: a role that ends does not wait for them.
            Detach::of(request);
            written.map(|_| ()).map_err(|refusal| format!("shard {}: {refusal}", self.shard))
        };
        let (here, parts) = tokio::join!(here, join_all(parts));
        let failed: Vec<_> = std::iter::once(here).chain(parts).filter_map(Result::err).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let detail = format!("not all is stored: {}", failed.join("; "));
        let problem = Problem::new(ErrorKind::Unavailable, "import-incomplete", detail);
        Err(refused(&problem.hint("send all of it again; what is stored already is stored once more")))
    }

    /// Has the owner of a shard import its lines.
    async fn import_at(&self, shard: ShardId, lines: Bytes) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let failed = match timeout_at(deadline, self.send_lines(shard, lines.clone())).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err((false, why))) => return Err(why),
                Ok(Err((true, why))) => why,
                Err(_) => return Err(format!("its owner did not answer within {PATIENCE:?}")),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(failed);
            }
            sleep(PAUSE).await;
        }
    }

    /// Says with what went wrong whether trying again may do better.
    async fn send_lines(&self, shard: ShardId, lines: Bytes) -> Result<(), (bool, String)> {
        let request = Request::post(format!("/import?shard={shard}")).body(Body::from(lines));
        let request = request.expect("a path with a number is a path");
        let answer = match self.mesh.send(&self.service, request).await {
            Ok(answer) => answer,
            // A large part is not kept by the mesh; it is kept here.
            Err(error @ mesh::MeshError::BodyTooLargeToResend { .. }) => {
                return Err((true, error.to_string()));
            }
            Err(error) => return Err((false, error.to_string())),
        };
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(());
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let problem = body.ok().and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
        let why = problem.map_or_else(|| format!("its owner answered {status}"), |problem| problem.detail);
        Err((false, why))
    }
}

fn refuse(error: &ImportError) -> Response {
    let hint = r#"each line is like {"key":"user/1","value":"text"}; `ctl kv export` writes them"#;
    let detail = error.to_string();
    match error {
        ImportError::TooMany => {
            let problem = Problem::new(ErrorKind::TooLarge, "too-many-lines", detail);
            refused(&problem.hint("send them in several requests"))
        }
        ImportError::Line { line, .. } => {
            let problem = Problem::new(ErrorKind::Invalid, "bad-line", detail).hint(hint);
            extended(&problem, "line", json!(line))
        }
    }
}

fn done(imported: usize) -> Response {
    let body = json!({ "imported": imported }).to_string();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_values_and_empty_ones_are_passed_over() {
        let body = b"{\"key\":\"a%20b\",\"value\":\"1\"}\r\n\n  \n{\"key\":\"b\",\"value_base64\":\"AP8=\",\"expires_ms\":7}";
        let lines = parse(body, 10, |at| at).unwrap();
        let keys: Vec<_> = lines.iter().map(|line| line.change.key.to_string()).collect();
        assert_eq!(keys, ["a%20b", "b"]);
        assert!(parse(b"", 10, |at| at).unwrap().is_empty());
        let marked = "\u{feff}{\"key\":\"a\",\"value\":\"\"}";
        assert_eq!(
            parse(marked.as_bytes(), 10, |at| at).unwrap().len(),
            1,
            "a mark of the encoding is no part of it"
        );
    }

    #[test]
    fn a_bad_line_is_told_with_its_number() {
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
