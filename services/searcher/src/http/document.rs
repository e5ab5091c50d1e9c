//! One document by its id: put, read, patched, deleted.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use plugin::Detach;
use plugin::http::conditions::{self, Precondition, set_etag};
use plugin::http::{Answer, CHUNK, json, method_not_allowed, problem, read_level, set_staleness};
use plugin::shard::ReadLevel;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;
use types::{ErrorKind, Problem};

use super::bulk::one_line;
use super::parameter::WriteParameters;
use super::path::DocumentId;
use super::refusal::Refusal;
use super::write::bad_document;
use crate::catalog::Index;
use crate::document::MAX_DOCUMENT;
use crate::document::id::{IdError, document_id};
use crate::query_pool::panicked;
use crate::service::SearcherService;
use crate::shard::{Change, Condition, FoundDocument, Outcome, Refused, Write, Written};

/// A document up to this size is checked on the thread that serves its connection.
const SMALL: usize = 64 * 1024;
/// The headers of a document's numbers.
const SEQ: HeaderName = HeaderName::from_static("coterie-seq");
const TERM: HeaderName = HeaderName::from_static("coterie-term");
const VERSION: HeaderName = HeaderName::from_static("coterie-version");

impl SearcherService {
    /// Answers a request for a document of this shard.
    pub(crate) async fn document(
        &self,
        index: &Arc<Index>,
        id: DocumentId,
        head: &Parts,
        body: Body,
    ) -> Answer {
        let query = head.uri.query().unwrap_or_default();
        match head.method {
            Method::GET | Method::HEAD => self.read_document(index, &id, head).await,
            Method::PUT => {
                self.member.owner_only()?;
                let parameters = WriteParameters::of(query, &head.headers, false)?;
                let (source, _space) = self.read_source(index, &id, head, body, Is::Document).await?;
                self.write_document(index, id, Change::Put(source), parameters).await
            }
            Method::PATCH => {
                self.member.owner_only()?;
                let parameters = WriteParameters::of(query, &head.headers, true)?;
                let is = if parameters.upsert { Is::Document } else { Is::Patch };
                let (patch, _space) = self.read_source(index, &id, head, body, is).await?;
                let upsert = parameters.upsert.then(|| patch.clone());
                self.write_document(index, id, Change::Merge { patch, upsert, detect_noop: true }, parameters)
                    .await
            }
            Method::DELETE => {
                self.member.owner_only()?;
                let parameters = WriteParameters::of(query, &head.headers, false)?;
                self.write_document(index, id, Change::Delete, parameters).await
            }
            _ => {
                self.member.owner_only()?;
                Err(method_not_allowed("GET, HEAD, PUT, PATCH, DELETE"))
            }
        }
    }

    async fn read_document(&self, index: &Arc<Index>, id: &DocumentId, head: &Parts) -> Answer {
        let level = read_level(head.uri.query().unwrap_or_default()).map_err(|error| error.to_response())?;
        if level != ReadLevel::Any {
            self.member.owner_only()?;
        }
        let read = self.shard.get(index, id.as_str(), level).await;
        let read = read.map_err(|error| Refusal::from(error).of_read(level))?;
        let seq = read.value.as_ref().map(|found| found.seq);
        let mut answer = match (conditions::of_read(&head.headers, seq), read.value) {
            (Precondition::Failed, _) => changed(seq, ErrorKind::Changed),
            (Precondition::NotModified, Some(found)) => {
                with_numbers(StatusCode::NOT_MODIFIED.into_response(), &found)
            }
            (Precondition::Holds, Some(found)) => self.show(found, head.method == Method::HEAD).await?,
            (_, None) => no_such_document(index, id),
        };
        if let Some(staleness) = read.staleness.filter(|_| level == ReadLevel::Any) {
            set_staleness(answer.headers_mut(), staleness);
        }
        // The answer is in memory, however slowly the client reads it.
        Detach::of(&head.extensions);
        Ok(answer)
    }

