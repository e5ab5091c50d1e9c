//! The HTTP API: parses paths and queries, and writes the answers.

mod bodies;
mod bulk;
mod delete;
mod document;
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
pub(crate) use inner::{InnerQuery, Verb};
pub(crate) use path::{may_repeat, target};
pub(crate) use refusal::{Refusal, RefusalKind};
pub(crate) use routes::router;
