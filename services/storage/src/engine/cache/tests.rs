use std::time::Duration;

use plugin::Metrics;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::db_cache_stats::ACCESS_COUNT;
use slatedb::object_store::ObjectStore;
use slatedb::object_store::memory::InMemory;
use slatedb::{Db, VersionedManifest};
use slatedb_common::metrics::{DefaultMetricsRecorder, MetricValue};
use store::faults::{Faults, Op, When};

use super::*;
use crate::engine::log_files::Seen;
use crate::engine::table_cache::follow_tables;
use crate::engine::tests::until;
use crate::engine::tuning;
use crate::meters::Meters;

const KEYS: u32 = 2_000;

async fn open(objects: Arc<dyn ObjectStore>, part: &Part, recorder: &Arc<DefaultMetricsRecorder>) -> Db {
    Db::builder("db", objects)
        .with_settings(tuning::settings(Duration::from_millis(100), None))
        .with_db_cache(part.for_database(), part.scope())
        .with_block_cache_policy(tuning::kept_when_written())
        .with_metrics_recorder(Arc::clone(recorder) as _)
        .build()
        .await
        .unwrap()
}

/// Writes all keys into a table.
async fn fill(db: &Db) {
    for key in 0..KEYS {
        db.put(key.to_be_bytes(), [7; 100]).await.unwrap();
    }
    db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await.unwrap();
}

/// The size of the filters and indexes of all tables.
fn needed(manifest: &VersionedManifest) -> u64 {
    manifest.all_sst_views().map(|view| view.sst.info.filter_len + view.sst.info.index_len).sum()
}

