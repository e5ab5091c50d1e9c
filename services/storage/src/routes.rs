//! The service over HTTP: thin handlers.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use plugin::{Detach, response};
use tokio::time::sleep;
use types::{ErrorKind, Problem, ShardId};

use crate::answers::{bad_query, invalid, not_allowed, refused, unknown_shard};
use crate::bodies::{check, read};
use crate::bounds::{self, Room, SLICE};
use crate::change::Condition;
use crate::conditions::{condition, etag};
use crate::consistency::{self, Consistency};
use crate::cursor::Cursor;
use crate::expiry::ends_at;
use crate::key::{Key, decode};
use crate::outgoing;
use crate::page::{Page, Query};
use crate::parameters::only_shard;
use crate::place::{Place, place};
use crate::record::{MAX_CONTENT_TYPE, Record};
use crate::service::StorageService;
use crate::watch::{self, NotBegun, Watch};

/// How keys are written.
const KEYS: &str = "a key has 1 to 1024 bytes, percent-encoded in the path";

/// Everything below `/svc/storage`.
pub(crate) fn router(service: Arc<StorageService>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<StorageService>>, request: Request) -> Response {
    // A body can't be shared between threads, so only writes see it.
    let (head, body) = request.into_parts();
    let answering = answer_whole(&service, &head, body);
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return answering.await;
    }
    tokio::select! {
        biased;
        answer = answering => answer,
        () = service.reads_end() => {
            let detail = format!("this member's role as shard {} is ending", service.shard);
            let problem = Problem::new(ErrorKind::Unavailable, "not-here", detail);
            response::not_processed(&problem.hint("ask again; GET /v1/claims shows the owner"))
        }
    }
}

async fn answer_whole(service: &Arc<StorageService>, head: &Parts, body: Body) -> Response {
    let outcome = match place(head.uri.path()) {
        Place::Key(Ok(key)) => service.key(&key, head, body).await,
        Place::Key(Err(error)) => Err(invalid("bad-key", &error, KEYS)),
        Place::Listing => service.listing(head).await,
        Place::Batch => service.batch(head, body).await,
        Place::Import => service.import(head, body).await,
        Place::Watch => service.watch(head).await,
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

/// What is answered instead.
pub(crate) type Answer = Result<Response, Response>;

/// How long reads may still take once the role ends. Some wait for members whose shards move as well, or for room that slow
/// readers hold; asked elsewhere, they are answered.
const LAST_READS: Duration = Duration::from_millis(50);

impl StorageService {
    /// Waits until reads that are not answered yet have to go elsewhere.
    async fn reads_end(&self) {
        self.ending.cancelled().await;
        sleep(LAST_READS).await;
    }

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
            let detail =
                "a key takes a `ttl` when it is put, a `consistency` when it is read, and nothing else";
            return Err(invalid("bad-query", detail, "`?` in a key itself is `%3F`"));
        }
        self.owner_only()?;
        match head.method {
            Method::PUT => self.put(key, head, body).await,
            Method::DELETE => {
                let condition = judged(&head.headers)?;
                self.engine.delete(key, condition).await.map_err(|refusal| refusal.to_response())?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }

    async fn put(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        let condition = judged(&head.headers)?;
        let expires_ms = expires_ms(head.uri.query().unwrap_or_default(), self.engine.now_ms())?;
        let content_type = head.headers.get(CONTENT_TYPE);
        if content_type.is_some_and(|named| named.len() > MAX_CONTENT_TYPE) {
            let detail = format!("a content type has at most {MAX_CONTENT_TYPE} bytes");
            return Err(invalid("bad-content-type", &detail, "name a shorter one, or none"));
        }
        let body = check(head, body, self.max_value).await?;
        let (value, room) = read(&self.engine, body, self.max_value, key.bytes().len()).await?;
        let record = Record::new(content_type, value).expiring(expires_ms);
        let written = self.engine.put(key, record, condition, room).await;
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
            Some(_) => self.page(&query).await.map_err(|refusal| refusal.to_reader(query.consistency))?,
            None => self.gather(&query).await.map_err(|problem| refused(&problem))?,
        };
        let mut answer = json(&page.value, room).ok_or_else(bounds::no_room)?;
        if let Some(by) = page.by.filter(|_| query.consistency == Consistency::Any) {
            consistency::tell(answer.headers_mut(), by);
        }
        // It is in memory.
        Detach::of(&head.extensions);
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
            // The stream ends by itself when the role does, however slowly what is left of it is read.
            Detach::of(&head.extensions);
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
        Detach::of(&head.extensions);
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

    /// The shard that a batch or an import says all its keys are in.
    pub(crate) fn only_shard(&self, head: &Parts) -> Result<Option<ShardId>, Response> {
        let shard = only_shard(head.uri.query().unwrap_or_default()).map_err(|error| bad_query(&error))?;
        match shard.filter(|shard| shard.as_u32() >= self.shards.get()) {
            Some(shard) => Err(unknown_shard(shard, self.shards)),
            None => Ok(shard),
        }
    }

    /// Refuses what a copy can't do.
    pub(crate) fn owner_only(&self) -> Result<(), Response> {
        if self.copy.is_some() { Err(self.only_a_copy()) } else { Ok(()) }
    }

    pub(crate) fn only_a_copy(&self) -> Response {
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

/// The condition of a write.
fn judged(headers: &HeaderMap) -> Result<Option<Condition>, Response> {
    let hint = "send one of `If-None-Match: *`, `If-Match: *` and `If-Match: \"17\"`, or none of them";
    condition(headers).map_err(|error| invalid("bad-condition", &error, hint))
}

/// When the value of a `PUT` expires: `?ttl=30s`.
fn expires_ms(query: &str, now_ms: u64) -> Result<Option<NonZeroU64>, Response> {
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
    let ends = ends_at(&String::from_utf8_lossy(&text), now_ms).map_err(|error| wrong(&error))?;
    Ok(Some(ends))
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

pub(crate) fn header(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("an entity tag is printable")
}
