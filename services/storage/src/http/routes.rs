//! Routes each request to its handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use plugin::http::{Answer, conditions, invalid, method_not_allowed, problem};
use plugin::shard::Key;
use types::{ErrorKind, Problem};

use super::path::{Endpoint, endpoint, is_read};
use crate::service::StorageService;

/// The hint for a key that can't be parsed.
const KEYS: &str = "a key has 1 to 1024 bytes, percent-encoded in the path";

/// Everything below `/svc/{service}`.
pub(crate) fn router(service: Arc<StorageService>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<StorageService>>, request: Request) -> Response {
    // A body can't be shared between threads, so only writes get it.
    let (head, body) = request.into_parts();
    let answering = answer_whole(&service, &head, body);
    if !is_read(&head.method) {
        return answering.await;
    }
    service.member.unless_ended(&service.ending, answering).await
}

async fn answer_whole(service: &Arc<StorageService>, head: &Parts, body: Body) -> Response {
    let outcome = match endpoint(head.uri.path()) {
        Endpoint::Key(Ok(key)) => service.key(&key, head, body).await,
        Endpoint::Key(Err(error)) => Err(invalid("bad-key", &error, KEYS)),
        Endpoint::Listing => service.listing(head).await,
        Endpoint::Batch => service.batch(head, body).await,
        Endpoint::Import => service.import(head, body).await,
        Endpoint::Watch => service.watch(head).await,
        Endpoint::Nowhere => {
            let detail = format!("{} has nothing at `{}`", service.member.service, head.uri.path());
            let refusal = Problem::new(ErrorKind::NotFound, "unknown-path", detail);
            Err(problem(
                &refusal.hint("keys are at /kv/{key}, their list is at /kv, their changes at /watch"),
            ))
        }
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

impl StorageService {
    async fn key(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        let shard = self.member.shard_of(key.hash());
        if shard != self.member.shard {
            return Err(self.member.elsewhere(shard));
        }
        match head.method {
            Method::GET | Method::HEAD => self.get(key, head).await,
            Method::PUT => {
                self.member.owner_only()?;
                self.put(key, head, body).await
            }
            Method::DELETE => {
                no_query(head)?;
                self.member.owner_only()?;
                let condition = conditions::of_write(&head.headers)?;
                self.engine.delete(key, condition).await.map_err(|error| error.to_response())?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => {
                no_query(head)?;
                self.member.owner_only()?;
                Err(method_not_allowed("GET, HEAD, PUT, DELETE"))
            }
        }
    }
}

/// Refuses parameters where there are none: the client would believe that an ignored one had taken effect.
fn no_query(head: &Parts) -> Result<(), Response> {
    if head.uri.query().is_none_or(str::is_empty) {
        return Ok(());
    }
    let detail = "a key takes a `ttl` when it is put, a `consistency` when it is read, and nothing else";
    Err(invalid("bad-query", detail, "`?` in a key itself is `%3F`"))
}
