//! Routes each request to its handler.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use http::request::Parts;
use plugin::http::{Answer, invalid, problem};
use types::{ErrorKind, Problem};

use super::bulk::is_object;
use super::inner::Verb;
use super::parameter::WriteParameters;
use super::path::{DocumentId, Endpoint, OfIndex, endpoint, is_read, may_repeat};
use crate::catalog::NAME_RULE;
use crate::document::MAX_DOCUMENT;
use crate::es;
use crate::service::SearcherService;
use crate::shard::Condition;

/// The hint for an id that can't be parsed.
const IDS: &str = "an id has 1 to 512 bytes of UTF-8, percent-encoded in the path";

/// Everything below `/svc/{service}`.
pub(crate) fn router(service: Arc<SearcherService>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(State(service): State<Arc<SearcherService>>, request: Request) -> Response {
    // A body can't be shared between threads, so it is passed beside the head.
    let (head, body) = request.into_parts();
    // Boxed: its requests to other members make it large.
    let answering = Box::pin(answer_whole(&service, &head, body));
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
        Endpoint::Aliases => service.all_aliases(head, body).await,
        Endpoint::Templates => service.list_templates(head).await,
        Endpoint::Template(Ok(name)) => service.one_template(&name, head, body).await,
        Endpoint::Template(Err(error)) => Err(invalid("bad-template", &error, NAME_RULE)),
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
        match what {
            OfIndex::Itself => self.index_itself(name, head, body).await,
            OfIndex::Document(id) => {
                let id = id.map_err(|error| invalid("bad-id", &error, IDS))?;
                self.one_document(name, id, head, body).await
            }
            OfIndex::Documents => self.bulk(name, head, body).await,
            OfIndex::Delete => self.delete_by_query(name, head, body).await,
            OfIndex::Reindex => self.reindex(name, head, body).await,
            OfIndex::Search => self.search_request(name, head, body).await,
            OfIndex::Suggest => self.suggest(name, head).await,
            OfIndex::Refresh => self.at_every_owner(name, Verb::Refresh, head).await,
            OfIndex::Compact => self.at_every_owner(name, Verb::Compact, head).await,
            OfIndex::Aliases => self.aliases_of_index(name, head).await,
            OfIndex::Alias(Ok(alias)) => self.one_alias(name, &alias, head, body).await,
            OfIndex::Alias(Err(error)) => Err(invalid("bad-alias-name", &error, NAME_RULE)),
        }
    }

    async fn one_document(&self, name: &str, id: DocumentId, head: &Parts, body: Body) -> Answer {
        let shard = self.member.shard_of(id.hash());
        if shard != self.member.shard {
            return Err(self.member.elsewhere(shard));
        }
        if is_read(&head.method) {
            let (_, index) = self.index_named(name).await?;
            return self.document(&index, id, head, body).await;
        }
        let mut body = body;
        let query = head.uri.query().unwrap_or_default();
        let is_patch = head.method == Method::PATCH;
        if head.method == Method::PUT || is_patch {
            self.member.owner_only()?;
            let WriteParameters { upsert, condition, .. } =
                WriteParameters::of(query, &head.headers, is_patch)?;
            // A document that must be there is in no new index.
            if (upsert || !is_patch) && matches!(condition, None | Some(Condition::Absent)) {
                let most = self.max_body.min(MAX_DOCUMENT);
                body = self.prepare_write(name, head, body, most, is_object).await?;
            }
        }
        let (_, index) = self.index_to_write(name).await?;
        self.document(&index, id, head, body).await
    }
}
