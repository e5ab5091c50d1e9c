//! Requests that concern shards: to the owner of one, to all of them, and streams that survive a move.
//!
//! - [`Mesh::send_to`](crate::Mesh::send_to) sends a request to the member that has a shard, and streams the answer.
//! - [`Mesh::fetch`](crate::Mesh::fetch) does the same for answers in JSON that fit into memory.
//! - [`scatter()`] runs a request for each shard, all at once, and returns one result per shard: the caller decides what a
//!   missing one means.
//! - [`follow()`] merges the streams of all shards, each with a position in a [`Cursor`], and resumes a shard's stream at
//!   its next owner.
//!
//! `tower` has retries and timeouts for one service, but no shards and no changing owners; hence this module.

mod cursor;
mod error;
mod events;
mod fetch;
mod follow;
mod place;
mod scatter;

pub use cursor::{Cursor, CursorError};
pub use error::ShardError;
pub use events::events;
pub use follow::{Beginning, Begun, Follow, HEARTBEAT, NotBegun, Source, Update, follow};
pub use place::{NotAPlace, Place};
pub use scatter::scatter;
