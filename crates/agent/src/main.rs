//! The agent: one node of a cluster, from its arguments to its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main(agent::builtin())
}
