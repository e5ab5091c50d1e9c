//! The service over HTTP: thin handlers, and which member may answer.
//!
//! Paths are read raw, by the same functions for the choice of a member and for the answer.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{
    ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use plugin::response;
use tokio::time::timeout;
use types::{ErrorKind, Problem, ShardId, Target, api};

use crate::bounds::{self, Room, SLICE};
use crate::conditions::{condition, etag};
use crate::consistency::{self, Consistency, Stale};
use crate::cursor::Cursor;
use crate::expiry::ends_at;
use crate::key::{Key, KeyError, decode};
use crate::outgoing;
use crate::page::{Page, Query, QueryError};
use crate::record::{MAX_CONTENT_TYPE, Record, Versioned};
use crate::service::StorageService;
use crate::watch::{self, NotBegun, Watch};

/// How long the body of a request may take.
const UPLOAD: Duration = Duration::from_secs(60);

/// The largest body of a batch or an import.
pub(crate) const MAX_BODY: usize = 8 * 1024 * 1024;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Key(Result<Key, KeyError>),
    Listing,
    Batch,
    Import,
    Watch,
    Nowhere,
}

fn place(path: &str) -> Place {
    match path {
        "/batch" => return Place::Batch,
        "/import" => return Place::Import,
        "/watch" => return Place::Watch,
        _ => {}
    }
    match path.strip_prefix("/kv") {
        Some("") => Place::Listing,
        Some(rest) => rest.strip_prefix('/').map_or(Place::Nowhere, |key| Place::Key(Key::from_path(key))),
        None => Place::Nowhere,
    }
}

