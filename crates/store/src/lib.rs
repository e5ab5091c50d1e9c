//! The object store of a cluster: how it is opened and tested, and the records that are decided on it.
//!
//! Gossip shows which nodes are alive; the object store decides which one owns a shard. Everything here depends on one
//! guarantee of the store: of several creators of one object, one succeeds. [`Store::open`] tests it before the store is
//! used; [`Log`] builds numbered records on it; [`Specs`] and [`Claims`] are such logs.
//!
//! ```text
//! {cluster}/store.json                     the store's identity, made once, with the result of its test
//! {cluster}/spec/{type}/{n}.json           the spec of a service
//! {cluster}/claims/{type}/{shard}/{n}.json who owns a shard
//! {cluster}/data/{type}/{shard}/…          a role's own data
//! {cluster}/probe/{uuid}/…                 what the test writes, removed after it
//! ```

mod cancellable;
mod claims;
mod connect;
mod data_log;
mod error;
pub mod faults;
mod find;
mod incremental_listing;
mod instrumented;
mod layer;
mod log;
mod mount_guard;
mod objects;
mod open;
mod page_cache;
mod probe;
mod role_logs;
#[cfg(test)]
mod s3_tests;
mod specs;
mod store_timeout;
#[cfg(test)]
mod testing;
mod timestamp_offset;
mod url;

pub use object_store;
pub use object_store::ObjectStore;

pub use crate::cancellable::Cancellable;
pub use crate::claims::{ClaimError, ClaimState, Claims, Farewell, Latest};
pub use crate::data_log::{DataEntry, DataLog, DataLogError, DataLogReader, MAX_RECORD};
pub use crate::error::{Fault, StoreError};
pub use crate::find::find;
pub use crate::incremental_listing::IncrementalListing;
pub use crate::instrumented::{Instrumented, StoreHealth};
pub use crate::layer::{Access, Layer, Layered};
pub use crate::log::{AppendError, Entry, Log};
pub use crate::open::{OpenError, Store};
pub use crate::role_logs::RoleLogs;
pub use crate::specs::{SpecError, Specs};
pub use crate::store_timeout::StoreTimeout;
pub use crate::timestamp_offset::TimestampOffset;
pub use crate::url::{StoreUrl, StoreUrlError};
