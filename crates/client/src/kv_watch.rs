//! Changes of keys of the service type `storage`, as they happen.

use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, Serialize};
use types::Problem;

use crate::call::Client;
use crate::error::ClientError;
use crate::frames::Frames;
use crate::kv::PLAIN;

/// The largest event: a value has at most 8 MiB, and its JSON at most about twice as much.
const MAX_EVENT: usize = 20 * 1024 * 1024;

/// What is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KvWatchQuery {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Whether values are sent.
    pub values: bool,
    /// Go on after this cursor instead of from now.
    pub from: Option<String>,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvChangeKind {
    /// It has this value now.
    Put,
    /// It has none any more.
    Delete,
}

impl KvChangeKind {
    /// The name of the event.
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
    /// What is watched from to see all that comes after this.
    pub cursor: String,
    /// What happened.
    pub event: KvChangeKind,
    /// The key and its value.
    #[serde(flatten)]
    pub of: KvChanged,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvChanged {
    /// The key, percent-encoded as in a path.
    pub key: String,
    /// The number of the write; it rises within a shard.
    pub version: u64,
    /// The key's shard.
    pub shard: u32,
    /// Bytes of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The value's content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The value, if it is text and was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in Base64 (RFC 4648, section 4), if it is no text and was asked for.
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
    /// Watches keys of all shards through this agent, which must be a member of storage.
    ///
    /// To miss nothing, watch first and list then.
    pub async fn kv_watch(&self, query: &KvWatchQuery) -> Result<KvWatch, ClientError> {
        let prefix = utf8_percent_encode(&query.prefix, PLAIN);
        let path = format!("/svc/storage/watch?values={}&prefix={prefix}", query.values);
        let mut frames = Frames::open(self, &path, query.from.as_deref(), MAX_EVENT).await?;
        let ready = frames.next().await?.filter(|frame| frame.event == "ready");
        match ready.and_then(|frame| frame.id) {
            Some(cursor) => Ok(KvWatch { frames, cursor }),
            None => Err(frames.unexpected("the stream does not begin with its cursor".to_owned())),
        }
    }
}

impl KvWatch {
    /// The next change; nothing when the agent has ended the stream: go on from the cursor. The problem
    /// `history-gone` says that changes were missed: watch anew and list. Cancel-safe.
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

    /// What to watch from to see all that comes after what was seen here.
    pub fn cursor(&mut self) -> &str {
        self.note();
        &self.cursor
    }

    /// Heartbeats say how far the stream is, though nothing that was asked for happened.
    fn note(&mut self) {
        if !self.frames.has_more()
            && let Some(id) = self.frames.last_event_id()
            && id != self.cursor
        {
            id.clone_into(&mut self.cursor);
        }
    }
}