/// Which member may answer. What is malformed anyone may refuse.
pub(crate) fn target(uri: &Uri) -> Target {
    match place(uri.path()) {
        Place::Key(Ok(key)) => match Consistency::of_query(uri.query().unwrap_or_default()) {
            Ok(Consistency::Any) => Target::Copy(key.hash()),
            _ => Target::Key(key.hash()),
        },
        Place::Listing => match Query::parse(uri.query().unwrap_or_default()) {
            Ok(Query { shard: Some(shard), consistency: Consistency::Any, .. }) => Target::CopyOf(shard),
            Ok(Query { shard: Some(shard), .. }) => Target::Shard(shard),
            _ => Target::Any,
        },
        Place::Watch => Watch::shard_of(uri).map_or(Target::Any, Target::Shard),
        Place::Batch | Place::Import => {
            shard(uri.query().unwrap_or_default()).ok().flatten().map_or(Target::Any, Target::Shard)
        }
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
        Place::Batch => service.batch(&head, body).await,
        Place::Import => service.import(&head, body).await,
        Place::Watch => service.watch(&head).await,
        Place::Nowhere => {
            let detail = format!("storage has nothing at `{}`", head.uri.path());
            let problem = Problem::new(ErrorKind::NotFound, "unknown-path", detail);
            Err(refused(
                &problem.hint("keys are at /kv/{key}, their list is at /kv, their changes at /watch"),
            ))
        }
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

/// What was read, and the room for it if it is large.
type Found = (Stale<Option<Versioned>>, Option<Room>);

/// What is answered instead.
pub(crate) type Answer = Result<Response, Response>;

impl StorageService {
    async fn key(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        let shard = key.hash().shard(self.shards);
        if shard != self.shard {
            return Err(self.elsewhere(shard));
        }
        if matches!(head.method, Method::GET | Method::HEAD) {
            return self.get(key, head).await;
        }
        if head.method != Method::PUT && head.uri.query().is_some_and(|query| !query.is_empty()) {
            // One that is not heard would be taken for heard.
            let detail = "a key takes a `ttl` when it is put, a `consistency` when it is read, and nothing else; \
                          `?` in a key itself is `%3F`";
            return Err(invalid("bad-query", detail));
        }
        self.owner_only()?;
        match head.method {
            Method::PUT => self.put(key, head, body).await,
            Method::DELETE => {
                let condition = condition(&head.headers).map_err(|error| invalid("bad-condition", &error))?;
                self.engine.delete(key, condition).await.map_err(|refusal| refusal.to_response())?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    async fn get(&self, key: &Key, head: &Parts) -> Answer {
        let consistency =
            Consistency::of_query(head.uri.query().unwrap_or_default()).map_err(|error| bad_query(&error))?;
        let is_head = head.method == Method::HEAD;
        let (Stale { value, by }, room) = self.find(key, consistency, is_head).await?;
        let by = by.filter(|_| consistency == Consistency::Any);
        let Some(Versioned { version, record }) = value else {
            let detail = format!("there is no key `{key}`");
            let mut answer = refused(&Problem::new(ErrorKind::NotFound, "no-such-key", detail));
            if let Some(by) = by {
                consistency::tell(answer.headers_mut(), by);
            }
            return Err(answer);
        };
        let (etag, expires_ms) = (etag(version), record.expires_ms());
        let mut answer = if names(&head.headers, &etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let (content_type, length) = (record.content_type(), record.value().len());
            let body = match room {
                _ if is_head => Body::empty(),
                Some(room) => room.body(record.into_value()),
                None => Body::from(record.into_value()),
            };
            let mut answer = Response::new(body);
            answer.headers_mut().insert(CONTENT_TYPE, content_type);
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            answer
        };
        let headers = answer.headers_mut();
        headers.insert(ETAG, header(etag));
        if let Some(by) = by {
            consistency::tell(headers, by);
        }
        if let Some(at) = expires_ms {
            headers.insert(HeaderName::from_static(api::EXPIRES_MS), HeaderValue::from(at.get()));
        }
        // What anyone stored must not act as a page of this node's API.
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer)
    }

    /// Reads a key, and takes room for its value if that is large and will be sent.
    async fn find(&self, key: &Key, consistency: Consistency, is_head: bool) -> Result<Found, Response> {
        let mut room: Option<Room> = None;
        loop {
            let found = match &self.copy {
                Some(copy) if consistency == Consistency::Any => copy.get(key).await,
                Some(_) => return Err(self.only_a_copy()),
                None => self.engine.get(key, consistency).await,
            };
            let found = found.map_err(|refusal| refusal.to_response())?;
            let size = found.value.as_ref().map_or(0, |found| found.record.value().len());
            if is_head || size <= SLICE {
                return Ok((found, None));
            }
            let had_room = room.is_some();
            let fitting = match room.take() {
                Some(mut room) => room.try_grow(size).then_some(room),
                None => self.bounds.values.try_take(size),
            };
            if fitting.is_some() {
                return Ok((found, fitting));
            }
            if had_room {
                // It has become larger.
                return Err(bounds::no_room());
            }
            // It does not wait here, and may be another one then.
            drop(found);
            room = Some(self.bounds.values.take(size).await.ok_or_else(bounds::no_room)?);
        }
    }

    async fn put(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        let condition = condition(&head.headers).map_err(|error| invalid("bad-condition", &error))?;
        let expires_ms = expires_ms(head.uri.query().unwrap_or_default())?;
        let content_type = head.headers.get(CONTENT_TYPE);
        if content_type.is_some_and(|named| named.len() > MAX_CONTENT_TYPE) {
            let detail = format!("a content type has at most {MAX_CONTENT_TYPE} bytes");
            return Err(invalid("bad-content-type", &detail));
        }
        let most = told(head, &body, self.max_value)?;
        // Before anything is read, so that what waits in memory is bounded, and the refused may ask again.
        let room = self.engine.reserve(key.bytes().len() + most).map_err(|refusal| refusal.to_response())?;
        let value = read(body, self.max_value).await?;
        let record = Record::new(content_type, value).expiring(expires_ms);
        let written = self.engine.put(key, &record, condition, room).await;
        let written = written.map_err(|refusal| refusal.to_response())?;
        let headers: HeaderMap = written.map(|version| (ETAG, header(etag(version)))).into_iter().collect();
        Ok((StatusCode::OK, headers).into_response())
    }

    async fn listing(&self, head: &Parts) -> Answer {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(not_allowed("GET, HEAD"));
        }
        let query = Query::parse(head.uri.query().unwrap_or_default()).map_err(|error| bad_query(&error))?;
        self.owns(query.shard)?;
        if query.shard.is_some() && self.copy.is_some() && query.consistency != Consistency::Any {
            return Err(self.only_a_copy());
        }
        let outbox = if query.shard.is_some() { &self.bounds.pages } else { &self.bounds.gathered };
        let room = outbox.take(query.cost()).await.ok_or_else(bounds::no_room)?;
        let page = match query.shard {
            Some(_) => self.page(&query).await.map_err(|refusal| refusal.to_response())?,
            None => self.gather(&query).await.map_err(|missing| {
                let problem = Problem::new(ErrorKind::Unavailable, "shard-missing", missing.to_string());
                refused(&problem.hint("try again in a moment; GET /v1/claims shows who owns which shard"))
            })?,
        };
        let mut answer = json(&page.value, room).ok_or_else(bounds::no_room)?;
        if let Some(by) = page.by.filter(|_| query.consistency == Consistency::Any) {
            consistency::tell(answer.headers_mut(), by);
        }
        Ok(answer)
    }

    async fn watch(self: &Arc<Self>, head: &Parts) -> Answer {
        if head.method != Method::GET {
            return Err(not_allowed("GET"));
        }
        let watch = Watch::of(head).map_err(|error| bad_query(&error))?;
        self.owns(watch.shard)?;
        let shards = watch.shard.map_or_else(|| self.all_shards(), |shard| vec![shard]);
        let from = watch.from.as_deref().map(|text| Cursor::parse(text, &shards)).transpose();
        let from = from.map_err(|error| {
            let problem = Problem::new(ErrorKind::Invalid, "bad-cursor", error.to_string());
            refused(
                &problem.hint("give the `id` of an event of this stream as it came, or none to begin now"),
            )
        })?;
        let watching = self.bounds.watch()?;
        let ending = self.ending.clone().cancelled_owned();
        let Some(shard) = watch.shard else {
            let begun = self.watch_all(&watch, from.as_ref()).await;
            let (cursor, sent) = begun.map_err(|problem| refused(&problem))?;
            return Ok(outgoing::answer(cursor, sent.take_until(ending), &self.bounds, watching));
        };
        self.owner_only()?;
        let from = from.and_then(|cursor| cursor.place(shard));
        let begun =
            watch::begin(&self.engine, &watch, shard, from, &self.bounds.events).await.map_err(|error| {
                match error {
                    NotBegun::Gone(problem) => refused(&problem),
                    NotBegun::Refused(refusal) => refusal.to_response(),
                }
            })?;
        let sent = begun.changes.map(move |sent| (shard, sent)).take_until(ending);
        Ok(outgoing::answer(Cursor::new([(shard, begun.place)]), sent, &self.bounds, watching))
    }

    /// Refuses a shard that there is not, or that this node does not have.
    fn owns(&self, shard: Option<ShardId>) -> Result<(), Response> {
        match shard {
            Some(shard) if shard.as_u32() >= self.shards.get() => Err(unknown_shard(shard, self.shards)),
            Some(shard) if shard != self.shard => Err(self.elsewhere(shard)),
            _ => Ok(()),
        }
    }

    /// Refuses what a copy can't do.
    pub(crate) fn owner_only(&self) -> Result<(), Response> {
        if self.copy.is_some() { Err(self.only_a_copy()) } else { Ok(()) }
    }

    fn only_a_copy(&self) -> Response {
        let detail = format!("this node has a copy of shard {}; only the owner answers that", self.shard);
        let problem = Problem::new(ErrorKind::Misdirected, "only-a-copy", detail);
        response::not_processed(
            &problem.hint("ask the owner or the gateway, or read with `?consistency=any`"),
        )
    }

    pub(crate) fn elsewhere(&self, shard: ShardId) -> Response {
        let detail = format!("that belongs to shard {shard}; this node has shard {}", self.shard);
        let problem = Problem::new(ErrorKind::Misdirected, "misdirected", detail);
        refused(&problem.hint("ask the owner of the shard, or the gateway, which knows it"))
    }
}

/// When the value of a `PUT` expires: `?ttl=30s`.
fn expires_ms(query: &str) -> Result<Option<NonZeroU64>, Response> {
    let wrong = |why: &dyn ToString| {
        let problem = Problem::new(ErrorKind::Invalid, "bad-query", why.to_string());
        refused(&problem.hint("`PUT /kv/{key}?ttl=30s`; `?` in a key itself is `%3F`"))
    };
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let Some(pair) = pairs.next() else { return Ok(None) };
    let Some(("ttl", text)) = pair.split_once('=') else {
        return Err(wrong(&format!("a `PUT` takes a `ttl` and nothing else, not `{pair}`")));
    };
    if pairs.next().is_some() {
        return Err(wrong(&"a `PUT` takes one `ttl` and nothing else"));
    }
    let text = decode(text).map_err(|error| wrong(&error))?;
    let ends = ends_at(&String::from_utf8_lossy(&text), SystemTime::now()).map_err(|error| wrong(&error))?;
    Ok(Some(ends))
}

/// The query of a batch or an import, `shard=3`. Says what is wrong with another one.
fn shard(query: &str) -> Result<Option<ShardId>, String> {
    if query.is_empty() {
        return Ok(None);
    }
    let number = query.strip_prefix("shard=").and_then(|number| number.parse::<u32>().ok());
    let shard = number.and_then(|number| ShardId::try_from(number).ok());
    shard.map(Some).ok_or_else(|| format!("only the number of a `shard` may be given, not `{query}`"))
}

/// The shard that a batch or an import says all its keys are in.
pub(crate) fn only_shard(head: &Parts, shards: NonZeroU32) -> Result<Option<ShardId>, Response> {
    let shard = shard(head.uri.query().unwrap_or_default()).map_err(|why| invalid("bad-query", &why))?;
    match shard.filter(|shard| shard.as_u32() >= shards.get()) {
        Some(shard) => Err(unknown_shard(shard, shards)),
        None => Ok(shard),
    }
}

fn unknown_shard(shard: ShardId, shards: NonZeroU32) -> Response {
    invalid("unknown-shard", &format!("there is no shard {shard}; there are {shards}"))
}

/// Refuses a `POST` that a page of somebody else may have made a browser send: it needs no leave for bodies that are not
/// said to be JSON (the Fetch standard, CORS-safelisted request-header), and names the page in `Origin`.
pub(crate) fn no_foreign_page(head: &Parts) -> Result<(), Response> {
    let named = head.headers.get(CONTENT_TYPE).and_then(|named| named.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim();
    let is_json =
        ["application/json", "application/x-ndjson"].iter().any(|json| essence.eq_ignore_ascii_case(json));
    if is_json || !head.headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let detail = "a browser sends this, and it is not said to be JSON, so any page may be behind it";
    let problem = Problem::new(ErrorKind::Invalid, "foreign-page", detail);
    Err(refused(&problem.hint("send `Content-Type: application/json`")))
}

/// How many bytes a body has, as far as it is known before it is read: at most so many.
pub(crate) fn told(head: &Parts, body: &Body, most: usize) -> Result<usize, Response> {
    for name in [CONTENT_RANGE, CONTENT_ENCODING] {
        if head.headers.contains_key(&name) {
            return Err(invalid("unsupported-header", &format!("bodies are taken whole, without `{name}`")));
        }
    }
    let told = body.size_hint().exact().map(|told| usize::try_from(told).unwrap_or(usize::MAX));
    if told.is_some_and(|told| told > most) { Err(too_large(most)) } else { Ok(told.unwrap_or(most)) }
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, Response> {
    let read = timeout(UPLOAD, Limited::new(body, most).collect()).await;
    let read = read.map_err(|_| {
        let detail = format!("the body did not come within {UPLOAD:?}");
        refused(&Problem::new(ErrorKind::Timeout, "slow-body", detail))
    })?;
    let whole = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large(most)
        } else {
            invalid("broken-body", &format!("the body broke off: {error}"))
        }
    })?;
    Ok(whole.to_bytes())
}

fn too_large(most: usize) -> Response {
    let detail = format!("the body has more than {most} bytes");
    refused(&Problem::new(ErrorKind::TooLarge, "value-too-large", detail))
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

/// Nothing if it needs more room than there is.
fn json(page: &Page, mut room: Room) -> Option<Response> {
    let body = serde_json::to_vec(page).expect("a page is strings and numbers");
    let length = (CONTENT_LENGTH, HeaderValue::from(body.len()));
    let body = if body.len() <= SLICE {
        Body::from(body)
    } else {
        room.try_grow(body.len()).then(|| room.body(body.into()))?
    };
    Some(([length, (CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

fn header(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("an entity tag is printable")
}

/// A problem with one more member for programs (RFC 9457, section 3.2).
pub(crate) fn extended(problem: &Problem, name: &str, value: serde_json::Value) -> Response {
    let mut whole = serde_json::to_value(problem).expect("a problem is strings and numbers");
    whole[name] = value;
    let (head, _) = response::problem(problem).into_parts();
    Response::from_parts(head, Body::from(whole.to_string()))
}

pub(crate) fn refused(problem: &Problem) -> Response {
    response::problem(problem)
}

pub(crate) fn invalid(code: &str, detail: &(impl ToString + ?Sized)) -> Response {
    refused(&Problem::new(ErrorKind::Invalid, code, detail.to_string()))
}

fn bad_query(error: &QueryError) -> Response {
    let problem = Problem::new(ErrorKind::Invalid, "bad-query", error.to_string());
    refused(&match &error.hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    })
}

pub(crate) fn not_allowed(methods: &'static str) -> Response {
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
            ("/kv/a?consistency=any", Target::Copy(KeyHash::of(b"a"))),
            ("/kv/a?consistency=primary", Target::Key(KeyHash::of(b"a"))),
            ("/kv?consistency=any", Target::Any),
            ("/kv?shard=2&consistency=any", Target::CopyOf(ShardId::try_from(2).unwrap())),
            ("/watch", Target::Any),
            ("/watch?prefix=a&from=0:1.0", Target::Any),
            ("/watch?shard=2&from=2:1.0", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/watch?shard=x", Target::Any),
            ("/kvs/a", Target::Any),
            ("/kv/x%7Ba%7Dy", Target::Key(KeyHash::of(b"a"))),
            ("/batch", Target::Any),
            ("/batch?shard=2", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/import", Target::Any),
            ("/import?shard=2", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/import?shard=x", Target::Any),
            ("/import/", Target::Any),
            ("/", Target::Any),
        ] {
            assert_eq!(target(&uri.parse().unwrap()), expected, "{uri}");
        }
    }

    #[test]
    fn a_page_of_somebody_else_can_not_post() {
        for (origin, content_type, is_taken) in [
            (None, None, true),
            (None, Some("application/x-www-form-urlencoded"), true),
            (Some("https://evil.example"), None, false),
            (Some("https://evil.example"), Some("text/plain;charset=UTF-8"), false),
            (Some("https://shop.example"), Some("application/json; charset=utf-8"), true),
            (Some("null"), Some("application/x-ndjson"), true),
        ] {
            let mut request = http::Request::post("/batch");
            for (name, value) in [(ORIGIN, origin), (CONTENT_TYPE, content_type)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(no_foreign_page(&head).is_ok(), is_taken, "{origin:?} {content_type:?}");
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
