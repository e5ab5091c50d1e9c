//! A node: gossip, the HTTP API, and the supervisor of its role. Names no service.
//!
//! [`run`] is all that an agent needs:
//!
//! ```no_run
//! # async fn example() -> Result<(), runtime::NodeError> {
//! let config = runtime::Config::new("/var/lib/my-node".into());
//! runtime::run(config, plugin::Registry::new()).await
//! # }
//! ```

mod api;
mod failure;
mod node;
mod role;
mod supervisor;
mod takeover;

pub use api::openapi;
pub use node::config::Config;
pub use node::error::NodeError;
pub use node::identity::DataDirError;
pub use node::listen::ListenError;
pub use node::names::generated_id;
pub use node::shard_count::ShardsError;
pub use node::signals::Signals;
pub use node::{Leaver, Node, run, run_and_show};
pub use store::{StoreUrl, StoreUrlError};
