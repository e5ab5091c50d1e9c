//! Measures how fast clusters start: `ctl up`, full membership, one join, start to serving.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::fleet::{Fleet, Kind, QUICK};
use crate::ours::{Binaries, CtlCluster};
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::serf;
use crate::stats::{Summary, millis};

/// The targets relative to Serf: for full membership, and for an agent to serve.
const ALL_SEE_ALL: f64 = 0.5;
const SERVING: f64 = 1.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes in the cluster
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=100))]
    nodes: u8,
    /// Number of rounds
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Milliseconds between two polls of a node
    #[arg(long, value_name = "MS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    poll: u64,
}

/// The samples of one software.
#[derive(Debug, Default)]
struct Times {
    cold: Vec<Duration>,
    join: Vec<Duration>,
    serving: Vec<Duration>,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let nodes = usize::from(args.nodes);
    let poll = Duration::from_millis(args.poll);
    let binaries = Binaries::find()?;
    let ctl = ctl_up(&binaries, nodes, args.rounds).await?;
    report.rows.push(
        Row::new("ctl up to all ready", nodes, "ms")
            .ours(Summary::of_times(&ctl))
            .target(Target::P50(1_000.0)),
    );
    let ours = measure("ours", &Kind::Ours(binaries), nodes, args.rounds, poll).await?;
    let mut peers = Vec::new();
    match serf::profiles().await {
        Ok(profiles) => {
            for profile in profiles {
                let name = format!("serf {profile}");
                let times = measure(&name, &Kind::Serf(profile), nodes, args.rounds, poll).await;
                peers.push((profile.to_string(), times.map_err(|error| format!("{error:#}"))));
            }
        }
        Err(why) => peers.push(("serf".to_owned(), Err(why))),
    }
    let peer = |times: fn(&Times) -> &[Duration]| {
        let summary = |measured: &Result<Times, String>| {
            let measured = measured.as_ref().map_err(Clone::clone)?;
            Summary::of_times(times(measured)).ok_or_else(|| "no samples".to_owned())
        };
        let profiles = peers.iter().map(|(profile, measured)| (profile.clone(), summary(measured)));
        Peer::best(profiles.collect())
    };
    report.rows.push(
        Row::new("all see all, cold start", nodes, "ms")
            .ours(Summary::of_times(&ours.cold))
            .peer(peer(|times| &times.cold))
            .target(Target::Ratio(ALL_SEE_ALL)),
    );
    report.rows.push(
        Row::new("one join, seen by all", nodes + 1, "ms")
            .ours(Summary::of_times(&ours.join))
            .peer(peer(|times| &times.join))
            .target(Target::Ratio(ALL_SEE_ALL)),
    );
    report.rows.push(
        Row::new("start to serving", 1, "ms")
            .ours(Summary::of_times(&ours.serving))
            .peer(peer(|times| &times.serving))
            .target(Target::Ratio(SERVING))
            .target(Target::P99(100.0)),
    );
    Ok(())
}

async fn ctl_up(binaries: &Binaries, nodes: usize, rounds: u32) -> anyhow::Result<Vec<Duration>> {
    let mut cluster = CtlCluster::new(binaries.clone(), nodes)?;
    let mut times = Vec::new();
    for round in 1..=rounds {
        let took = cluster.up().await?;
        cluster.down().await?;
        progress(&format!("ctl up {round}/{rounds}: {:.0} ms", millis(took)));
        times.push(took);
    }
    Ok(times)
}

async fn measure(
    name: &str,
    kind: &Kind,
    nodes: usize,
    rounds: u32,
    poll: Duration,
) -> anyhow::Result<Times> {
    let mut times = Times::default();
    for round in 1..=rounds {
        let mut fleet = Fleet::new(kind.clone())?;
        let took = fleet.start_all(nodes, poll).await?;
        progress(&format!("{name}, all see all {round}/{rounds}: {:.0} ms", millis(took)));
        times.cold.push(took);
        fleet.end().await;
    }
    let mut fleet = Fleet::of(kind.clone(), nodes).await?;
    for round in 1..=rounds {
        let config = fleet.add_config()?;
        let began = Instant::now();
        fleet.spawn(&config)?;
        let took = fleet.all_see_all(began, poll).await?;
        progress(&format!("{name}, one join {round}/{rounds}: {:.0} ms", millis(took)));
        times.join.push(took);
        fleet.end_one(&config.name, Signal::INT, QUICK).await?;
    }
    fleet.end().await;
    for round in 1..=rounds {
        let mut fleet = Fleet::new(kind.clone())?;
        let config = fleet.add_config()?;
        let began = Instant::now();
        fleet.spawn(&config)?;
        let took = fleet.serving(&config.name, began).await?;
        progress(&format!("{name}, start to serving {round}/{rounds}: {:.1} ms", millis(took)));
        times.serving.push(took);
        fleet.end().await;
    }
    Ok(times)
}
