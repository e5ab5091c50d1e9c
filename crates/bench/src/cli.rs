//! The command line.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::proxies::handshakes;
use crate::report::Report;
use crate::{
    balancer, detect, failover, front, gateway, idle, kv, moves, page, results, search, swap, torture, up,
};

const EXAMPLES: &str = "\
Build first; bench expects agent and ctl in its own folder:
  cargo build --release -p agent -p ctl -p bench

Examples:
  cargo run --release -p bench -- up                     cluster starts and joins
  cargo run --release -p bench -- detect --rounds 10     crashes and leaves
  cargo run --release -p bench -- swap                   role changes, idle and under load
  cargo run --release -p bench -- move --moves 100       a shard moves back and forth under load
  cargo run --release -p bench -- front                  roles move and nodes restart behind a balancer, under load
  cargo run --release -p bench -- kv                     durable writes and reads of keys, compared with etcd
  cargo run --release -p bench -- kv --clients 64 --values 100 --choices zipf --ways gateway --no-million
  cargo run --release -p bench -- search                 searches and indexing, compared with Tantivy, SQLite and DuckDB
  cargo run --release -p bench -- search --parts searches --corpora generated --kinds term,facet
  cargo run --release -p bench -- failover               write outage after an owner (etcd: the leader) is killed
  cargo run --release -p bench -- idle --seconds 60      memory and CPU of idle agents
  cargo run --release -p bench -- gateway --peers DIR    requests through a gateway, compared with nginx, HAProxy and others
  cargo run --release -p bench -- gateway --parts http1,tls --proxies ours,nginx,haproxy --rounds 5
  cargo run --release -p bench -- balancer --peers DIR   connections and requests through a balancer, compared with the same
  cargo run --release -p bench -- torture --seconds 600  clients, injected faults, and a consistency check
  cargo run --release -p bench -- torture --service searcher  the same with documents, which clients also search for
  cargo run --release -p bench -- up --json up.json      write the results to this file instead of target/bench/
  cargo run --release -p bench -- up --record            also write crates/bench/results/up.json
  cargo run --release -p bench -- page                   write docs/benchmarks.org from crates/bench/results

With fewer than 100 samples, p99 is the maximum; p99.9 needs 1,000 samples. RATIO is our p50 divided by the peer's p50.
Serf runs with its `local` and its `lan` profile; etcd is called through gRPC, JSON and its v2 API. Each row shows the
better one. etcd has no gateway for keys, so rows for our gateway show direct calls to etcd. If `serf` or `etcd` is not
installed, the row says so. `search` starts a process with Tantivy itself; for SQLite and DuckDB it needs python3, and for
DuckDB the PyPI packages duckdb, duckdb-extensions and duckdb-extension-fts. `gateway` and `balancer` need two cores and
Debian's nginx, wrk and nghttp2-client; each other proxy that is not installed is skipped, with the command that installs it.
Everything runs on loopback and in temporary
folders, and stops when bench exits.";

/// Measure Coterie, and Debian's `serf` or `etcd` on the same task in the same run
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// Write the results to this JSON file [default: target/bench/NAME-UNIXTIME.json, in the binary's target folder]
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the results to crates/bench/results, for docs/benchmarks.org; requires a release build, use a quiet machine
    #[arg(long, global = true)]
    record: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// What to measure.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Cluster start times: `ctl up`, full membership, one join, start to serving
    Up(up::Args),
    /// Role change times, and failed requests meanwhile
    Swap(swap::Args),
    /// Shard move times, and failed, stale or lost keys meanwhile
    Move(moves::Args),
    /// Failed requests while roles move and nodes restart behind a load balancer
    Front(front::Args),
    /// Rates and latencies of durable writes and of reads, compared with etcd
    Kv(kv::Args),
    /// Searches, indexing and takeover of a searcher, compared with Tantivy, SQLite and DuckDB
    Search(search::Args),
    /// Serve Tantivy, for `search`
    #[command(hide = true)]
    SearchPeer(search::peer::Args),
    /// Write outage after the owner of a shard was killed, compared with etcd
    Failover(failover::Args),
    /// Time until all nodes see a crash and a leave
    Detect(detect::Args),
    /// Memory and CPU of idle agents
    Idle(idle::Args),
    /// Requests through a gateway: rates, latencies, CPU and memory, compared with nginx, HAProxy, Envoy, Traefik and Caddy
    Gateway(gateway::Args),
    /// Connections and requests through a load balancer, compared with the same proxies
    Balancer(balancer::Args),
    /// Open TLS connections, for `gateway`
    #[command(hide = true)]
    Handshakes(handshakes::Args),
    /// Consistency under injected faults
    Torture(torture::Args),
    /// Write docs/benchmarks.org from the committed results
    Page(page::Args),
}

