//! Removes what no reader of the database needs any longer.
//!
//! SlateDB's own collector uses what its open database knows. After a long pause of the process, that may be so old
//! that the collector would take the tables of the shard's new owner for garbage. So it is switched off, and each
//! collection here begins with the newest manifest in a listing of the store. What is garbage then stays garbage, so a
//! pause in the middle of a collection does no harm, and neither does the loss of the shard.
//!
//! Ages never depend on a wall clock, which may be wrong or jump. Tables are aged by their names, which are in data
//! time, and by data time alone; everything else by the store's own timestamps, compared with that of an object just
//! written. A table must be old by both, since it may have been uploaded just now and no manifest may name it yet. And
//! an object is deleted only if an earlier collection found it to be garbage too, so that a jump of the store's own
//! clock makes nothing new garbage.
//!
//! What a compaction replaced is kept for a quarter of an hour, for readers, so it is gone within an hour. So a shard
//! takes the space of its live data, of what was rewritten in that time, and of the log of a memtable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use slatedb::config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions};
use slatedb::object_store::path::Path;
use slatedb::object_store::{self, ObjectStore};
use slatedb::{GarbageCollectorBuilder, GcFilter, ObjectMetadata};
use store::TimestampOffset;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::engine::data_clock::DataClock;
use crate::engine::log_files::Seen;
use crate::engine::notes::Note;
use crate::engine::open::PATH;

/// How often the log is collected.
const EVERY: Duration = Duration::from_mins(1);
/// One in this many collections of the log collects everything else too.
const ALL: u32 = 10;
/// After this time, garbage that no collection finds any longer is forgotten.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// The minimum ages of garbage, by kind.
#[derive(Debug, Clone, Copy)]
struct Ages {
    /// Manifests. A reader of the store asks for the number after the newest one that it knows, and if that is missing,
    /// takes its own for the newest. A process that was paused for longer than [`plugin::shard::STALL`] reads nothing
    /// before it has listed them all; but on a frozen machine the clocks may have been paused too. A shard under
    /// constant writes gets hundreds a minute, and each opening lists them, so they can't be kept for weeks.
    manifests: Duration,
    /// Tables. They may be partly written, or uploaded but not named by a manifest yet, which may take five minutes
    /// when the store is slow.
    tables: Duration,
    /// Files of the log. Once flushed into a table, a file is needed only by watchers that resume. A process that was
    /// paused would write the number after its last one; there the new owner put an empty fence, and fences are never
    /// collected. A watch can resume from this far back; a longer time would make openings slower, since each lists all
    /// files.
    log: Duration,
}

const AGES: Ages = Ages {
    manifests: Duration::from_hours(24),
    tables: Duration::from_mins(20),
    log: Duration::from_mins(2),
};

/// For how long an object must have been garbage, as seen by this process.
const SEEN: Duration = Duration::from_secs(50);

/// Notes how far the log goes and collects garbage periodically, in the data time of the open database. Never ends; may
/// be dropped at any time.
pub(crate) async fn collect(objects: &Arc<dyn ObjectStore>, clock: DataClock, seen: &Seen, epoch: u64) {
    let collector = Collector::new(Arc::clone(objects), clock, AGES, SEEN);
    for round in 1_u32.. {
        sleep(EVERY).await;
        // Garbage found by a collection of everything is deleted by the next one, a minute later.
        let (all, after) = (round.is_multiple_of(ALL), round % ALL == 1 && round > 1);
        let collected = async { collector.collect_once(all || after, &seen.note(), epoch).await };
        if let Err(error) = collected.await {
            debug!(%error, "could not collect garbage");
        }
    }
}

/// Collects the garbage of one database.
struct Collector {
    objects: Arc<dyn ObjectStore>,
    clock: DataClock,
    ages: Ages,
    found: Arc<Found>,
}

impl Collector {
    fn new(objects: Arc<dyn ObjectStore>, clock: DataClock, ages: Ages, seen: Duration) -> Self {
        Self { objects, clock, ages, found: Arc::new(Found { seen, since: Mutex::default() }) }
    }

