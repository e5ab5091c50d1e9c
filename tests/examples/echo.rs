//! An agent that also has the service `echo`, which returns each request as it arrived.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main(agent::builtin().with(e2e::Echo))
}
