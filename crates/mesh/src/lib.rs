//! Requests to members: pick one, wait while a role moves, retry what was not processed, stream both ways.
//!
//! [`Mesh::send`] is the whole of it: of the members that serve a type two are drawn, and the less loaded one gets the
//! request. If nobody serves for the moment, the request waits. If a member says that it did not process it, or can't
//! be reached, another one gets it. What has been answered is never sent again.

mod base_url;
mod body;
mod budget;
mod call;
mod choose;
mod error;
pub mod head;
mod lease;
mod limits;
mod mesh;
mod retry;
mod roster;
mod targets;
#[cfg(test)]
mod testing;
mod tolerant;
mod upload;
mod wire;

pub use base_url::{BaseUrl, BaseUrlError};
pub use body::{MeshBody, MeshBodyError};
pub use error::{CallError, MeshError};
pub use limits::Limits;
pub use mesh::{Mesh, Stats};
pub use targets::Targets;