    /// Notes how far the log goes, and collects garbage by the timestamp of that note.
    async fn collect_once(&self, all: bool, note: &Note, epoch: u64) -> Result<(), object_store::Error> {
        let store_time = note.write(&self.objects, epoch).await?;
        // SlateDB's collector has one clock. It ages tables by their names, which are in data time, and all else by the
        // stamps of the store; with this offset both are in data time.
        let offset = self.clock.time() - store_time;
        let objects = Arc::new(TimestampOffset::new(Arc::clone(&self.objects), offset));
        let old = Old { found: Arc::clone(&self.found), tables: self.clock.time() - self.ages.tables };
        // A new collector each time, since one does not read again what it has read once.
        let collector = GarbageCollectorBuilder::new(PATH, objects as Arc<dyn ObjectStore>)
            .with_system_clock(Arc::new(self.clock))
            .with_gc_filter(Arc::new(old))
            .with_options(options(self.ages, all))
            .build();
        collector.run_gc_once().await;
        Ok(())
    }
}

/// The objects found to be garbage, and since when.
#[derive(Debug)]
struct Found {
    /// For how long an object must have been garbage.
    seen: Duration,
    since: Mutex<BTreeMap<Path, Instant>>,
}

/// Allows the deletion of objects that an earlier collection found to be garbage.
struct Old {
    found: Arc<Found>,
    /// Tables that were uploaded after this stay.
    tables: DateTime<Utc>,
}

#[async_trait]
impl GcFilter for Old {
    #[expect(clippy::disallowed_types, reason = "SlateDB's own signature")]
    async fn filter(
        &self,
        candidates: std::collections::HashSet<ObjectMetadata>,
    ) -> std::collections::HashSet<ObjectMetadata> {
        let mut since = self.found.since.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_table = |object: &ObjectMetadata| object.location.prefix_matches(&tables());
        let old: std::collections::HashSet<_> = candidates
            .into_iter()
            .filter(|object| !is_table(object) || object.last_modified <= self.tables)
            .filter(|object| {
                let first = *since.entry(object.location.clone()).or_insert(now);
                now.duration_since(first) >= self.found.seen && first != now
            })
            .collect();
        for object in &old {
            since.remove(&object.location);
        }
        // Objects that another process has deleted are never found again.
        since.retain(|_, first| now.duration_since(*first) < FORGOTTEN);
        old
    }
}

/// The folder of the tables.
fn tables() -> Path {
    Path::from(PATH).join("compacted")
}

