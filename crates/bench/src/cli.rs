//! The command line.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::{detect, failover, idle, kv, moves, readme, results, swap, torture, up};

const EXAMPLES: &str = "\
Build first, so that agent and ctl stand beside bench:
  cargo build --release -p agent -p ctl -p bench

Examples:
  cargo run --release -p bench -- up                     starts and joins
  cargo run --release -p bench -- detect --rounds 10     crashes and leaves
  cargo run --release -p bench -- swap                   role changes, quiet and under load
  cargo run --release -p bench -- move --moves 100       a shard goes back and forth while keys are used
  cargo run --release -p bench -- kv                     keys written durably and read, beside etcd
  cargo run --release -p bench -- kv --clients 64 --values 100 --choices zipf --ways gateway --no-million
  cargo run --release -p bench -- failover               the owner of a shard is killed, beside etcd's leader
  cargo run --release -p bench -- idle --seconds 60      memory and CPU of agents that have nothing to do
  cargo run --release -p bench -- torture --seconds 600  clients, faults, and a checker of what clients were told
  cargo run --release -p bench -- up --json up.json      the numbers in this file instead of target/bench/
  cargo run --release -p bench -- up --record            the numbers in crates/bench/results/up.json as well
  cargo run --release -p bench -- readme                 README's tables from crates/bench/results

p99 of fewer than 100 samples is the largest; p99.9 is told of 1,000 or more. The ratio is ours to the peer's, by p50.
Serf runs with its `local` and its `lan` profile, etcd is asked by gRPC, by JSON over its gateway and by its v2 API; the
better one of each row is shown. etcd has no gateway for keys: what goes through ours is beside etcd asked directly. Where
there is no `serf` or `etcd`, the row says so. Everything runs on loopback and in temporary folders, and is ended at the
end.";

/// Measures Coterie, and Debian's `serf` or `etcd` in the same run where it does the same job
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// Where the numbers go as JSON [default: target/bench/NAME-UNIXTIME.json, beside the binary's folder]
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the numbers in crates/bench/results as well, for README: of a release build on a quiet machine
    #[arg(long, global = true)]
    record: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Verb {
    /// How fast clusters start: `ctl up`, all see all, one join, start to serving
    Up(up::Args),
    /// How fast roles change, and whether a request fails meanwhile
    Swap(swap::Args),
    /// How fast a shard moves, and whether those who use its keys notice
    Move(moves::Args),
    /// How fast keys are written durably and read, beside etcd
    Kv(kv::Args),
    /// How long nobody can write after the owner of a shard was killed, beside etcd
    Failover(failover::Args),
    /// How fast a crash and a goodbye are seen by all
    Detect(detect::Args),
    /// What an agent costs that has nothing to do
    Idle(idle::Args),
    /// Whether what was promised is kept, whatever goes wrong
    Torture(torture::Args),
    /// Write README's tables from the numbers that were kept
    Readme(readme::Args),
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Swap(_) => "swap",
            Self::Move(_) => "move",
            Self::Kv(_) => "kv",
            Self::Failover(_) => "failover",
            Self::Detect(_) => "detect",
            Self::Idle(_) => "idle",
            Self::Torture(_) => "torture",
            Self::Readme(_) => "readme",
        }
    }

    /// Who else is measured.
    fn peer(&self) -> &'static str {
        match self {
            Self::Up(_) | Self::Swap(_) | Self::Detect(_) | Self::Idle(_) => "serf",
            Self::Move(_) | Self::Torture(_) | Self::Readme(_) => "peer",
            Self::Kv(_) | Self::Failover(_) => "etcd",
        }
    }
}

/// Measures, prints the table and writes the file.
pub(crate) async fn run(cli: &Cli) -> anyhow::Result<()> {
    let name = cli.verb.name();
    if cli.record && !results::NAMES.contains(&name) {
        bail!("README shows no numbers of `{name}`; leave --record out");
    }
    if cli.record && cfg!(debug_assertions) {
        bail!("--record is for a release build: cargo run --release -p bench -- {name} --record");
    }
    let mut report = Report::begin(cli.verb.name(), cli.verb.peer());
    let measured = match &cli.verb {
        Verb::Up(args) => Box::pin(up::run(args, &mut report)).await,
        Verb::Swap(args) => Box::pin(swap::run(args, &mut report)).await,
        Verb::Move(args) => Box::pin(moves::run(args, &mut report)).await,
        Verb::Kv(args) => Box::pin(kv::run(args, &mut report)).await,
        Verb::Failover(args) => Box::pin(failover::run(args, &mut report)).await,
        Verb::Detect(args) => Box::pin(detect::run(args, &mut report)).await,
        Verb::Idle(args) => Box::pin(idle::run(args, &mut report)).await,
        Verb::Torture(args) => Box::pin(torture::run(args, &mut report)).await,
        Verb::Readme(args) => return readme::run(args),
    };
    // What was measured before an error is worth as much as without it.
    report.finish(cli.json.as_deref(), cli.record, &measured)?;
    measured
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_examples_are_understood() {
        Cli::command().debug_assert();
        for line in EXAMPLES.lines().filter(|line| line.contains(" -- ")) {
            let words = line.split(" -- ").nth(1).unwrap();
            let words = words.split("  ").next().unwrap().split(' ');
            let parsed = Cli::try_parse_from(["bench"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}
