//! Elasticsearch's API, as far as its clients for documents and searches need it: a second face of the same indexes.
//!
//! It is below `/svc/{service}/es/`, and with the setting `es_listen` at the root of a listener of its own. What is not
//! supported is refused by name.

mod aliases;
mod analyze;
mod bulk;
mod cat;
mod cluster;
mod delete;
mod document;
pub(crate) mod dsl;
mod error;
mod filter;
mod indices;
mod listener;
mod mapping;
mod names;
mod parameters;
mod path;
mod reindex;
mod reply;
pub(crate) mod search;
mod templates;
mod unique;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;

use self::error::EsError;
use self::filter::Filter;
use self::parameters::Parameters;
use self::path::EsPath;
use self::reply::{Answer, Media, finish};
use crate::service::SearcherService;
pub(crate) use listener::{NAME, open, serve};
pub(crate) use path::{may_repeat, target};

/// The version of Elasticsearch whose API this is a part of.
const VERSION: &str = "8.19.0";

/// Answers a request for a path below the API's root.
pub(crate) async fn answer(service: &SearcherService, path: &str, head: &Parts, body: Body) -> Response {
    let media = Media::of(head);
    let filter = filter_of(head);
    let outcome = match (&media, &filter) {
        (Ok(media), Ok(_)) => dispatch(service, path, head, body, media).await,
        (Err(error), _) | (_, Err(error)) => Err(error.clone()),
    };
    finish(service, head, &media.unwrap_or_default(), &filter.unwrap_or_default(), outcome).await
}

/// The parts of the answer that are wanted. Whether there are unknown parameters is checked later.
fn filter_of(head: &Parts) -> Result<Filter, EsError> {
    let query = head.uri.query().unwrap_or_default();
    let found = query.split('&').find(|pair| pair.starts_with("filter_path="));
    let parameters = Parameters::parse(found, &[])?;
    Ok(parameters.text("filter_path").map(Filter::of_path).unwrap_or_default())
}

async fn dispatch(service: &SearcherService, path: &str, head: &Parts, body: Body, media: &Media) -> Answer {
    let EsPath { index, api, rest } = EsPath::parse(path)?;
    let index = index.as_deref();
    let first = rest.first().map(String::as_str);
    match (index, api.as_str(), rest.len()) {
        (None, "", 0) => service.es_root(head),
        (Some(index), "", 0) => service.es_index_itself(index, head, body).await,
        (index, "_bulk", 0) => service.es_bulk(index, head, body).await,
        (index, api, _) if search::is_search(api, &rest) => {
            service.es_searches(index, api, &rest, head, body).await
        }
        (Some(index), "_delete_by_query", 0) => service.es_delete_by_query(index, head, body).await,
        (None, "_reindex", 0) => service.es_reindex(head, body).await,
        (index, "_mget", 0) => service.es_mget(index, head, body).await,
        (index, "_mapping" | "_mappings", 0) => service.es_mapping(index, head, body).await,
        (index, "_settings", 0) => service.es_settings(index, head, body).await,
        (index, "_field_caps", 0) => service.es_field_caps(index, head, body).await,
        (index, "_alias", 0 | 1) => service.es_alias(index, first, head, body).await,
        (index, "_aliases", 1) => service.es_alias(index, first, head, body).await,
        (None, "_aliases", 0) => service.es_aliases(head, body).await,
        (None, "_index_template", 0 | 1) => service.es_index_template(first, head, body).await,
        (index, "_refresh" | "_flush" | "_forcemerge", 0) => service.es_maintain(index, &api, head).await,
        (index, "_analyze", 0) => service.es_analyze(index, head, body).await,
        (Some(index), "_doc", 0) => service.es_document(index, None, false, head, body).await,
        (Some(index), "_doc", 1) => service.es_document(index, first, false, head, body).await,
        (Some(index), "_create", 1) => service.es_document(index, first, true, head, body).await,
        (Some(index), "_update", 1) => service.es_update(index, &rest[0], head, body).await,
        (Some(index), "_source", 1) => service.es_source(index, &rest[0], head).await,
        (None, "_cat", _) => service.es_cat(&rest, head, media).await,
        (None, "_cluster", 1) if first == Some("health") => service.es_cluster_health(None, head).await,
        (None, "_cluster", 2) if first == Some("health") => {
            service.es_cluster_health(Some(&rest[1]), head).await
        }
        (None, "_cluster", 1) if first == Some("settings") => service.es_cluster_settings(head, body).await,
        _ => Err(refused(head, &api, &rest)),
    }
}

/// The refusal of a path that is none of Elasticsearch's, or is not supported.
fn refused(head: &Parts, api: &str, rest: &[String]) -> EsError {
    const UNSUPPORTED: [&str; 28] = [
        "_async_search",
        "_clone",
        "_close",
        "_cluster",
        "_component_template",
        "_data_stream",
        "_eql",
        "_explain",
        "_ilm",
        "_index_template",
        "_ingest",
        "_knn_search",
        "_license",
        "_ml",
        "_mvt",
        "_nodes",
        "_open",
        "_percolate",
        "_rank_eval",
        "_rollover",
        "_scripts",
        "_security",
        "_snapshot",
        "_sql",
        "_tasks",
        "_template",
        "_update_by_query",
        "_xpack",
    ];
    if UNSUPPORTED.contains(&api) {
        let below = if api == "_cluster" { rest.first().map(|rest| format!("/{rest}")) } else { None };
        return EsError::unsupported(&format!("{api}{}", below.unwrap_or_default()));
    }
    let reason = format!("no handler found for uri [{}] and method [{}]", head.uri.path(), head.method);
    EsError::new(404, "illegal_argument_exception", reason)
}
