//! The proof: many clients, faults at random, and a checker of all that clients were told.
//!
//! What is promised: no acknowledged write is ever lost, reads are linearizable, those that may be behind are no further
//! behind than they say, and whoever watches sees every change once and in order, whatever gossip believes. Real agents, two gateways, two shards with an owner each, two standbys.
//! Most clients ask a gateway; some read from members directly, so that also who was an owner until a moment ago is asked.

mod checker;
mod cluster;
mod faults;
mod history;
mod nemesis;
mod network;
mod object_store;
mod protocol;
mod proxy;
mod register;
mod skew;
mod stream;
mod watchers;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};
use types::range::DurationIn;

use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use checker::Run;
use cluster::{CLUSTER, Cluster, name};
use history::seconds;
use nemesis::{Journal, Nemesis, nurse};
use protocol::Reads;
use watchers::Watchers;
use workload::{Shared, Workload, last_look};

/// How long clients go on after the last fault.
const AFTER: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long faults happen
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// What faults and requests are chosen by [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The store: a URL, with its credentials in the environment, or `moto` to start a server [default: a folder that
    /// can be full, if this is root]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Clients that write and read
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=900))]
    clients: u32,
    /// What readers ask for; what is found with `any` is no broken promise, but shows that something is found
    #[arg(long, value_enum, default_value_t = Reads::Strong)]
    reads: Reads,
    /// The longest time for which a node stands still; what storage keeps for sleepers is tried with `3m`
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    stop: DurationIn<0, 3_600_000>,
    /// Keep the logs of the nodes though nothing is wrong
    #[arg(long)]
    keep: bool,
    /// Use no privileges: all nodes on loopback, none is cut off, and the store is never full
    #[arg(long)]
    plain: bool,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(rand::random);
    progress(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(Binaries::find()?, args.store.as_deref(), args.plain, &mut rng).await?;
    if let Ok(clocks) = &cluster.clocks {
        let ahead =
            clocks.at_first().enumerate().map(|(node, ahead_s)| format!("{} {ahead_s:+}", name(node)));
        let ahead = ahead.collect::<Vec<_>>().join(", ");
        report.notes.push(format!("clocks were wrong from the beginning, by seconds: {ahead}"));
    }
    let cluster = Arc::new(cluster);
    let mut run = Run { seed, ..Run::default() };
    let tortured = torture(args, seed, &cluster, &mut run).await;
    cluster.end().await;
    run.surprises =
        std::mem::take(&mut *cluster.surprises.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    run.starts = cluster.starts();
    let folder = cluster.folder().to_owned();
    let is_right = checker::report(run, report).await?;
    if args.keep || !is_right || tortured.is_err() {
        if let Some(mut cluster) = Arc::into_inner(cluster) {
            cluster.keep();
        }
        report.notes.push(format!("the logs of the nodes are kept in {}", folder.display()));
    }
    tortured?;
    if !is_right {
        bail!("what was promised was not kept; the seed was {seed}");
    }
    Ok(())
}

async fn torture(args: &Args, seed: u64, cluster: &Arc<Cluster>, run: &mut Run) -> anyhow::Result<()> {
    let skipped = faults::skipped(cluster);
    for (kind, why) in &skipped {
        progress(&format!("no fault `{kind}`: {why}"));
    }
    run.skipped = skipped.iter().map(|(kind, why)| format!("{kind} ({why})")).collect();
    let store = cluster.object_store.open(CLUSTER).await?;
    let shared = Arc::new(Shared::new(cluster.doors.clone(), args.reads));
    let watchers = Watchers::start(&shared).await?;
    let workload = Workload::start(&shared, args.clients, seed);
    let journal = Journal::default();
    let nemesis = Nemesis {
        cluster: Arc::clone(cluster),
        store,
        shared: Arc::clone(&shared),
        journal: journal.clone(),
        skipped: skipped.iter().map(|(kind, _)| *kind).collect(),
        longest_stop: args.stop.get(),
    };
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let raged = tokio::select! {
        raged = suffer(nemesis, seed, until, cluster) => raged,
        nursed = nurse(Arc::clone(cluster)) => nursed.and_then(|()| bail!("a nurse never ends")),
    };
    progress(&format!("{} s: no more faults", seconds(shared.history.now())));
    sleep(AFTER).await;
    workload.stop().await;
    let looked = last_look(&shared, shared.history.keys(), args.clients).await;
    let watched = watchers.finish().await;
    run.journal = journal.spans();
    run.kinds = journal.counts();
    run.counts = shared.counts();
    run.odd = shared.odd();
    run.silences = shared.silences();
    run.behind = shared.behind();
    let problems = [raged, looked];
    run.problems.extend(problems.into_iter().filter_map(|problem| Some(format!("{:#}", problem.err()?))));
    match watched {
        Ok(watched) => run.watched = watched,
        Err(error) => run.problems.push(format!("{error:#}")),
    }
    run.keys = shared.history.take();
    Ok(())
}

/// The storm, and the time until the cluster serves again.
async fn suffer(nemesis: Nemesis, seed: u64, until: Instant, cluster: &Cluster) -> anyhow::Result<()> {
    Arc::new(nemesis).rage(seed, until).await?;
    cluster.ready().await?;
    cluster.find_gateways().await;
    Ok(())
}
