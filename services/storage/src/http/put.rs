//! Stores a value under a key.

use std::num::NonZeroU64;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use plugin::http::conditions::{self, set_etag};
use plugin::http::query::{self, QueryError, parameters};
use plugin::http::{Answer, accept_body, invalid, read_body};
use plugin::queue::Reserved;
use plugin::shard::Key;

use super::refusal::bad_body;
use crate::data::record::{MAX_CONTENT_TYPE, Record};
use crate::engine::expiry::ends_at;
use crate::service::StorageService;

impl StorageService {
    /// Answers `PUT` of a key of this shard.
    pub(crate) async fn put(&self, key: &Key, head: &Parts, body: Body) -> Answer {
        let condition = conditions::of_write(&head.headers)?;
        let expires_ms = expires_ms(head.uri.query().unwrap_or_default(), self.engine.now_ms())
            .map_err(|error| error.to_response())?;
        let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content_type.is_some_and(|named| named.len() > MAX_CONTENT_TYPE) {
            let detail = format!("a content type has at most {MAX_CONTENT_TYPE} bytes");
            return Err(invalid("bad-content-type", &detail, "name a shorter one, or none"));
        }
        let (value, space) = self.read_body(head, body, self.max_value, key.bytes().len()).await?;
        let record = Record::new(content_type, value).expiring(expires_ms);
        let written = self.engine.put(key, record, condition, space).await;
        let written = written.map_err(|error| error.to_response())?;
        let mut answer = StatusCode::OK.into_response();
        if let Some(version) = written {
            set_etag(answer.headers_mut(), version);
        }
        Ok(answer)
    }

    /// Reads a body of at most `most` bytes, and takes space for it and for `besides` bytes in this shard's queue of
    /// writes.
    pub(crate) async fn read_body(
        &self,
        head: &Parts,
        body: Body,
        most: usize,
        besides: usize,
    ) -> Result<(Bytes, Reserved), Response> {
        let bad_body = |error| bad_body(&self.engine, &error);
        let body = accept_body(head, body, most).await.map_err(bad_body)?;
        let space = self.engine.arriving(besides).await.map_err(|error| error.to_response())?;
        read_body(body, most, space).await.map_err(bad_body)
    }
}

/// When the value of a `PUT` expires: `?ttl=30s`.
fn expires_ms(text: &str, now_ms: u64) -> Result<Option<NonZeroU64>, QueryError> {
    const HINT: &str = "`PUT /kv/{key}?ttl=30s`; `?` in a key itself is `%3F`";
    let of_ttl = |text: &str| {
        let text = query::bytes("ttl", text)?;
        let ends = ends_at(&String::from_utf8_lossy(&text), now_ms);
        ends.map_err(|error| QueryError::new(error.to_string()))
    };
    let found = parameters(text, &["ttl"]).map_err(|error| error.hint(HINT))?;
    found.first().map(|(_, text)| of_ttl(text).map_err(|error| error.hint(HINT))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_takes_one_time_to_live_and_nothing_else() {
        let expires = |query| expires_ms(query, 5).map(|at| at.map(NonZeroU64::get));
        assert_eq!(
            (expires(""), expires("ttl=30s"), expires("ttl=1h%2030m")),
            (Ok(None), Ok(Some(30_005)), Ok(Some(5_400_005)))
        );
        for (query, message) in [
            ("ttl=", "`` is no time to live"),
            ("ttl", "`` is no time to live"),
            ("ttl=30", "`30` is no time to live"),
            ("ttl=%", "`ttl`: `%` at byte 0"),
            ("ttl=1s&ttl=2s", "`ttl` is given twice"),
            ("consistency=any", "there is no parameter `consistency`"),
            ("ttl=1s&x=1", "there is no parameter `x`"),
        ] {
            let error = expires(query).unwrap_err();
            assert!(error.to_string().starts_with(message), "{query}: {error}");
            assert!(error.hint.unwrap().contains("?ttl=30s"), "{query}");
        }
    }
}
