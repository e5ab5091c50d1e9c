//! Requests to members: chooses a member, waits while a role moves, retries unprocessed requests, streams both ways.
//!
//! [`Mesh::send`] is the main entry: it draws two of the members that serve a type and sends the request to the cheaper one,
//! by response time and requests in flight. Members that fail too often get no requests for a while. If no member serves the type now, the request waits. If a member answers that it did not process the
//! request, or can't be reached, another one gets it. An answered request is never sent again.

mod address;
mod agents;
mod attempt;
mod balance;
mod base_url;
mod body;
mod budget;
mod call;
mod choose;
pub mod core;
mod counts;
mod deadline;
mod durations;
mod error;
mod ewma;
pub mod head;
mod lease;
mod limits;
mod malformed;
mod mesh;
mod min_rate;
mod options;
mod origin;
mod outlier;
mod panic;
mod per_core;
mod pool;
mod proxies;
mod retry;
mod roster;
pub mod shards;
mod subset;
mod targets;
pub mod testing;
mod tolerant;
mod trail;
mod upload;
mod upstream;
mod wire;

pub use agents::{Agent, AgentError};
pub use balance::{AffinityKey, Balance, Turns};
pub use base_url::{BaseUrl, BaseUrlError};
pub use body::{MeshBody, MeshBodyError};
pub use counts::{ConnectResult, RetryReason, UpstreamCounts};
pub use deadline::Deadline;
pub use durations::{Durations, DurationsRead};
pub use error::{CallError, MeshError};
pub use limits::Limits;
pub use malformed::MalformedBody;
pub use mesh::{Mesh, Stats, UpstreamMember, UpstreamSeries};
pub use min_rate::MinRate;
pub use options::{Options, Repeated};
pub use outlier::EjectionReason;
pub use panic::Lost;
pub use per_core::PerCore;
pub use pool::check_ca;
pub use proxies::{is_named_after_proxy, is_proxy, proxy_refusal};
pub use targets::{Kind, Targets};
pub use trail::{Traced, Trail};
pub use upstream::{RoutePool, UpstreamRead};
