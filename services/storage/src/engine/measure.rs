//! Metrics of the database's size and work, from what it knows itself.
//!
//! The manifest costs nothing: it is in memory anyway.

use std::time::Duration;

use slatedb::Db;
use slatedb::compactor::stats::BYTES_COMPACTED;
use slatedb_common::metrics::{DefaultMetricsRecorder, MetricValue};
use tokio::time::{MissedTickBehavior, interval};

use crate::engine::data_clock::{DataClock, WallClock};
use crate::meters::Meters;

/// How often the metrics are updated.
const EVERY: Duration = Duration::from_secs(10);

/// Updates the metrics periodically. Never ends; may be dropped at any time.
pub(crate) async fn measure(
    db: &Db,
    recorder: &DefaultMetricsRecorder,
    clock: &DataClock,
    wall: &WallClock,
    meters: &Meters,
) {
    let mut beat = interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = compacted(recorder);
    loop {
        beat.tick().await;
        meters.ahead_of_the_wall_clock(clock.now_ms().saturating_sub(wall.now_ms()));
        let manifest = db.manifest();
        let tables = manifest.all_sst_views().map(slatedb::manifest::SsTableView::estimate_size);
        let (mut count, mut bytes) = (0, 0_u64);
        for size in tables {
            count += 1;
            bytes = bytes.saturating_add(size);
        }
        meters.tables.set(count);
        meters.table_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let log = manifest.next_wal_sst_id().saturating_sub(manifest.replay_after_wal_id() + 1);
        meters.log_files.set(i64::try_from(log).unwrap_or(i64::MAX));
        let now = compacted(recorder);
        meters.compacted_bytes.inc_by(now.saturating_sub(before));
        before = now;
    }
}

fn compacted(recorder: &DefaultMetricsRecorder) -> u64 {
    let all = recorder.snapshot();
    all.by_name(BYTES_COMPACTED)
        .into_iter()
        .map(|metric| match metric.value {
            MetricValue::Counter(bytes) => bytes,
            MetricValue::Gauge(_) | MetricValue::UpDownCounter(_) | MetricValue::Histogram { .. } => 0,
        })
        .sum()
}
