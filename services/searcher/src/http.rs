//! The HTTP API: parses paths and queries, and writes the answers.

mod bodies;
mod bulk;
mod delete;
mod document;
mod get;
mod indexes;
mod inner;
mod parameter;
mod path;
mod refusal;
mod routes;
mod search;
mod shards;
mod states;
mod suggest;
mod write;

pub(crate) use bodies::Bodies;
pub(crate) use bulk::{MAX_LINES, one_line, write_limit};
pub(crate) use delete::{Deleted, LIMIT as DELETE_LIMIT};
pub(crate) use get::{Found, GET_LIMIT};
pub(crate) use inner::{InnerQuery, Verb};
pub(crate) use path::{DocumentId, may_repeat, target};
pub(crate) use refusal::{Reason, Refusal, RefusalKind};
pub(crate) use routes::router;
pub(crate) use write::{Item, ItemOutcome};
