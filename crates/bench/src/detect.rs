//! Measures the time until all nodes see a crash and a leave.

use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, Kind, QUICK, STEADY};
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::serf;
use crate::stats::{Summary, millis};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes in the cluster
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=100))]
    nodes: u8,
    /// Crashes and leaves of our nodes
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Crashes and leaves of Serf's nodes; Serf needs five seconds for each
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    serf_rounds: u32,
    /// Seconds for which every node runs before one is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    settle: u64,
}

/// The samples of one software.
#[derive(Debug, Default)]
struct Times {
    crash: Vec<Duration>,
    leave: Vec<Duration>,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let nodes = usize::from(args.nodes);
    let settle = Duration::from_secs(args.settle);
    let binaries = Binaries::find()?;
    let profiles = serf::profiles().await;
    // All run at once: they wait most of the time, and so share the same conditions.
    let ours = measure("ours".to_owned(), Kind::Ours(binaries), nodes, args.rounds, settle);
    let serfs = profiles.iter().flatten().map(|profile| {
        let name = format!("serf {profile}");
        let measured = measure(name, Kind::Serf(*profile), nodes, args.serf_rounds, settle);
        async move { (profile.to_string(), measured.await.map_err(|error| format!("{error:#}"))) }
    });
    let (ours, mut peers) = tokio::join!(ours, join_all(serfs));
    let ours = ours?;
    if let Err(why) = &profiles {
        peers.push(("serf".to_owned(), Err(why.clone())));
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
        Row::new("kill -9 seen by all", nodes, "ms")
            .ours(Summary::of_times(&ours.crash))
            .peer(peer(|times| &times.crash))
            .target(Target::P99(1_500.0))
            .target(Target::Ratio(0.25)),
    );
    report.rows.push(
        Row::new("leave (SIGINT) seen by all", nodes, "ms")
            .ours(Summary::of_times(&ours.leave))
            .peer(peer(|times| &times.leave)),
    );
    report.notes.push(format!(
        "every node ran for {settle:?} before a kill; a death counts as seen when no other node lists the node as alive"
    ));
    Ok(())
}

async fn measure(
    name: String,
    kind: Kind,
    nodes: usize,
    rounds: u32,
    settle: Duration,
) -> anyhow::Result<Times> {
    /// The pause before a leave: the cluster only has to be at rest.
    const REST: Duration = Duration::from_secs(2);
    let mut fleet = Fleet::of(kind, nodes).await?;
    let mut times = Times::default();
    for round in 1..=rounds {
        sleep(settle).await;
        let took = end_any(&mut fleet, Signal::KILL, STEADY).await?;
        progress(&format!("{name}, kill -9 {round}/{rounds}: {:.0} ms", millis(took)));
        times.crash.push(took);
    }
    for round in 1..=rounds {
        sleep(REST).await;
        let took = end_any(&mut fleet, Signal::INT, QUICK).await?;
        progress(&format!("{name}, leave {round}/{rounds}: {:.0} ms", millis(took)));
        times.leave.push(took);
    }
    fleet.end().await;
    Ok(times)
}

/// Ends a random node, and starts it again once no other node lists it.
async fn end_any(fleet: &mut Fleet, signal: Signal, pause: Duration) -> anyhow::Result<Duration> {
    let config = fleet.configs()[rand::rng().random_range(0..fleet.configs().len())].clone();
    let took = fleet.end_one(&config.name, signal, pause).await?;
    fleet.spawn(&config)?;
    fleet.all_see_all(Instant::now(), STEADY).await?;
    Ok(took)
}
