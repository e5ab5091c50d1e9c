//! Measures whether clients of the front door notice role changes and restarts behind it.
//!
//! Real agents: `balancer`, which receives all connections; the gateways `g1` and `g2` behind it, and `spare`, which
//! replaces `g1` for a while; `a` and `b`, which take shard 0 from each other; `other`, which keeps shard 1. `g2` is
//! always a gateway, except while it restarts.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use serde_json::json;

use crate::moves::workload::{Outcome, Workload};
use crate::nodes::Nodes;
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::Row;
use crate::stats::Summary;
use crate::times::{CHANGE_LIMIT, Times};

const SHARDS: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");
/// The nodes and their roles at the start, in the order in which they start.
const NODES: [(&str, &str); 7] = [
    ("balancer", "load_balancer"),
    ("g1", "api_gateway"),
    ("g2", "api_gateway"),
    ("spare", "standby"),
    ("a", "storage/0"),
    ("b", "standby"),
    ("other", "storage/1"),
];
/// The changes, over and over; those with a shard take it from its owner.
const CHANGES: [(&str, &str); 6] = [
    ("spare", "api_gateway"),
    ("g1", "standby"),
    ("b", "storage/0"),
    ("g1", "api_gateway"),
    ("spare", "standby"),
    ("a", "storage/0"),
];
/// The nodes that restart, in this order.
const RESTARTS: [(&str, &str); 5] = [
    ("g1", "api_gateway"),
    ("g2", "api_gateway"),
    ("a", "storage/0"),
    ("b", "standby"),
    ("other", "storage/1"),
];
/// The number of failures reported.
const SHOWN: usize = 5;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Role changes, of gateways and of owners
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    changes: u32,
    /// Rolling restarts of every node behind the balancer, after the changes
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    restarts: u32,
    /// Clients that send requests all the time; every other one writes
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    clients: u16,
    /// Milliseconds between two changes
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    pause: u64,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut nodes = Nodes::new(Binaries::find()?)?;
    let front = json!({
        "name": "front", "address": "127.0.0.1:0", "service": "api_gateway", "listener": "web", "send_proxy_protocol": "v2",
    });
    let web =
        json!({ "name": "web", "address": "127.0.0.1:0", "proxy_protocol": true, "trust": ["127.0.0.0/8"] });
    nodes
        .apply(&json!({
            "storage": { "shards": SHARDS },
            "load_balancer": { "settings": { "listeners": [front] } },
            "api_gateway": { "settings": { "listeners": [web] } },
        }))
        .await?;
    for (name, role) in NODES {
        nodes.start(name, &role.parse()?)?;
        nodes.ready(name).await?;
    }
    nodes.sees("balancer", NODES.len()).await?;
    let front = nodes.endpoint("balancer", "front").await?;
    let workload = Workload::start(usize::from(args.clients), front, SHARDS);
    let mut times = Times::default();
    let changed = changes(args, &mut nodes, &workload, &mut times).await;
    workload.stage("after the last change".to_owned());
    let outcome = workload.finish().await?;
    report_rows(args, &times, &outcome, report);
    nodes.end().await;
    changed
}

async fn changes(
    args: &Args,
    nodes: &mut Nodes,
    workload: &Workload,
    times: &mut Times,
) -> anyhow::Result<()> {
    let client = nodes.client("balancer")?.clone().within(CHANGE_LIMIT);
    for ((node, role), number) in CHANGES.iter().cycle().zip(1..=args.changes) {
        workload.stage(format!("change {number}: {node} becomes {role}"));
        times
            .change(&client, node, role, role.contains('/'))
            .await
            .with_context(|| format!("change {number}, {node} to {role}"))?;
        tokio::time::sleep(Duration::from_millis(args.pause)).await;
        if number.is_multiple_of(60) {
            let (sent, failed, stale) = workload.so_far();
            let changes = args.changes;
            progress(&format!("change {number}/{changes}: {sent} requests, {failed} failed, {stale} stale"));
        }
    }
    for round in 1..=args.restarts {
        for (node, role) in RESTARTS {
            workload.stage(format!("round {round}: {node} restarts"));
            nodes.signal(node, Signal::TERM).await?;
            nodes.start(node, &role.parse()?)?;
            nodes.ready(node).await?;
            nodes.sees("balancer", NODES.len()).await?;
        }
        let (sent, failed, stale) = workload.so_far();
        let restarts = args.restarts;
        progress(&format!("restarts {round}/{restarts}: {sent} requests, {failed} failed, {stale} stale"));
    }
    Ok(())
}

fn report_rows(args: &Args, times: &Times, outcome: &Outcome, report: &mut Report) {
    report.rows.extend([
        Row::new("role changed behind the balancer", NODES.len(), "ms").ours(Summary::of_times(&times.wall)),
        Row::new("PUT through balancer and gateway", NODES.len(), "ms").ours(Summary::of(&outcome.puts)),
        Row::new("GET through balancer and gateway", NODES.len(), "ms").ours(Summary::of(&outcome.gets)),
    ]);
    report.rows.extend(outcome.violations(NODES.len()));
    report.details.push(times.details("role changed behind the balancer"));
    report.notes.push(format!(
        "{} role changes, {} rolling restarts of {} nodes; {:.0} requests/s; {} changes not confirmed by all nodes, {} refused",
        times.wall.len(),
        args.restarts,
        RESTARTS.len(),
        outcome.per_second,
        times.unconfirmed,
        times.refused.len(),
    ));
    for refusal in &times.refused {
        report.notes.push(format!("  refused: {refusal}"));
    }
    for failure in outcome.failures.iter().take(SHOWN) {
        report.notes.push(format!("  {failure:?}"));
    }
    report.details.push(json!({ "failures": outcome.failures }));
}
