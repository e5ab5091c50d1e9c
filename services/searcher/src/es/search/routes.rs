//! The paths of searches.

use axum::body::Body;
use http::Method;
use http::request::Parts;

use crate::es::error::EsError;
use crate::es::path::allow;
use crate::es::reply::{Answer, Reply};
use crate::service::SearcherService;

/// The largest body of a search, and of several searches.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Whether a path is one of searches.
pub(crate) fn is_search(api: &str, rest: &[String]) -> bool {
    match api {
        "_count" | "_msearch" | "_pit" => rest.is_empty(),
        "_search" => rest.first().is_none_or(|first| first == "scroll") && rest.len() <= 2,
        _ => false,
    }
}

impl SearcherService {
    /// Answers a request for a path of [searches](is_search).
    pub(crate) async fn es_searches(
        &self,
        index: Option<&str>,
        api: &str,
        rest: &[String],
        head: &Parts,
        body: Body,
    ) -> Answer {
        let is_delete = head.method == Method::DELETE;
        match (api, rest.first()) {
            ("_search", Some(_)) if index.is_none() => {
                allow(head, &[Method::GET, Method::POST, Method::DELETE])?;
            }
            ("_search", Some(_)) => return Err(EsError::illegal("a scroll has no index in its path")),
            ("_pit", _) => allow(head, &[Method::POST, Method::DELETE])?,
            _ => allow(head, &[Method::GET, Method::POST])?,
        }
        let query = head.uri.query();
        let (body, _space) = self.es_body(head, body, MAX_BODY).await?;
        let id = rest.get(1).map(String::as_str);
        Ok(match (api, rest.first()) {
            ("_count", _) => Reply::json(&self.es_count(index, query, &body).await?),
            ("_msearch", _) => Reply::json(&self.es_msearch(index, query, &body).await?),
            ("_pit", _) if is_delete => Reply::json(&Self::es_close(None, &body)?),
            ("_pit", _) => Reply::json(&self.es_open_pit(index, query).await?),
            (_, Some(_)) if is_delete => Reply::json(&Self::es_close(id, &body)?),
            (_, Some(_)) => Reply::json(&self.es_scroll(id, query, &body).await?),
            _ => Reply::json(&self.es_search(index, query, &body).await?),
        })
    }
}
