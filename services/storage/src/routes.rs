//! The service over HTTP: thin handlers, and which member may answer.
//!
//! Paths are read raw, by the same functions for the choice of a member and for the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use plugin::response;
use tokio::time::timeout;
use types::{ErrorKind, Problem, ShardId, Target};

use crate::engine::Room;
use crate::key::{Key, KeyError};
use crate::page::{Page, Query};
use crate::record::{MAX_CONTENT_TYPE, Record};
use crate::service::StorageService;

/// How long the body of a request may take.
const UPLOAD: Duration = Duration::from_secs(60);

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Key(Result<Key, KeyError>),
    Listing,
    Nowhere,
}

fn place(path: &str) -> Place {
    match path.strip_prefix("/kv") {
        Some("") => Place::Listing,
        Some(rest) => rest.strip_prefix('/').map_or(Place::Nowhere, |key| Place::Key(Key::from_path(key))),
        None => Place::Nowhere,
    }
}

/// Which member may answer. What is malformed anyone may refuse.
pub(crate) fn target(uri: &Uri) -> Target {
    match place(uri.path()) {
        Place::Key(Ok(key)) => Target::Key(key.hash()),
        Place::Listing => Query::parse(uri.query().unwrap_or_default())
            .ok()
            .and_then(|query| query.shard)
            .map_or(Target::Any, Target::Shard),
        Place::Key(Err(_)) | Place::Nowhere => Target::Any,
    }
}

