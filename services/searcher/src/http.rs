//! The HTTP API: parses paths and queries, and writes the answers.

mod aliases;
mod bodies;
mod bulk;
mod delete;
mod document;
mod get;
mod indexes;
mod inner;
mod named;
mod pages;
mod parameter;
mod path;
mod refusal;
mod reindex;
mod routes;
mod search;
mod shards;
mod states;
mod suggest;
mod templates;
mod write;

pub(crate) use bodies::Bodies;
pub(crate) use bulk::{MAX_LINES, one_line, write_limit};
pub(crate) use delete::{Deleted, LIMIT as DELETE_LIMIT};
pub(crate) use get::{Found, GET_LIMIT};
pub(crate) use inner::{InnerQuery, Verb};
pub(crate) use path::{DocumentId, may_repeat, target};
pub(crate) use refusal::{Reason, Refusal, RefusalKind};
pub(crate) use reindex::{Copied, LIMIT as REINDEX_LIMIT, Reindex, Total};
pub(crate) use routes::router;
pub(crate) use write::{Item, ItemOutcome};
