//! Requests that concern shards: to the owner of one, to all of them, and streams that survive a move.
//!
//! - [`Mesh::send_to`](crate::Mesh::send_to) sends a request to the member that has a shard, and streams the answer.
//! - [`Mesh::fetch`](crate::Mesh::fetch) does the same for answers in JSON that fit into memory.
//! - [`scatter()`] asks for something of each shard, all at once, and gives one result per shard: the caller decides what a
//!   missing one means.
//! - [`follow()`] merges the streams of all shards, each with a place in a [`Cursor`], and resumes a shard's at its next
//!   owner.
//!
//! `tower` has retries and time limits for one service, and knows neither shards nor owners that change; so this is ours.

mod cursor;
mod error;
mod events;
mod fetch;
mod follow;
mod scatter;

pub use cursor::{Cursor, CursorError};
pub use error::ShardError;
pub use events::events;
pub use follow::{Beginning, Begun, Follow, HEARTBEAT, NotBegun, Source, Update, follow};
pub use scatter::scatter;
