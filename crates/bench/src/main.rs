//! bench: measures Coterie, and Debian's `serf` in the same run where it does the same job.

mod cli;
mod detect;
mod fleet;
mod idle;
mod kept_log;
mod load;
mod ours;
mod ports;
mod process;
mod report;
mod serf;
mod stats;
mod swap;
mod table;
mod up;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = cli::Cli::parse();
    tokio::select! {
        biased;
        // Whatever was started is ended by the guards that are dropped here.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted");
        }
        done = cli::run(&cli) => done,
    }
}
