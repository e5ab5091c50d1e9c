//! What every service needs to speak HTTP, so that none of them writes it again.
//!
//! - [`problem`] and its companions: answers that refuse a request, as problem details (RFC 9457).
//! - [`query`]: the parameters of a URI, each known and at most once.
//! - [`accept_body`] and [`read_body`]: whole bodies of requests, bounded in size, in memory and in time.
//! - [`read_level`]: how new an answer must be (`?consistency=`); [`set_staleness`]: how far behind it may be.
//! - [`AnswerBuffer`]: back-pressure for large answers and slow readers.
//! - [`sse`]: server-sent events with ids from which a stream can be resumed.
//! - [`Guard`]: keeps pages of other sites out. It is a layer of everything under `/svc` already; a service needs it for
//!   listeners of its own only.

mod answer;
mod back_pressure;
mod body;
mod consistency;
mod guard;
mod least_rate;
pub mod query;
pub mod sse;
mod window;

pub use answer::{
    Answer, invalid, json, method_not_allowed, not_processed, problem, problem_with, retry_later,
};
pub use back_pressure::{
    AnswerBuffer, CHUNK, NoSpace, Outgoing, SlowReader, Space, StreamLimit, StreamPermit,
};
pub use body::{BodyError, accept_body, read_body};
pub use consistency::{STALENESS, read_level, set_staleness, staleness};
pub use guard::{Guard, HostError, HostPattern, Hosts};
pub use least_rate::{LeastRate, TooSlow};
pub use window::Window;