impl Cache {
    fn bytes(&self, kind: Kind) -> u64 {
        self.entries.read().unwrap().bytes(kind)
    }
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

#[test]
fn the_default_follows_the_memory_and_is_bounded() {
    const GIB: u64 = 1024 * MIB;
    for (memory, all, blocks) in [
        (256 * MIB, 32 * MIB, 32 * MIB),
        (512 * MIB, 32 * MIB, 32 * MIB),
        (GIB, 64 * MIB, 64 * MIB),
        (4 * GIB, 256 * MIB, 64 * MIB),
        (64 * GIB, 4 * GIB, 64 * MIB),
    ] {
        assert_eq!(by_default(memory), Limits { all, blocks }, "{memory}");
    }
}

#[test]
fn shards_share_a_cache_unless_one_asks_for_its_own() {
    let (one, other, own) = (Cache::of_size(None), Cache::of_size(None), Cache::of_size(Some(MIB)));
    assert!(Arc::ptr_eq(&one, &other) && !Arc::ptr_eq(&one, &own));
    let (first, second) = (own.part(), own.part());
    assert_ne!(first.scope(), second.scope());
    let room = MIB - MIB / 8;
    assert_eq!(first.needs(room).missing(), 0);
    let need = second.needs(100);
    assert_eq!((need.bytes, need.of_all, need.missing()), (100, room + 100, 100));
    assert_eq!((need.cache, need.would_do()), (MIB, MIB));
    drop(first);
    assert_eq!(second.needs(100).missing(), 0, "a dropped part needs nothing");
}

#[tokio::test]
async fn the_cache_has_the_filters_and_indexes_of_the_current_tables() {
    let cache = Cache::of_size(Some(16 * MIB));
    let part = cache.part();
    let db = open(Arc::new(InMemory::new()), &part, &Arc::default()).await;
    let metrics = Metrics::new("test");
    let meters = Meters::new(&metrics, &Seen::default());
    let work = async {
        for _ in 0..4 {
            fill(&db).await;
        }
        until(async || db.manifest().l0().is_empty() && !db.manifest().compacted().is_empty()).await;
        let needed = needed(&db.manifest());
        assert!(needed > u64::from(KEYS), "{needed}");
        // In memory they are a little smaller than on the store; those of one more table would double them.
        until(async || (needed * 8 / 10..=needed).contains(&cache.bytes(Kind::Metadata))).await;
        let metadata = cache.bytes(Kind::Metadata);
        assert_eq!(cache.bytes(Kind::Block), 0, "nothing was read");
        assert!(db.get(5_u32.to_be_bytes()).await.unwrap().is_some());
        let blocks = cache.bytes(Kind::Block);
        assert!((1..100_000).contains(&blocks), "{blocks}");
        assert_eq!(cache.bytes(Kind::Metadata), metadata, "they were cached already");
        needed
    };
    let needed = tokio::select! {
        needed = work => needed,
        () = follow_tables(&db, &part, &meters) => unreachable!("it never ends"),
    };
    let mut text = String::new();
    metrics.encode(&mut text).unwrap();
    assert_eq!(number(&text, "test_cache_bytes"), 16 * MIB);
    assert_eq!(number(&text, "test_cache_needed_bytes"), needed);
    assert_eq!(number(&text, "test_cache_missing_bytes"), 0);
    db.close().await.unwrap();
    drop(part);
    assert_eq!(
        (cache.bytes(Kind::Metadata), cache.bytes(Kind::Block)),
        (0, 0),
        "a dropped part holds nothing"
    );
}

#[tokio::test]
async fn a_cache_that_is_too_small_for_filters_and_indexes_reports_by_how_much() {
    let part = Cache::of_size(Some(1_000)).part();
    let db = open(Arc::new(InMemory::new()), &part, &Arc::default()).await;
    fill(&db).await;
    let metrics = Metrics::new("test");
    let meters = Meters::new(&metrics, &Seen::default());
    let needed = needed(&db.manifest());
    let missing = async {
        until(async || {
            let mut text = String::new();
            metrics.encode(&mut text).unwrap();
            number(&text, "test_cache_missing_bytes") == needed - 875
        })
        .await;
    };
    tokio::select! {
        () = missing => {}
        () = follow_tables(&db, &part, &meters) => unreachable!("it never ends"),
    }
    assert!(db.get(5_u32.to_be_bytes()).await.unwrap().is_some(), "reads still work");
    db.close().await.unwrap();
}

#[tokio::test]
async fn several_readers_that_miss_an_entry_read_it_once() {
    let (faults, cache) = (Faults::new(Arc::new(InMemory::new())), Cache::of_size(Some(16 * MIB)));
    let first = cache.part();
    let db = open(faults.objects(), &first, &Arc::default()).await;
    fill(&db).await;
    db.close().await.unwrap();
    drop(first);

    let (part, recorder) = (cache.part(), Arc::<DefaultMetricsRecorder>::default());
    let db = open(faults.objects(), &part, &recorder).await;
    let mut pause = faults.pause_next(Op::Get, When::Before);
    let mut readers = tokio::task::JoinSet::new();
    let read = |db: Db| async move { db.get(5_u32.to_be_bytes()).await.unwrap().is_some() };
    // The first reader may be dropped while it reads; then the next one takes its place.
    let dropped = readers.spawn(read(db.clone()));
    pause.reached().await;
    for _ in 0..16 {
        readers.spawn(read(db.clone()));
    }
    dropped.abort();
    pause.resume();
    let mut answers = Vec::new();
    while let Some(answer) = readers.join_next().await {
        answers.extend(answer.ok());
    }
    assert!(answers.len() >= 16 && answers.iter().all(|is_found| *is_found), "{answers:?}");
    let misses = |kind| {
        let snapshot = recorder.snapshot();
        let labels = [("entry_kind", kind), ("result", "miss")];
        match snapshot.by_name_and_labels(ACCESS_COUNT, &labels).unwrap().value {
            MetricValue::Counter(count) => count,
            _ => panic!("it is a counter"),
        }
    };
    assert_eq!((misses("filter"), misses("index"), misses("data_block")), (1, 1, 1));
    assert!(cache.loading.lock().unwrap().is_empty(), "no reader waits any longer");
    db.close().await.unwrap();
}
