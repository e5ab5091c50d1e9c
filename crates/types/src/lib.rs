//! The words of Coterie: ids, roles, phases and the bodies of the HTTP API.
//!
//! Everything here is data. No I/O, no clock, no tasks: both binaries and every plugin share these types.

pub mod api;
mod id;
mod problem;
mod profile;
mod role;
mod target;

pub use id::{ClusterId, Generation, IdError, NodeId, ServiceType, ShardId};
pub use problem::{ErrorKind, Problem};
pub use profile::{Profile, ProfileError};
pub use role::{Phase, Role, RoleBody, RoleError, RoleState};
pub use target::{Sharding, Target};
