//! Measures all kinds of queries on one corpus: 1 and 2 shards, Tantivy, and databases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::sleep;

use crate::ours::Binaries;
use crate::proc::{anonymous_mib, rss_mib};
use crate::progress::progress;
use crate::report::Report;
use crate::search::cluster::{Cluster, post_to};
use crate::search::corpus::{Corpus, Source};
use crate::search::matrix::{Matrix, Server, Who};
use crate::search::peer::{Tantivy, merge_at};
use crate::search::queries::{Kind, queries};
use crate::search::rows::{self, Databases};
use crate::search::sql::{self, Database};
use crate::search::visible::{Since, Written};
use crate::search::{INDEX, Sizes, WRITERS};

const MIB: f64 = 1024.0 * 1024.0;
/// The pause after indexing, in which merges end and what is stored settles.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn run(
    binaries: &Binaries,
    sizes: &Sizes,
    kinds: &[Kind],
    corpus: Corpus,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (source, corpus) = (corpus.source, Arc::new(corpus));
    let folder = tempfile::tempdir()?;
    let file = corpus.write(folder.path()).await?;
    let queries: BTreeMap<_, _> = kinds.iter().map(|kind| (*kind, queries(&corpus, *kind))).collect();
    report.notes.push(format!(
        "corpus `{source}`: {} documents, {:.1} MiB of JSON, {} different words; one segment in each shard and in Tantivy. \
         The size on the store is that before all segments were merged",
        corpus.documents,
        mib(corpus.bytes()),
        corpus.words.len()
    ));

    let mut databases = Databases::new();
    for database in [Database::Sqlite, Database::DuckDb] {
        progress(&format!("{source}: {database}"));
        databases.push((database, sql::measure(database, &file, &queries, sizes.time).await?));
    }

    progress(&format!("{source}: indexing"));
    let tantivy = Tantivy::start(folder.path()).await?;
    let of_tantivy = folder.path().join("tantivy");
    tantivy.load(&file, &of_tantivy).await?;
    let one = filled(binaries, 1, &corpus).await?;
    let two = filled(binaries, 2, &corpus).await?;
    sleep(REST).await;
    let stored: BTreeMap<_, _> = [(Who::OneShard, &one), (Who::TwoShards, &two)]
        .map(|(who, cluster)| (who, mib(bytes(&cluster.nodes.store().join("bench/data/searcher")))))
        .into();
    // The same number of segments everywhere: each costs a query time of its own.
    let http = client::plain_http().build()?;
    for addr in [one.addr, two.addr] {
        post_to(&http, addr, &format!("{INDEX}/compact"), Bytes::new()).await?;
    }
    merge_at(&http, tantivy.addr, String::new()).await?;

    let server = |who, addr, pids: &[u32]| Server { who, addr, pids: pids.to_vec() };
    let mut matrix = Matrix {
        servers: vec![
            server(Who::OneShard, one.addr, &one.pids),
            server(Who::TwoShards, two.addr, &two.pids),
            server(Who::Tantivy, tantivy.addr, &[tantivy.pid()?]),
            server(Who::Empty, tantivy.addr, &[tantivy.pid()?]),
        ],
        queries,
        clients: sizes.clients.clone(),
        rounds: sizes.rounds,
        time: sizes.time,
        with_merges: source == Source::Generated,
        measured: BTreeMap::new(),
        empty: BTreeMap::new(),
        merges: BTreeMap::new(),
    };
    for (kind, different) in matrix.check(&corpus).await? {
        report.notes.push(format!(
            "{source}: {different} of {} queries of the kind `{kind}` have other totals or scores in Tantivy or with 2 shards",
            matrix.queries[&kind].len()
        ));
    }
    let mut segments = BTreeMap::new();
    for (who, cluster) in [(Who::OneShard, &one), (Who::TwoShards, &two)] {
        segments.insert(who, cluster.segment_bytes(INDEX).await? / MIB);
    }
    let sized = |size: fn(&sql::OfDatabase) -> f64, of_tantivy: f64| {
        let of_databases = databases
            .iter()
            .filter_map(|(database, measured)| Some((database.to_string(), size(measured.as_ref().ok()?))));
        std::iter::once(("tantivy".to_owned(), of_tantivy)).chain(of_databases).collect::<Vec<_>>()
    };
    let files = sized(|measured| measured.mib, mib(bytes(&of_tantivy)));

    matrix.measure(&corpus).await?;

    rows::beside_tantivy(source, &matrix, report);
    rows::beside_databases(source, &matrix, &databases, report);
    rows::sizes(&format!("{source}: bytes on the store"), &stored, &files, report);
    rows::sizes(&format!("{source}: bytes of live segments"), &segments, &files[..1], report);
    for (what, of) in [("RSS", rss_mib as fn(u32) -> anyhow::Result<f64>), ("RssAnon", anonymous_mib)] {
        let of_all = |pids: &[u32]| pids.iter().map(|pid| of(*pid)).sum::<anyhow::Result<f64>>();
        let ours =
            BTreeMap::from([(Who::OneShard, of_all(&one.pids)?), (Who::TwoShards, of_all(&two.pids)?)]);
        let mut theirs = sized(|measured| measured.rss_mib, of(tantivy.pid()?)?);
        // The databases report their RSS only.
        theirs.truncate(if what == "RSS" { theirs.len() } else { 1 });
        rows::sizes(&format!("{source}: memory after all searches ({what})"), &ours, &theirs, report);
    }
    notes(source, &matrix, &databases, report);
    one.nodes.end().await;
    two.nodes.end().await;
    Ok(())
}

/// A cluster with all documents of a corpus, visible and on the store.
async fn filled(binaries: &Binaries, shards: usize, corpus: &Arc<Corpus>) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(binaries.clone(), shards, json!({})).await?;
    cluster.create(INDEX).await?;
    cluster.load(INDEX, corpus, WRITERS, &Arc::new(Written::new(Since::Acknowledged))).await?;
    cluster.refresh(INDEX).await?;
    Ok(cluster)
}

fn notes(source: Source, matrix: &Matrix, databases: &Databases, report: &mut Report) {
    for (database, measured) in databases {
        match measured {
            Ok(measured) => report.notes.push(format!(
                "{source}: {} in a Python process without HTTP, indexed in {:.1} s in one transaction",
                measured.version, measured.index_seconds
            )),
            Err(why) => report.notes.push(format!("{source}: {database}: {why}")),
        }
        let Ok(measured) = measured else { continue };
        report.details.push(json!({
            "corpus": source.to_string(),
            "database": measured.version,
            "index_seconds": measured.index_seconds,
            "totals": measured.kinds.iter().filter_map(|(kind, of_kind)| {
                Some((kind.key(), &of_kind.as_ref().ok()?.totals))
            }).collect::<BTreeMap<_, _>>(),
        }));
    }
    if matrix.with_merges {
        let merges: Vec<_> = matrix.merges.iter().map(|(who, count)| format!("{count} by {who}")).collect();
        report.notes.push(format!(
            "{source}: merges during searches rewrite 200 documents and then merge all segments, again and again: {}",
            merges.join(", ")
        ));
    }
}

/// The size of all files in a folder. Files that disappear meanwhile do not count.
fn bytes(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes(&entry.path()),
        Ok(metadata) => usize::try_from(metadata.len()).unwrap_or(usize::MAX),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn mib(bytes: usize) -> f64 {
    bytes as f64 / MIB
}
