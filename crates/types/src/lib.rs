//! The vocabulary of Coterie: ids, roles, phases and the bodies of the HTTP API.
//!
//! Everything here is data. No I/O, no clock, no tasks: both binaries and every plugin share these types.

pub mod api;
pub mod apply;
pub mod backends;
mod backoff;
mod id;
mod kept;
pub mod key_value;
pub mod limits;
mod loopback;
mod pending;
mod problem;
mod profile;
pub mod range;
pub mod reason;
mod role;
mod shard_ref;
mod spec;
mod sse;
mod suggest;
pub mod supervision;
mod target;

pub use backoff::{Backoff, Retries};
pub use id::{ClusterId, Epoch, Generation, IdError, NodeId, ServiceName, ServiceType, ShardId, StoreId};
pub use kept::KeptRole;
pub use loopback::{Loopback, is_loopback};
pub use pending::{PendingSpec, setting_path};
pub use problem::{ErrorKind, Problem};
pub use profile::{Profile, ProfileError};
pub use reason::{Reason, ReasonCode};
pub use role::{Phase, Post, Role, RoleBody, RoleError, RoleState};
pub use shard_ref::{ShardRef, ShardRefError};
pub use spec::{Holder, Spec};
pub use sse::{Frame, FrameTooLong, SseParser};
pub use suggest::did_you_mean;
pub use target::{KeyHash, Sharding, Target};
