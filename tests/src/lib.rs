//! What end-to-end tests and benchmarks stand on: real nodes in one process, and a plugin to play with.

mod echo;
mod sandbox;

pub use echo::Echo;
pub use sandbox::{NodeOptions, Sandbox, eventually};
