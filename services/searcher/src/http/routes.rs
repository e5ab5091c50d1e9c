//! Routes each request to its handler.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use plugin::http::{Answer, invalid, not_processed, problem};
use tokio::time::sleep;
use types::{ErrorKind, Problem};

use super::inner::Verb;
use super::path::{DocumentId, Endpoint, OfIndex, endpoint, may_repeat};
use crate::catalog::NAME_RULE;
use crate::service::SearcherService;

/// The hint for an id that can't be parsed.
const IDS: &str = "an id has 1 to 512 bytes of UTF-8, percent-encoded in the path";
/// How long reads may still take once the role ends. Some wait for members whose shards move as well; another member can
/// answer them.
const LAST_READS: Duration = Duration::from_millis(50);

/// Everything below `/svc/{service}`.
pub(crate) fn router(service: Arc<SearcherService>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<SearcherService>>, request: Request) -> Response {
    // A body can't be shared between threads, so it is passed beside the head.
    let (head, body) = request.into_parts();
    let answering = answer_whole(&service, &head, body);
    if !may_repeat(&head) {
        return answering.await;
    }
    tokio::select! {
        biased;
        answer = answering => answer,
        () = service.reads_end() => {
            let detail = format!("this member's role as shard {} is ending", service.member.shard);
            let refusal = Problem::new(ErrorKind::Unavailable, "not-here", detail);
            not_processed(&refusal.hint("ask again; GET /v1/claims shows the owner"))
        }
    }
}

async fn answer_whole(service: &SearcherService, head: &Parts, body: Body) -> Response {
    let outcome = match endpoint(head.uri.path()) {
        Endpoint::Indexes => service.list_indexes(head).await,
        Endpoint::Index { name: Err(error), .. } => Err(invalid("bad-index-name", &error, NAME_RULE)),
        Endpoint::Index { name: Ok(name), what } => service.of_index(&name, what, head, body).await,
        Endpoint::Shard(shard, verb) => service.for_member(shard, verb, head, body).await,
        Endpoint::Catalog => service.told(head).await,
        Endpoint::Nowhere => {
            let detail = format!("{} has nothing at `{}`", service.member.service, head.uri.path());
            let refusal = Problem::new(ErrorKind::NotFound, "unknown-path", detail);
            Err(problem(&refusal.hint(
                "indexes are at /{index}, their documents at /{index}/docs/{id}, searches at /{index}/search",
            )))
        }
    };
    outcome.unwrap_or_else(|refusal| refusal)
}

impl SearcherService {
    /// Waits until requests that are not answered yet, and change nothing, must go to another member.
    async fn reads_end(&self) {
        self.ending.cancelled().await;
        sleep(LAST_READS).await;
    }

    async fn of_index(&self, name: &str, what: OfIndex, head: &Parts, body: Body) -> Answer {
        let named = self.index_named(name);
        match what {
            OfIndex::Itself => self.index_itself(name, head, body).await,
            OfIndex::Document(id) => {
                let id = id.map_err(|error| invalid("bad-id", &error, IDS))?;
                self.one_document(name, id, head, body).await
            }
            OfIndex::Documents => {
                let (indexes, index) = named.await?;
                self.bulk(&indexes, &index, head, body).await
            }
            OfIndex::Delete => {
                let (indexes, index) = named.await?;
                self.delete_by_query(&indexes, &index, head, body).await
            }
            OfIndex::Search => {
                let (indexes, index) = named.await?;
                self.search_request(&indexes, &index, head, body).await
            }
            OfIndex::Suggest => {
                let (indexes, index) = named.await?;
                self.suggest(&indexes, &index, head).await
            }
            OfIndex::Refresh => {
                let (indexes, index) = named.await?;
                self.at_every_owner(&indexes, &index, Verb::Refresh, head).await
            }
            OfIndex::Compact => {
                let (indexes, index) = named.await?;
                self.at_every_owner(&indexes, &index, Verb::Compact, head).await
            }
        }
    }

    async fn one_document(&self, name: &str, id: DocumentId, head: &Parts, body: Body) -> Answer {
        let shard = self.member.shard_of(id.hash());
        if shard != self.member.shard {
            return Err(self.member.elsewhere(shard));
        }
        let (_, index) = self.index_named(name).await?;
        self.document(&index, id, head, body).await
    }
}
