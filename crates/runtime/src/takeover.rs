//! Which shard needs another owner or replica, and which node provides it: decided from gossip, confirmed by the owner
//! and the store.

pub(crate) mod claim_watch;
pub(crate) mod crash_detector;
pub(crate) mod isolation;
pub(crate) mod layouts;
pub(crate) mod owner_check;
pub(crate) mod surplus;
pub(crate) mod twins;
pub(crate) mod vacancy;
