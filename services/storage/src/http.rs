//! The HTTP API: parses paths and queries, and writes the answers.

mod batch;
mod buffers;
mod get;
mod import;
mod json_value;
mod listing;
mod path;
mod put;
mod refusal;
mod routes;
mod watch;

pub(crate) use buffers::Buffers;
pub(crate) use path::target;
pub(crate) use routes::router;
