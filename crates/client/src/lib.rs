//! A typed client of the agents' HTTP API.
//!
//! Control calls are short: they connect within a second, end within a limit, follow no redirect and use no proxy, so
//! that a loopback address is reached on machines that have one. Errors of the API arrive as the problem they are.

mod call;
mod error;
mod events;
mod frames;
mod kv;
mod kv_step;
mod kv_watch;

pub use call::{Client, IfMatch, Leaving, plain_http};
pub use error::ClientError;
pub use kv::{KeyCondition, KeyPage, KeyQuery, ListedKey, PutKey, Stored};
pub use kv_watch::{KvChange, KvChangeKind, KvChanged, KvWatch, KvWatchQuery};
