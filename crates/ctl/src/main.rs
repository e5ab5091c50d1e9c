//! ctl, the control plane's command line: starts clusters on this machine, and inspects and changes them over HTTP.

mod agent_bin;
mod aside;
mod ask;
mod cli;
mod complete;
mod drift;
mod dropped;
mod exit;
#[cfg(test)]
mod fake;
mod hints;
mod interrupt;
mod kept;
mod launch;
mod lines;
mod listens;
mod lock;
mod manifest_file;
mod out;
mod owner;
mod pace;
mod part;
mod ports;
mod process;
mod reach;
mod record;
mod render;
mod service;
mod spec_diff;
mod start;
mod state;
mod suggest;
mod supervision;
mod tail;
mod timeout;
mod twins;
mod verbs;
mod views;

use std::process::ExitCode;

fn main() -> ExitCode {
    hints::set_program(std::env::args_os().next());
    match cli::complete() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return cli::print_clap_error(&error),
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return cli::print_clap_error(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("no async runtime")),
    };
    match runtime.block_on(verbs::run(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error),
    }
}
