//! Measures indexing over HTTP, durable, beside Tantivy in process; and how soon documents are found.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ours::Binaries;
use crate::proc::cpu_with_ended_threads;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::search::cluster::{Cluster, Writer};
use crate::search::corpus::{Corpus, Source};
use crate::search::peer::Tantivy;
use crate::search::rows::peer;
use crate::search::visible::{Poller, Since, Written};
use crate::search::{Sizes, WRITERS};
use crate::stats::{Summary, millis};

/// How many documents a request has when 1,000 a second are written.
const TICK_DOCUMENTS: usize = 10;
/// The time between two requests then.
const TICK: Duration = Duration::from_millis(10);
/// The number of connections then.
const CONNECTIONS: usize = 32;

/// The samples of one side.
#[derive(Debug, Default)]
struct Indexed {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Indexed {
    fn note(&mut self, documents: usize, seconds: f64, cpu: Duration) {
        let documents = f64::from(u32::try_from(documents).unwrap_or(u32::MAX));
        self.per_second.push(documents / seconds);
        self.cpu_us.push(millis(cpu) * 1e3 / documents);
    }
}

/// Indexes the same documents in both, in turn. It ends when all documents are found by searches.
pub(crate) async fn rates(binaries: &Binaries, sizes: &Sizes, report: &mut Report) -> anyhow::Result<()> {
    let corpus = Arc::new(Corpus::of(Source::Generated, sizes.documents).await?);
    let folder = tempfile::tempdir()?;
    let file = corpus.write(folder.path()).await?;
    let tantivy = Tantivy::start(folder.path()).await?;
    let cluster = Cluster::start(binaries.clone(), 1, json!({})).await?;
    let (mut ours, mut theirs) = (Indexed::default(), Indexed::default());
    let (mut acknowledged, mut lags, mut refused) = (Vec::new(), Vec::new(), 0);
    for round in 1..=sizes.rounds {
        let before = cpu_with_ended_threads(tantivy.pid()?)?;
        let loaded = tantivy.load(&file, &folder.path().join(format!("round{round}"))).await?;
        theirs.note(
            loaded.documents,
            loaded.seconds,
            cpu_with_ended_threads(tantivy.pid()?)?.saturating_sub(before),
        );

        let index = format!("round{round}");
        cluster.create(&index).await?;
        let written = Arc::new(Written::new(Since::Acknowledged));
        let watching = Poller::open(cluster.addr, &index).await?;
        let watching = watching.watch(&written, corpus.documents);
        let before = cluster.on_cpu()?;
        let began = Instant::now();
        let loading = async {
            cluster.load(&index, &corpus, WRITERS, &written).await?;
            let took = began.elapsed();
            cluster.refresh(&index).await?;
            Ok::<_, anyhow::Error>(took)
        };
        let (took, lag) = tokio::try_join!(loading, watching)?;
        ours.note(corpus.documents, began.elapsed().as_secs_f64(), cluster.on_cpu()?.saturating_sub(before));
        acknowledged.push(per_second(corpus.documents, took));
        lags.extend(lag);
        refused += written.refused();
        let rates = [&ours, &theirs].map(|indexed| indexed.per_second.last().copied().unwrap_or_default());
        progress(&format!("round {round}: {:.0}/s, tantivy {:.0}/s", rates[0], rates[1]));
    }
    let beside = |what: &str, unit, of: fn(&Indexed) -> &[f64]| {
        let row = Row::new(format!("indexing: {what}"), WRITERS, unit);
        row.ours(Summary::of(of(&ours))).peer(peer("tantivy", Summary::of(of(&theirs))))
    };
    report.rows.extend([
        beside("until found, durable over HTTP", "docs/s", |indexed| &indexed.per_second)
            .target(Target::RatioAtLeast(0.7)),
        beside("CPU a document", "us", |indexed| &indexed.cpu_us),
        Row::new("indexing: until acknowledged", WRITERS, "docs/s").ours(Summary::of(&acknowledged)),
        Row::new("indexing at full rate: from acknowledged to found", WRITERS, "ms").ours(Summary::of(&lags)),
    ]);
    report.notes.push(format!(
        "indexing: {} documents in requests of 1,000 lines, {WRITERS} connections; {refused} lines were refused because the \
         indexer was behind, and sent again. Tantivy reads a file in its own process: one indexing thread, the same fields, \
         delete before add, a commit each second, without an upload",
        corpus.documents
    ));
    cluster.nodes.end().await;
    Ok(())
}

fn per_second(documents: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(documents).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// Writes 1,000 documents a second, and measures when searches find them.
pub(crate) async fn visibility(
    binaries: &Binaries,
    sizes: &Sizes,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ticks = usize::try_from(sizes.steady.as_millis() / TICK.as_millis())?;
    let documents = ticks * TICK_DOCUMENTS;
    let corpus = Corpus::of(Source::Generated, documents).await?;
    let index = "steady";
    let cluster = Cluster::start(binaries.clone(), 1, json!({})).await?;
    cluster.create(index).await?;
    let written = Arc::new(Written::new(Since::Sent));
    let watching = Poller::open(cluster.addr, index).await?;
    let watching = watching.watch(&written, documents);
    let writing = steadily(&cluster, index, small_batches(&corpus), &written);
    let (late, found) = tokio::try_join!(writing, watching)?;
    report.rows.extend([Row::new("1,000 documents/s: from sent to found", 1, "ms")
        .ours(Summary::of(&found))
        .target(Target::P99(1_200.0))]);
    report.notes.push(format!(
        "1,000 documents/s: requests of {TICK_DOCUMENTS} documents every {TICK:?} for {:?}, looked for every 5 ms; {late} \
         requests began late because all {CONNECTIONS} connections were in use",
        sizes.steady
    ));
    cluster.nodes.end().await;
    Ok(())
}

/// The same lines in smaller batches.
fn small_batches(corpus: &Corpus) -> Vec<Bytes> {
    let mut batches = Vec::new();
    for batch in &corpus.batches {
        let ends: Vec<_> =
            batch.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        let mut start = 0;
        for chunk in ends.chunks(TICK_DOCUMENTS) {
            let end = chunk.last().copied().unwrap_or(start);
            batches.push(batch.slice(start..end));
            start = end;
        }
    }
    batches
}

/// Sends a batch at each tick, on a free connection. Returns how many had to wait for one.
async fn steadily(
    cluster: &Cluster,
    index: &str,
    batches: Vec<Bytes>,
    written: &Arc<Written>,
) -> anyhow::Result<usize> {
    // In turn, as agents close a connection that is not used for a while.
    let mut free = VecDeque::new();
    for _ in 0..CONNECTIONS {
        free.push_back(Writer::open(cluster.addr, index).await?);
    }
    let mut sending = JoinSet::new();
    let mut beat = interval(TICK);
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut late = 0;
    for batch in batches {
        beat.tick().await;
        while let Some(sent) = sending.try_join_next() {
            free.push_back(sent??);
        }
        let mut writer = match free.pop_front() {
            Some(writer) => writer,
            None => {
                late += 1;
                match sending.join_next().await {
                    Some(sent) => sent??,
                    None => Writer::open(cluster.addr, index).await?,
                }
            }
        };
        let written = Arc::clone(written);
        sending.spawn(async move {
            writer.store(batch, &written).await?;
            Ok::<_, anyhow::Error>(writer)
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_batches_have_all_lines() {
        let corpus = Corpus::of(Source::Generated, 1_015).await.unwrap();
        let small = small_batches(&corpus);
        assert_eq!(small.len(), 102);
        assert_eq!(small.concat(), corpus.batches.concat());
        assert_eq!(small[101].iter().filter(|byte| **byte == b'\n').count(), 5);
    }
}
