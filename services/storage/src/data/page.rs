//! What a listing shows of a key.

use plugin::shard;
use serde::Deserialize;

/// About what a listed key takes besides its texts.
const LISTED: usize = 128;

/// A key of a page.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Listed {
    /// The key, encoded for a path.
    pub(crate) key: String,
    /// The size of the value in bytes.
    pub(crate) size: u64,
    /// The version of the value.
    pub(crate) version: u64,
    /// The value's content type.
    pub(crate) content_type: String,
    /// When it expires, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) expires_ms: Option<u64>,
    /// The value, if values were requested and it is text.
    #[serde(default)]
    pub(crate) value: Option<String>,
    /// The value in base64, if values were requested and it is no text.
    #[serde(default)]
    pub(crate) value_base64: Option<String>,
}

impl shard::Listed for Listed {
    fn key(&self) -> &str {
        &self.key
    }

    fn size(&self) -> usize {
        let values = [&self.value, &self.value_base64].into_iter().flatten().map(String::len);
        self.key.len() + self.content_type.len() + values.sum::<usize>() + LISTED
    }
}

/// Keys in order.
pub(crate) type Page = shard::Page<Listed>;
