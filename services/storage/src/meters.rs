//! The metrics of a shard: few, and with few labels.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use plugin::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::cache::Need;
use crate::witness::Seen;

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
        let requests = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let counter = |what| requests.get_or_create_owned(&[("operation", what)]);
        let meters = Self {
            puts: counter("put"),
            gets: counter("get"),
            deletes: counter("delete"),
            lists: counter("list"),
            batches: counter("batch"),
            imports: counter("import"),
            tables: Gauge::default(),
            table_bytes: Gauge::default(),
            log_files: Gauge::default(),
            compacted_bytes: Counter::default(),
            cache: Gauge::default(),
            cache_needed: Gauge::default(),
            cache_missing: Gauge::default(),
            expired: Counter::default(),
            ahead: Gauge::default(),
            openings: Counter::default(),
            watchers: Gauge::default(),
            changes: Counter::default(),
            watches: Gauge::default(),
            refused_watches: Counter::default(),
            cut: Counter::default(),
            // Half a millisecond to half a minute.
            durable: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            group: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
        };
        metrics.register("operations", "Operations on this shard, refused ones among them", requests);
        metrics.register("openings", "How often the database was opened", meters.openings.clone());
        metrics.register("tables", "Tables that hold the data of this shard", meters.tables.clone());
        metrics.register("table_bytes", "Bytes of these tables, about", meters.table_bytes.clone());
        metrics.register("log_files", "Files of the log that no table holds yet", meters.log_files.clone());
        metrics.register(
            "compacted_bytes",
            "Bytes that were written to make few tables of many",
            meters.compacted_bytes.clone(),
        );
        metrics.register("cache_bytes", "Size of the cache that this shard uses", meters.cache.clone());
        metrics.register(
            "cache_needed_bytes",
            "Bytes of the filters and indexes of this shard's tables",
            meters.cache_needed.clone(),
        );
        metrics.register(
            "cache_missing_bytes",
            "Bytes by which the cache is too small for the filters and indexes of all shards that use it",
            meters.cache_missing.clone(),
        );
        metrics.register("garbage", "Objects that were deleted from the store", seen.deleted().clone());
        metrics.register(
            "expired",
            "Values that were deleted when their time was over",
            meters.expired.clone(),
        );
        metrics.register(
            "data_time_ahead_seconds",
            "How far the time by which this shard's data ages is ahead of this node's wall clock",
            meters.ahead.clone(),
        );
        metrics.register(
            "watchers",
            "Streams of changes of this shard that are open",
            meters.watchers.clone(),
        );
        metrics.register(
            "watch_events",
            "Changes sent to those who watch this shard",
            meters.changes.clone(),
        );
        metrics.register("watches", "Watches that this node serves", meters.watches.clone());
        metrics.register(
            "watches_refused",
            "Watches that were refused because there were too many",
            meters.refused_watches.clone(),
        );
        metrics.register(
            "answers_cut",
            "Large answers that were cut off because nobody read them and others waited",
            meters.cut.clone(),
        );
        metrics.register(
            "durable_seconds",
            "Time from a write's arrival until it was durable",
            meters.durable.clone(),
        );
        metrics.register("commit_writes", "Writes that became durable together", meters.group.clone());
        meters
    }

    /// What the filters and indexes of the shard need of the cache.
    pub(crate) fn cache(&self, need: Need) {
        let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.cache.set(bytes(need.cache));
        self.cache_needed.set(bytes(need.bytes));
        self.cache_missing.set(bytes(need.missing()));
    }

    /// A write has become durable.
    pub(crate) fn became_durable(&self, after: Duration) {
        self.durable.observe(after.as_secs_f64());
    }

    /// So many values have expired.
    pub(crate) fn expired(&self, values: usize) {
        self.expired.inc_by(u64::try_from(values).unwrap_or(u64::MAX));
    }

    /// Data time is so many milliseconds ahead of the wall clock, or behind it.
    pub(crate) fn ahead_of_the_wall_clock(&self, ms: i64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a clock that is wrong are enough")]
        self.ahead.set(ms as f64 / 1e3);
    }

    /// So many writes became durable together.
    pub(crate) fn committed(&self, writes: usize) {
        self.group.observe(f64::from(u32::try_from(writes).unwrap_or(u32::MAX)));
    }
}
