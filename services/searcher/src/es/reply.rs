//! Answers in Elasticsearch's form: media types, `filter_path` and the headers that its clients look for.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use plugin::Detach;
use plugin::http::CHUNK;
use serde::Serialize;
use types::api;

use super::VERSION;
use super::error::EsError;
use super::filter::Filter;
use crate::service::SearcherService;

/// Its clients refuse a server that does not send this.
const PRODUCT: HeaderName = HeaderName::from_static("x-elastic-product");

/// The answer of a handler.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    content: Content,
    /// What was accepted and has no effect.
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug)]
enum Content {
    Json(Vec<u8>),
    Text(String),
}

/// What a handler returns.
pub(crate) type Answer = Result<Reply, EsError>;

impl Reply {
    pub(crate) fn json(body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("strings, numbers and valid JSON are written to memory");
        Self { status: StatusCode::OK, content: Content::Json(body), warnings: Vec::new() }
    }

    pub(crate) fn text(text: String) -> Self {
        Self { status: StatusCode::OK, content: Content::Text(text), warnings: Vec::new() }
    }

    #[must_use]
    pub(crate) fn status(self, status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, ..self }
    }

    #[must_use]
    pub(crate) fn warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }
}

/// The media types of a request and of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    answer: Cow<'static, str>,
    /// Whether a table is wanted as JSON.
    pub(crate) prefers_json: bool,
}

impl Default for Media {
    fn default() -> Self {
        Self { answer: Cow::Borrowed("application/json"), prefers_json: false }
    }
}

impl Media {
    /// Checks the media types of a request.
    pub(crate) fn of(head: &Parts) -> Result<Self, EsError> {
        let text = |name: HeaderName| {
            head.headers
                .get(&name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase())
        };
        if let Some(content) = text(CONTENT_TYPE) {
            let is_known = match base(&content) {
                "application/json" | "application/x-ndjson" => true,
                "application/vnd.elasticsearch+json" | "application/vnd.elasticsearch+x-ndjson" => {
                    version(&content).is_some()
                }
                _ => false,
            };
            if !is_known {
                return Err(refused("Content-Type", &content));
            }
        }
        let Some(accept) = text(ACCEPT).filter(|accept| !accept.trim().is_empty()) else {
            return Ok(Self::default());
        };
        for (number, part) in accept.split(',').map(str::trim).enumerate() {
            let is_first = number == 0;
            match base(part) {
                "application/vnd.elasticsearch+json" => {
                    if let Some(version) = version(part) {
                        let answer = format!("application/vnd.elasticsearch+json;compatible-with={version}");
                        return Ok(Self { answer: answer.into(), prefers_json: is_first });
                    }
                }
                "application/json" => return Ok(Self { prefers_json: is_first, ..Self::default() }),
                "*/*" | "application/*" | "text/*" | "text/plain" | "application/x-ndjson" => {
                    return Ok(Self::default());
                }
                _ => {}
            }
        }
        Err(refused("Accept", &accept))
    }
}

fn base(media: &str) -> &str {
    media.split(';').next().unwrap_or_default().trim()
}

/// The version with which a client wants to be compatible: 8 or 9.
fn version(media: &str) -> Option<&str> {
    let mut parameters = media.split(';').skip(1).map(str::trim);
    let version = parameters.find_map(|parameter| parameter.strip_prefix("compatible-with="))?;
    matches!(version, "8" | "9").then_some(version)
}

fn refused(header: &str, value: &str) -> EsError {
    let value: String = value.chars().take(100).collect();
    let reason = format!("Invalid media-type value on header [{header}]: [{value}] is not supported");
    EsError::new(406, "media_type_header_exception", reason)
}

/// The whole answer to a request.
pub(crate) async fn finish(
    service: &SearcherService,
    head: &Parts,
    media: &Media,
    filter: &Filter,
    outcome: Answer,
) -> Response {
    let mut is_untouched = false;
    let Reply { status, content, warnings } = outcome.unwrap_or_else(|error| {
        is_untouched = error.is_untouched;
        Reply::json(&error.to_json()).status(error.status)
    });
    let (body, content_type) = match content {
        Content::Json(body) if filter.is_empty() => (Bytes::from(body), &*media.answer),
        Content::Json(body) => {
            let text = String::from_utf8_lossy(&body);
            (Bytes::from(filter.apply(&text)), &*media.answer)
        }
        Content::Text(text) => (Bytes::from(text), "text/plain; charset=UTF-8"),
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    if head.method != Method::HEAD {
        *answer.body_mut() = if body.len() <= CHUNK {
            Body::from(body)
        } else {
            match service.answers.take(body.len()).await {
                Ok(space) => space.body(body),
                Err(_) => {
                    let error =
                        EsError::new(503, "circuit_breaking_exception", "there is no memory for the answer");
                    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    Body::from(error.to_json().to_string())
                }
            }
        };
    }
    let headers = answer.headers_mut();
    headers.insert(PRODUCT, HeaderValue::from_static("Elasticsearch"));
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    for warning in warnings {
        let warning = warning.replace(['"', '\\'], "'");
        if let Ok(warning) = HeaderValue::from_str(&format!("299 Elasticsearch-{VERSION} \"{warning}\"")) {
            headers.append(WARNING, warning);
        }
    }
    if is_untouched {
        headers.insert(HeaderName::from_static(api::NOT_PROCESSED), HeaderValue::from_static("1"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    // The answer is in memory, however slowly the client reads it.
    Detach::of(&head.extensions);
    answer
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn media_types_of_versions_8_and_9_are_taken_and_answered() {
        let of = |accept: Option<&str>, content: Option<&str>| {
            let mut request = Request::get("/");
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(content) = content {
                request = request.header(CONTENT_TYPE, content);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            Media::of(&head).map(|media| (media.answer.into_owned(), media.prefers_json))
        };
        let vendor = "application/vnd.elasticsearch+json;compatible-with=9";
        let json = "application/json".to_owned();
        for (accept, content, expected) in [
            (None, None, Ok((json.clone(), false))),
            (Some("*/*"), Some("application/x-ndjson"), Ok((json.clone(), false))),
            (Some("application/json"), Some("application/json; charset=utf-8"), Ok((json.clone(), true))),
            (Some("text/plain,application/json"), None, Ok((json, false))),
            (
                Some("application/vnd.elasticsearch+json; compatible-with=9"),
                Some("application/vnd.elasticsearch+x-ndjson; compatible-with=8"),
                Ok((vendor.to_owned(), true)),
            ),
        ] {
            assert_eq!(of(accept, content), expected, "{accept:?} {content:?}");
        }
        for (accept, content) in [
            (Some("application/yaml"), None),
            (Some("application/vnd.elasticsearch+json;compatible-with=7"), None),
            (None, Some("text/plain;charset=UTF-8")),
            (None, Some("application/x-www-form-urlencoded")),
            (None, Some("application/vnd.elasticsearch+json")),
        ] {
            assert_eq!(of(accept, content).map_err(|error| error.status), Err(406), "{accept:?} {content:?}");
        }
    }
}
