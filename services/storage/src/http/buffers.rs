//! The memory that answers to slow readers may hold, and the number of watches.

use axum::response::Response;
use plugin::Counter;
use plugin::http::{AnswerBuffer, NoSpace, StreamLimit, StreamPermit, not_processed, retry_later};
use types::{ErrorKind, Problem};

use crate::meters::Meters;
use crate::settings::Settings;

/// The size of all large answers of one kind, in bytes.
const SIZE: usize = 32 * 1024 * 1024;

/// The memory of a member for large answers.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    /// Large values that were requested by key.
    pub(crate) values: AnswerBuffer,
    /// Large events of watches.
    pub(crate) events: AnswerBuffer,
    /// Listings of one shard.
    pub(crate) pages: AnswerBuffer,
    /// Listings of all shards. They request listings of one shard, which therefore never wait for them.
    pub(crate) gathered: AnswerBuffer,
    watches: StreamLimit,
    refused_watches: Counter,
}

impl Buffers {
    pub(crate) fn new(settings: &Settings, meters: &Meters) -> Self {
        let buffer = || AnswerBuffer::new(SIZE, &meters.cut);
        Self {
            values: buffer(),
            events: buffer(),
            pages: buffer(),
            gathered: buffer(),
            watches: StreamLimit::new(settings.max_watches.as_usize(), &meters.watches),
            refused_watches: meters.refused_watches.clone(),
        }
    }

    /// Admits another watch, if there are not too many.
    pub(crate) fn watch(&self) -> Result<StreamPermit, Response> {
        self.watches.enter().ok_or_else(|| {
            self.refused_watches.inc();
            let detail = format!("this node has {} watches, as many as it takes", self.watches.most());
            let problem = Problem::new(ErrorKind::Unavailable, "too-many-watches", detail)
                .hint("try again in a moment, watch through another member, or raise `max_watches`");
            retry_later(not_processed(&problem))
        })
    }
}

/// The refusal of an answer that found no space.
pub(crate) fn no_space(error: NoSpace) -> Response {
    error.to_response("try again in a moment; a listing may ask for less with `limit` or `bytes`")
}
