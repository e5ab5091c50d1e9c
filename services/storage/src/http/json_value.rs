//! Keys and values in the JSON of batches and imports.
//!
//! Pure. A key is written as in paths and listings: percent-encoded where necessary. A value is text, or base64 (RFC
//! 4648, section 4) under another name.

use std::num::NonZeroU64;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use plugin::shard::{Key, KeyError};

use crate::data::record::{MAX_CONTENT_TYPE, Record};

/// The default content type of a text.
const TEXT: &str = "text/plain; charset=utf-8";

/// Why a key or a value in JSON is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonValueError {
    /// See the message.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Give a value.
    #[error("there is no value: give `value` with text, or `value_base64`")]
    NoValue,
    /// Give only one of them.
    #[error("`value` and `value_base64` are both given")]
    TwoValues,
    /// Encode the value with padding.
    #[error("`value_base64` is not base64: {0}")]
    Base64(String),
    /// Send a shorter value.
    #[error("the value has {has} bytes; at most {most} are allowed")]
    TooLarge {
        /// Its length.
        has: usize,
        /// What is allowed.
        most: usize,
    },
    /// Write a content type as in HTTP.
    #[error("`{0}` is no content type")]
    ContentType(String),
}

/// A value in JSON.
#[derive(Debug, Default)]
pub(crate) struct JsonValue {
    /// As text.
    pub(crate) text: Option<String>,
    /// Or in base64.
    pub(crate) base64: Option<String>,
    /// Its content type.
    pub(crate) content_type: Option<String>,
}

/// Parses a key.
pub(crate) fn key(given: &str) -> Result<Key, JsonValueError> {
    Ok(Key::from_path(given)?)
}

impl JsonValue {
    /// Whether no part of it is given.
    pub(crate) fn is_none(&self) -> bool {
        self.text.is_none() && self.base64.is_none() && self.content_type.is_none()
    }

    /// The record of the value, which may have at most `most` bytes.
    pub(crate) fn record(
        self,
        expires_ms: Option<NonZeroU64>,
        most: usize,
    ) -> Result<Record, JsonValueError> {
        let is_text = self.text.is_some();
        let value = match (self.text, self.base64) {
            (Some(text), None) => Bytes::from(text),
            (None, Some(encoded)) => {
                let decoded = STANDARD.decode(encoded);
                decoded.map_err(|error| JsonValueError::Base64(error.to_string()))?.into()
            }
            (Some(_), Some(_)) => return Err(JsonValueError::TwoValues),
            (None, None) => return Err(JsonValueError::NoValue),
        };
        if value.len() > most {
            return Err(JsonValueError::TooLarge { has: value.len(), most });
        }
        let content_type = match self.content_type {
            Some(given) if given.len() > MAX_CONTENT_TYPE => return Err(JsonValueError::ContentType(given)),
            Some(given) if HeaderValue::from_str(&given).is_err() => {
                return Err(JsonValueError::ContentType(given));
            }
            Some(given) => Some(given),
            None => is_text.then(|| TEXT.to_owned()),
        };
        Ok(Record::new(content_type.as_deref().map(str::as_bytes), value).expiring(expires_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(
        text: Option<&str>,
        base64: Option<&str>,
        content_type: Option<&str>,
    ) -> Result<Record, JsonValueError> {
        let [text, base64, content_type] = [text, base64, content_type].map(|given| given.map(str::to_owned));
        JsonValue { text, base64, content_type }.record(None, 4)
    }

    #[test]
    fn a_value_is_text_or_base64() {
        let text = record(Some("ü"), None, None).unwrap();
        assert_eq!((&text.value()[..], text.content_type()), ("ü".as_bytes(), TEXT.into()));
        let binary = record(None, Some("AP8="), None).unwrap();
        assert_eq!(&binary.value()[..], [0, 255]);
        assert_eq!(binary.content_type(), "application/octet-stream");
        assert_eq!(record(Some(""), None, Some("a/b")).unwrap().content_type(), "a/b");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(record(None, None, None), Err(JsonValueError::NoValue));
        assert_eq!(record(Some(""), Some(""), None), Err(JsonValueError::TwoValues));
        assert!(matches!(record(None, Some("AP8"), None), Err(JsonValueError::Base64(_))));
        assert_eq!(record(Some("12345"), None, None), Err(JsonValueError::TooLarge { has: 5, most: 4 }));
        for wrong in ["a\nb".to_owned(), "a".repeat(256)] {
            assert_eq!(record(Some(""), None, Some(&wrong)), Err(JsonValueError::ContentType(wrong)));
        }
        assert_eq!(key("%"), Err(JsonValueError::Key(Key::from_path("%").unwrap_err())));
    }
}
