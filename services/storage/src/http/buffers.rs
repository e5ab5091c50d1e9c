//! What slow readers may hold of this node's memory, and how many may watch.

use axum::response::Response;
use plugin::Counter;
use plugin::http::{AnswerBuffer, NoSpace, StreamLimit, StreamPermit, not_processed, retry_later};
use types::{ErrorKind, Problem};

use crate::meters::Meters;
use crate::settings::Settings;

/// What the large answers of one kind hold at once, in bytes.
const SIZE: usize = 32 * 1024 * 1024;

/// The memory for answers of a member.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    /// Large values that were asked for by their keys.
    pub(crate) values: AnswerBuffer,
    /// Large events of watches.
    pub(crate) events: AnswerBuffer,
    /// Listings of one shard.
    pub(crate) pages: AnswerBuffer,
    /// Listings of all shards. They ask for those of one, which therefore never wait for them.
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

    /// Lets another watch begin, if there are not too many.
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

/// Refuses an answer that found no space.
pub(crate) fn no_space(error: NoSpace) -> Response {
    error.to_response("try again in a moment; a listing may ask for less with `limit` or `bytes`")
}
