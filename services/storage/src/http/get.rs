//! Reads a key: at its read level, with the conditions of the request, sent a chunk at a time.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use plugin::Detach;
use plugin::http::conditions::{self, Precondition, set_etag};
use plugin::http::{Answer, CHUNK, NoSpace, Space, problem, read_level, set_staleness};
use plugin::shard::{Key, Read, ReadLevel};
use types::{ErrorKind, Problem, api};

use super::buffers::no_space;
use crate::data::record::{Record, Versioned};
use crate::service::StorageService;

/// Which part of the found value is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Head,
    /// Nothing: the client has this version already.
    Nothing,
    /// Nothing: the condition does not hold.
    PreconditionFailed,
}

/// What was read, and the space for it if it is large and will be sent.
type Found = (Read<Option<Versioned>>, Part, Option<Space>);

impl StorageService {
    /// Answers `GET` and `HEAD` of a key of this shard.
    pub(crate) async fn get(&self, key: &Key, head: &Parts) -> Answer {
        let level = read_level(head.uri.query().unwrap_or_default()).map_err(|error| error.to_response())?;
        let (Read { value, staleness }, part, space) = self.find(key, head, level).await?;
        let mut answer = match (part, value) {
            (Part::PreconditionFailed, value) => changed(value.map(|found| found.version)),
            (_, Some(found)) => show(found, part, space),
            (_, None) => {
                let detail = format!("there is no key `{key}`");
                let refusal = Problem::new(ErrorKind::NotFound, "no-such-key", detail);
                let list =
                    format!("GET /svc/{}/kv?prefix= lists the keys that there are", self.member.service);
                problem(&refusal.hint(list))
            }
        };
        if let Some(staleness) = staleness.filter(|_| level == ReadLevel::Any) {
            set_staleness(answer.headers_mut(), staleness);
        }
        // The answer is in memory, however slowly the client reads it.
        Detach::of(&head.extensions);
        Ok(answer)
    }

    async fn find(&self, key: &Key, head: &Parts, level: ReadLevel) -> Result<Found, Response> {
        let mut space: Option<Space> = None;
        loop {
            let found = match &self.replica {
                Some(replica) if level == ReadLevel::Any => replica.get(key).await,
                Some(_) => return Err(self.member.replica()),
                None => self.engine.get(key, level).await,
            };
            let found = found.map_err(|error| error.to_reader(level))?;
            let size = found.value.as_ref().map_or(0, |found| found.record.value().len());
            let part = part(head, found.value.as_ref().map(|found| found.version));
            if part != Part::Whole || size <= CHUNK {
                return Ok((found, part, None));
            }
            let had_space = space.is_some();
            let fitting = match space.take() {
                Some(mut space) => space.try_grow(size).then_some(space),
                None => self.buffers.values.try_take(size),
            };
            if fitting.is_some() {
                return Ok((found, part, fitting));
            }
            if had_space {
                // It has become larger meanwhile.
                return Err(no_space(NoSpace));
            }
            // The value does not wait in memory, and may have changed when there is space.
            drop(found);
            space = Some(self.buffers.values.take(size).await.map_err(no_space)?);
        }
    }
}

fn part(head: &Parts, version: Option<u64>) -> Part {
    match conditions::of_read(&head.headers, version) {
        Precondition::Failed => Part::PreconditionFailed,
        Precondition::NotModified => Part::Nothing,
        Precondition::Holds if head.method == Method::HEAD => Part::Head,
        Precondition::Holds => Part::Whole,
    }
}

fn changed(version: Option<u64>) -> Response {
    let what = version.map_or("no value".to_owned(), |version| format!("version {version}"));
    let detail = format!("the condition does not hold: the key has {what}");
    let refusal = Problem::new(ErrorKind::Changed, "precondition-failed", detail);
    let mut answer = problem(&refusal.hint("leave out `If-Match` to read the current value"));
    if let Some(version) = version {
        set_etag(answer.headers_mut(), version);
    }
    answer
}

fn show(Versioned { version, record }: Versioned, part: Part, space: Option<Space>) -> Response {
    let expires_ms = record.expires_ms();
    let mut answer = if part == Part::Nothing {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let (content_type, length) = (content_type(&record), record.value().len());
        let body = match space {
            _ if part == Part::Head => Body::empty(),
            Some(space) => space.body(record.into_value()),
            None => Body::from(record.into_value()),
        };
        let mut answer = Response::new(body);
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        answer
    };
    let headers = answer.headers_mut();
    set_etag(headers, version);
    if let Some(at) = expires_ms {
        headers.insert(HeaderName::from_static(api::EXPIRES_MS), HeaderValue::from(at.get()));
    }
    // A stored value must not act as a page of this node's API.
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The content type with which a value was put.
fn content_type(record: &Record) -> HeaderValue {
    let unknown = HeaderValue::from_static("application/octet-stream");
    HeaderValue::from_maybe_shared(record.content_type()).unwrap_or(unknown)
}
