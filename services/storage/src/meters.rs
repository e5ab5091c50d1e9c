//! The metrics of a shard: few, and with few labels.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use plugin::{Counter, Gauge, Histogram, Metrics};

use crate::engine::cache::Need;
use crate::engine::log_files::Seen;

/// The metrics of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(crate) puts: Counter,
    pub(crate) gets: Counter,
    pub(crate) deletes: Counter,
    pub(crate) lists: Counter,
    pub(crate) batches: Counter,
    pub(crate) imports: Counter,
    pub(crate) openings: Counter,
    pub(crate) tables: Gauge,
    pub(crate) table_bytes: Gauge,
    pub(crate) log_files: Gauge,
    pub(crate) compacted_bytes: Counter,
    cache: Gauge,
    cache_needed: Gauge,
    cache_missing: Gauge,
    pub(crate) watchers: Gauge,
    pub(crate) changes: Counter,
    pub(crate) watches: Gauge,
    pub(crate) refused_watches: Counter,
    pub(crate) cut: Counter,
    expired: Counter,
    ahead: Gauge<f64, AtomicU64>,
    durable: Histogram,
    group: Histogram,
}

impl Meters {
    /// Registers all of them.
    pub(crate) fn new(metrics: &Metrics, seen: &Seen) -> Self {
        let operations = ["put", "get", "delete", "list", "batch", "import"];
        let help = "Operations on this shard, including refused ones";
        let [puts, gets, deletes, lists, batches, imports] =
            metrics.counters("operations", help, "operation", operations);
        let garbage = seen.deleted().clone();
        metrics
            .observable_counter("garbage", "Garbage objects deleted from the store", move || garbage.get());
        let counter = |name, help| metrics.counter(name, help);
        let gauge = |name, help| metrics.gauge(name, help);
        Self {
            puts,
            gets,
            deletes,
            lists,
            batches,
            imports,
            openings: counter("openings", "Times that the database was opened"),
            tables: gauge("tables", "Tables of this shard"),
            table_bytes: gauge("table_bytes", "Estimated size of this shard's tables"),
            log_files: gauge("log_files", "Files of the log that are not in tables yet"),
            compacted_bytes: counter("compacted_bytes", "Bytes written by compactions"),
            cache: gauge("cache_bytes", "Size of the cache that this shard uses"),
            cache_needed: gauge(
                "cache_needed_bytes",
                "Bytes of the filters and indexes of this shard's tables",
            ),
            cache_missing: gauge(
                "cache_missing_bytes",
                "Bytes by which the cache is too small for the filters and indexes of all shards that use it",
            ),
            expired: counter("expired", "Values deleted because they had expired"),
            ahead: metrics.gauge(
                "data_time_ahead_seconds",
                "How far data time, by which this shard's values expire, is ahead of this node's wall clock",
            ),
            watchers: gauge("watchers", "Open streams of changes of this shard"),
            changes: counter("watch_events", "Changes sent to watches of this shard"),
            watches: gauge("watches", "Watches that this node serves"),
            refused_watches: counter("watches_refused", "Watches refused because there were too many"),
            cut: counter(
                "answers_cut",
                "Large answers cut off because the client did not read and others waited",
            ),
            // From half a millisecond to 16 s.
            durable: metrics.histogram(
                "durable_seconds",
                "Time from a write's arrival until it was durable",
                0.0005,
                2.0,
                16,
            ),
            group: metrics.histogram("commit_writes", "Writes that became durable together", 1.0, 4.0, 8),
        }
    }

    /// Records how much cache the filters and indexes of the shard need.
    pub(crate) fn cache(&self, need: Need) {
        let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.cache.set(bytes(need.cache));
        self.cache_needed.set(bytes(need.bytes));
        self.cache_missing.set(bytes(need.missing()));
    }

    /// Records that a write has become durable.
    pub(crate) fn became_durable(&self, after: Duration) {
        self.durable.observe(after.as_secs_f64());
    }

    /// Counts expired values.
    pub(crate) fn expired(&self, values: usize) {
        self.expired.inc_by(u64::try_from(values).unwrap_or(u64::MAX));
    }

    /// Records how far data time is ahead of the wall clock; negative if it is behind.
    pub(crate) fn ahead_of_the_wall_clock(&self, ms: i64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a clock that is wrong are enough")]
        self.ahead.set(ms as f64 / 1e3);
    }

    /// Records the number of writes that became durable together.
    pub(crate) fn committed(&self, writes: usize) {
        self.group.observe(f64::from(u32::try_from(writes).unwrap_or(u32::MAX)));
    }
}
