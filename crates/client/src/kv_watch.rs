//! A watch on the keys of the service type `storage`.

use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, Serialize};
use types::Problem;

use crate::call::Client;
use crate::error::ClientError;
use crate::frames::Frames;
use crate::kv::PLAIN;

/// The largest event, in bytes: a value has at most 8 MiB, and its JSON at most about twice that.
const MAX_EVENT: usize = 20 * 1024 * 1024;

/// The keys to watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvWatchQuery {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Whether the values are sent.
    pub values: bool,
    /// Resume after this cursor; `None` starts now.
    pub from: Option<String>,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvChangeKind {
    /// The key has a new value.
    Put,
    /// The key was removed.
    Delete,
}

impl KvChangeKind {
    /// The name of the SSE event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KvChange {
    /// The cursor to resume from in order to see every later change.
    pub cursor: String,
    /// The kind of the change.
    pub event: KvChangeKind,
    /// The key and its value.
    #[serde(flatten)]
    pub of: KvChanged,
}

/// The key that changed, and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvChanged {
    /// The key, percent-encoded as in a path.
    pub key: String,
    /// The number of the write; it increases within a shard.
    pub version: u64,
    /// The key's shard.
    pub shard: u32,
    /// The size of the value, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The value's content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The value, if it is text and was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in Base64 (RFC 4648, section 4), if it is not text and was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A stream of changes.
#[derive(Debug)]
pub struct KvWatch {
    frames: Frames,
    cursor: String,
}

impl Client {
    /// Watches keys of all shards through this agent, which must be a member of `storage`.
    ///
    /// To miss nothing, start the watch before you list.
    pub async fn kv_watch(&self, query: &KvWatchQuery) -> Result<KvWatch, ClientError> {
        let prefix = utf8_percent_encode(&query.prefix, PLAIN);
        let path = format!("{}?values={}&prefix={prefix}", self.keys_path("watch"), query.values);
        let mut frames = Frames::open(self, &path, query.from.as_deref(), MAX_EVENT).await?;
        let ready = frames.next().await?.filter(|frame| frame.event == "ready");
        match ready.and_then(|frame| frame.id) {
            Some(cursor) => Ok(KvWatch { frames, cursor }),
            None => Err(frames.unexpected("the stream does not begin with its cursor".to_owned())),
        }
    }
}

impl KvWatch {
    /// The next change; `None` when the agent has ended the stream: resume from the cursor. The problem `history-gone`
    /// means that changes were missed: start a new watch and list again. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<KvChange>, ClientError> {
        let Some(frame) = self.frames.next().await? else {
            self.note();
            return Ok(None);
        };
        let event = match frame.event.as_str() {
            "put" => KvChangeKind::Put,
            "delete" => KvChangeKind::Delete,
            "gone" => return Err(ClientError::Problem(Box::new(self.frames.data::<Problem>(&frame)?))),
            other => return Err(self.frames.unexpected(format!("an event `{other}`"))),
        };
        let of = self.frames.data(&frame)?;
        self.cursor = frame.id.unwrap_or_default();
        Ok(Some(KvChange { cursor: self.cursor.clone(), event, of }))
    }

    /// The cursor to resume from in order to see every change after those returned here.
    pub fn cursor(&mut self) -> &str {
        self.note();
        &self.cursor
    }

    /// Moves the cursor to the last event id once every received frame was returned: heartbeats advance the stream even
    /// when no watched key changes.
    fn note(&mut self) {
        if !self.frames.has_more()
            && let Some(id) = self.frames.last_event_id()
            && id != self.cursor
        {
            id.clone_into(&mut self.cursor);
        }
    }
}
