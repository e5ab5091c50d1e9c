//! Wall clocks that are wrong, that differ between owners, and that are set while an owner runs.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use futures_util::TryStreamExt;
use slatedb::admin::AdminBuilder;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::object_store::ObjectStoreExt;
use slatedb::object_store::memory::InMemory;
use slatedb::object_store::path::Path;

use plugin::shard::STALL;
use tokio::time::Instant;

use super::tests::{Running, key, until};
use super::*;
use crate::engine::open::PATH;
use crate::engine::testing::Owners;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A wall clock that is off by a number of seconds, which can be changed.
#[derive(Clone)]
struct Skewed {
    seconds: Arc<AtomicI64>,
    /// So that it advances with paused time.
    began: (SystemTime, Instant),
}

impl Skewed {
    fn by(seconds: i64) -> Self {
        Self { seconds: Arc::new(AtomicI64::new(seconds)), began: (SystemTime::now(), Instant::now()) }
    }

    /// Sets the clock, off by this many seconds.
    fn set(&self, seconds: i64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    fn clock(&self) -> WallClock {
        let Self { seconds, began: (wall, began) } = self.clone();
        WallClock::new(move || {
            let off = seconds.load(Ordering::SeqCst);
            let off_by = Duration::from_secs(off.unsigned_abs());
            let now = wall + began.elapsed();
            if off < 0 { now - off_by } else { now + off_by }
        })
    }
}

/// Where the writes of the first owner are when the second one opens the database.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// The first owner still runs and is fenced: all is in the log.
    InLog,
    /// It was closed: all is in tables.
    InTables,
    /// Its tables were compacted, some time after the last write.
    Compacted,
}

async fn flush(running: &Running) {
    let options = FlushOptions { flush_type: FlushType::MemTable };
    running.engine.db().flush_with_options(options).await.unwrap();
}

async fn compactions(objects: &Arc<dyn ObjectStore>) -> usize {
    let admin = AdminBuilder::new(PATH, Arc::clone(objects)).build();
    admin.read_compactions(None).await.unwrap().map_or(0, |found| found.recent_compactions().count())
}

/// Writes tables until they are compacted.
async fn compact(running: &Running, objects: &Arc<dyn ObjectStore>, round: &str) {
    for table in 0..4 {
        running.put(&format!("{round}-{table}"), "1").await.unwrap();
        flush(running).await;
    }
    until(async || running.engine.db().manifest().l0().len() < 4).await;
    assert!(compactions(objects).await > 0);
}

async fn a_new_owner_writes_at_once(first_off: i64, second_off: i64, left: Left) {
    let at = format!("{first_off} s, then {second_off} s, {left:?}");
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let owners = Arc::<Owners>::default();
    let first = Running::start_at(Skewed::by(first_off).clock(), Arc::clone(&objects), &owners).await;
    first.put("before", "1").await.unwrap();
    if matches!(left, Left::Compacted) {
        compact(&first, &objects, "first").await;
    }
    let first = if matches!(left, Left::InLog) {
        Some(first)
    } else {
        first.stop().await;
        None
    };

    let second = Running::start_at(Skewed::by(second_off).clock(), Arc::clone(&objects), &owners).await;
    let began = Instant::now();
    for write in 0..3 {
        second.put(&format!("after-{write}"), "1").await.unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{at}: {:?}", began.elapsed());
    assert_eq!(second.get("before").await.unwrap().as_deref(), Some("1"), "{at}");
    compact(&second, &objects, "second").await;
    assert_eq!(second.engine.health(), Health::Ready, "{at}");
    second.stop().await;
    if let Some(first) = first {
        first.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_writes_at_once_however_far_its_clock_is_from_its_predecessors() {
    for left in [Left::InLog, Left::InTables, Left::Compacted] {
        for (first, second) in
            [(0, -5), (0, -30), (0, -HOUR), (DAY, 0), (400 * DAY, -DAY), (0, HOUR), (-HOUR, 0)]
        {
            a_new_owner_writes_at_once(first, second, left).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_while_an_owner_runs_stops_nothing() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let wall = Skewed::by(0);
    let running = Running::start_at(wall.clock(), Arc::clone(&objects), &Arc::default()).await;
    for (round, off) in [60, -60, HOUR, -HOUR, DAY, -DAY, 0].into_iter().enumerate() {
        wall.set(off);
        let began = Instant::now();
        running.put(&format!("key-{round}"), "1").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{off}: {:?}", began.elapsed());
        flush(&running).await;
        tokio::time::sleep(STALL / 10).await;
        assert_eq!(running.engine.health(), Health::Ready, "{off}");
    }
    let mut text = String::new();
    running.metrics.encode(&mut text).unwrap();
    assert!(text.contains("test_openings_total 1\n"), "the database stayed open: {text}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_ttl_is_kept_even_if_the_clock_is_set() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (off, corrected) in [(0, -HOUR), (0, HOUR), (DAY, 0), (-DAY, 0)] {
        let wall = Skewed::by(off);
        let running = Running::start_at(wall.clock(), Arc::clone(&objects), &Arc::default()).await;
        let ends = expiry::ends_at("20s", running.engine.now_ms()).unwrap();
        let record = Record::new(None, "1".into()).expiring(Some(ends));
        let space = running.engine.reserve(1).unwrap();
        running.engine.put(&key("short"), record, None, space).await.unwrap();
        wall.set(corrected);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(running.get("short").await.unwrap().is_some(), "{off} {corrected}: not before its time");
        until(async || running.get("short").await.unwrap().is_none()).await;
        assert!(began.elapsed() < Duration::from_secs(25), "{off} {corrected}: {:?}", began.elapsed());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_of_day_means_the_same_when_data_time_is_ahead() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let owners = Arc::<Owners>::default();
    let ahead = Running::start_at(Skewed::by(DAY).clock(), Arc::clone(&objects), &owners).await;
    ahead.put("a", "1").await.unwrap();
    ahead.stop().await;
    let wall = Skewed::by(0).clock();
    let running = Running::start_at(wall.clone(), Arc::clone(&objects), &owners).await;
    let now = u64::try_from(wall.now_ms()).unwrap();
    let in_a_minute = NonZeroU64::new(now + 60_000).unwrap();
    let left = running.engine.in_data_time(in_a_minute).get() - running.engine.now_ms();
    assert!((59_000..=60_000).contains(&left), "{left}");
    running.stop().await;
}

#[tokio::test]
async fn a_table_that_was_just_uploaded_stays_even_if_data_time_is_a_day_ahead() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let owners = Arc::<Owners>::default();
    let running = Running::start_at(Skewed::by(DAY).clock(), Arc::clone(&objects), &owners).await;
    compact(&running, &objects, "a").await;
    running.put("b", "1").await.unwrap();
    flush(&running).await;
    // Its name says that it is a day old, and no manifest names it.
    let folder = Path::from(PATH).join("compacted");
    let tables: Vec<_> = objects.list(Some(&folder)).try_collect().await.unwrap();
    let day_old = folder.clone().join("01KB5W2V00000000000000000A.sst");
    let content = objects.get(&tables[0].location).await.unwrap().bytes().await.unwrap();
    objects.put(&day_old, content.into()).await.unwrap();
    garbage::testing::collect_aged(&objects, running.engine.now_ms(), Duration::from_mins(20)).await;
    assert!(objects.head(&day_old).await.is_ok(), "it may be named by the next manifest");
    garbage::testing::collect_aged(&objects, running.engine.now_ms(), Duration::ZERO).await;
    assert!(objects.head(&day_old).await.is_err(), "only its age had protected it");
    running.stop().await;
}
