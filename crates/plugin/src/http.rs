//! The parts of HTTP that services share.
//!
//! - [`problem`] and the functions beside it: answers that refuse a request, as problem details (RFC 9457).
//! - [`query`]: the parameters of a URI. Unknown and repeated ones are refused.
//! - [`ListQuery`]: which keys a listing shows; [`ShardMember::list_all`](crate::shard::ShardMember::list_all): a page of
//!   all shards.
//! - [`accept_body`] and [`read_body`]: whole bodies of requests, with limits on size, memory and time.
//! - [`read_level`]: how fresh an answer must be (`?consistency=`); [`set_staleness`]: how far behind it may be.
//! - [`conditions`]: versions as entity tags, and conditions of reads and writes (`If-Match`, `If-None-Match`).
//! - [`AnswerBuffer`]: back-pressure for large answers and slow readers.
//! - [`sse`]: server-sent events with ids from which a stream can be resumed.
//! - [`grpc`] and [`trace`]: what a proxy has to know of gRPC and of traces.
//! - [`Guard`]: refuses requests of other sites' pages. It already protects everything under `/svc`; a service only needs
//!   it for listeners that it opens itself.

mod answer;
mod back_pressure;
mod body;
pub mod conditions;
mod consistency;
pub mod grpc;
mod guard;
mod least_rate;
mod list_query;
mod listing;
pub mod query;
pub mod sse;
pub mod trace;
mod window;

pub use answer::{
    Answer, ProblemCode, invalid, json, method_not_allowed, not_processed, problem, problem_with, retry_later,
};
pub use back_pressure::{
    AnswerBuffer, CHUNK, NoSpace, Outgoing, SlowReader, Space, StreamLimit, StreamPermit,
};
pub use body::{BodyError, accept_body, read_body};
pub use consistency::{STALENESS, read_level, set_staleness, staleness};
pub use guard::{Guard, HostError, HostPattern, Hosts};
pub use least_rate::{LeastRate, TooSlow};
pub use list_query::ListQuery;
pub use window::Window;
