//! Measures how fast a shard moves from one node to another, and whether its clients notice.
//!
//! Real agents: `gateway`, which receives all requests; `a` and `b`, which take shard 0 from each other; `other`, which
//! keeps shard 1.

mod ledger;
mod slow;
pub(crate) mod workload;

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context;
use humantime::format_rfc3339_micros;
use serde_json::json;

use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::stats::Summary;
use crate::times::{CHANGE_LIMIT, Times};
use slow::SlowClients;
use workload::{Failure, Outcome, Workload};

const SHARDS: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");
/// The number of failures reported with the log lines around them.
const SHOWN: usize = 5;
const LOG_AROUND: Duration = Duration::from_millis(400);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Moves of shard 0
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    moves: u32,
    /// Clients that send requests all the time; every other one writes
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    clients: u16,
    /// Milliseconds between the end of a move and the next one
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pause: u64,
    /// Do not run slow clients: uploads, downloads, watches and listings at the gateway and at each owner
    #[arg(long)]
    no_slow_clients: bool,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut nodes = Nodes::new(Binaries::find()?)?;
    nodes.apply(&json!({ "storage": { "shards": SHARDS } })).await?;
    for (name, role) in
        [("gateway", "api_gateway"), ("a", "storage/0"), ("b", "standby"), ("other", "storage/1")]
    {
        nodes.start(name, &role.parse()?)?;
        nodes.ready(name).await?;
    }
    nodes.sees("gateway", 4).await?;
    let gateway = nodes.gateway("gateway").await?;
    let workload = Workload::start(usize::from(args.clients), gateway, SHARDS);
    let mut slow = if args.no_slow_clients { None } else { Some(SlowClients::start(gateway).await?) };
    let mut times = Times::default();
    let moved = moves(args, &nodes, &workload, slow.as_mut(), &mut times).await;
    workload.stage("after the last move".to_owned());
    let outcome = workload.finish().await?;
    if let Some(slow) = slow {
        report.notes.push(slow.finish().await);
    }
    report_rows(&times, &outcome, &nodes, report);
    nodes.end().await;
    moved
}

async fn moves(
    args: &Args,
    nodes: &Nodes,
    workload: &Workload,
    mut slow: Option<&mut SlowClients>,
    times: &mut Times,
) -> anyhow::Result<()> {
    let client = nodes.client("gateway")?.within(CHANGE_LIMIT);
    for number in 1..=args.moves {
        let to = if number.is_multiple_of(2) { "a" } else { "b" };
        if let Some(slow) = &mut slow {
            let from = if number.is_multiple_of(2) { "b" } else { "a" };
            slow.renew(nodes.api(from)?).await?;
        }
        workload.stage(format!("move {number}: {to} takes shard 0"));
        times
            .change(&client, to, "storage/0", true)
            .await
            .with_context(|| format!("move {number}, to {to}"))?;
        tokio::time::sleep(Duration::from_millis(args.pause)).await;
        if number.is_multiple_of(50) {
            let (sent, failed, stale) = workload.so_far();
            let moves = args.moves;
            let p50 = Summary::of(&times.receipts).map_or(0.0, |receipts| receipts.p50);
            progress(&format!(
                "move {number}/{moves}, p50 {p50:.0} ms: {sent} requests, {failed} failed, {stale} stale"
            ));
        }
    }
    Ok(())
}

fn report_rows(times: &Times, outcome: &Outcome, nodes: &Nodes, report: &mut Report) {
    const NODES: usize = 4;
    report.rows.extend([
        Row::new("shard moved under load", NODES, "ms")
            .ours(Summary::of_times(&times.wall))
            .target(Target::P50(300.0)),
        Row::new("the same, as receipts say", NODES, "ms").ours(Summary::of(&times.receipts)),
        Row::new("shard 0 without an acknowledged PUT, each move", NODES, "ms")
            .ours(Summary::of(&outcome.silences))
            .target(Target::P99(300.0)),
        Row::new("PUT through the gateway meanwhile", NODES, "ms").ours(Summary::of(&outcome.puts)),
        Row::new("GET through the gateway meanwhile", NODES, "ms").ours(Summary::of(&outcome.gets)),
    ]);
    report.rows.extend(outcome.violations(NODES));
    report.details.push(times.details("shard moved under load"));
    report.notes.push(format!(
        "{:.0} requests/s; {} moves not confirmed by all nodes, {} refused; steps, p50 / p99 ms: {}",
        outcome.per_second,
        times.unconfirmed,
        times.refused.len(),
        times.steps_in_words()
    ));
    // Leftovers of moves must not make later ones slower.
    let tenth = times.wall.len().div_ceil(10);
    let (first, last) = (&times.wall[..tenth], &times.wall[times.wall.len() - tenth..]);
    if let (Some(first), Some(last)) = (Summary::of_times(first), Summary::of_times(last)) {
        let (first, last) = (first.p50, last.p50);
        report.notes.push(format!(
            "p50 of the first tenth of the moves {first:.0} ms, of the last tenth {last:.0} ms"
        ));
    }
    for (folder, files) in nodes.files_on_store() {
        report.notes.push(format!("  {files} files on the store below {folder}"));
    }
    for refusal in &times.refused {
        report.notes.push(format!("  refused: {refusal}"));
    }
    for failure in outcome.failures.iter().take(SHOWN) {
        report.notes.push(format!("  {failure:?}"));
    }
    for failure in outcome.failures.iter().take(SHOWN) {
        report.details.push(json!({ "failure": failure, "log": around(failure, nodes) }));
    }
    report.details.push(json!({ "failures": outcome.failures }));
}

fn around(failure: &Failure, nodes: &Nodes) -> Vec<String> {
    let time = |at| format_rfc3339_micros(at).to_string();
    nodes.logged(&time(failure.at - LOG_AROUND), &time(failure.at + LOG_AROUND))
}
