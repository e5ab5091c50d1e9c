//! Routes each request to its handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::request::Parts;
use plugin::http::{Answer, invalid, problem};
use types::{ErrorKind, Problem};

use super::inner::Verb;
use super::path::{DocumentId, Endpoint, OfIndex, endpoint, may_repeat};
use crate::catalog::NAME_RULE;
use crate::es;
use crate::service::SearcherService;

/// The hint for an id that can't be parsed.
const IDS: &str = "an id has 1 to 512 bytes of UTF-8, percent-encoded in the path";

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
    service.member.unless_ended(&service.ending, answering).await
}

async fn answer_whole(service: &SearcherService, head: &Parts, body: Body) -> Response {
    let outcome = match endpoint(head.uri.path()) {
        Endpoint::Elasticsearch(path) => Ok(es::answer(service, &path, head, body).await),
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
