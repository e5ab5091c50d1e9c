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
mod arrival;
mod clocks;
mod config;
mod control;
mod events;
mod gate;
mod ground;
mod identity;
mod inquiry;
mod keeper;
mod layouts;
mod life;
mod lifecycle;
mod lifelines;
mod listen;
mod names;
mod node;
mod node_error;
mod owner;
mod peer;
mod running;
mod seen;
mod shards;
mod sight;
mod signals;
mod stopwatch;
mod supervisor;
mod surplus;
mod twins;
mod vacancy;

pub use api::openapi;
pub use config::Config;
pub use identity::DataDirError;
pub use listen::ListenError;
pub use names::generated_id;
pub use node::{Leaver, Node, run, run_and_show};
pub use node_error::NodeError;
pub use shards::ShardsError;
pub use signals::Signals;
pub use store::{StoreUrl, StoreUrlError};