/// Everything below `/svc/storage`.
pub(crate) fn router(service: Arc<StorageService>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<StorageService>>, request: Request) -> Response {
    // A body can't be shared between threads, so only writes see it.
    let (head, body) = request.into_parts();
    let outcome = match place(head.uri.path()) {
        Place::Key(Ok(key)) => service.key(&key, &head, body).await,
        Place::Key(Err(error)) => Err(invalid("bad-key", &error)),
        Place::Listing => service.listing(&head).await,
        Place::Nowhere => {
            let detail = format!("storage has nothing at `{}`", head.uri.path());
            let problem = Problem::new(ErrorKind::NotFound, "unknown-path", detail);
            Err(refused(&problem.hint("keys are at /kv/{key}, their list is at /kv")))
        }
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

/// What is answered instead.
type Answer = Result<Response, Response>;

impl StorageService {
    async fn key(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        let shard = key.hash().shard(self.shards);
        if shard != self.shard {
            return Err(self.elsewhere(shard));
        }
        if head.uri.query().is_some_and(|query| !query.is_empty()) {
            // One that is not heard would be taken for heard.
            return Err(invalid("bad-query", "a key takes no parameters; `?` in a key itself is `%3F`"));
        }
        match head.method {
            Method::GET | Method::HEAD => self.get(key, head).await,
            Method::PUT => self.put(key, head, body).await,
            Method::DELETE => {
                refuse_conditions(&head.headers)?;
                self.engine.delete(key).await.map_err(|refusal| refusal.to_response())?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    async fn get(&self, key: &Key, head: &Parts) -> Answer {
        let record = self.engine.get(key).await.map_err(|refusal| refusal.to_response())?;
        let Some(record) = record else {
            let detail = format!("there is no key `{key}`");
            return Err(refused(&Problem::new(ErrorKind::NotFound, "no-such-key", detail)));
        };
        let etag = record.etag();
        let mut answer = if names(&head.headers, &etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let (content_type, length) = (record.content_type(), record.value().len());
            let is_head = head.method == Method::HEAD;
            let body = if is_head { Body::empty() } else { Body::from(record.into_value()) };
            let mut answer = Response::new(body);
            answer.headers_mut().insert(CONTENT_TYPE, content_type);
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            answer
        };
        let headers = answer.headers_mut();
        headers.insert(ETAG, header(etag));
        // What anyone stored must not act as a page of this node's API.
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer)
    }

    async fn put(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        refuse_conditions(&head.headers)?;
        for name in [CONTENT_RANGE, CONTENT_ENCODING] {
            if head.headers.contains_key(&name) {
                return Err(invalid(
                    "unsupported-header",
                    &format!("values are stored whole, without `{name}`"),
                ));
            }
        }
        let content_type = head.headers.get(CONTENT_TYPE);
        if content_type.is_some_and(|named| named.len() > MAX_CONTENT_TYPE) {
            let detail = format!("a content type has at most {MAX_CONTENT_TYPE} bytes");
            return Err(invalid("bad-content-type", &detail));
        }
        let told = body.size_hint().exact();
        let most = told.map_or(self.max_value, |told| usize::try_from(told).unwrap_or(usize::MAX));
        if most > self.max_value {
            return Err(self.too_large());
        }
        // Before anything is read, so that what waits in memory is bounded, and the refused may ask again.
        let room = self.engine.reserve(key.bytes().len() + most).map_err(|refusal| refusal.to_response())?;
        let value = self.read(body).await?;
        let record = Record::new(content_type, value);
        self.store(key, &record, room).await
    }

    async fn store(&self, key: &Key, record: &Record, room: Room) -> Answer {
        self.engine.put(key, record, room).await.map_err(|refusal| refusal.to_response())?;
        Ok((StatusCode::OK, [(ETAG, record.etag())]).into_response())
    }

    async fn read(&self, body: Body) -> Result<Bytes, Response> {
        let read = timeout(UPLOAD, Limited::new(body, self.max_value).collect()).await;
        let read = read.map_err(|_| {
            let detail = format!("the body did not come within {UPLOAD:?}");
            refused(&Problem::new(ErrorKind::Timeout, "slow-body", detail))
        })?;
        let whole = read.map_err(|error| {
            if error.is::<LengthLimitError>() {
                self.too_large()
            } else {
                invalid("broken-body", &format!("the body broke off: {error}"))
            }
        })?;
        Ok(whole.to_bytes())
    }

    async fn listing(&self, head: &Parts) -> Answer {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(not_allowed("GET, HEAD"));
        }
        let query = Query::parse(head.uri.query().unwrap_or_default()).map_err(|error| {
            let problem = Problem::new(ErrorKind::Invalid, "bad-query", error.to_string());
            refused(&match error.hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            })
        })?;
        let page = match query.shard {
            Some(shard) if shard.as_u32() >= self.shards.get() => {
                let detail = format!("there is no shard {shard}; there are {}", self.shards);
                return Err(invalid("unknown-shard", &detail));
            }
            Some(shard) if shard != self.shard => return Err(self.elsewhere(shard)),
            Some(_) => self.engine.page(&query).await.map_err(|refusal| refusal.to_response())?,
            None => self.gather(&query).await.map_err(|missing| {
                let problem = Problem::new(ErrorKind::Unavailable, "shard-missing", missing.to_string());
                refused(&problem.hint("try again in a moment; GET /v1/claims shows who owns which shard"))
            })?,
        };
        Ok(json(&page))
    }

    fn elsewhere(&self, shard: ShardId) -> Response {
        let detail = format!("that belongs to shard {shard}; this node has shard {}", self.shard);
        let problem = Problem::new(ErrorKind::Misdirected, "misdirected", detail);
        refused(&problem.hint("ask the owner of the shard, or the gateway, which knows it"))
    }

    fn too_large(&self) -> Response {
        let detail = format!("the value has more than {} bytes", self.max_value);
        refused(&Problem::new(ErrorKind::TooLarge, "value-too-large", detail))
    }
}

/// Writes with conditions would be taken for ones that hold.
fn refuse_conditions(headers: &HeaderMap) -> Result<(), Response> {
    let conditions = [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE];
    match conditions.iter().find(|name| headers.contains_key(*name)) {
        Some(name) => Err(invalid("conditional-write", &format!("writes with `{name}` are not supported"))),
        None => Ok(()),
    }
}

/// Whether `If-None-Match` names an entity tag (RFC 9110, section 13.1.2).
fn names(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn json(page: &Page) -> Response {
    let body = serde_json::to_vec(page).expect("a page is strings and numbers");
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn header(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("an entity tag is printable")
}

fn refused(problem: &Problem) -> Response {
    response::problem(problem)
}

fn invalid(code: &str, detail: &(impl ToString + ?Sized)) -> Response {
    refused(&Problem::new(ErrorKind::Invalid, code, detail.to_string()))
}

fn not_allowed(methods: &'static str) -> Response {
    let mut problem =
        Problem::new(ErrorKind::Invalid, "method-not-allowed", format!("allowed here: {methods}"));
    problem.status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    let mut answer = refused(&problem);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

#[cfg(test)]
mod tests {
    use types::KeyHash;

    use super::*;

    #[test]
    fn the_choice_of_a_shard_decodes_as_the_handler_does() {
        for (uri, expected) in [
            ("/kv/a", Target::Key(KeyHash::of(b"a"))),
            ("/kv/a%2Fb+c", Target::Key(KeyHash::of(b"a/b+c"))),
            ("/kv/%2525?x=1", Target::Key(KeyHash::of(b"%25"))),
            ("/kv//", Target::Key(KeyHash::of(b"/"))),
            ("/kv/a/../b", Target::Key(KeyHash::of(b"a/../b"))),
            ("/kv/%FF", Target::Key(KeyHash::of(&[255]))),
            ("/kv/%", Target::Any),
            ("/kv/", Target::Any),
            ("/kv", Target::Any),
            ("/kv?shard=2&limit=3", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/kv?shard=x", Target::Any),
            ("/kvs/a", Target::Any),
            ("/", Target::Any),
        ] {
            assert_eq!(target(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn a_tag_is_found_in_a_list_of_them() {
        let matches = |value: &'static str| {
            names(&HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]), "\"1\"")
        };
        assert!(matches("\"1\"") && matches("\"0\", W/\"1\"") && matches("*"));
        assert!(!matches("\"11\"") && !matches("1") && !matches(""));
    }
}
