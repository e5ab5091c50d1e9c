//! The fault test: many clients, random faults, and a checker of every answer.
//!
//! It checks these guarantees: no acknowledged write is lost; reads are linearizable; a stale read is no staler than it
//! states; a watcher sees every change once and in order. They must hold even while gossip is wrong. The cluster
//! consists of real agents: two gateways, two shards with an owner each, two standbys. Most clients use a gateway; some
//! read from members directly, so that former owners are read from as well.
//!
//! With `--service searcher` the keys are ids of documents, which clients also search for. A search for the token that
//! only one document ever had counts as a read of that document. In the end, all documents are found, each once.

mod checker;
mod cluster;
mod faults;
mod history;
mod inventory;
mod nemesis;
mod network;
mod object_store;
mod protocol;
mod proxy;
mod register;
mod service;
mod skew;
mod stream;
mod watchers;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
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
use nemesis::{Journal, Nemesis, restart_crashed};
use protocol::{Reads, documents};
use service::Service;
use watchers::Watchers;
use workload::{Client, Shared, Workload, final_reads, success};

/// How long clients continue after the last fault.
const AFTER: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The service whose guarantees are checked
    #[arg(long, value_enum, default_value_t = Service::Storage)]
    service: Service,
    /// Seconds for which faults are injected
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// Seed of the random choice of faults and requests [default: random]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The object store: a URL, with its credentials in the environment, or `moto` to start a server [default: a
    /// folder, which can be filled if bench runs as root]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Clients that write and read
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=900))]
    clients: u32,
    /// Read level of the readers. Anomalies found with `any` break no guarantee, but show that the checker finds some
    #[arg(long, value_enum, default_value_t = Reads::Strong)]
    reads: Reads,
    /// The longest pause of a node; use `3m` to exceed what storage keeps for paused nodes
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    stop: DurationIn<0, 3_600_000>,
    /// Keep the logs of the nodes even if no anomaly is found
    #[arg(long)]
    keep: bool,
    /// Use no privileges: all nodes run on loopback, none is cut off, and the store is never full
    #[arg(long)]
    plain: bool,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(rand::random);
    progress(&format!("seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let cluster =
        Cluster::start(args.service, Binaries::find()?, args.store.as_deref(), args.plain, &mut rng);
    let cluster = cluster.await?;
    if let Ok(clocks) = &cluster.clocks {
        let ahead =
            clocks.at_first().enumerate().map(|(node, ahead_s)| format!("{} {ahead_s:+}", name(node)));
        let ahead = ahead.collect::<Vec<_>>().join(", ");
        report.notes.push(format!("initial clock skew in seconds: {ahead}"));
    }
    let cluster = Arc::new(cluster);
    let mut run = Run { seed, ..Run::default() };
    let outcome = torture(args, seed, &cluster, &mut run).await;
    cluster.end().await;
    run.crashes =
        std::mem::take(&mut *cluster.crashes.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    run.starts = cluster.starts();
    let folder = cluster.folder().to_owned();
    let is_right = checker::report(run, report).await?;
    if args.keep || !is_right || outcome.is_err() {
        if let Some(mut cluster) = Arc::into_inner(cluster) {
            cluster.keep();
        }
        report.notes.push(format!("the logs of the nodes are kept in {}", folder.display()));
    }
    outcome?;
    if !is_right {
        bail!("a guarantee was broken; the seed was {seed}");
    }
    Ok(())
}

async fn torture(args: &Args, seed: u64, cluster: &Arc<Cluster>, run: &mut Run) -> anyhow::Result<()> {
    let skipped = faults::skipped(cluster);
    for (kind, why) in &skipped {
        progress(&format!("fault `{kind}` is not possible: {why}"));
    }
    run.skipped = skipped.iter().map(|(kind, why)| format!("{kind} ({why})")).collect();
    let store = cluster.object_store.open(CLUSTER).await?;
    let shared = Arc::new(Shared::new(args.service, cluster.endpoints.clone(), args.reads));
    let watchers = match args.service {
        Service::Storage => Some(Watchers::start(&shared).await?),
        Service::Searcher => {
            let created = Client::last(&shared).insist(documents::create_index, success).await;
            created.context("the index could not be created")?;
            None
        }
    };
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
    let injected = tokio::select! {
        injected = inject_faults(nemesis, seed, until, cluster) => injected,
        restarted = restart_crashed(Arc::clone(cluster)) => {
            restarted.and_then(|()| bail!("the restart loop never ends"))
        }
    };
    progress(&format!("{} s: no more faults", seconds(shared.history.now())));
    sleep(AFTER).await;
    workload.stop().await;
    let final_read = final_reads(&shared, shared.history.keys(), args.clients).await;
    match watchers {
        Some(watchers) => match watchers.finish().await {
            Ok(watched) => run.watched = watched,
            Err(error) => run.problems.push(format!("{error:#}")),
        },
        None => match inventory::take(&shared).await {
            Ok(inventory) => run.inventory = Some(inventory),
            Err(error) => run.problems.push(format!("{error:#}")),
        },
    }
    run.journal = journal.spans();
    run.kinds = journal.counts();
    run.counts = shared.counts();
    run.odd = shared.odd();
    run.wrong = shared.wrong();
    run.silences = shared.silences();
    run.staleness = shared.staleness();
    let problems = [injected, final_read];
    run.problems.extend(problems.into_iter().filter_map(|problem| Some(format!("{:#}", problem.err()?))));
    run.keys = shared.history.take();
    Ok(())
}

/// Injects faults, then waits until the cluster serves again.
async fn inject_faults(nemesis: Nemesis, seed: u64, until: Instant, cluster: &Cluster) -> anyhow::Result<()> {
    Arc::new(nemesis).run(seed, until).await?;
    cluster.ready().await?;
    cluster.find_gateways().await;
    Ok(())
}
