//! The agent: one node of a cluster. Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main(agent::builtin())
}