impl Verb {
    fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Swap(_) => "swap",
            Self::Move(_) => "move",
            Self::Front(_) => "front",
            Self::Kv(_) => "kv",
            Self::Search(_) => "search",
            Self::SearchPeer(_) => "search-peer",
            Self::Failover(_) => "failover",
            Self::Detect(_) => "detect",
            Self::Idle(_) => "idle",
            Self::Gateway(_) => "gateway",
            Self::Balancer(_) => "balancer",
            Self::Handshakes(_) => "handshakes",
            Self::Torture(_) => "torture",
            Self::Page(_) => "page",
        }
    }

    /// The software to compare with.
    fn peer(&self) -> &'static str {
        match self {
            Self::Up(_) | Self::Swap(_) | Self::Detect(_) | Self::Idle(_) => "serf",
            Self::Move(_)
            | Self::Front(_)
            | Self::Gateway(_)
            | Self::Balancer(_)
            | Self::Handshakes(_)
            | Self::Search(_)
            | Self::SearchPeer(_)
            | Self::Torture(_)
            | Self::Page(_) => "peer",
            Self::Kv(_) | Self::Failover(_) => "etcd",
        }
    }
}

/// Runs the measurement, prints the table and writes the file.
pub(crate) async fn run(cli: &Cli) -> anyhow::Result<()> {
    let name = cli.verb.name();
    if cli.record && !results::NAMES.contains(&name) {
        bail!("docs/benchmarks.org shows no results of `{name}`; omit --record");
    }
    if cli.record && cfg!(debug_assertions) {
        bail!("--record needs a release build: cargo run --release -p bench -- {name} --record");
    }
    let mut report = Report::begin(cli.verb.name(), cli.verb.peer());
    let measured = match &cli.verb {
        Verb::Up(args) => Box::pin(up::run(args, &mut report)).await,
        Verb::Swap(args) => Box::pin(swap::run(args, &mut report)).await,
        Verb::Move(args) => Box::pin(moves::run(args, &mut report)).await,
        Verb::Front(args) => Box::pin(front::run(args, &mut report)).await,
        Verb::Kv(args) => Box::pin(kv::run(args, &mut report)).await,
        Verb::Search(args) => Box::pin(search::run(args, &mut report)).await,
        Verb::SearchPeer(args) => return search::peer::serve(args).await,
        Verb::Failover(args) => Box::pin(failover::run(args, &mut report)).await,
        Verb::Detect(args) => Box::pin(detect::run(args, &mut report)).await,
        Verb::Idle(args) => Box::pin(idle::run(args, &mut report)).await,
        Verb::Gateway(args) => Box::pin(gateway::run(args, &mut report)).await,
        Verb::Balancer(args) => Box::pin(balancer::run(args, &mut report)).await,
        Verb::Handshakes(args) => return handshakes::serve(args).await,
        Verb::Torture(args) => Box::pin(torture::run(args, &mut report)).await,
        Verb::Page(args) => return page::run(args),
    };
    // Report what was measured even if an error ended the run.
    report.finish(cli.json.as_deref(), cli.record, &measured)?;
    measured
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_valid_and_its_examples_parse() {
        Cli::command().debug_assert();
        for line in EXAMPLES.lines().filter(|line| line.contains(" -- ")) {
            let words = line.split(" -- ").nth(1).unwrap();
            let words = words.split("  ").next().unwrap().split(' ');
            let parsed = Cli::try_parse_from(["bench"].into_iter().chain(words));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}
