//! The base of the end-to-end tests and benchmarks: real nodes in one process, the real binaries, and a test plugin.

mod echo;
mod golden;
mod machine;
mod moto;
mod sandbox;

pub use echo::{Echo, OwnedEcho};
pub use golden::golden;
pub use machine::{Machine, Running, Said, binaries, example, free_port, is_free, repository};
pub use moto::Moto;
pub use sandbox::{NodeOptions, Sandbox, eventually};
