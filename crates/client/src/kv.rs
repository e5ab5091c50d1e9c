//! Keys and values of the service type `storage`, through one of its members.

use std::time::Duration;

use http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use types::api;

use crate::call::{Client, problem_or_unexpected};
use crate::error::ClientError;
use crate::kv_dot::is_dot_segment;

/// The characters of a key that are not escaped in a path. `/` is escaped, so that no part of a key is taken for a dot
/// segment.
pub(crate) const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub bytes: Vec<u8>,
    /// Its content type.
    pub content_type: Option<String>,
    /// The number of the write that stored it.
    pub version: Option<u64>,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// The options of a put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutKey {
    /// The value's content type.
    pub content_type: Option<String>,
    /// The time until the value expires; `None` keeps it forever.
    pub ttl: Option<Duration>,
    /// Store the value only if this holds; otherwise the agent answers `precondition-failed`.
    pub condition: Option<KeyCondition>,
}

/// The precondition of a write to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyCondition {
    /// The key has no value.
    Absent,
    /// The key's value has this version.
    Version(u64),
}

/// A key in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedKey {
    /// The key, percent-encoded as in a path.
    pub key: String,
    /// The size of its value, in bytes.
    pub size: u64,
    /// The number of the write that stored the value.
    pub version: u64,
    /// The version as an ETag, quoted.
    pub etag: String,
    /// The value's content type.
    pub content_type: String,
    /// When it expires, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// The value, if it was requested and is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64, if it was requested and is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A page of a listing. Keys are ordered by their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<ListedKey>,
    /// The `after` of the next page; `None` on the last page.
    pub next: Option<String>,
}

/// The keys to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyQuery {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only keys after this one, percent-encoded as in a listing.
    pub after: Option<String>,
    /// At most this many keys.
    pub limit: Option<usize>,
    /// Whether to include the values.
    pub values: bool,
}

#[derive(Deserialize)]
struct Imported {
    imported: u64,
}

impl Client {
    /// Stores a value. Returns its version once it is durable. The agent must own the key's shard.
    pub async fn kv_put(&self, key: &[u8], value: Vec<u8>, how: &PutKey) -> Result<Option<u64>, ClientError> {
        if is_dot_segment(key) {
            return self.dot_put(key, &value, how).await;
        }
        let mut url = self.key_url(key);
        if let Some(ttl) = how.ttl {
            url.push_str(&format!("?ttl={}ms", ttl.as_millis()));
        }
        let mut request = with_condition(self.http().put(url).body(value), how.condition);
        if let Some(content_type) = &how.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let answer = self.kv_send(request).await?;
        Ok(version(&answer))
    }

    /// The value of a key; `None` if it has none.
    pub async fn kv_get(&self, key: &[u8]) -> Result<Option<Stored>, ClientError> {
        if is_dot_segment(key) {
            return self.dot_get(key).await;
        }
        let answer = match self.kv_send(self.http().get(self.key_url(key))).await {
            Ok(answer) => answer,
            Err(ClientError::Problem(problem)) if problem.code() == "no-such-key" => return Ok(None),
            Err(error) => return Err(error),
        };
        let (content_type, version) = (header(&answer, CONTENT_TYPE.as_str()), version(&answer));
        let expires_ms = header(&answer, api::EXPIRES_MS).and_then(|text| text.parse().ok());
        let bytes = self.whole(answer).await?;
        Ok(Some(Stored { bytes, content_type, version, expires_ms }))
    }

    /// Removes a key if it exists and the condition holds.
    pub async fn kv_delete(&self, key: &[u8], condition: Option<KeyCondition>) -> Result<(), ClientError> {
        if is_dot_segment(key) {
            return self.dot_delete(key, condition).await;
        }
        self.kv_send(with_condition(self.http().delete(self.key_url(key)), condition)).await.map(|_| ())
    }

    /// Stores many values: lines of JSON, as documented for `POST /svc/storage/import`. Returns their number once all
    /// are durable. Safe to repeat.
    pub async fn kv_import(&self, lines: Vec<u8>) -> Result<u64, ClientError> {
        let request = self.http().post(self.url(&self.keys_path("import"))).body(lines);
        let answer: Imported = self.json(request).await?;
        Ok(answer.imported)
    }

    /// A page of the keys in all shards.
    pub async fn kv_list(&self, query: &KeyQuery) -> Result<KeyPage, ClientError> {
        let mut path =
            format!("{}?prefix={}", self.keys_path("kv"), utf8_percent_encode(&query.prefix, PLAIN));
        if let Some(after) = &query.after {
            // `after` is already percent-encoded; encoding it again would change it.
            path.push_str(&format!("&after={after}"));
        }
        if let Some(limit) = query.limit {
            path.push_str(&format!("&limit={limit}"));
        }
        if query.values {
            path.push_str("&values=true");
        }
        self.json(self.get(&path)).await
    }

    /// A path below the service whose keys are read and written.
    pub(crate) fn keys_path(&self, below: &str) -> String {
        format!("/svc/{}/{below}", self.service())
    }

    fn key_url(&self, key: &[u8]) -> String {
        self.url(&format!("{}/{}", self.keys_path("kv"), percent_encode(key, PLAIN)))
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

fn with_condition(
    request: reqwest::RequestBuilder,
    condition: Option<KeyCondition>,
) -> reqwest::RequestBuilder {
    match condition {
        None => request,
        Some(KeyCondition::Absent) => request.header(IF_NONE_MATCH, "*"),
        Some(KeyCondition::Version(version)) => request.header(IF_MATCH, format!("\"{version}\"")),
    }
}

fn version(answer: &reqwest::Response) -> Option<u64> {
    header(answer, ETAG.as_str())?.trim_matches('"').parse().ok()
}

fn header(answer: &reqwest::Response, name: &str) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}