    async fn show(&self, found: FoundDocument, is_head: bool) -> Answer {
        let length = found.source.get().len();
        let mut answer = with_numbers(Response::new(Body::empty()), &found);
        if !is_head {
            let source = Bytes::from(String::from(Box::<str>::from(found.source)));
            *answer.body_mut() = if length <= CHUNK {
                Body::from(source)
            } else {
                let space = self.answers.take(length).await;
                let space = space.map_err(|error| error.to_response("try again in a moment"))?;
                space.body(source)
            };
        }
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        // A stored document must not act as a page of this node's API.
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer)
    }

    /// Reads the body: a document that fits the index, or a patch, as one line. The space is held until it is written.
    async fn read_source(
        &self,
        index: &Arc<Index>,
        id: &DocumentId,
        head: &Parts,
        body: Body,
        is: Is,
    ) -> Result<(Box<RawValue>, plugin::queue::Reserved), Response> {
        let most = self.max_body.min(MAX_DOCUMENT);
        let (body, space) = self.read_body(head, body, most, &self.bodies.outer).await?;
        let source = if body.len() <= SMALL {
            checked(index, id, &body, is)
        } else {
            let (index, id) = (Arc::clone(index), id.clone());
            let checking = spawn_blocking(move || checked(&index, &id, &body, is));
            checking.await.map_err(|error| panicked(error).refusal())?
        };
        Ok((source?, space))
    }

    async fn write_document(
        &self,
        index: &Arc<Index>,
        id: DocumentId,
        change: Change,
        parameters: WriteParameters,
    ) -> Answer {
        let WriteParameters { refresh, condition, upsert: _ } = parameters;
        let write = Write { index: Arc::clone(index), id: id.as_str().to_owned(), change, condition };
        let mut written = self.shard.write(vec![write], refresh).await.map_err(Refusal::from)?;
        match written.pop() {
            Some(Ok(written)) => Ok(done(index, &id, written)),
            Some(Err(Refused::Changed { now })) => {
                // The parameters are Elasticsearch's, and so is their status.
                let is_parameter = matches!(condition, Some(Condition::Is { .. }));
                Err(changed(now, if is_parameter { ErrorKind::Conflict } else { ErrorKind::Changed }))
            }
            Some(Err(Refused::NoDocument)) => Err(no_such_document(index, &id)),
            Some(Err(Refused::Document(detail))) => {
                let hint = "change the document; `GET /{index}` shows the fields of the index";
                Err(Refusal::invalid("bad-document", &detail, hint).into())
            }
            None => {
                let detail = "the shard did not say what became of the write";
                Err(problem(&Problem::new(ErrorKind::Internal, "outcome-unknown", detail)))
            }
        }
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Document,
    /// Only what a merge makes of it must fit the index.
    Patch,
}

fn checked(index: &Index, id: &DocumentId, body: &[u8], is: Is) -> Result<Box<RawValue>, Refusal> {
    let hint = "send one JSON object as the body";
    let bad = |detail: String| Refusal::invalid("bad-document", &detail, hint);
    let text = std::str::from_utf8(body).map_err(|error| bad(format!("it is no UTF-8: {error}")))?;
    if is == Is::Document {
        index.schema.check(text).map_err(|error| bad_document(&error))?;
    } else if text.trim_ascii_start().as_bytes().first() != Some(&b'{') {
        return Err(bad("a patch is a JSON object".to_owned()));
    }
    document_id(&index.schema.definition, text, Some(id.as_str())).map_err(|error| match &error {
        IdError::Document(error) => bad_document(error),
        IdError::Empty | IdError::TooLong { .. } | IdError::Differs { .. } | IdError::NoId { .. } => {
            Refusal::invalid("bad-id", &error, "the id in the path and the one in the document are the same")
        }
    })?;
    one_line(text).map_err(|error| bad(format!("the body is no JSON: {error}")))
}

fn done(index: &Index, id: &DocumentId, written: Written) -> Response {
    let Written { seq, term, version, outcome } = written;
    let (status, result) = match outcome {
        Outcome::Created => (StatusCode::CREATED, "created"),
        Outcome::Updated => (StatusCode::OK, "updated"),
        Outcome::Deleted => (StatusCode::OK, "deleted"),
        Outcome::Noop => (StatusCode::OK, "noop"),
        Outcome::NotFound => (StatusCode::OK, "not_found"),
    };
    let body = json!({
        "id": id.as_str(), "index": index.name, "seq": seq, "term": term, "version": version, "result": result,
    });
    let mut answer = json(body.to_string());
    *answer.status_mut() = status;
    if matches!(outcome, Outcome::Created | Outcome::Updated | Outcome::Noop) {
        set_etag(answer.headers_mut(), seq);
    }
    answer
}

fn with_numbers(mut answer: Response, found: &FoundDocument) -> Response {
    let headers = answer.headers_mut();
    set_etag(headers, found.seq);
    for (name, number) in [(SEQ, found.seq), (TERM, found.term), (VERSION, found.version)] {
        headers.insert(name, HeaderValue::from(number));
    }
    answer
}

fn no_such_document(index: &Index, id: &DocumentId) -> Response {
    let detail = format!("the index `{}` has no document `{id}`", index.name);
    let refusal = Problem::new(ErrorKind::NotFound, "no-such-document", detail);
    problem(&refusal.hint("put it, or search for it; `PATCH` with `?upsert=true` creates it"))
}

/// The refusal of a request whose condition does not hold.
fn changed(seq: Option<u64>, kind: ErrorKind) -> Response {
    let what = seq.map_or("there is no document".to_owned(), |seq| format!("operation {seq} wrote it"));
    let code = if kind == ErrorKind::Conflict { "version-conflict" } else { "precondition-failed" };
    let refusal = Problem::new(kind, code, format!("the condition does not hold: {what}"));
    let mut answer = problem(&refusal.hint("nothing was changed; read the document, then decide again"));
    if let Some(seq) = seq {
        set_etag(answer.headers_mut(), seq);
    }
    answer
}
