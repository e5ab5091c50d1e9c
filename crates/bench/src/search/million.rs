//! Measures the memory of a node with a million short documents, while they are indexed and searched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ours::Binaries;
use crate::proc::{anonymous_mib, rss_mib};
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::search::cluster::Cluster;
use crate::search::corpus::Corpus;
use crate::search::drive::{Drive, get};
use crate::search::queries::{Kind, queries};
use crate::search::visible::{Since, Written};
use crate::search::{INDEX, Sizes, WRITERS};
use crate::stats::{Summary, millis};
use crate::wire::{Connection, Protocol};

/// The length of a document.
const LENGTH: usize = 200;
/// The number of clients that search while documents are written.
const SEARCHERS: usize = 4;
/// The number of clients that search afterwards.
const CLIENTS: usize = 64;
/// Searches afterwards take this many times a kind's time.
const LONG_RUN: u32 = 5;
/// The time between two samples of the memory.
const SAMPLE: Duration = Duration::from_millis(100);
/// The target for the anonymous memory.
const MOST_MIB: f64 = 448.0;

/// Samples of a process's memory, in MiB.
#[derive(Debug, Default)]
struct Memory {
    anonymous: Vec<f64>,
    rss: Vec<f64>,
}

pub(crate) async fn run(binaries: &Binaries, sizes: &Sizes, report: &mut Report) -> anyhow::Result<()> {
    let corpus = Arc::new(Corpus::short(sizes.many, LENGTH)?);
    let paths = [Kind::Term, Kind::Or, Kind::Prefix].map(|kind| queries(&corpus, kind));
    let paths = Arc::new(paths.iter().flatten().map(|query| query.ours(INDEX)).collect::<Vec<_>>());
    let cluster = Cluster::start(binaries.clone(), 1, json!({})).await?;
    cluster.create(INDEX).await?;
    let pid = cluster.nodes.pid("s0")?;
    let written = Arc::new(Written::new(Since::Acknowledged));
    let stop = Arc::new(AtomicBool::new(false));
    let mut searchers = JoinSet::new();
    for number in 0..SEARCHERS {
        let (stop, paths, addr) = (Arc::clone(&stop), Arc::clone(&paths), cluster.addr);
        searchers.spawn(async move {
            let mut connection = Connection::open(addr, Protocol::Http1).await?;
            let (host, mut took) = (addr.to_string(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                get(&mut connection, &host, &paths[(number + took.len()) % paths.len()]).await?;
                took.push(millis(began.elapsed()));
            }
            Ok::<_, anyhow::Error>(took)
        });
    }
    let began = Instant::now();
    let loading = async {
        cluster.load(INDEX, &corpus, WRITERS, &written).await?;
        cluster.refresh(INDEX).await
    };
    let (loaded, while_indexed) = watched(pid, loading).await?;
    loaded?;
    let seconds = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    while let Some(searcher) = searchers.join_next().await {
        took.extend(searcher??);
    }

    progress("many documents: searching");
    let drive = Drive { addr: cluster.addr, paths, clients: CLIENTS, time: sizes.time * LONG_RUN };
    let (driven, while_searched) = watched(pid, drive.run()).await?;
    let driven = driven?;

    let name = |what: &str| format!("{} documents of {LENGTH} B: {what}", sizes.many);
    let row = |what: &str, count, unit, samples: &[f64]| {
        Row::new(name(what), count, unit).ours(Summary::of(samples))
    };
    let rate = f64::from(u32::try_from(sizes.many)?) / seconds;
    report.rows.extend([
        row("indexing while searched, until found", WRITERS, "docs/s", &[rate]),
        row("searches while indexed: latency", SEARCHERS, "ms", &took),
        row("RssAnon while indexed and searched", WRITERS, "MiB", &while_indexed.anonymous)
            .target(Target::Max(MOST_MIB)),
        row("RSS while indexed and searched", WRITERS, "MiB", &while_indexed.rss),
        row("searches", CLIENTS, "req/s", &[driven.per_second]),
        row("searches: latency", CLIENTS, "ms", &driven.took_ms),
        row("RssAnon while searched", CLIENTS, "MiB", &while_searched.anonymous)
            .target(Target::Max(MOST_MIB)),
        row("RSS while searched", CLIENTS, "MiB", &while_searched.rss),
    ]);
    cluster.nodes.end().await;
    Ok(())
}

/// Samples the memory of a process until `work` has ended.
async fn watched<T>(pid: u32, work: impl Future<Output = T>) -> anyhow::Result<(T, Memory)> {
    let mut work = std::pin::pin!(work);
    let mut beat = interval(SAMPLE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut memory = Memory::default();
    loop {
        tokio::select! {
            biased;
            _ = beat.tick() => {
                memory.anonymous.push(anonymous_mib(pid)?);
                memory.rss.push(rss_mib(pid)?);
            }
            done = &mut work => return Ok((done, memory)),
        }
    }
}
