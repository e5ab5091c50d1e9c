//! Requests to members: chooses a member, waits while a role moves, retries unprocessed requests, streams both ways.
//!
//! [`Mesh::send`] is the main entry: it draws two of the members that serve a type and sends the request to the cheaper one,
//! by response time and requests in flight. Members that fail too often get no requests for a while. If no member serves the type now, the request waits. If a member answers that it did not process the
//! request, or can't be reached, another one gets it. An answered request is never sent again.

mod address;
mod agents;
mod attempt;
mod base_url;
mod body;
mod budget;
mod call;
mod choose;
mod counts;
mod deadline;
mod error;
mod ewma;
pub mod head;
mod lease;
mod limits;
mod mesh;
mod options;
mod outlier;
mod panic;
mod retry;
mod roster;
pub mod shards;
mod targets;
pub mod testing;
mod tolerant;
mod upload;
mod wire;

pub use agents::{Agent, AgentError};
pub use base_url::{BaseUrl, BaseUrlError};
pub use body::{MeshBody, MeshBodyError};
pub use counts::{RetryReason, UpstreamCounts};
pub use deadline::Deadline;
pub use error::{CallError, MeshError};
pub use limits::Limits;
pub use mesh::{Mesh, Stats};
pub use options::Options;
pub use outlier::EjectionReason;
pub use targets::{Kind, Targets};
