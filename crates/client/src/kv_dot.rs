//! The keys `.` and `..`. URL libraries treat them as dot segments and remove them, encoded or not, so they can't be
//! part of a path. They are read through a listing and written through a batch, where keys are not part of the path.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

use crate::call::Client;
use crate::error::ClientError;
use crate::kv::{KeyCondition, KeyPage, PLAIN, PutKey, Stored};

/// Whether a URL library would treat the key as a dot segment.
pub(crate) fn is_dot_segment(key: &[u8]) -> bool {
    matches!(key, b"." | b"..")
}

/// The only operation of a batch.
#[derive(Debug, Default, Serialize)]
struct Operation {
    #[serde(skip_serializing_if = "Option::is_none")]
    put: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_none_match: Option<bool>,
}

#[derive(Serialize)]
struct Batch {
    operations: [Operation; 1],
}

#[derive(Deserialize)]
struct Written {
    version: Option<u64>,
}

impl Operation {
    fn put(key: &[u8], value: &[u8], how: &PutKey) -> Self {
        Self {
            put: Some(encoded(key)),
            value_base64: Some(STANDARD.encode(value)),
            content_type: how.content_type.clone(),
            ttl: how.ttl.map(|ttl| format!("{}ms", ttl.as_millis())),
            ..Self::default()
        }
        .with_condition(how.condition)
    }

    fn delete(key: &[u8], condition: Option<KeyCondition>) -> Self {
        Self { delete: Some(encoded(key)), ..Self::default() }.with_condition(condition)
    }

    fn with_condition(mut self, condition: Option<KeyCondition>) -> Self {
        match condition {
            None => {}
            Some(KeyCondition::Absent) => self.if_none_match = Some(true),
            Some(KeyCondition::Version(version)) => self.if_match = Some(version.to_string()),
        }
        self
    }
}

fn encoded(key: &[u8]) -> String {
    percent_encode(key, PLAIN).to_string()
}

/// The value in a listing, if the listing begins with this key.
fn found(page: KeyPage, key: &[u8]) -> Option<Stored> {
    let listed = page.keys.into_iter().next()?;
    if !percent_decode_str(&listed.key).eq(key.iter().copied()) {
        return None;
    }
    let bytes = match (listed.value, listed.value_base64) {
        (Some(text), _) => text.into_bytes(),
        (None, base64) => STANDARD.decode(base64?).ok()?,
    };
    Some(Stored {
        bytes,
        content_type: Some(listed.content_type),
        version: Some(listed.version),
        expires_ms: listed.expires_ms,
    })
}

impl Client {
    /// Stores a value. Base64 makes it a third larger on the wire, and a batch has at most 8 MiB.
    pub(crate) async fn dot_put(
        &self,
        key: &[u8],
        value: &[u8],
        how: &PutKey,
    ) -> Result<Option<u64>, ClientError> {
        self.batch(Operation::put(key, value, how)).await
    }

    pub(crate) async fn dot_delete(
        &self,
        key: &[u8],
        condition: Option<KeyCondition>,
    ) -> Result<(), ClientError> {
        self.batch(Operation::delete(key, condition)).await.map(|_| ())
    }

    pub(crate) async fn dot_get(&self, key: &[u8]) -> Result<Option<Stored>, ClientError> {
        let path = format!("{}?start={}&limit=1&values=true", self.keys_path("kv"), encoded(key));
        Ok(found(self.json(self.get(&path)).await?, key))
    }

    async fn batch(&self, operation: Operation) -> Result<Option<u64>, ClientError> {
        let batch = Batch { operations: [operation] };
        let request = self.http().post(self.url(&self.keys_path("batch"))).json(&batch);
        let written: Written = self.json(request).await?;
        Ok(written.version)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::kv::ListedKey;

    #[test]
    fn a_write_to_a_dot_key_keeps_its_condition_and_its_ttl() {
        let shown = |operation: Operation| serde_json::to_value(&operation).unwrap();
        let how = PutKey {
            content_type: Some("text/plain".to_owned()),
            ttl: Some(Duration::from_secs(30)),
            condition: Some(KeyCondition::Absent),
        };
        let put: Value = shown(Operation::put(b"..", b"\0\xff", &how));
        assert_eq!(
            put,
            json!({ "put": "..", "value_base64": "AP8=", "content_type": "text/plain", "ttl": "30000ms",
                    "if_none_match": true })
        );
        let delete = shown(Operation::delete(b".", Some(KeyCondition::Version(17))));
        assert_eq!(delete, json!({ "delete": ".", "if_match": "17" }));
        assert_eq!(shown(Operation::delete(b".", None)), json!({ "delete": "." }));
    }

    #[test]
    fn only_an_equal_key_is_found_in_a_listing() {
        let page = |key: &str, value: Option<&str>, base64: Option<&str>| {
            let listed = ListedKey {
                key: key.to_owned(),
                size: 2,
                version: 17,
                etag: "\"17\"".to_owned(),
                content_type: "text/plain".to_owned(),
                expires_ms: Some(5),
                value: value.map(str::to_owned),
                value_base64: base64.map(str::to_owned),
            };
            KeyPage { keys: vec![listed], next: None }
        };
        let stored = found(page("%2E.", Some("ab"), None), b"..").unwrap();
        assert_eq!((stored.bytes, stored.version, stored.expires_ms), (b"ab".to_vec(), Some(17), Some(5)));
        assert_eq!(found(page("..", None, Some("AP8=")), b"..").unwrap().bytes, [0, 255]);
        assert_eq!(found(page("..", Some("ab"), None), b"."), None);
        assert_eq!(found(KeyPage::default(), b"."), None);
    }
}
