//! Keys and values of the service type `storage`, asked of one of its members.

use std::time::Duration;

use http::header::{CONTENT_TYPE, ETAG};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::call::{Client, problem_or_unexpected};
use crate::error::ClientError;

/// What stands for itself in a key's path; `/` does not, so that no part of a key is taken for a step.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub bytes: Vec<u8>,
    /// Its content type, as it was given.
    pub content_type: Option<String>,
    /// Its ETag, quoted.
    pub etag: Option<String>,
}

/// A key in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedKey {
    /// The key, percent-encoded as in a path.
    pub key: String,
    /// Bytes of its value.
    pub size: u64,
    /// The value's ETag, quoted.
    pub etag: String,
    /// The value's content type.
    pub content_type: String,
}

/// Keys in the order of their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<ListedKey>,
    /// What to list after for more; nothing at the end.
    pub next: Option<String>,
}

/// Which keys are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyQuery {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one, percent-encoded as in a listing.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl Client {
    /// Stores a value. Returns its ETag once it is durable. The agent must own the key's shard.
    pub async fn kv_put(
        &self,
        key: &[u8],
        value: Vec<u8>,
        content_type: Option<&str>,
    ) -> Result<Option<String>, ClientError> {
        let mut request = self.http().put(self.key_url(key)).body(value);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let answer = self.kv_send(request).await?;
        Ok(header(&answer, &ETAG))
    }

    /// A value, or nothing if the key has none.
    pub async fn kv_get(&self, key: &[u8]) -> Result<Option<Stored>, ClientError> {
        let answer = match self.kv_send(self.http().get(self.key_url(key))).await {
            Ok(answer) => answer,
            Err(ClientError::Problem(problem)) if problem.code() == "no-such-key" => return Ok(None),
            Err(error) => return Err(error),
        };
        let (content_type, etag) = (header(&answer, &CONTENT_TYPE), header(&answer, &ETAG));
        let bytes = self.whole(answer).await?;
        Ok(Some(Stored { bytes, content_type, etag }))
    }

    /// Removes a key, if it is there.
    pub async fn kv_delete(&self, key: &[u8]) -> Result<(), ClientError> {
        self.kv_send(self.http().delete(self.key_url(key))).await.map(|_| ())
    }

    /// A page of the keys of all shards.
    pub async fn kv_list(&self, query: &KeyQuery) -> Result<KeyPage, ClientError> {
        let mut path = format!("/svc/storage/kv?prefix={}", utf8_percent_encode(&query.prefix, PLAIN));
        if let Some(after) = &query.after {
            // It is encoded already, and percent signs of it must not be taken for the query's own.
            path.push_str(&format!("&after={after}"));
        }
        if let Some(limit) = query.limit {
            path.push_str(&format!("&limit={limit}"));
        }
        self.json(self.get(&path)).await
    }

    fn key_url(&self, key: &[u8]) -> String {
        self.url(&format!("/svc/storage/kv/{}", percent_encode(key, PLAIN)))
    }

    async fn kv_send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let limit: Duration = self.limit();
        let answer = request
            .timeout(limit)
            .send()
            .await
            .map_err(|error| ClientError::transport(self.base_url(), limit, &error))?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(problem_or_unexpected(self.base_url(), limit, answer).await)
        }
    }
}

fn header(answer: &reqwest::Response, name: &http::HeaderName) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}
