//! Measures the memory and CPU of idle agents.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, Kind};
use crate::ours::{Binaries, CtlCluster};
use crate::proc::{anonymous_mib, on_cpu, rss_mib, threads};
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::serf;
use crate::stats::Summary;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes in the cluster
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
    nodes: u8,
    /// Seconds for which CPU is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Seconds to settle before the measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    settle: u64,
}

/// The cost of one agent.
#[derive(Debug, Clone, Serialize)]
struct Cost {
    node: String,
    role: &'static str,
    rss_mib: f64,
    /// The part without file-backed pages.
    anonymous_mib: f64,
    threads: f64,
    cpu_percent: f64,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let nodes = usize::from(args.nodes);
    let mut fleets = vec![("ours".to_owned(), Fleet::of(Kind::Ours(Binaries::find()?), nodes).await?)];
    let mut missing = None;
    match serf::profiles().await {
        Ok(profiles) => {
            for profile in profiles {
                fleets.push((profile.to_string(), Fleet::of(Kind::Serf(profile), nodes).await?));
            }
        }
        Err(why) => missing = Some(("serf".to_owned(), Err(why))),
    }
    progress(&format!("all are up; {} s to settle, {} s to measure", args.settle, args.seconds));
    sleep(Duration::from_secs(args.settle)).await;
    let costs = measure(&fleets, Duration::from_secs(args.seconds)).await?;
    for (_, fleet) in fleets {
        fleet.end().await;
    }
    for (name, of_each) in &costs {
        report.details.push(json!({ "software": name, "agents": of_each }));
    }
    let summary =
        |costs: &[Cost], of: fn(&Cost) -> f64| Summary::of(&costs.iter().map(of).collect::<Vec<_>>());
    let row = |what: &str, unit: &'static str, of: fn(&Cost) -> f64| {
        let mut both = costs.iter();
        let ours = both.next().and_then(|(_, costs)| summary(costs, of));
        let peers = both.map(|(profile, costs)| {
            (profile.clone(), summary(costs, of).ok_or_else(|| "no samples".to_owned()))
        });
        Row::new(what, nodes, unit).ours(ours).peer(Peer::best(peers.chain(missing.clone()).collect()))
    };
    let parents = parents(nodes, Duration::from_secs(args.settle)).await?;
    report.rows.extend([
        row("memory of an idle agent (RSS)", "MiB", |cost| cost.rss_mib).target(Target::Ratio(1.0)),
        row("of it anonymous", "MiB", |cost| cost.anonymous_mib),
        row("CPU of an idle agent", "% core", |cost| cost.cpu_percent).target(Target::Max(0.8)),
        row("threads", "count", |cost| cost.threads),
        Row::new("anonymous memory of an agent's parent", nodes, "MiB")
            .ours(Summary::of(&parents))
            .target(Target::Max(1.5)),
    ]);
    report.notes.push("one sample per agent, over the whole time".to_owned());
    Ok(())
}

/// The memory of the parent processes of agents that `ctl up` starts, in MiB, without file-backed pages.
async fn parents(nodes: usize, settle: Duration) -> anyhow::Result<Vec<f64>> {
    let mut cluster = CtlCluster::new(Binaries::find()?, nodes)?;
    cluster.up().await?;
    sleep(settle).await;
    let taken = cluster.parents()?.into_iter().map(anonymous_mib).collect();
    cluster.down().await?;
    taken
}

/// Measures all agents over the same time.
async fn measure(fleets: &[(String, Fleet)], time: Duration) -> anyhow::Result<Vec<(String, Vec<Cost>)>> {
    let mut before = Vec::new();
    for (_, fleet) in fleets {
        for node in fleet.nodes() {
            before.push((Instant::now(), on_cpu(node.process.id()?)?));
        }
    }
    sleep(time).await;
    let mut before = before.into_iter();
    let mut costs = Vec::new();
    for (name, fleet) in fleets {
        let mut of_each = Vec::new();
        for node in fleet.nodes() {
            let (began, used_before) = before.next().context("a node has no first sample")?;
            let pid = node.process.id()?;
            let used = on_cpu(pid)?.saturating_sub(used_before);
            of_each.push(Cost {
                node: node.config.name.clone(),
                role: node.config.role,
                rss_mib: rss_mib(pid)?,
                anonymous_mib: anonymous_mib(pid)?,
                threads: f64::from(u32::try_from(threads(pid)?.len())?),
                cpu_percent: used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0,
            });
        }
        costs.push((name.clone(), of_each));
    }
    Ok(costs)
}
