//! bench: measures Coterie, and Debian's `serf` or `etcd` on the same task in the same run.

mod balancer;
mod cli;
mod detect;
mod failover;
mod fleet;
mod front;
mod gateway;
mod idle;
mod kept_log;
mod kv;
mod load;
mod moves;
mod node_config;
mod nodes;
mod ours;
mod page;
mod ports;
mod proc;
mod process;
mod progress;
mod proxies;
mod report;
mod results;
mod rows;
mod search;
mod serf;
mod stats;
mod swap;
mod table;
mod times;
mod torture;
mod up;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// The agent's allocator, so that the handler that is compared with a searcher has the same.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let done = tokio::select! {
        biased;
        // Guards dropped here end every process that was started.
        interrupted = tokio::signal::ctrl_c() => Err(match interrupted {
            Ok(()) => anyhow::anyhow!("interrupted"),
            Err(error) => error.into(),
        }),
        done = cli::run(&cli) => done,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
