//! The changes of a shard for its watchers: from memory, and from SlateDB's log.

pub(crate) mod feed;
pub(crate) mod history;
pub(crate) mod stream;
pub(crate) mod watcher;

pub(crate) use mesh::shards::Place;