fn options(ages: Ages, all: bool) -> GarbageCollectorOptions {
    let older = |min_age| Some(GarbageCollectorDirectoryOptions { interval: None, min_age, dry_run: false });
    let also = |min_age| older(min_age).filter(|_| all);
    GarbageCollectorOptions {
        wal_options: older(ages.log),
        compacted_options: also(ages.tables),
        manifest_options: also(ages.manifests),
        compactions_options: also(ages.manifests),
        // Without a fence, a paused writer would write where no reader reads. One empty object per opening stays.
        wal_fence_options: None,
        // There are no clones.
        detach_options: None,
        metric_level: None,
        // It needs a conditional overwrite, which folders do not have.
        boundary_files_enabled: false,
        object_store_max_retries: None,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Collections without waiting times.

    use super::{Ages, Arc, Collector, DataClock, Duration, Note, ObjectStore, sleep};

    const NOW: Ages = Ages { manifests: Duration::ZERO, tables: Duration::ZERO, log: Duration::ZERO };

    /// Collects everything that is garbage now, however new.
    pub(crate) async fn collect_now(objects: &Arc<dyn ObjectStore>) {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        collect_with(objects, u64::try_from(now).unwrap(), NOW).await;
    }

    /// The same at a data time, with a minimum age of tables.
    pub(crate) async fn collect_aged(objects: &Arc<dyn ObjectStore>, now_ms: u64, tables: Duration) {
        collect_with(objects, now_ms, Ages { tables, ..NOW }).await;
    }

    async fn collect_with(objects: &Arc<dyn ObjectStore>, now_ms: u64, ages: Ages) {
        let clock = DataClock::begin(i64::try_from(now_ms).unwrap());
        // Even with a minimum age of zero, an object must be at least a millisecond old.
        sleep(Duration::from_millis(2)).await;
        let collector = Collector::new(Arc::clone(objects), clock, ages, Duration::ZERO);
        for _ in 0..2 {
            collector.collect_once(true, &Note::default(), u64::MAX).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use slatedb::admin::AdminBuilder;
    use slatedb::object_store::memory::InMemory;
    use store::faults::{Faults, Mode};

    use super::testing::collect_now;
    use super::*;
    use crate::engine::EngineError;
    use crate::engine::testing::Owners;
    use crate::engine::tests::{Running, until};
    use plugin::shard::STALL;

    #[test]
    fn what_a_paused_process_needs_is_kept_for_longer_than_a_pause() {
        assert!(AGES.manifests > 1_000 * STALL);
        assert!(AGES.tables > slatedb::Settings::default().manifest_update_timeout);
        assert!(options(AGES, true).wal_fence_options.is_none());
        assert!(!options(AGES, true).boundary_files_enabled);
    }

    async fn sizes(objects: &Arc<dyn ObjectStore>, folder: &str) -> Vec<u64> {
        let found: Vec<_> = objects.list(Some(&Path::from(folder))).try_collect().await.unwrap();
        found.into_iter().map(|object| object.size).collect()
    }

    #[tokio::test]
    async fn garbage_goes_and_data_stays() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let owners = Arc::<Owners>::default();
        for incarnation in 0..4 {
            let running = Running::start(Arc::clone(&objects), &owners).await;
            for write in 0..4 {
                running.put(&format!("{incarnation}-{write}"), "1").await.unwrap();
            }
            running.stop().await;
        }
        let running = Running::start(Arc::clone(&objects), &owners).await;
        let (log, manifests) = (sizes(&objects, "db/wal").await, sizes(&objects, "db/manifest").await);
        assert!(log.iter().filter(|size| **size > 0).count() >= 16);

        collect_now(&objects).await;
        let left = sizes(&objects, "db/wal").await;
        assert!(left.iter().filter(|size| **size > 0).count() <= 1, "{left:?}");
        assert_eq!(left.iter().filter(|size| **size == 0).count(), 5, "a fence for each incarnation");
        assert!(sizes(&objects, "db/manifest").await.len() < manifests.len());

        running.put("after", "1").await.unwrap();
        running.stop().await;
        let running = Running::start(objects, &owners).await;
        for name in ["0-0", "1-1", "2-2", "3-3", "after"] {
            assert_eq!(running.get(name).await.unwrap().as_deref(), Some("1"), "{name}");
        }
        running.stop().await;
    }

    #[tokio::test]
    async fn garbage_is_aged_by_the_stores_own_timestamps_and_must_have_been_found_before() {
        const DAY: i64 = 24 * 3_600_000;
        for off in [-DAY, 0, DAY] {
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let owners = Arc::<Owners>::default();
            for incarnation in 0..3 {
                let running = Running::start(Arc::clone(&objects), &owners).await;
                running.put(&format!("{incarnation}"), "1").await.unwrap();
                running.stop().await;
            }
            let logged = async || sizes(&objects, "db/wal").await.iter().filter(|size| **size > 0).count();
            let all = logged().await;
            assert!(all >= 3);
            let now =
                i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
            let clock = DataClock::begin(now + off);
            for (age, seen, left) in [
                (Duration::from_mins(2), Duration::ZERO, all),
                (Duration::ZERO, Duration::from_secs(60), all),
                (Duration::ZERO, Duration::ZERO, 0),
            ] {
                sleep(Duration::from_millis(5)).await;
                let ages = Ages { log: age, ..AGES };
                let collector = Collector::new(Arc::clone(&objects), clock, ages, seen);
                collector.collect_once(false, &Note::default(), u64::MAX).await.unwrap();
                assert_eq!(logged().await, all, "{off} {age:?} {seen:?}: it was not found before");
                sleep(Duration::from_millis(5)).await;
                collector.collect_once(false, &Note::default(), u64::MAX).await.unwrap();
                // SlateDB keeps the file from which it would replay.
                let found = logged().await;
                assert!(found == left || left == 0 && found == 1, "{off} {age:?} {seen:?}: {found}");
            }
        }
    }

    /// The size of everything on the store.
    async fn stored(objects: &Arc<dyn ObjectStore>) -> u64 {
        sizes(objects, "db").await.into_iter().sum()
    }

    /// Removes the checkpoints with which each compaction keeps what it has replaced, for readers, for a quarter of an
    /// hour.
    async fn let_go(objects: &Arc<dyn ObjectStore>) {
        let admin = AdminBuilder::new(PATH, Arc::clone(objects)).build();
        for checkpoint in admin.list_checkpoints(None).await.unwrap() {
            admin.delete_checkpoint(checkpoint.id).await.unwrap();
        }
    }

    /// In real time: with paused time SlateDB's clock would run ahead, and tables from the future stay.
    #[tokio::test]
    async fn a_thousand_keys_that_are_rewritten_forever_take_bounded_space() {
        const KEYS: u64 = 1_000;
        const VALUE: u64 = 1_000;
        const ROUNDS: u64 = 60;
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let running = Running::start(Arc::clone(&objects), &Arc::<Owners>::default()).await;
        let mut kept = Vec::new();
        for part in 0..5 {
            for round in 0..ROUNDS {
                let value = format!("{part}-{round:02}-{}", "x".repeat(995)).into_bytes();
                running.rewrite(KEYS, &value).await;
            }
            let grown = stored(&objects).await;
            // The compactor runs in the background, once four tables wait for it.
            until(async || running.engine.db().manifest().l0().len() < 4).await;
            let_go(&objects).await;
            collect_now(&objects).await;
            kept.push(stored(&objects).await);
            assert!(grown > KEYS * VALUE * 16, "there was something to collect: {grown}");
        }
        // The log of one memtable, 16 MiB, waits for its table; a few tables wait to be compacted.
        let live = KEYS * VALUE;
        assert!(kept.iter().all(|kept| *kept < 32 * live), "{kept:?} bytes are kept of {live} live ones");
        let mut text = String::new();
        running.metrics.encode(&mut text).unwrap();
        assert!(text.contains("test_tables ") && text.contains("test_log_files "), "{text}");
        running.stop().await;
    }

    /// Why the stall detector is needed: when the manifests after its own are gone, the database of a paused process
    /// takes its own for the newest.
    #[tokio::test(start_paused = true)]
    async fn a_paused_owner_reads_nothing_once_the_manifests_of_new_owners_are_gone() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let owners = Arc::<Owners>::default();
        let way = Faults::new(Arc::clone(&objects));
        let paused = Running::start(way.objects(), &owners).await;
        paused.put("a", "old").await.unwrap();
        way.set(Mode::Hang);
        for value in ["newer", "newest"] {
            let owner = Running::start(Arc::clone(&objects), &owners).await;
            owner.put("a", value).await.unwrap();
            owner.stop().await;
        }
        collect_now(&objects).await;
        assert_eq!(sizes(&objects, "db/manifest").await.len(), 1);

        paused.simulate_pause();
        way.set(Mode::Work);
        assert!(matches!(paused.get("a").await, Err(EngineError::NotOpen(why)) if why.contains("paused")));
        let error = paused.put("a", "oldest").await.unwrap_err();
        assert!(!error.to_string().is_empty());
        while !matches!(paused.get("a").await, Err(EngineError::Passed(_))) {
            sleep(Duration::from_millis(10)).await;
        }
        paused.stop().await;
        let owner = Running::start(objects, &owners).await;
        assert_eq!(owner.get("a").await.unwrap().as_deref(), Some("newest"));
        owner.stop().await;
    }
}
